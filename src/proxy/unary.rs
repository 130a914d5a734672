//! Reads and replaces the message of a unary gRPC call, as bytes.
//!
//! The [framing](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) is a flag byte (1:
//! compressed) and a big-endian length before the message. No message is decoded here.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tonic::Status;

use crate::protocol::MAX_MESSAGE;
use crate::transport::http2::{self, Body, BodyError, canceled};

/// The flag and the length before a message (bytes).
const PREFIX: usize = 5;
/// The most memory for all messages that are being read or edited (bytes).
const MAX_MEMORY: usize = 8 * MAX_MESSAGE;
/// The timeout for memory, and for the next bytes of a message.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a call's message cannot be read.
#[derive(Debug, Error)]
pub enum UnaryError {
    /// The client's stream broke.
    #[error("reading the message of {path}: {source}")]
    Body {
        /// The method.
        path: String,
        /// What broke.
        source: BodyError,
    },
    /// The client stopped in the middle of the message.
    #[error("reading the message of {path}: the client sent nothing for {} s", TIMEOUT.as_secs())]
    TimedOut {
        /// The method.
        path: String,
    },
    /// Other calls have all the memory there is for messages.
    #[error(
        "reading the message of {path}: other calls have messages of {MAX_MEMORY} bytes in flight; try again"
    )]
    Busy {
        /// The method.
        path: String,
    },
}

/// The memory for the messages of all calls.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Semaphore>);

/// The outcome of reading a call's message.
#[derive(Debug)]
pub enum Reading {
    /// It has one message.
    Message(Call, Bytes),
    /// The call cannot be read as one message: the message is compressed or larger than the daemon accepts,
    /// or there is not exactly one. The call is as it came.
    Unread(Request<Body>),
}

/// A call with its whole message.
#[derive(Debug)]
pub struct Call {
    head: http::request::Parts,
    frame: Bytes,
    trailers: Option<HeaderMap>,
    _memory: Option<OwnedSemaphorePermit>,
}

// === impl Memory ===

impl Default for Memory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_MEMORY)))
    }
}

// === impl UnaryError ===

impl From<UnaryError> for Status {
    fn from(err: UnaryError) -> Self {
        let text = format!("inlay: {err}");
        match err {
            UnaryError::Body { .. } => Self::invalid_argument(text),
            UnaryError::TimedOut { .. } => Self::deadline_exceeded(text),
            UnaryError::Busy { .. } => Self::resource_exhausted(text),
        }
    }
}

// === impl Call ===

impl Call {
    /// Reads a call to its end.
    ///
    /// # Errors
    /// Where the client's stream breaks or stalls, or other calls have all the memory.
    pub async fn read(request: Request<Body>, memory: &Memory) -> Result<Reading, UnaryError> {
        let (head, mut body) = request.into_parts();
        let path = || head.uri.path().to_owned();
        let (mut data, mut trailers) = (BytesMut::new(), None);
        let mut held: Option<OwnedSemaphorePermit> = None;
        loop {
            let frame = timeout(TIMEOUT, body.frame()).await;
            let frame = frame.map_err(|_| UnaryError::TimedOut { path: path() })?;
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(source)) => {
                    return Err(UnaryError::Body {
                        path: path(),
                        source,
                    });
                }
                None => break,
            };
            let piece = match frame.into_data() {
                Ok(piece) => piece,
                Err(frame) => {
                    trailers = frame.into_trailers().ok();
                    break;
                }
            };
            // A piece is at most the HTTP/2 window of a call, which fits a `u32`.
            let wanted = memory.0.clone().acquire_many_owned(piece.len() as u32);
            let permit = match timeout(TIMEOUT, wanted).await {
                Ok(Ok(permit)) => permit,
                // The semaphore is never closed, so the other error cannot occur.
                Ok(Err(_)) | Err(_) => return Err(UnaryError::Busy { path: path() }),
            };
            match &mut held {
                Some(held) => held.merge(permit),
                None => held = Some(permit),
            }
            let had_length = data.len() >= PREFIX;
            data.extend_from_slice(&piece);
            let Some(length) = length(&data) else {
                continue;
            };
            match length.and_then(|length| (PREFIX + length).checked_sub(data.len())) {
                Some(left) if !had_length => data.reserve(left),
                Some(_) => {}
                None => {
                    let body = http2::followed_by(data.freeze(), body);
                    return Ok(Reading::Unread(Request::from_parts(head, body)));
                }
            }
        }
        let call = Self {
            head,
            frame: data.freeze(),
            trailers,
            _memory: held,
        };
        Ok(match call.message() {
            Some(message) => Reading::Message(call, message),
            None => Reading::Unread(call.unchanged()),
        })
    }

    /// Attaches `guard` to the call. It is dropped when the request has been sent, or is given up.
    pub fn until_sent(mut self, guard: impl Clone + Send + Sync + 'static) -> Self {
        // Extensions stay here when a request is written.
        self.head.extensions.insert(guard);
        self
    }

    fn message(&self) -> Option<Bytes> {
        let length = length(&self.frame)??;
        (self.frame.len() == PREFIX + length).then(|| self.frame.slice(PREFIX..))
    }

    /// The call as it came.
    pub fn unchanged(self) -> Request<Body> {
        let Self {
            head,
            frame,
            trailers,
            ..
        } = self;
        let body = http2::from_parts(frame, trailers);
        Request::from_parts(head, body)
    }

    /// The call with another message, framed again.
    pub fn with_message(mut self, message: &[u8]) -> Request<Body> {
        self.head.headers.remove(header::CONTENT_LENGTH);
        self.frame = framed(message);
        self.unchanged()
    }

    /// The call with a message that is decided later: another one, or with `None` the one that came. If the
    /// sender is dropped, the call is canceled.
    pub fn with_later_message(
        mut self,
        later: oneshot::Receiver<Option<Vec<u8>>>,
    ) -> Request<Body> {
        self.head.headers.remove(header::CONTENT_LENGTH);
        let Self {
            head,
            frame,
            trailers,
            ..
        } = self;
        let parts = async move {
            match later.await {
                Ok(Some(message)) => Ok((framed(&message), trailers)),
                Ok(None) => Ok((frame, trailers)),
                Err(_) => Err(canceled("inlay gave the call up")),
            }
        };
        Request::from_parts(head, http2::from_later_parts(parts))
    }
}

/// The length in a message's prefix, or `None` if the prefix is not complete. The inner `None` is for a
/// message that is not read.
fn length(data: &[u8]) -> Option<Option<usize>> {
    let &[flag, a, b, c, d] = data.get(..PREFIX)? else {
        return None;
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    Some((flag == 0 && length <= MAX_MESSAGE).then_some(length))
}

/// A message with its prefix.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    // A message is one that was read, plus at most a cache: far below 4 GiB.
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// The answer to a call that fails in inlay.
pub fn refusal(status: tonic::Status) -> Response<Body> {
    status
        .into_http::<()>()
        .map(|()| Empty::new().map_err(|never| match never {}).boxed_unsync())
}
