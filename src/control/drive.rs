//! Solves what a client wanted solved by its solve request itself: as that build's gateway client.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::time::sleep;
use tonic::{Code, Status};
use tracing::info;

use super::builds::{Build, Export};
use super::{gateway_solve, report, returns};
use crate::daemon::{Daemon, Gateway};
use crate::export::{Conclusion, Exporter};
use crate::plan::Direct;
use crate::proto::gateway::{PingRequest, SolveRequest};
use crate::proto::{control, gateway};

/// How often the build is looked for. The daemon itself waits some seconds for it each time, and
/// the build is known as soon as the solve has begun; a daemon under load may take its time to
/// begin.
const PINGS: usize = 20;

/// How long a solve may take to end after its gateway calls fail, as a rule because the solve has
/// failed itself. It is how long BuildKit's own clients wait then.
const MAX_OUTCOME: Duration = Duration::from_secs(5);

/// Drives a build to its `Return`, and then waits: the solve that was handed on has the outcome.
/// Gives a status only if there is no way to that, and the solve would wait for its result for
/// ever.
///
/// It is to be dropped when that solve ends, for whatever reason.
pub async fn drive(exporter: &Exporter, build: &Arc<Build>, direct: Direct) -> Status {
    match to_return(exporter, build, direct).await {
        Ok(()) => pending().await,
        Err(status) => {
            info!("the build cannot be driven: {}", status.message());
            sleep(MAX_OUTCOME).await;
            status
        }
    }
}

async fn to_return(exporter: &Exporter, build: &Arc<Build>, direct: Direct) -> Result<(), Status> {
    let mut gateway = exporter.daemon.gateway(&build.plan.build)?;
    wait_until_known(&mut gateway).await?;
    let request = with_imports(&exporter.daemon, build, request(direct)).await?;
    let request = match gateway.solve(request).await {
        Err(status) => returns::failed(&status),
        Ok(response) => {
            let result = response.into_inner().result;
            let concluded = conclude(exporter, build, &result).await;
            report::moved(&exporter.daemon, build).await;
            match concluded {
                Conclusion::Unchanged => returns::solved(result),
                Conclusion::Cached(cached) => returns::solved(cached.into()),
                Conclusion::Failed(status) => returns::failed(&status),
            }
        }
    };
    gateway.r#return(request).await?;
    Ok(())
}

/// Has the daemon import what became of the imports.
async fn with_imports(
    daemon: &Daemon,
    build: &Arc<Build>,
    request: SolveRequest,
) -> Result<SolveRequest, Status> {
    let message = request.encode_to_vec().into();
    let imported = gateway_solve::with_imports(daemon, build, &message).await;
    let unreadable = |err: &dyn std::fmt::Display| Status::internal(format!("inlay: {err}"));
    match imported.map_err(|err| unreadable(&err))? {
        Some(message) => SolveRequest::decode(&message[..]).map_err(|err| unreadable(&err)),
        None => Ok(request),
    }
}

async fn conclude(exporter: &Exporter, build: &Build, result: &[u8]) -> Conclusion {
    match &build.export {
        Export::Inlay => exporter.conclude(&build.plan, &build.imports, result).await,
        Export::None | Export::LeftToDaemon(_) => Conclusion::Unchanged,
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
