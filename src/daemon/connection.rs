//! One HTTP/2 connection to a daemon.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, WeakShared};
use http::{HeaderMap, HeaderName, Request, Response, Uri};
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::address::DaemonAddress;
use super::connect::{ConnectError, TIMEOUT, connect};
use crate::transport::Hop;
use crate::transport::http2::{self, Body, CallError, Incoming, Requests, to_body};

/// The timeout for writing to the daemon what is left when its client is gone.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(10);

/// The header that counts the servers of inlay that a call has passed.
pub const HOPS_HEADER: HeaderName = HeaderName::from_static("inlay-hops");

/// How many servers of inlay a call has passed, by its headers.
pub fn hops(headers: &HeaderMap) -> u32 {
    let hops = headers.get(HOPS_HEADER).and_then(|hops| hops.to_str().ok());
    hops.and_then(|hops| hops.parse().ok()).unwrap_or(0)
}

/// The authority of inlay's own calls: that of BuildKit's clients on a unix socket.
pub(super) fn origin() -> Uri {
    Uri::from_static("http://localhost")
}

/// Why a call got no answer from the daemon.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The daemon cannot be reached. All calls that waited for the connection fail with it.
    #[error(transparent)]
    Connect(#[from] Arc<ConnectError>),
    /// The call broke off, or the daemon takes no more calls.
    #[error("the daemon: {0}")]
    Call(#[from] CallError),
}

/// One connection to a daemon. It connects with the first call. Once connected, it never connects anew,
/// so all its calls reach one daemon, also behind a load balancer.
#[derive(Debug, Clone)]
pub struct Connection(Arc<State>);

#[derive(Debug)]
struct State {
    address: Arc<DaemonAddress>,
    slot: Mutex<Slot>,
    /// What passes between this connection and the client's beside calls.
    hop: Hop,
    /// The connection broke.
    lost: CancellationToken,
    /// Nobody uses the connection any more.
    unused: CancellationToken,
    _unused_when_dropped: DropGuard,
}

/// What a connection attempt comes to, for all who wait for it.
type Connecting = BoxFuture<'static, Result<Requests, Arc<ConnectError>>>;

#[derive(Debug)]
enum Slot {
    /// No attempt was made, or the last one failed.
    Unconnected,
    /// An attempt, as long as somebody waits for it.
    Connecting(WeakShared<Connecting>),
    Connected(Requests),
}

/// Counts this server in the header of a call.
fn count_hop<T>(request: &mut Request<T>) {
    let hops = hops(request.headers()).saturating_add(1);
    request.headers_mut().insert(HOPS_HEADER, hops.into());
}

/// Takes note of how a connection ended. An end in order comes before the last calls have ended.
fn has_ended(ended: &Result<(), h2::Error>, hop: &Hop, lost: &CancellationToken) {
    match ended {
        Ok(()) => hop.drain(),
        Err(_) => lost.cancel(),
    }
}

// === impl Connection ===

impl Connection {
    /// A connection to the daemon at an address; nothing is connected yet.
    pub fn new(address: Arc<DaemonAddress>) -> Self {
        let unused = CancellationToken::new();
        Self(Arc::new(State {
            address,
            slot: Mutex::new(Slot::Unconnected),
            hop: Hop::default(),
            lost: CancellationToken::new(),
            _unused_when_dropped: unused.clone().drop_guard(),
            unused,
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

    /// Whether the connection broke.
    pub fn is_lost(&self) -> bool {
        self.0.lost.is_cancelled()
    }

    /// What passes between this connection and the client's beside calls.
    pub fn hop(&self) -> &Hop {
        &self.0.hop
    }

    /// Forwards a call and returns the daemon's answer, whose body is still on its way. If the connection
    /// breaks, this or the body never ends; [`Connection::lost`] ends then.
    ///
    /// # Errors
    /// Where the daemon cannot be reached or gives no answer.
    pub async fn forward(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ConnectionError> {
        count_hop(&mut request);
        let requests = self.requests().await?;
        let answer = requests.forward(request, &self.0.lost).await;
        self.note(answer)
    }

    /// Makes a call of inlay's own. If the connection breaks, it ends with an error.
    ///
    /// # Errors
    /// Where the daemon cannot be reached or gives no answer.
    pub async fn call(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, ConnectionError> {
        let answer = self.requests().await?.call(request).await;
        self.note(answer)
    }

    fn note<T>(&self, answer: Result<T, CallError>) -> Result<T, ConnectionError> {
        match &answer {
            Err(CallError::Refused(_)) if !self.is_lost() => self.0.hop.drain(),
            Err(CallError::Lost(_)) => self.0.lost.cancel(),
            Err(CallError::Refused(_) | CallError::Reset(_)) | Ok(_) => {}
        }
        Ok(answer?)
    }

    /// Connects, if that was not done yet. All calls that wait share one attempt.
    async fn requests(&self) -> Result<Requests, Arc<ConnectError>> {
        let connecting = {
            let mut slot = self.slot();
            let begun = match &*slot {
                Slot::Connected(requests) => return Ok(requests.clone()),
                Slot::Connecting(attempt) => attempt.upgrade(),
                Slot::Unconnected => None,
            };
            match begun {
                Some(attempt) => attempt,
                None => {
                    let attempt = self.clone().connect().boxed().shared();
                    // Nobody has polled it to its end yet.
                    *slot = attempt
                        .downgrade()
                        .map_or(Slot::Unconnected, Slot::Connecting);
                    attempt
                }
            }
        };
        connecting.await
    }

    /// Connects, and keeps the connection.
    async fn connect(self) -> Result<Requests, Arc<ConnectError>> {
        let connected = self.handshake().await.map_err(Arc::new);
        *self.slot() = match &connected {
            Ok(requests) => Slot::Connected(requests.clone()),
            Err(_) => Slot::Unconnected,
        };
        connected
    }

    async fn handshake(&self) -> Result<Requests, ConnectError> {
        let stream = connect(&self.0.address).await?;
        let socket = http2::connected(stream, &self.0.hop);
        let (requests, connection) =
            http2::connect(socket)
                .await
                .map_err(|source| ConnectError::Http2 {
                    address: (*self.0.address).clone(),
                    source,
                })?;
        let Some(connection) = self.first_frame(connection).await? else {
            return Ok(requests);
        };
        let (hop, lost) = (self.0.hop.clone(), self.0.lost.clone());
        let unused = self.0.unused.clone();
        tokio::spawn(async move {
            let given_up = async {
                unused.cancelled().await;
                sleep(GOODBYE_TIMEOUT).await;
            };
            tokio::select! {
                ended = connection => has_ended(&ended, &hop, &lost),
                () = given_up => {}
            }
        });
        Ok(requests)
    }

    /// Waits until the daemon has begun, as gRPC does: the server there may speak no HTTP/2. `None` where
    /// the daemon has begun and ended the connection meanwhile.
    async fn first_frame<C>(&self, mut connection: C) -> Result<Option<C>, ConnectError>
    where
        C: Future<Output = Result<(), h2::Error>> + Unpin,
    {
        let (hop, lost) = (&self.0.hop, &self.0.lost);
        let address = || (*self.0.address).clone();
        let ended = tokio::select! {
            biased;
            () = hop.begun() => return Ok(Some(connection)),
            ended = &mut connection => ended,
            () = sleep(TIMEOUT) => return Err(ConnectError::TimedOut { address: address() }),
        };
        if hop.has_begun() {
            has_ended(&ended, hop, lost);
            return Ok(None);
        }
        Err(match ended {
            Ok(()) => ConnectError::Closed { address: address() },
            Err(source) => ConnectError::Http2 {
                address: address(),
                source,
            },
        })
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Each change of the slot is one assignment, so a panic elsewhere leaves it whole.
        self.0.slot.lock().unwrap_or_else(PoisonError::into_inner)
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
        let request = request.map(to_body);
        Box::pin(async move { Self::call(&connection, request).await })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use http_body_util::BodyExt as _;
    use http_body_util::Empty;
    use tokio::net::UnixListener;
    use tokio::time::Instant;

    use super::*;

    /// The clock runs while nothing else does.
    #[tokio::test(start_paused = true)]
    async fn all_calls_wait_for_one_attempt_to_connect() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        // It takes connections, and answers nothing.
        let listener = UnixListener::bind(&socket).unwrap();
        let address = format!("docker://{}", socket.display()).parse().unwrap();
        let connection = Connection::new(Arc::new(address));
        let call = || {
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            connection.call(Request::post("http://localhost/any").body(body).unwrap())
        };
        // The first one gives up, which is no reason for others to.
        let given_up = tokio::time::timeout(Duration::from_secs(1), call()).await;
        assert!(given_up.is_err());
        let began = Instant::now();
        let calls = join_all([call(), call(), call()]);
        for answer in calls.await {
            let said = answer.unwrap_err().to_string();
            let expected = format!("docker://{}: no answer for 20 s", socket.display());
            assert!(said.ends_with(&expected), "{said}");
        }
        assert_eq!(began.elapsed().as_secs(), 20);
        let mut attempts = 0;
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await
        {
            attempts += 1;
        }
        assert_eq!(attempts, 2);
    }
}
