//! `LLBBridge.Solve` of a build that is known: whether its client replaces sources by policies.
//!
//! The call passes as it is. But the definition of a result is the one from before such policies, so
//! a build with any gets no cache: it would be that of other sources.

use std::sync::atomic::Ordering;

use http::{Request, Response};
use tonic::Status;

use super::builds::Build;
use super::connection::Connection;
use super::pipe::{PipeError, Upstream};
use super::unary::{Call, refusal};
use crate::relay::Body;
use crate::wire;

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.frontend.LLBBridge/Solve";

/// Hands a solve on, and makes a note of the policies in it.
pub async fn intercept(
    connection: &Connection,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Body>, PipeError> {
    const SOURCE_POLICIES: u32 = 15;
    let Some((_, build)) = connection.builds.of(&request) else {
        return upstream.send(request).await;
    };
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(err) => return Ok(refusal(Status::invalid_argument(format!("inlay: {err}")))),
    };
    if let (Build::Inline(plan), Some(message)) = (&*build, call.message()) {
        let mut fields = wire::fields(&message).map_while(Result::ok);
        if fields.any(|field| field.number == SOURCE_POLICIES) {
            plan.sources_changed.store(true, Ordering::Relaxed);
        }
    }
    upstream.send(call.unchanged()).await
}
