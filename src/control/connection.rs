//! One client connection: which calls are read, and which pass.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::debug;

use super::builds::Builds;
use super::pipe::{PipeError, Upstream};
use super::{gateway_solve, returns, sessions, solve, unary};
use crate::daemon::Stream;
use crate::export::Exporter;
use crate::import::Importer;
use crate::plan::Tasks;
use crate::relay::{self, Body, from_incoming};

/// How long a client without calls may take to leave when it is told to.
const MAX_GOODBYE: Duration = Duration::from_secs(1);
/// How long what the daemon said last may take to the client: it is in this process already.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// What all connections share.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Gives results their cache, and has the daemon that calls go to.
    pub exporter: Exporter,
    /// The builds in flight.
    pub builds: Builds,
    /// Makes cache sources of images, and has the sessions of clients.
    pub importer: Importer,
    /// What inlay takes on.
    pub tasks: Tasks,
}

/// Serves one client until it leaves, or the daemon's connection is lost, or `stop` finds no call
/// in flight.
pub async fn serve(stream: Box<dyn Stream>, connection: Connection, stop: CancellationToken) {
    let upstream = Arc::new(Upstream::new(connection.exporter.daemon.address()));
    let in_flight = Arc::new(InFlight::default());
    let calls = Calls {
        connection,
        upstream: Arc::clone(&upstream),
        in_flight: Arc::clone(&in_flight),
    };
    let mut served =
        pin!(relay::server().serve_connection(TokioIo::new(relay::accepted(stream)), calls));
    let mut idle = pin!(async {
        stop.cancelled().await;
        in_flight.none().await;
    });
    let mut stopping = false;
    loop {
        tokio::select! {
            result = served.as_mut() => {
                if let Err(err) = result {
                    debug!("client connection ended: {err}");
                }
                return;
            }
            // As if there were nothing between: the client sees what was said before, and its connection
            // break.
            () = upstream.lost() => {
                let _ = timeout(LAST_WORDS, served).await;
                return;
            }
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
    connection: &Connection,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Body>, PipeError> {
    let response = match request.uri().path() {
        solve::PATH => solve::intercept(connection, upstream, request).await,
        gateway_solve::PATH => gateway_solve::intercept(connection, upstream, request).await,
        returns::PATH => returns::intercept(connection, upstream, request).await,
        sessions::PATH => sessions::intercept(connection, upstream, request).await,
        _ => upstream.send(request).await,
    };
    match response {
        Err(PipeError::Connect(err)) => {
            Ok(unary::refusal(Status::unavailable(format!("inlay: {err}"))))
        }
        response => response,
    }
}

/// The calls of one client.
struct Calls {
    connection: Connection,
    upstream: Arc<Upstream>,
    in_flight: Arc<InFlight>,
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

impl Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = PipeError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let call = InFlight::begin(&self.in_flight);
        let (connection, upstream) = (self.connection.clone(), Arc::clone(&self.upstream));
        Box::pin(async move {
            let response = answer(&connection, &upstream, request.map(from_incoming)).await?;
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
