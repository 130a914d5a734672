//! One client connection, and the daemon's connection that belongs to it.

use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::debug;

use super::unary::refusal;
use crate::daemon::address::DaemonAddress;
use crate::daemon::{ConnectionError, Daemon, Stream, hops};
use crate::transport::http2::{self, Body, CallError, from_incoming};

/// How long a client without calls may take to leave when it is told to.
const MAX_GOODBYE: Duration = Duration::from_secs(1);
/// How long what the daemon said last may take to the client: it is in this process already.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How many servers of inlay a call may have passed. More than one behind another makes no sense, and
/// a ring of them would forward it for ever.
const MAX_HOPS: u32 = 4;

/// Answers the calls of clients.
pub trait Service: Clone + Send + Sync + 'static {
    /// Answers a call. [`Connection::forward`](crate::daemon::Connection::forward) is the answer
    /// that changes nothing.
    ///
    /// # Errors
    /// Where the daemon cannot be reached or breaks off.
    fn call(
        &self,
        daemon: &Daemon,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, ConnectionError>> + Send;
}

/// Serves one client until it leaves, the connection to the daemon is lost, or `stop` finds no call
/// in flight.
pub async fn serve(
    stream: Box<dyn Stream>,
    service: impl Service,
    address: Arc<DaemonAddress>,
    stop: CancellationToken,
) {
    let daemon = Daemon::new(address);
    let connection = daemon.connection().clone();
    let in_flight = Arc::new(InFlight::default());
    let told = CancellationToken::new();
    let calls = Calls {
        service,
        daemon,
        in_flight: Arc::clone(&in_flight),
        told: told.clone(),
    };
    let mut served =
        pin!(http2::server().serve_connection(TokioIo::new(http2::accepted(stream)), calls));
    let mut idle = pin!(async {
        stop.cancelled().await;
        in_flight.none().await;
    });
    let (mut stopping, mut draining) = (false, false);
    loop {
        tokio::select! {
            // First, so that `GOAWAY` is on its way before any call is answered by a reset.
            biased;
            result = served.as_mut() => {
                if let Err(err) = result {
                    debug!("client connection ended: {err}");
                }
                return;
            }
            // As if there were nothing between: the client sees what was said before, and its connection
            // break.
            () = connection.lost() => {
                let _ = timeout(LAST_WORDS, served).await;
                return;
            }
            // As the daemon does with inlay: what runs goes on, and new calls are for a new connection.
            () = connection.draining(), if !draining => {
                draining = true;
                served.as_mut().graceful_shutdown();
            }
            () = ready(()), if draining && !told.is_cancelled() => told.cancel(),
            () = idle.as_mut(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
            // It has been told, and has nothing more to say; or it never said anything.
            () = sleep(MAX_GOODBYE), if stopping => {
                if in_flight.is_none() {
                    return;
                }
            }
        }
    }
}

/// Answers a call. What breaks off on the daemon's side breaks off on the client's.
async fn answer(
    service: &impl Service,
    daemon: &Daemon,
    told: &CancellationToken,
    request: Request<Body>,
) -> Result<Response<Body>, ConnectionError> {
    let passed = hops(request.headers());
    if passed >= MAX_HOPS {
        return Ok(refusal(Status::failed_precondition(format!(
            "inlay: the call has passed {passed} servers of inlay, and {} leads to the next one; \
             start inlay with the address of buildkitd itself in --buildkitd",
            daemon.connection().address()
        ))));
    }
    match service.call(daemon, request).await {
        Err(ConnectionError::Connect(err)) => {
            Ok(refusal(Status::unavailable(format!("inlay: {err}"))))
        }
        Err(ConnectionError::Call(err @ CallError::Refused(_))) => {
            // By then the client knows that a new call needs a new connection.
            told.cancelled().await;
            Err(err.into())
        }
        response => response,
    }
}

/// The calls of one client.
struct Calls<S> {
    service: S,
    daemon: Daemon,
    in_flight: Arc<InFlight>,
    /// The client was told that the daemon takes no more calls on this connection.
    told: CancellationToken,
}

/// Counts the calls in flight.
#[derive(Debug, Default)]
struct InFlight {
    calls: AtomicUsize,
    ended: Notify,
}

/// One call in flight.
struct CallInFlight(Arc<InFlight>);

// === impl Calls ===

impl<S: Service> hyper::service::Service<Request<Incoming>> for Calls<S> {
    type Response = Response<Body>;
    type Error = ConnectionError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let call = InFlight::begin(&self.in_flight);
        let (service, daemon) = (self.service.clone(), self.daemon.clone());
        let told = self.told.clone();
        Box::pin(async move {
            let response = answer(&service, &daemon, &told, request.map(from_incoming)).await?;
            // The call is in flight until its answer's body is dropped.
            Ok(response.map(|body| {
                let counted = body.map_frame(move |frame| {
                    let _in_flight = &call;
                    frame
                });
                counted.boxed_unsync()
            }))
        })
    }
}

// === impl InFlight ===

impl InFlight {
    fn begin(counter: &Arc<Self>) -> CallInFlight {
        counter.calls.fetch_add(1, Ordering::SeqCst);
        CallInFlight(Arc::clone(counter))
    }

    fn is_none(&self) -> bool {
        self.calls.load(Ordering::SeqCst) == 0
    }

    /// Ends when no call is in flight.
    async fn none(&self) {
        loop {
            let ended = self.ended.notified();
            if self.is_none() {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
        self.0.ended.notify_waiters();
    }
}
