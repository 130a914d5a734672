//! Bodies that are received.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use hyper::body::{Body as HttpBody, Frame};
use tokio_util::sync::CancellationToken;

use super::body::BodyError;
use super::pipe::Sending;

/// A body that is received.
#[derive(Debug)]
pub struct Incoming {
    received: RecvStream,
    data_ended: bool,
    ended: bool,
    /// The request's half of the call, if this is an answer. If that is dropped before its end, the call is
    /// reset.
    sending: Option<Sending>,
    /// If this is there, the body never ends when the connection breaks, and cancels this.
    broken: Option<CancellationToken>,
}

// === impl Incoming ===

impl Incoming {
    /// The body of a request.
    pub(super) fn of_request(received: RecvStream) -> Self {
        Self::new(received, None)
    }

    /// The body of an answer.
    pub(super) fn of_answer(received: RecvStream, sending: Sending) -> Self {
        Self::new(received, Some(sending))
    }

    fn new(received: RecvStream, sending: Option<Sending>) -> Self {
        Self {
            received,
            data_ended: false,
            ended: false,
            sending,
            broken: None,
        }
    }

    /// The same body, which never ends if its connection breaks, and then cancels `broken`.
    pub(super) fn endless(mut self, broken: CancellationToken) -> Self {
        self.broken = Some(broken);
        self
    }

    fn finish(&mut self) {
        self.ended = true;
        if let Some(sending) = self.sending.take() {
            sending.finish();
        }
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.received.poll_data(context)) {
                Some(Ok(data)) => {
                    // It is never more than was received.
                    let _ = self.received.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(err)) => return Poll::Ready(Some(Err(err))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.received.poll_trailers(context));
        Poll::Ready(trailers.transpose().map(|end| end.map(Frame::trailers)))
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_next(context));
        match next {
            Some(Ok(frame)) if frame.is_data() => Poll::Ready(Some(Ok(frame))),
            Some(Err(err)) if is_of_connection(&err) && self.broken.is_some() => {
                if let Some(broken) = &self.broken {
                    broken.cancel();
                }
                Poll::Pending
            }
            end => {
                self.finish();
                Poll::Ready(end.map(|end| end.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.received.is_end_stream()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Nobody has to ask for an end that is there.
        if self.is_end_stream() {
            self.finish();
        }
    }
}

/// Whether the connection broke, and with it all its calls. The client is then to see its own connection
/// break, as without inlay, and no call fail by itself before that.
pub(super) fn is_of_connection(err: &h2::Error) -> bool {
    err.is_io() || (err.is_go_away() && !err.is_remote())
}
