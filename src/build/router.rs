//! Which calls are read, and which pass.

use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};
use tokio::sync::oneshot;
use tonic::Status;
use tracing::{Instrument as _, info_span};

use super::registry::Registry;
use super::shared::Shared;
use super::solves::Solves;
use super::{begin, finish, gateway, sessions};
use crate::daemon::{ConnectionError, Daemon};
use crate::proxy::Service;
use crate::proxy::unary::{Call, Memory, Reading, refusal};
use crate::transport::http2::Body;

/// Reads four methods and forwards all others as they are.
#[derive(Debug, Clone)]
pub struct Router {
    shared: Arc<Shared>,
    /// The builds in flight.
    builds: Registry,
    /// The solves in flight, of all builds.
    solves: Solves,
    /// The memory for the messages that are read.
    memory: Memory,
}

// === impl Router ===

impl Router {
    /// A router with no build in flight.
    pub fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            builds: Registry::default(),
            solves: Solves::default(),
            memory: Memory::default(),
        }
    }
}

impl Service for Router {
    async fn call(
        &self,
        daemon: &Daemon,
        request: Request<Body>,
    ) -> Result<Response<Body>, ConnectionError> {
        let path = request.uri().path();
        if path == sessions::PATH {
            return sessions::open(&self.shared.sessions, daemon.connection(), request).await;
        }
        self.solves.sent_before(path, request.headers()).await;
        let (begins, finishes) = (path == begin::PATH, path == finish::PATH);
        let build = if path == gateway::PATH || finishes {
            self.builds.of(&request)
        } else {
            None
        };
        let passes = build
            .as_ref()
            .map_or(!begins, |build| finishes && build.is_left_to_daemon());
        if passes {
            return daemon.connection().forward(request).await;
        }

        let (call, message) = match Call::read(request, &self.memory).await {
            Ok(Reading::Message(call, message)) => (call, message),
            Ok(Reading::Unread(request)) => return daemon.connection().forward(request).await,
            Err(err) => return Ok(refusal(err.into())),
        };
        let Some(build) = build else {
            return begin::begin(
                &self.shared,
                &self.builds,
                &self.solves,
                daemon,
                call,
                &message,
            )
            .await;
        };
        let span = info_span!("build", build = build.reference());
        if finishes {
            let (give, changed) = oneshot::channel();
            // The call is open at the daemon from now on, and its message follows.
            let mut answer = pin!(
                daemon
                    .connection()
                    .forward(call.with_later_message(changed))
            );
            tokio::select! {
                answer = &mut answer => return answer,
                changed = build.finish(&message).instrument(span) => {
                    // If the call is over, its answer says why.
                    let _ = give.send(changed);
                }
            }
            return answer.await;
        }
        let request = match build.gateway_solve(&message).instrument(span).await {
            Ok(Some(changed)) => call.with_message(&changed),
            Ok(None) => call.unchanged(),
            Err(err) => {
                let text = format!("inlay: the solve request of a gateway: {err}");
                return Ok(refusal(Status::invalid_argument(text)));
            }
        };
        daemon.connection().forward(request).await
    }
}
