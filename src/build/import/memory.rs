//! Limits on the memory of imports, for all builds together. The maker of an image decides how large its
//! documents are, and a user how many images a build names.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The most that the documents of one import have together (bytes).
pub const MAX_DOCUMENTS: u64 = 32 << 20;
/// How many imports are read at a time.
const READS: usize = 8;
/// The most that the caches of all builds in flight have together (bytes, as they were read). In memory
/// they take some three times as much.
const MAX_KEPT: usize = 32 << 20;
/// The timeout for an import's turn to be read.
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
    /// Waits for a share to read an import; `None` after a timeout.
    pub async fn read(&self) -> Option<Share> {
        let permit = timeout(TIMEOUT, Arc::clone(&self.reads).acquire_owned()).await;
        Share::of(permit.ok()?.ok())
    }

    /// Waits for a share to check a document.
    pub async fn check(&self) -> Option<Share> {
        Share::of(Arc::clone(&self.checks).acquire_owned().await.ok())
    }

    /// A share for a cache of so many bytes that its build keeps; `None` where too little is left.
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
