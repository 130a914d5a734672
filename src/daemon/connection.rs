//! One HTTP/2 connection to a daemon.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::address::DaemonAddress;
use super::connect::{ConnectError, connect};
use crate::transport::http2::{self, Body, BodyError, CallError};

/// The header that counts the servers of inlay that a call has passed.
pub const HOPS_HEADER: HeaderName = HeaderName::from_static("inlay-hops");

/// How many servers of inlay a call has passed, by its headers.
pub fn hops(headers: &HeaderMap) -> u32 {
    let hops = headers.get(HOPS_HEADER).and_then(|hops| hops.to_str().ok());
    hops.and_then(|hops| hops.parse().ok()).unwrap_or(0)
}

/// What inlay's own calls name as their server, as BuildKit's clients do on a unix socket.
pub(super) fn origin() -> Uri {
    Uri::from_static("http://localhost")
}

/// Why a call got no answer from the daemon.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The daemon cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The call broke off, or the daemon takes no more calls.
    #[error("the daemon: {0}")]
    Call(#[from] CallError),
}

/// One connection to a daemon. It is made with the first call, and never a second time: what knows
/// the daemon by it can rely on there being one daemon behind.
#[derive(Debug, Clone)]
pub struct Connection(Arc<State>);

#[derive(Debug)]
struct State {
    address: Arc<DaemonAddress>,
    requests: Mutex<Option<SendRequest<Body>>>,
    /// The connection broke.
    lost: CancellationToken,
    /// The daemon ended the connection in order: calls in flight go on, and it takes no new ones.
    draining: CancellationToken,
}

/// One more server has the call.
fn count_hop<T>(request: &mut Request<T>) {
    let hops = hops(request.headers()).saturating_add(1);
    request.headers_mut().insert(HOPS_HEADER, hops.into());
}

// === impl Connection ===

impl Connection {
    /// A connection to the daemon at an address; nothing is connected yet.
    pub fn new(address: Arc<DaemonAddress>) -> Self {
        Self(Arc::new(State {
            address,
            requests: Mutex::new(None),
            lost: CancellationToken::new(),
            draining: CancellationToken::new(),
        }))
    }

    /// Where the daemon is.
    pub fn address(&self) -> &DaemonAddress {
        &self.0.address
    }

    /// Ends when the connection breaks.
    pub async fn lost(&self) {
        self.0.lost.cancelled().await;
    }

    /// Ends when the daemon takes no more calls on this connection. It is noticed with the next call.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Forwards a call and returns the daemon's answer, whose body is still on its way. Where the
    /// connection breaks there is no answer, and no end: [`Connection::lost`] tells of it.
    ///
    /// # Errors
    /// Where the daemon cannot be reached or gives no answer.
    pub async fn forward(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ConnectionError> {
        count_hop(&mut request);
        let mut requests = self.requests().await?;
        let answer = http2::forward(&mut requests, request, &self.0.lost).await;
        self.note(answer)
    }

    /// Makes a call of inlay's own. Where the connection breaks it ends with an error.
    ///
    /// # Errors
    /// Where the daemon cannot be reached or gives no answer.
    pub async fn call(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, ConnectionError> {
        let mut requests = self.requests().await?;
        let answer = http2::call(&mut requests, request).await;
        self.note(answer)
    }

    fn note<T>(&self, answer: Result<T, CallError>) -> Result<T, ConnectionError> {
        match &answer {
            Err(CallError::Refused(_)) => self.0.draining.cancel(),
            Err(CallError::Lost(_)) => self.0.lost.cancel(),
            Err(CallError::Reset(_)) | Ok(_) => {}
        }
        Ok(answer?)
    }

    async fn requests(&self) -> Result<SendRequest<Body>, ConnectError> {
        let mut slot = self.0.requests.lock().await;
        if let Some(requests) = &*slot {
            return Ok(requests.clone());
        }
        let stream = connect(&self.0.address).await?;
        let (requests, connection) = http2::client()
            .handshake(TokioIo::new(http2::connected(stream)))
            .await
            .map_err(|source| ConnectError::Http {
                address: (*self.0.address).clone(),
                source,
            })?;
        let (lost, draining) = (self.0.lost.clone(), self.0.draining.clone());
        tokio::spawn(async move {
            // An end in order comes before the last calls have ended.
            match connection.await {
                Ok(()) => draining.cancel(),
                Err(_) => lost.cancel(),
            }
        });
        Ok(slot.insert(requests).clone())
    }
}

impl tower::Service<Request<tonic::body::Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = ConnectionError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let connection = self.clone();
        let request = request.map(|body| body.map_err(BodyError::Own).boxed_unsync());
        Box::pin(async move { Self::call(&connection, request).await })
    }
}
