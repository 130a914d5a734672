//! Which calls are read, and which pass.

use std::sync::Arc;

use http::{Request, Response};
use tonic::Status;
use tracing::{Instrument as _, info_span};

use super::registry::Registry;
use super::shared::Shared;
use super::{begin, finish, gateway, sessions};
use crate::proxy::unary::{Call, refusal};
use crate::proxy::{Service, Upstream, UpstreamError};
use crate::transport::http2::Body;

/// Reads four methods and forwards all others as they are.
#[derive(Debug, Clone)]
pub struct Router {
    shared: Arc<Shared>,
    /// The builds in flight that inlay has a part in.
    builds: Registry,
}

// === impl Router ===

impl Router {
    /// No build is in flight yet.
    pub fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            builds: Registry::default(),
        }
    }
}

impl Service for Router {
    async fn call(
        &self,
        upstream: &Upstream,
        request: Request<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        let path = request.uri().path();
        if path == sessions::PATH {
            return sessions::open(&self.shared.sessions, upstream, request).await;
        }
        let (begins, finishes) = (path == begin::PATH, path == finish::PATH);
        let build = if path == gateway::PATH || finishes {
            self.builds.of(&request)
        } else {
            None
        };
        if !begins && build.is_none() {
            return upstream.send(request).await;
        }

        let call = match Call::read(request).await {
            Ok(call) => call,
            Err(err) => return Ok(refusal(Status::invalid_argument(format!("inlay: {err}")))),
        };
        let Some(message) = call.message() else {
            return upstream.send(call.unchanged()).await;
        };
        let Some(build) = build else {
            return begin::begin(&self.shared, &self.builds, upstream, call, &message).await;
        };
        let span = info_span!("build", build = build.reference());
        let changed = async {
            if finishes {
                build.finish(&message).await
            } else {
                build.gateway_solve(&message).await
            }
        };
        let request = match changed.instrument(span).await {
            Some(changed) => call.with_message(&changed),
            None => call.unchanged(),
        };
        upstream.send(request).await
    }
}
