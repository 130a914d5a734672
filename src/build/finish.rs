//! `LLBBridge.Return`: a client's build has its result, and gets its cache before the daemon
//! exports it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use prost::Message as _;
use tokio::time::timeout;
use tonic::Status;

use super::export::{self, Conclusion};
use super::{Build, Embedding};
use crate::protocol::proto::gateway::ReturnRequest;
use crate::protocol::proto::google::rpc;
use crate::protocol::result::ResultError;
use crate::protocol::wire::{self, Edit, WireError};

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.frontend.LLBBridge/Return";

/// The timeout for messages to the user that are under way when the build ends.
const TELLING_TIMEOUT: Duration = Duration::from_secs(5);

/// The field of a return request with the result.
const RESULT: u32 = 1;

// === impl Build ===

impl Build {
    /// The return request to forward in place of the client's; `None` if it stays as it is.
    pub async fn finish(&self, message: &[u8]) -> Option<Vec<u8>> {
        match ReturnRequest::decode(message) {
            Ok(ReturnRequest {
                result: Some(result),
                ..
            }) => match self.conclude(&result).await {
                Conclusion::Unchanged => None,
                Conclusion::Cached(result) => match with_result(message, &result) {
                    Ok(cached) => Some(cached),
                    Err(err) => self.unreadable(err.into()).await,
                },
                Conclusion::Failed(status) => Some(failed(&status).encode_to_vec()),
            },
            // A failed build has no result.
            Ok(ReturnRequest { result: None, .. }) => None,
            // Such as text that is not UTF-8, which prost refuses and the daemon takes.
            Err(err) => self.unreadable(err.into()).await,
        }
    }

    /// The return request to forward in place of one that cannot be read or written.
    async fn unreadable(&self, err: ResultError) -> Option<Vec<u8>> {
        let concluded = match &self.embedding {
            Embedding::Inlay => export::unreadable(self, err).await,
            Embedding::None | Embedding::LeftToDaemon(_) => Conclusion::Unchanged,
        };
        match concluded {
            Conclusion::Unchanged | Conclusion::Cached(_) => None,
            Conclusion::Failed(status) => Some(failed(&status).encode_to_vec()),
        }
    }

    /// Gives a result its cache, if inlay embeds it, and waits until all messages have reached the user.
    /// After the build's `Return` nothing can be said in its progress output.
    pub async fn conclude(&self, result: &[u8]) -> Conclusion {
        self.telling.close();
        let told = timeout(TELLING_TIMEOUT, self.telling.wait());
        join(self.with_cache(result), told).await.0
    }

    async fn with_cache(&self, result: &[u8]) -> Conclusion {
        match &self.embedding {
            Embedding::None => Conclusion::Unchanged,
            Embedding::Inlay => export::conclude(self, result).await,
            Embedding::LeftToDaemon(reason) => {
                let text = format!("inline cache is left to the daemon: {reason}");
                export::warn_user(&self.daemon, self.reference(), result, &text).await;
                Conclusion::Unchanged
            }
        }
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

/// The return request that ends a build with a result.
pub fn solved(result: Bytes) -> ReturnRequest {
    ReturnRequest {
        result: Some(result),
        error: None,
    }
}

/// The return request that ends a build with an error, its details included.
pub fn failed(status: &Status) -> ReturnRequest {
    let error = if status.details().is_empty() {
        rpc::Status {
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
