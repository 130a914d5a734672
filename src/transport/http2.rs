//! HTTP/2: the settings of clients and servers, single calls and their bodies, and what becomes of
//! calls when a connection ends.

use std::error::Error as _;
use std::future::{pending, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{self as client_http2, SendRequest};
use hyper::server::conn::http2 as server_http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, BufReader};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Batched, HeldPings};

/// Why a body broke off. What reset a call is among the sources, and resets the call that it is
/// handed on to in the same way.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The call that it came with broke off.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// It is one of inlay's own, and failed.
    #[error(transparent)]
    Own(#[from] tonic::Status),
}

/// A body on its way, in either direction.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What HTTP/2 holds back of one call until it is taken (bytes). It bounds the memory that a slow reader
/// costs, and is above what a fast local socket has in flight: below this, a client that sends a large
/// context waits for its window more often than for anything else.
const STREAM_WINDOW: u32 = 1 << 20;
/// And of all calls of a connection: as long as fewer than 64 wait for who reads them, they hold up no
/// other. Of frames that hold a few bytes each, as steps of a build and terminals make them, h2 bears
/// half as many bytes before it takes them for an attack.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
/// The largest header list: that of gRPC's Go implementation, since errors carry whole sources in
/// trailers. h2 takes as many frames of headers as make up this length if all are of the largest size
/// that it was told of: no larger one than gRPC's 16 KiB, or the last of its frames are too many.
pub const MAX_HEADER_LIST: u32 = 16 << 20;
/// How many calls may be given up before they are looked at: a build that is canceled gives up all of
/// its calls in a moment.
const MAX_EARLY_RESETS: usize = 1024;
/// What is read at once from a connection (bytes): no more than stays in a processor's own cache until
/// it is written.
const READ_AHEAD: usize = 64 << 10;

/// A socket that HTTP/2 is spoken over, read and written in large pieces: HTTP/2 itself reads a
/// frame's head and its data, each by a call of the system, and others send frames of at most 16 KiB.
pub type Socket<S> = Batched<HeldPings<BufReader<S>>>;

/// A socket on which a client was accepted.
pub fn accepted<S: AsyncRead>(stream: S) -> Socket<S> {
    Batched::new(HeldPings::accepted(read_ahead(stream)))
}

/// A socket that was connected to a server.
pub fn connected<S: AsyncRead>(stream: S) -> Socket<S> {
    Batched::new(HeldPings::connected(read_ahead(stream)))
}

fn read_ahead<S: AsyncRead>(stream: S) -> BufReader<S> {
    BufReader::with_capacity(READ_AHEAD, stream)
}

/// HTTP/2 as a client speaks it to a server whose calls are handed on.
pub fn client() -> client_http2::Builder<TokioExecutor> {
    let mut client = client_http2::Builder::new(TokioExecutor::new());
    client
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST);
    client
}

/// HTTP/2 as a server speaks it to a client whose calls are handed on.
pub fn server() -> server_http2::Builder<TokioExecutor> {
    let mut server = server_http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .auto_date_header(false) // the headers of who answers, and no others
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_streams(None)
        .max_pending_accept_reset_streams(MAX_EARLY_RESETS);
    server
}

/// Why a call got no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// The server takes no more calls on this connection (`GOAWAY`), and has not seen this one. It can
    /// be called again on another connection.
    #[error("the server takes no more calls on this connection")]
    Refused(#[source] h2::Error),
    /// The connection broke, and with it all its calls.
    #[error("the connection broke: {0}")]
    Lost(#[source] hyper::Error),
    /// The call was reset.
    #[error(transparent)]
    Reset(hyper::Error),
}

/// Makes a call and returns its answer, whose body is still on its way.
///
/// # Errors
/// Where the call gets no answer.
pub async fn call(
    requests: &mut SendRequest<Body>,
    request: Request<Body>,
) -> Result<Response<Incoming>, CallError> {
    match requests.try_send_request(request).await {
        Ok(response) => Ok(response),
        Err(mut failed) => {
            let never_sent = failed.take_message().is_some();
            let err = failed.into_error();
            Err(if is_of_connection(&err) {
                CallError::Lost(err)
            } else if never_sent || is_refused(&err) {
                // A reset with this reason lets the client call again (RFC 9113, 8.7).
                CallError::Refused(h2::Reason::REFUSED_STREAM.into())
            } else {
                CallError::Reset(err)
            })
        }
    }
}

/// Forwards a call and returns its answer, whose body is still on its way. Where the connection
/// breaks there is no answer, and no end: `broken` tells of it.
///
/// # Errors
/// Where the call gets no answer.
pub async fn forward(
    requests: &mut SendRequest<Body>,
    request: Request<Body>,
    broken: &CancellationToken,
) -> Result<Response<Body>, CallError> {
    match call(requests, request).await {
        Ok(response) => Ok(response.map(|body| {
            let broken = broken.clone();
            OfConnection { body, broken }.boxed_unsync()
        })),
        Err(CallError::Lost(_)) => {
            broken.cancel();
            pending().await
        }
        Err(err) => Err(err),
    }
}

/// Whether the connection broke, and with it all calls: who called is to see their own connection
/// break, as they would without inlay, and no call fail for a reason of its own before that.
fn is_of_connection(err: &hyper::Error) -> bool {
    let mut source = err.source();
    while let Some(err) = source {
        let h2 = err.downcast_ref::<h2::Error>();
        if err.is::<io::Error>() || h2.is_some_and(h2::Error::is_io) {
            return true;
        }
        source = err.source();
    }
    false
}

/// Whether the server had ended the connection in order before it saw the call.
fn is_refused(err: &hyper::Error) -> bool {
    let mut source = err.source();
    while let Some(err) = source {
        let h2 = err.downcast_ref::<h2::Error>();
        if h2.is_some_and(|err| err.is_go_away() && err.is_remote()) {
            return true;
        }
        source = err.source();
    }
    false
}

/// The body of an answer. Where its connection breaks it has no end, as in [`forward`].
struct OfConnection {
    body: Incoming,
    broken: CancellationToken,
}

impl HttpBody for OfConnection {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Err(err))) if is_of_connection(&err) => {
                self.broken.cancel();
                Poll::Pending
            }
            frame => frame.map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body as it comes from who calls.
pub fn from_incoming(body: Incoming) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// A body of which the first part is here already.
pub fn followed_by(data: Bytes, rest: Body) -> Body {
    let first = stream::iter([Ok(Frame::data(data))]);
    StreamBody::new(first.chain(BodyStream::new(rest))).boxed_unsync()
}

/// A body of what is already here. Its length is not told beforehand: no header that was not sent.
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
    status.set_source(Arc::new(h2::Error::from(h2::Reason::CANCEL)));
    status.into()
}
