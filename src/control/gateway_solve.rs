//! `LLBBridge.Solve` of a build that is known: its imports, and whether its client replaces sources by
//! policies.
//!
//! Imports go on as what became of them. With policies the call passes as it is, but the definition of
//! a result is the one from before them, so a build with any gets no cache: it would be that of other
//! sources.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, Response};
use tonic::Status;
use tracing::{Instrument as _, info_span};

use super::builds::Build;
use super::connection::Connection;
use super::pipe::{PipeError, Upstream};
use super::report;
use super::unary::{Call, refusal};
use crate::daemon::Daemon;
use crate::import;
use crate::import::entries::{are_named, in_gateway_solve};
use crate::relay::Body;
use crate::wire::{self, WireError};

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.frontend.LLBBridge/Solve";

/// Hands a solve on, with what became of its imports, and makes a note of the policies in it.
pub async fn intercept(
    connection: &Connection,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Body>, PipeError> {
    const SOURCE_POLICIES: u32 = 15;
    let Some((reference, build)) = connection.builds.of(&request) else {
        return upstream.send(request).await;
    };
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(err) => return Ok(refusal(Status::invalid_argument(format!("inlay: {err}")))),
    };
    let Some(message) = call.message() else {
        return upstream.send(call.unchanged()).await;
    };
    let mut fields = wire::fields(&message).map_while(Result::ok);
    if fields.any(|field| field.number == SOURCE_POLICIES) {
        build.plan.sources_changed.store(true, Ordering::Relaxed);
    }
    let span = info_span!("build", build = %reference);
    let imported = with_imports(&connection.exporter.daemon, &build, &message)
        .instrument(span)
        .await;
    upstream
        .send(match imported {
            Ok(Some(imported)) => call.with_message(&imported),
            // What cannot be read is the daemon's to refuse.
            Ok(None) | Err(_) => call.unchanged(),
        })
        .await
}

/// A solve's message with what became of its imports; `None` where it has none.
///
/// # Errors
/// Where it is no message.
pub async fn with_imports(
    daemon: &Daemon,
    build: &Arc<Build>,
    message: &Bytes,
) -> Result<Option<Vec<u8>>, WireError> {
    if !are_named(message, build.imports.entries())? {
        return Ok(None);
    }
    let outcomes = build.imports.outcomes().await;
    if !build.told.swap(true, Ordering::Relaxed) {
        // Beside the build, which need not wait for it.
        let (daemon, build) = (daemon.clone(), Arc::clone(build));
        tokio::spawn(async move { report::imported(&daemon, &build).await }.in_current_span());
    }
    in_gateway_solve(message, |entry| import::verdict(outcomes, entry)).map(Some)
}
