//! The sending half of a call: a body goes into a stream of HTTP/2, and either side may end it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use h2::{Reason, SendStream};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::body::{Body, BodyError, reason};

/// How long a reset is put off. A reset drops what is still to be written, and the connection should write
/// that first, if the other side has room for it.
const RESET_DELAY: Duration = Duration::from_millis(1);

/// The code with which a client reset its call. It goes along with the request, so that the forwarded call
/// is reset with the same code.
#[derive(Debug, Clone, Default)]
pub struct GivenUp(Arc<OnceLock<Reason>>);

/// The request's half of a call: a task sends its body. If this is dropped, the call is reset.
#[derive(Debug)]
pub struct Sending {
    given_up: GivenUp,
    /// Until the answer has ended.
    reset: Option<oneshot::Sender<Reason>>,
}

// === impl GivenUp ===

impl GivenUp {
    /// The client has reset the call.
    pub fn with(&self, reason: Reason) {
        // The first one is what the client said.
        let _ = self.0.set(reason);
    }

    fn reason(&self) -> Reason {
        self.0.get().copied().unwrap_or(Reason::CANCEL)
    }
}

// === impl Sending ===

impl Sending {
    /// Sends the body of a request, if there is one.
    pub fn start(mut stream: SendStream<Bytes>, body: Option<Body>, given_up: GivenUp) -> Self {
        let (reset, mut is_reset) = oneshot::channel();
        tokio::spawn(async move {
            let reset = {
                let mut sent = pin!(async {
                    if let Some(mut body) = body {
                        send(&mut stream, &mut body).await;
                    }
                });
                match select(&mut is_reset, sent.as_mut()).await {
                    Either::Left((Ok(reason), _)) => Some(reason),
                    // The answer has ended. What is sent may still go on.
                    Either::Left((Err(_), sent)) => {
                        sent.await;
                        None
                    }
                    Either::Right(((), is_reset)) => is_reset.await.ok(),
                }
            };
            if let Some(reason) = reset {
                stream.send_reset(reason);
            }
        });
        Self {
            given_up,
            reset: Some(reset),
        }
    }

    /// The answer has ended.
    pub fn finish(mut self) {
        self.reset = None;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(reset) = self.reset.take() {
            // If the task has ended, so has the call.
            let _ = reset.send(self.given_up.reason());
        }
    }
}

/// What happens next to a body that is sent.
enum Next {
    Frame(Option<Result<Frame<Bytes>, BodyError>>),
    Reset(Reason),
    Broken,
}

/// Sends a body to its end, or until the call ends. Returns the code with which the other side reset the
/// call, if it did.
pub async fn send(stream: &mut SendStream<Bytes>, body: &mut Body) -> Option<Reason> {
    loop {
        let next = poll_fn(|context| match stream.poll_reset(context) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Next::Reset(reason)),
            Poll::Ready(Err(_)) => Poll::Ready(Next::Broken),
            Poll::Pending => Pin::new(&mut *body).poll_frame(context).map(Next::Frame),
        });
        let sent = match next.await {
            Next::Reset(reason) => return Some(reason),
            Next::Broken => return None,
            Next::Frame(None) => return stream.send_data(Bytes::new(), true).err()?.reason(),
            Next::Frame(Some(Err(err))) => {
                sleep(RESET_DELAY).await;
                stream.send_reset(reason(&err));
                return None;
            }
            Next::Frame(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    if !data.is_empty() && !room(stream).await {
                        // Why there is none is told by `poll_reset`.
                        continue;
                    }
                    stream.send_data(data, false)
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => return stream.send_trailers(trailers).err()?.reason(),
                    Err(_) => continue,
                },
            },
        };
        if let Err(err) = sent {
            return err.reason();
        }
    }
}

/// Waits until some data can be sent; `false` if none ever can. h2 takes more than there is room for,
/// and then has no room until that is sent.
async fn room(stream: &mut SendStream<Bytes>) -> bool {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match poll_fn(|context| stream.poll_capacity(context)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
    }
    true
}
