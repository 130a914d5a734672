//! `Control.Solve`: a build begins.

use std::future::pending;
use std::sync::atomic::AtomicBool;

use http::{Request, Response};
use tonic::Status;
use tracing::{Instrument as _, debug, info, info_span};

use super::builds::{Build, Export};
use super::connection::Connection;
use super::drive;
use super::pipe::{PipeError, Upstream};
use super::report;
use super::unary::{Call, refusal};
use crate::import::Imports;
use crate::plan::{self, Plan};
use crate::relay::Body;

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.Control/Solve";

/// Hands a solve on, without what inlay does in the daemon's place; keeps the build known meanwhile.
pub async fn intercept(
    connection: &Connection,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Body>, PipeError> {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(err) => return Ok(refusal(Status::invalid_argument(format!("inlay: {err}")))),
    };
    let Some(message) = call.message() else {
        return upstream.send(call.unchanged()).await;
    };
    let plan = match plan::decide(&message, connection.tasks) {
        Ok(Some(plan)) => plan,
        Ok(None) => return upstream.send(call.unchanged()).await,
        Err(err) => {
            // The daemon has the last word on what it can read.
            debug!("a solve request passes unread: {err}");
            return upstream.send(call.unchanged()).await;
        }
    };
    // A header ties a build's calls to it. Where none can hold its ref, there are no calls.
    if let Err(status) = connection.exporter.daemon.gateway(&plan.build) {
        info!("the build is left to the daemon: {}", status.message());
        return upstream.send(call.unchanged()).await;
    }
    let span = info_span!("build", build = %plan.build);
    build(connection, upstream, call, &message, plan)
        .instrument(span)
        .await
}

async fn build(
    connection: &Connection,
    upstream: &Upstream,
    call: Call,
    message: &[u8],
    mut plan: Box<Plan>,
) -> Result<Response<Body>, PipeError> {
    let export = export(connection, &plan).await;
    let imports = Imports::new(
        connection.importer.clone(),
        std::mem::take(&mut plan.imports),
        plan.session.clone(),
        std::mem::take(&mut plan.platforms),
    );
    let exports = matches!(export, Export::Inlay);
    // Without either there is nothing that the daemon would not do as well by itself.
    let direct = plan.direct.take_if(|_| exports || !imports.is_empty());
    let request = match plan::handed_on(message, exports, direct.is_some()) {
        Ok(request) => call.with_message(&request),
        Err(err) => {
            debug!("a solve request passes unread: {err}");
            return upstream.send(call.unchanged()).await;
        }
    };
    let known = connection.builds.register(Build {
        plan,
        export,
        imports,
        told: AtomicBool::new(false),
    });
    let build = known.build();
    let driven = async {
        match direct {
            Some(direct) => drive::drive(&connection.exporter, build, direct).await,
            None => {
                // By the time the client's own gateway asks for them, they may be there.
                build.imports.outcomes().await;
                pending().await
            }
        }
    };
    let response = tokio::select! {
        response = upstream.send(request) => response,
        // The solve ends by what the driver returned; the driver itself ends before it only if it
        // cannot return.
        status = driven => Ok(refusal(status)),
    };
    report::log_moved(build);
    response
}

/// Where a build gets its inline cache.
async fn export(connection: &Connection, plan: &Plan) -> Export {
    if plan.inline.is_none() {
        return Export::None;
    }
    let exports = connection.exporter.daemon.exports_to_sessions().await;
    if exports.unwrap_or(true) {
        info!("inline cache comes from inlay");
        return Export::Inlay;
    }
    let reason = "this daemon cannot export cache to a session \
                  (Docker Engine needs its containerd image store for that)";
    info!("inline cache is left to the daemon: {reason}");
    Export::LeftToDaemon(reason.to_owned())
}
