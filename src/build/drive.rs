//! Builds whose `Control.Solve` names a frontend or a definition: inlay is their gateway client.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::time::sleep;
use tonic::{Code, Status};
use tracing::info;

use super::export::Conclusion;
use super::{Build, finish};
use crate::daemon::Gateway;
use crate::protocol::proto::gateway::{PingRequest, SolveRequest};
use crate::protocol::proto::{control, gateway};
use crate::protocol::solve::Direct;

/// The most pings until the daemon knows the build, which it does once the solve has begun. For each
/// ping the daemon waits some seconds. Under load the solve can take longer than that to begin.
const PINGS: usize = 20;

/// The timeout for the solve to end after a gateway call failed. As a rule the call failed because the
/// solve did, and the solve's error says more. BuildKit's own clients wait as long.
const MAX_OUTCOME: Duration = Duration::from_secs(5);

/// Drives a build to its `Return`, and then waits for ever: the forwarded solve has the outcome, and
/// the caller drops this when the solve ends. Returns a status only if `Return` cannot be called. The
/// solve would then wait for its result for ever.
pub async fn drive(build: &Arc<Build>, direct: Direct) -> Status {
    match to_return(build, direct).await {
        Ok(()) => pending().await,
        Err(status) => {
            info!("the build cannot be driven: {}", status.message());
            sleep(MAX_OUTCOME).await;
            status
        }
    }
}

async fn to_return(build: &Arc<Build>, direct: Direct) -> Result<(), Status> {
    let mut gateway = build.daemon.gateway(build.reference())?;
    wait_until_known(&mut gateway).await?;
    let request = with_imports(build, request(direct)).await?;
    let request = match gateway.solve(request).await {
        Err(status) => finish::failed(&status),
        Ok(response) => {
            let result = response.into_inner().result;
            match build.conclude(&result).await {
                Conclusion::Unchanged => finish::solved(result),
                Conclusion::Cached(cached) => finish::solved(cached.into()),
                Conclusion::Failed(status) => finish::failed(&status),
            }
        }
    };
    gateway.r#return(request).await?;
    Ok(())
}

/// The request with its imports replaced by what inlay found of them.
async fn with_imports(build: &Arc<Build>, request: SolveRequest) -> Result<SolveRequest, Status> {
    let internal = |err: &dyn std::error::Error| Status::internal(format!("inlay: {err}"));
    let judged = build.gateway_solve(&request.encode_to_vec()).await;
    match judged.map_err(|err| internal(&err))? {
        Some(message) => SolveRequest::decode(&message[..]).map_err(|err| internal(&err)),
        None => Ok(request),
    }
}

/// What a client wants solved, in the gateway's terms.
fn request(direct: Direct) -> SolveRequest {
    SolveRequest {
        definition: direct.definition.map(Into::into),
        frontend: direct.frontend,
        frontend_opt: direct.frontend_attrs,
        allow_result_return: true,
        allow_result_array_ref: true,
        cache_imports: direct.imports.into_iter().map(import).collect(),
        frontend_inputs: direct
            .frontend_inputs
            .into_iter()
            .map(|(k, v)| (k, v.into()))
            .collect(),
        ..Default::default()
    }
}

/// The same import in the gateway's terms.
fn import(import: control::CacheOptionsEntry) -> gateway::CacheOptionsEntry {
    let control::CacheOptionsEntry { r#type, attrs } = import;
    gateway::CacheOptionsEntry { r#type, attrs }
}

async fn wait_until_known(gateway: &mut Gateway) -> Result<(), Status> {
    let mut pings = 1;
    loop {
        match gateway.ping(PingRequest {}).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::Unavailable || pings == PINGS => {
                return Err(status);
            }
            Err(_) => pings += 1,
        }
    }
}
