//! `LLBBridge.Return`: a client's build has its result, and gets its cache before the daemon
//! exports it.

use bytes::Bytes;
use http::{Request, Response};
use prost::Message as _;
use tonic::Status;
use tracing::{Instrument as _, info_span};

use super::builds::{Build, Export};
use super::connection::Connection;
use super::pipe::{PipeError, Upstream};
use super::report;
use super::unary::{Call, refusal};
use crate::export::Conclusion;
use crate::proto::gateway::ReturnRequest;
use crate::relay::Body;
use crate::wire::{self, Edit, WireError};

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.frontend.LLBBridge/Return";

const RESULT: u32 = 1;

/// Hands a result on, with the cache in its image configs if the build asked for it.
pub async fn intercept(
    connection: &Connection,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Body>, PipeError> {
    let Some((reference, build)) = connection.builds.of(&request) else {
        return upstream.send(request).await;
    };
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(err) => return Ok(refusal(Status::invalid_argument(format!("inlay: {err}")))),
    };
    let span = info_span!("build", build = %reference);
    let message = async {
        let message = changed(connection, &reference, &build, &call).await;
        report::moved(&connection.exporter.daemon, &build).await;
        message
    };
    let message = message.instrument(span).await;
    upstream
        .send(match message {
            Some(message) => call.with_message(&message),
            None => call.unchanged(),
        })
        .await
}

/// The message to hand on in place of the call's; `None` if it stays.
async fn changed(
    connection: &Connection,
    reference: &str,
    build: &Build,
    call: &Call,
) -> Option<Vec<u8>> {
    // A failed build has no result, and what cannot be read is the daemon's to refuse.
    let message = call.message()?;
    let result = ReturnRequest::decode(&message[..]).ok()?.result?;
    match &build.export {
        Export::None => {}
        Export::Inlay => return with_cache(connection, build, &message, &result).await,
        Export::LeftToDaemon(reason) => {
            let text = format!("inline cache is left to the daemon: {reason}");
            connection
                .exporter
                .warn_user(reference, &result, &text)
                .await;
        }
    }
    None
}

async fn with_cache(
    connection: &Connection,
    build: &Build,
    message: &[u8],
    result: &[u8],
) -> Option<Vec<u8>> {
    let exporter = &connection.exporter;
    let concluded = exporter.conclude(&build.plan, &build.imports, result).await;
    match concluded {
        Conclusion::Unchanged => None,
        Conclusion::Cached(result) => with_result(message, &result).ok(),
        Conclusion::Failed(status) => Some(failed(&status).encode_to_vec()),
    }
}

/// The message with another result.
fn with_result(message: &[u8], result: &[u8]) -> Result<Vec<u8>, WireError> {
    wire::rewrite(message, |number, _| {
        Ok(if number == RESULT {
            Edit::Replace(result.to_vec())
        } else {
            Edit::Keep
        })
    })
}

/// What ends a build with a result.
pub fn solved(result: Bytes) -> ReturnRequest {
    ReturnRequest {
        result: Some(result),
        error: None,
    }
}

/// What ends a build with an error, its details included.
pub fn failed(status: &Status) -> ReturnRequest {
    let error = if status.details().is_empty() {
        tonic_types::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        }
        .encode_to_vec()
    } else {
        // They are a whole encoded status: code, message and what BuildKit knows of the failure.
        status.details().to_vec()
    };
    ReturnRequest {
        result: None,
        error: Some(error.into()),
    }
}
