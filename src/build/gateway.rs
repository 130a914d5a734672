//! `LLBBridge.Solve` of a build that inlay has a part in: its imports, and the source policies of its
//! client.
//!
//! A call with source policies passes as it is. The definition of a result is the one from before
//! them, so a build with any gets no cache: it would be the cache of other sources.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::Instrument as _;

use super::{Build, import, report};
use crate::protocol::imports::{are_named, in_gateway_solve};
use crate::protocol::wire;

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.frontend.LLBBridge/Solve";

/// The field of a solve request with source policies.
const SOURCE_POLICIES: u32 = 15;

// === impl Build ===

impl Build {
    /// Takes note of the policies of a gateway's solve request, and gives the request with its
    /// imports replaced; `None` if it stays as it is.
    pub async fn gateway_solve(self: &Arc<Self>, message: &[u8]) -> Option<Vec<u8>> {
        let mut fields = wire::fields(message).map_while(Result::ok);
        if fields.any(|field| field.number == SOURCE_POLICIES) {
            self.sources_changed.store(true, Ordering::Relaxed);
        }
        // What cannot be read is the daemon's to refuse.
        if !are_named(message, self.imports.entries()).unwrap_or(false) {
            return None;
        }
        let outcomes = self.imports.outcomes().await;
        if !self.told.swap(true, Ordering::Relaxed) {
            // Beside the build, which need not wait for it.
            let build = Arc::clone(self);
            tokio::spawn(async move { report::imported(&build).await }.in_current_span());
        }
        in_gateway_solve(message, |entry| import::verdict(outcomes, entry)).ok()
    }
}
