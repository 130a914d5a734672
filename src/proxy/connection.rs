//! One client connection, and the daemon's connection that belongs to it.

use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::debug;

use super::unary::refusal;
use crate::daemon::address::DaemonAddress;
use crate::daemon::{Connection, ConnectionError, Daemon, Stream, hops};
use crate::transport::Hop;
use crate::transport::http2::{self, Body, BodyError, CallError, to_body};

/// The timeout for a client without calls to close its connection after `GOAWAY`.
const MAX_GOODBYE: Duration = Duration::from_secs(1);
/// The timeout for sending the client what a lost daemon connection had delivered.
const MAX_LAST_WORDS: Duration = Duration::from_secs(10);
/// How long nothing is written to the client before everything counts as sent.
const QUIET: Duration = Duration::from_millis(50);

/// The most inlay servers that a call may have passed. A chain of them is of no use, and a ring would
/// forward the call for ever.
const MAX_HOPS: u32 = 4;

/// Answers the calls of clients.
pub trait Service: Clone + Send + Sync + 'static {
    /// Answers a call. [`Connection::forward`](crate::daemon::Connection::forward) forwards it unchanged.
    ///
    /// # Errors
    /// Where the daemon cannot be reached, or its connection breaks.
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
    let (in_flight, bodies) = (Arc::new(InFlight::default()), Arc::new(InFlight::default()));
    let told = CancellationToken::new();
    let calls = Calls {
        service,
        daemon,
        in_flight: Arc::clone(&in_flight),
        bodies: Arc::clone(&bodies),
        told: told.clone(),
    };
    let (socket, leave) = (
        http2::accepted(stream, connection.hop()),
        CancellationToken::new(),
    );
    let served = http2::serve(socket, leave.clone(), |request| calls.clone().call(request));
    let mut served = pin!(served);
    let mut idle = pin!(async {
        stop.cancelled().await;
        in_flight.none().await;
    });
    let (mut stopping, mut draining) = (false, false);
    loop {
        tokio::select! {
            // Polled first, so that `GOAWAY` is sent before any call is reset.
            biased;
            result = served.as_mut() => {
                if let Err(err) = result {
                    debug!("client connection ended: {err}");
                }
                return;
            }
            // The client gets what the daemon sent before, and then its connection breaks, as without a
            // proxy.
            () = connection.lost() => {
                let said = last_words(&bodies, connection.hop());
                tokio::select! {
                    _ = served => {}
                    _ = timeout(MAX_LAST_WORDS, said) => {}
                }
                return;
            }
            // The daemon drains, so inlay drains: calls in flight go on, and new ones need a new connection.
            () = connection.hop().draining(), if !draining => {
                draining = true;
                leave.cancel();
            }
            // It is written with what is polled next, before any call is reset.
            () = connection.hop().failing(), if !draining => draining = true,
            () = ready(()), if draining && !told.is_cancelled() => told.cancel(),
            () = idle.as_mut(), if !stopping => {
                stopping = true;
                leave.cancel();
            }
            // The client has got `GOAWAY` and has no call, or it never sent anything.
            () = sleep(MAX_GOODBYE), if stopping => {
                if in_flight.is_none() {
                    return;
                }
            }
        }
    }
}

/// Ends when the client has got all that a lost daemon connection delivered: all bodies have ended, and
/// nothing more is written.
async fn last_words(bodies: &InFlight, hop: &Hop) {
    bodies.none().await;
    loop {
        let written = hop.written();
        sleep(QUIET).await;
        if hop.written() == written {
            return;
        }
    }
}

/// Answers a call. If the daemon's side breaks, so does the client's.
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
        Err(ConnectionError::Call(CallError::Refused(_))) if daemon.connection().is_lost() => {
            let status = Status::unavailable("inlay: the connection to the daemon broke");
            Ok(refusal(status))
        }
        Err(ConnectionError::Call(err @ CallError::Refused(_))) => {
            // The error comes after `GOAWAY`, by which the client knows that it needs a new connection.
            told.cancelled().await;
            Err(err.into())
        }
        response => response,
    }
}

/// The calls of one client.
#[derive(Clone)]
struct Calls<S> {
    service: S,
    daemon: Daemon,
    in_flight: Arc<InFlight>,
    /// Counts the bodies of answers that may have more data.
    bodies: Arc<InFlight>,
    /// Cancelled when the client has been told that the daemon takes no more calls on this connection.
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

/// The body of an answer. Its call is in flight until it is dropped.
struct Counted {
    body: Body,
    /// `None` once it is known that no more data comes.
    gives: Option<CallInFlight>,
    connection: Connection,
    _call: CallInFlight,
}

// === impl Calls ===

impl<S: Service> Calls<S> {
    /// Answers a call. The call is in flight until the body of its answer is dropped.
    fn call(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, ConnectionError>> + Send {
        let call = InFlight::begin(&self.in_flight);
        async move {
            let response = answer(&self.service, &self.daemon, &self.told, request).await?;
            Ok(response.map(|body| {
                to_body(Counted {
                    body,
                    gives: Some(InFlight::begin(&self.bodies)),
                    connection: self.daemon.connection().clone(),
                    _call: call,
                })
            }))
        }
    }
}

// === impl Counted ===

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.connection.is_lost() {
            self.gives = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
