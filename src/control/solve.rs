//! `Control.Solve`: a build begins.

use http::{Request, Response};
use tonic::Status;
use tracing::{Instrument as _, debug, info, info_span};

use super::builds::Build;
use super::connection::Connection;
use super::drive;
use super::pipe::{PipeError, Upstream};
use super::unary::{Call, refusal};
use crate::plan::{self, Decision, Plan};
use crate::relay::Body;

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.Control/Solve";

/// Hands a solve on, without the inline cache export if inlay takes it over; keeps the build known
/// meanwhile.
pub async fn intercept(
    connection: &Connection,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Body>, PipeError> {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(err) => return Ok(refusal(Status::invalid_argument(format!("inlay: {err}")))),
    };
    let plan = match call.message().map(|message| plan::decide(&message)) {
        Some(Ok(Decision::Inline(plan))) => plan,
        Some(Ok(Decision::Pass)) => return upstream.send(call.unchanged()).await,
        other => {
            // The daemon has the last word on what it can read.
            debug!("a solve request passes unread: {other:?}");
            return upstream.send(call.unchanged()).await;
        }
    };
    let span = info_span!("build", build = %plan.build);
    build(connection, upstream, call, plan)
        .instrument(span)
        .await
}

async fn build(
    connection: &Connection,
    upstream: &Upstream,
    call: Call,
    mut plan: Box<Plan>,
) -> Result<Response<Body>, PipeError> {
    let reference = plan.build.clone();
    // A header ties a build's calls to it. Where none can hold its ref, there are no calls.
    if let Err(status) = connection.exporter.daemon.gateway(&reference) {
        info!("inline cache is left to the daemon: {}", status.message());
        return upstream.send(call.unchanged()).await;
    }
    if !connection
        .exporter
        .daemon
        .exports_to_sessions()
        .await
        .unwrap_or(true)
    {
        let reason = "this daemon cannot export cache to a session \
                      (Docker Engine needs its containerd image store for that)";
        info!("inline cache is left to the daemon: {reason}");
        let _known = connection
            .builds
            .register(reference, Build::LeftToDaemon(reason.to_owned()));
        return upstream.send(call.unchanged()).await;
    }
    info!("inline cache comes from inlay");
    let request = call.with_message(&plan.request);
    let direct = plan.direct.take();
    let known = connection.builds.register(reference, Build::Inline(plan));
    let (Some(direct), Build::Inline(plan)) = (direct, known.build()) else {
        return upstream.send(request).await;
    };
    let driver = drive::drive(&connection.exporter, plan, direct);
    tokio::select! {
        response = upstream.send(request) => response,
        // The solve ends by what the driver returned; the driver itself ends before it only if it
        // cannot return.
        status = driver => Ok(refusal(status)),
    }
}
