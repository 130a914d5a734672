//! `LLBBridge.Solve` of a build: its imports, and the source policies of its client.
//!
//! The daemon applies the source policies of a call, and the definition in the result is the one from
//! before them. So a build with such policies gets no cache: it would be the cache of other sources.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::Instrument as _;

use super::{Build, import, report};
use crate::protocol::imports::{Judged, Named, Verdict, in_gateway_solve, of_gateway_solve};
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
        let policy = self.shared.policy.registry_imports;
        let Named {
            mut entries,
            unreadable,
        } = of_gateway_solve(message)?;
        entries.retain(|entry| policy.takes(entry));
        if entries.is_empty() && unreadable == 0 {
            return Ok(None);
        }
        let batches = self.imports.read(&entries).await;
        let left_out = import::left_out(&batches, &entries);
        let Judged {
            message,
            unreadable,
        } = in_gateway_solve(message, |entry| match policy.takes(entry) {
            true => import::verdict(&batches, entry),
            false => Verdict::Keep,
        })?;
        // Beside the build, which waits for it at its end.
        let is_unused = unreadable > 0 || left_out > 0;
        if is_unused && !self.told_unused.swap(true, Ordering::Relaxed) {
            let build = Arc::clone(self);
            let told = async move { report::unused_imports(&build, unreadable, left_out).await };
            self.telling.spawn(told.in_current_span());
        }
        for batch in batches.into_iter().filter(|batch| batch.is_to_be_told()) {
            let build = Arc::clone(self);
            let told = async move { report::imported(&build, batch.outcomes()).await };
            self.telling.spawn(told.in_current_span());
        }
        Ok(Some(message))
    }
}
