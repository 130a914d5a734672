//! `LLBBridge.Solve` of a build that inlay has a part in: its imports, and the source policies of its
//! client.
//!
//! A call with source policies passes as it is. The definition of a result is the one from before
//! them, so a build with any gets no cache: it would be the cache of other sources.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::Instrument as _;

use super::{Build, import, report};
use crate::protocol::imports::{Judged, are_named, in_gateway_solve};
use crate::protocol::wire::{self, WireError};

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.frontend.LLBBridge/Solve";

/// The field of a solve request with source policies.
const SOURCE_POLICIES: u32 = 15;

// === impl Build ===

impl Build {
    /// Takes note of the policies of a gateway's solve request, and gives the request with its
    /// imports replaced; `None` if it stays as it is.
    ///
    /// # Errors
    /// Where the request is no protobuf message. It could have imports that were not checked.
    pub async fn gateway_solve(
        self: &Arc<Self>,
        message: &[u8],
    ) -> Result<Option<Vec<u8>>, WireError> {
        let mut fields = wire::fields(message).map_while(Result::ok);
        if fields.any(|field| field.number == SOURCE_POLICIES) {
            self.sources_changed.store(true, Ordering::Relaxed);
        }
        if !are_named(message, self.imports.entries())? {
            return Ok(None);
        }
        let outcomes = self.imports.outcomes().await;
        let Judged {
            message,
            unreadable,
        } = in_gateway_solve(message, |entry| import::verdict(outcomes, entry))?;
        if !self.told.swap(true, Ordering::Relaxed) {
            // Beside the build, which waits for it at its end.
            let build = Arc::clone(self);
            let told = async move { report::imported(&build, unreadable).await };
            self.telling.spawn(told.in_current_span());
        }
        Ok(Some(message))
    }
}
