//! Bodies of calls.

use std::error::Error;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Body as HttpBody, Frame};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::pipe::Sending;

/// Why a body broke off. What reset a call is among the sources, and resets the call that it is
/// forwarded to in the same way.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The call that it came with broke off.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    /// It is one of inlay's own, and failed.
    #[error(transparent)]
    Own(#[from] tonic::Status),
}

/// A body on its way, in either direction.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body as it comes.
#[derive(Debug)]
pub struct Incoming {
    received: RecvStream,
    data_ended: bool,
    ended: bool,
    /// The other half of the call, if this is an answer: dropped before its end, it ends the call.
    sending: Option<Sending>,
    /// Where the connection breaks this body has no end, and this tells of it.
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

    /// The same body, with no end where its connection breaks.
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

/// Whether the connection broke, and with it all calls: who called is to see their own connection
/// break, as they would without inlay, and no call fail for a reason of its own before that.
pub(super) fn is_of_connection(err: &h2::Error) -> bool {
    err.is_io() || (err.is_go_away() && !err.is_remote())
}

/// The code that resets a call which failed for an error.
pub(super) fn reason(err: &(dyn Error + 'static)) -> Reason {
    let mut source = Some(err);
    while let Some(err) = source {
        if let Some(err) = err.downcast_ref::<h2::Error>() {
            return err.reason().unwrap_or(Reason::INTERNAL_ERROR);
        }
        source = err.source();
    }
    Reason::INTERNAL_ERROR
}

/// A body as it is on its way.
pub fn to_body<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A body of which the first part is here already.
pub fn followed_by(data: Bytes, rest: Body) -> Body {
    let first = stream::iter([Ok(Frame::data(data))]);
    StreamBody::new(first.chain(BodyStream::new(rest))).boxed_unsync()
}

/// A body of what is already here.
pub fn from_parts(data: Bytes, trailers: Option<HeaderMap>) -> Body {
    from_later_parts(ready(Ok((data, trailers))))
}

/// The same of what is there later.
pub fn from_later_parts<F>(parts: F) -> Body
where
    F: Future<Output = Result<(Bytes, Option<HeaderMap>), BodyError>> + Send + 'static,
{
    let frames = stream::once(parts).flat_map(|parts| {
        let frames = match parts {
            Ok((data, trailers)) => [
                Some(Ok(Frame::data(data))),
                trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            ],
            Err(err) => [Some(Err(err)), None],
        };
        stream::iter(frames.into_iter().flatten())
    });
    StreamBody::new(frames).boxed_unsync()
}

/// What resets a call as one is that nobody waits for.
pub fn canceled(reason: &str) -> BodyError {
    let mut status = Status::cancelled(reason);
    status.set_source(Arc::new(h2::Error::from(Reason::CANCEL)));
    status.into()
}
