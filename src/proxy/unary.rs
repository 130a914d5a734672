//! One unary gRPC call as bytes: its message taken from a body, and put into one.
//!
//! The [framing](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) is a flag byte (1:
//! compressed) and a big-endian length before the message. No message is decoded here.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::transport::http2::{self, Body, canceled};

/// What a message that is read may have (bytes): definitions carry the sources of a build.
const MAX_MESSAGE: usize = 64 << 20;
const PREFIX: usize = 5;

/// Why a call's message cannot be read.
#[derive(Debug, Error)]
pub enum UnaryError {
    /// The client broke off, or the message is too large.
    #[error("reading the message of {path}: {reason}")]
    Body {
        /// The method.
        path: String,
        /// What broke.
        reason: String,
    },
}

/// A call with its whole message.
#[derive(Debug)]
pub struct Call {
    /// The method's path and the headers.
    pub head: http::request::Parts,
    frame: Bytes,
    trailers: Option<HeaderMap>,
}

// === impl Call ===

impl Call {
    /// Reads a call to its end.
    ///
    /// # Errors
    /// Where the client breaks off, or sends more than a message may have.
    pub async fn read(request: Request<Body>) -> Result<Self, UnaryError> {
        let (head, body) = request.into_parts();
        let collected = Limited::new(body, MAX_MESSAGE)
            .collect()
            .await
            .map_err(|err| UnaryError::Body {
                path: head.uri.path().to_owned(),
                reason: err.to_string(),
            })?;
        let trailers = collected.trailers().cloned();
        Ok(Self {
            head,
            frame: collected.to_bytes(),
            trailers,
        })
    }

    /// The message; `None` for what is compressed or not framed as one message.
    pub fn message(&self) -> Option<Bytes> {
        let (prefix, message) = self.frame.split_at_checked(PREFIX)?;
        let &[flag, a, b, c, d] = prefix else {
            return None;
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        (flag == 0 && length == message.len()).then(|| self.frame.slice(PREFIX..))
    }

    /// The call as it came.
    pub fn unchanged(self) -> Request<Body> {
        let Self {
            head,
            frame,
            trailers,
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

    /// The call with a message that is known later: another one, or the one that came. Where neither
    /// is given, the call is canceled.
    pub fn with_later_message(
        mut self,
        later: oneshot::Receiver<Option<Vec<u8>>>,
    ) -> Request<Body> {
        self.head.headers.remove(header::CONTENT_LENGTH);
        let Self {
            head,
            frame,
            trailers,
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

/// A message with its prefix.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    // What is sent was read, and is at most a few records longer: far from 4 GiB.
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// The answer to a call that failed here.
pub fn refusal(status: tonic::Status) -> Response<Body> {
    status
        .into_http::<()>()
        .map(|()| Empty::new().map_err(|never| match never {}).boxed_unsync())
}
