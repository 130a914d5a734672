//! What inlay remembers: the content of stages that a build copied from, as the daemon once told it.
//!
//! BuildKit forgets: a daemon that found steps in an imported cache, by their definitions, cannot
//! tell their content when it exports the same build again without that import. If inlay saw the
//! export with the import, it can. What is remembered is of a build, by its operations, the content
//! and the keys of its sources, and its layers. There is no need to keep it: without it a cache has
//! fewer keys, and no wrong ones.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cache::llb::Evidence;
use crate::cache::record::Digest;

/// How many contents are remembered, of all builds together; some 100 bytes each.
const MAX_WEIGHT: usize = 100_000;

/// The contents of the builds exported last, in memory.
#[derive(Debug, Default)]
pub struct Recall(Mutex<Builds>);

#[derive(Debug, Default)]
struct Builds {
    /// The one exported last is last.
    queue: VecDeque<(Digest, Evidence)>,
    /// Of all together.
    weight: usize,
}

// === impl Recall ===

impl Recall {
    /// Adds to what was told of the stages of a build what is remembered of it, and remembers that.
    pub fn complete(&self, build: Digest, mut told: Evidence) -> Evidence {
        let known = self.lock().take(&build);
        if let Some(known) = known {
            told.complete(&known);
        }
        if !told.is_empty() {
            let remembered = (build, told.clone());
            self.lock().push(remembered);
        }
        told
    }

    fn lock(&self) -> MutexGuard<'_, Builds> {
        // A weight that a panic left wrong bounds the memory elsewhere, and no more.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Builds ===

impl Builds {
    fn take(&mut self, build: &Digest) -> Option<Evidence> {
        let at = self.queue.iter().position(|(known, _)| known == build)?;
        let known = self.queue.remove(at)?;
        self.weight -= weight(&known);
        Some(known.1)
    }

    fn push(&mut self, build: (Digest, Evidence)) {
        self.weight += weight(&build);
        self.queue.push_back(build);
        while self.weight > MAX_WEIGHT
            && let Some(oldest) = self.queue.pop_front()
        {
            self.weight -= weight(&oldest);
        }
    }
}

fn weight((_, contents): &(Digest, Evidence)) -> usize {
    1 + contents.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(vertex: usize) -> Evidence {
        let mut evidence = Evidence::default();
        evidence.content(vertex, 1, [Digest::of(b"content")]);
        evidence
    }

    #[test]
    fn a_build_gets_back_the_content_that_it_had() {
        let recall = Recall::default();
        let build = Digest::of(b"build");
        assert_eq!(recall.complete(build.clone(), told(1)), told(1));
        assert_eq!(recall.complete(build.clone(), Evidence::default()), told(1));
        let other = Digest::of(b"other");
        assert!(recall.complete(other, Evidence::default()).is_empty());
        // What is told later comes on top.
        let mut both = told(1);
        both.complete(&told(2));
        assert_eq!(recall.complete(build.clone(), told(2)), both);
        assert_eq!(recall.complete(build, Evidence::default()), both);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let recall = Recall::default();
        for n in 0..MAX_WEIGHT {
            let name = Digest::of(&n.to_be_bytes());
            recall.lock().push((name, told(1)));
        }
        recall.complete(Digest::of(b"build"), told(1));
        assert_eq!(recall.lock().queue.len(), MAX_WEIGHT / 2);
    }
}
