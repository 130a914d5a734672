//! Hands calls on to the daemon: one HTTP/2 connection to it for one client connection.

use std::error::Error as _;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::address::DaemonAddress;
use crate::daemon::{ConnectError, connect};

/// A body on its way, in either direction.
pub type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// What HTTP/2 holds back of one call, and of all calls of a connection, until it is taken (bytes).
/// It bounds the memory that a slow reader costs, and is above what a fast local socket has in
/// flight.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// See [`STREAM_WINDOW`].
pub const CONNECTION_WINDOW: u32 = 4 << 20;
/// The largest header list: that of gRPC's Go implementation, since errors carry whole sources in
/// trailers.
pub const MAX_HEADER_LIST: u32 = 16 << 20;
/// The largest frame of data (bytes).
pub const MAX_FRAME: u32 = 64 << 10;

/// Why a call got no answer from the daemon.
#[derive(Debug, Error)]
pub enum PipeError {
    /// The daemon cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection or the call broke off.
    #[error("the daemon broke off: {0}")]
    Broken(#[from] hyper::Error),
}

/// The daemon's side of one client connection; connected with the first call.
#[derive(Debug)]
pub struct Upstream {
    address: Arc<DaemonAddress>,
    requests: Mutex<Option<SendRequest<Body>>>,
    lost: CancellationToken,
}

// === impl Upstream ===

impl Upstream {
    /// The daemon at an address.
    pub fn new(address: Arc<DaemonAddress>) -> Self {
        Self {
            address,
            requests: Mutex::new(None),
            lost: CancellationToken::new(),
        }
    }

    /// Ends when a connection to the daemon that was made is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Hands a call on and returns the daemon's answer, whose body is still on its way.
    ///
    /// # Errors
    /// Where the daemon cannot be reached or gives no answer.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, PipeError> {
        let mut requests = self.requests().await?;
        match requests.send_request(request).await {
            Ok(response) => Ok(response.map(|body| OfDaemon(body).boxed_unsync())),
            Err(err) if is_of_connection(&err) => pending().await,
            Err(err) => Err(err.into()),
        }
    }

    async fn requests(&self) -> Result<SendRequest<Body>, ConnectError> {
        let mut slot = self.requests.lock().await;
        if let Some(requests) = &*slot {
            return Ok(requests.clone());
        }
        let stream = connect(&self.address).await?;
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADER_LIST)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ConnectError::Http {
                address: (*self.address).clone(),
                source,
            })?;
        let lost = self.lost.clone();
        tokio::spawn(async move {
            // The client sees the end of its own connection; how this one ended adds nothing to
            // that.
            let _ = connection.await;
            lost.cancel();
        });
        Ok(slot.insert(requests).clone())
    }
}

/// Whether the connection broke, and with it all calls: the client is to see its own connection
/// break, as it would without inlay, and no call fail for a reason of its own before that.
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

/// A body of the daemon's. Where its connection breaks it has no end: [`Upstream::lost`] has.
struct OfDaemon(Incoming);

impl HttpBody for OfDaemon {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match Pin::new(&mut self.0).poll_frame(context) {
            Poll::Ready(Some(Err(err))) if is_of_connection(&err) => Poll::Pending,
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A body as it comes from a client.
pub fn from_incoming(body: Incoming) -> Body {
    body.boxed_unsync()
}

/// A body of what is already here. Its length is not told beforehand: no header that the client did
/// not send.
pub fn from_parts(data: Bytes, trailers: Option<HeaderMap>) -> Body {
    let frames = [Some(Frame::data(data)), trailers.map(Frame::trailers)];
    let frames = frames.into_iter().flatten().map(Ok);
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}
