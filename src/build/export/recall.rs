//! What inlay remembers: the content of stages that a build copied from, as the daemon once told it.
//!
//! BuildKit forgets: if a daemon found steps in an imported cache, by their definitions, and then
//! exports a build with the same steps without that import, it cannot tell their content. inlay can, if
//! it saw an export with the import. What it remembers may be lost: the cache then has fewer keys, and
//! no wrong ones.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::cache::embed::Remembered;
use crate::cache::record::Digest;

/// The most contents that are remembered, of all builds together. Each takes some 300 bytes.
// It is above 0, which the compiler checks.
const MAX_CONTENTS: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

/// The contents of the builds exported last, in memory, by [their names](crate::cache::embed::Embedded::memory).
#[derive(Debug)]
pub struct Recall(Mutex<LruCache<Digest, Remembered>>);

impl Default for Recall {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_CONTENTS)))
    }
}

// === impl Recall ===

impl Recall {
    /// What is remembered by a name.
    pub fn get(&self, name: &Digest) -> Option<Remembered> {
        self.lock().get(name).cloned()
    }

    /// Remembers what a build told.
    pub fn remember(&self, told: Vec<(Digest, Remembered)>) {
        let mut known = self.lock();
        for (name, content) in told {
            known.put(name, content);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Digest, Remembered>> {
        // No entry is half written by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let recall = Recall::default();
        let name = |n: usize| Digest::of(&n.to_be_bytes());
        let content = |n: usize| Remembered::from([name(n)]);
        recall.remember(
            (0..MAX_CONTENTS.get())
                .map(|n| (name(n), content(n)))
                .collect(),
        );
        assert_eq!(recall.get(&name(0)), Some(content(0)));
        recall.remember(vec![(Digest::of(b"one more"), content(1))]);
        assert_eq!(
            recall.get(&name(0)),
            Some(content(0)),
            "it was asked for last"
        );
        assert_eq!(recall.get(&name(1)), None);
    }
}
