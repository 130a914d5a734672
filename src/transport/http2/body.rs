//! Bodies of calls.

use std::error::Error;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use h2::Reason;
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Body as HttpBody, Frame};
use thiserror::Error;
use tonic::Status;

/// Why a body broke off. If a reset is among the error's sources, the call that the body is forwarded to
/// is reset with the same code.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The call that it came with broke off.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    /// inlay made the body itself, and failed.
    #[error(transparent)]
    Own(#[from] tonic::Status),
}

/// A body on its way, in either direction.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The code with which to reset a call that failed with an error.
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

/// Turns any body into a [`Body`].
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

/// A body of what a future gives.
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

/// An error that resets a call with `CANCEL`.
pub fn canceled(reason: &str) -> BodyError {
    let mut status = Status::cancelled(reason);
    status.set_source(Arc::new(h2::Error::from(Reason::CANCEL)));
    status.into()
}
