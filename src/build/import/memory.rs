//! The memory of imports, of all builds together. An image decides how much its documents take, and a
//! user how many images a build names.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What the documents of one import may have together (bytes).
pub const MAX_DOCUMENTS: u64 = 32 << 20;
/// How many imports are read at a time.
const READS: usize = 8;
/// What the caches that stay with their builds have together (bytes, as they were read). In memory they
/// take some three times as much.
const MAX_KEPT: usize = 32 << 20;
/// The timeout for an import to be read at all.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What imports of all builds share.
#[derive(Debug)]
pub struct ImportMemory {
    reads: Arc<Semaphore>,
    /// Checking takes the most memory, and a processor.
    checks: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

/// A part of the memory, until it is dropped.
#[derive(Debug)]
pub struct Share {
    _permit: OwnedSemaphorePermit,
}

// === impl ImportMemory ===

impl Default for ImportMemory {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            reads: Arc::new(Semaphore::new(READS)),
            checks: Arc::new(Semaphore::new(processors)),
            kept: Arc::new(Semaphore::new(MAX_KEPT)),
        }
    }
}

impl ImportMemory {
    /// What reading an import takes; `None` where others take all of it for too long.
    pub async fn read(&self) -> Option<Share> {
        let permit = timeout(TIMEOUT, Arc::clone(&self.reads).acquire_owned()).await;
        Share::of(permit.ok()?.ok())
    }

    /// What checking a document takes.
    pub async fn check(&self) -> Option<Share> {
        Share::of(Arc::clone(&self.checks).acquire_owned().await.ok())
    }

    /// What a cache of so many bytes takes that stays with its build; `None` where others have it all.
    pub fn keep(&self, bytes: u64) -> Option<Share> {
        let bytes = u32::try_from(bytes).ok()?;
        Share::of(Arc::clone(&self.kept).try_acquire_many_owned(bytes).ok())
    }
}

// === impl Share ===

impl Share {
    fn of(permit: Option<OwnedSemaphorePermit>) -> Option<Self> {
        Some(Self { _permit: permit? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_builds_share_it() {
        let memory = ImportMemory::default();
        let half = MAX_KEPT as u64 / 2;
        let [first, second] = [half, half].map(|bytes| memory.keep(bytes));
        assert!(first.is_some() && second.is_some());
        assert!(memory.keep(1).is_none());
        drop(first);
        assert!(memory.keep(half).is_some());
        assert!(memory.keep(u64::MAX).is_none());

        let mut reads = Vec::new();
        for _ in 0..READS {
            reads.push(memory.read().await.unwrap());
        }
        assert!(memory.read().await.is_none());
        reads.pop();
        assert!(memory.read().await.is_some());
    }
}
