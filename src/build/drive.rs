//! Solves what a client's solve request names itself, as the gateway client of that build.

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

/// How often the build is looked for. The daemon itself waits some seconds for it each time, and
/// the build is known as soon as the solve has begun; a daemon under load may take its time to
/// begin.
const PINGS: usize = 20;

/// How long a solve may take to end after its gateway calls fail, as a rule because the solve has
/// failed itself. It is how long BuildKit's own clients wait then.
const MAX_OUTCOME: Duration = Duration::from_secs(5);

/// Drives a build to its `Return`, and then waits: the forwarded solve has the outcome.
/// Gives a status only if there is no way to that, and the solve would wait for its result for
/// ever.
///
/// It is to be dropped when that solve ends, for whatever reason.
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

/// Has the daemon import what became of the imports.
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
