//! Builds whose caches may have records of other builds, because inlay does not know how their daemon
//! derives keys. The user of each is told, and the log has one warning a version of the daemon.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use crate::daemon::Worker;

/// The number of such builds, by the daemon's version.
#[derive(Debug, Default)]
pub struct UnknownKeys(Mutex<BTreeMap<Option<(u64, u64)>, u64>>);

// === impl UnknownKeys ===

impl UnknownKeys {
    /// Counts a build and logs why its keys are not known: with a warning if it is the first one of
    /// this version of the daemon.
    pub fn log(&self, worker: &Worker, why: &str) {
        let version = match worker.version {
            Some((major, minor)) => format!("v{major}.{minor}"),
            None => "of an unknown version".to_owned(),
        };
        match self.count(worker) {
            1 => warn!(
                "inline cache: {why}. The daemon is BuildKit {version}; further builds on it are \
                 logged at level info"
            ),
            builds => info!(builds, "inline cache: {why}"),
        }
    }

    /// Counts a build, and gives how many there are of this version.
    fn count(&self, worker: &Worker) -> u64 {
        // A count is one number, so a panic elsewhere leaves it whole.
        let mut builds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let builds = builds.entry(worker.version).or_default();
        *builds += 1;
        *builds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_counted_by_the_version_of_their_daemon() {
        let keys = UnknownKeys::default();
        let worker = |version| Worker {
            id: String::new(),
            platform: Default::default(),
            version,
        };
        let counts = [Some((0, 40)), Some((0, 40)), None, Some((0, 41))];
        let counts = counts.map(|version| keys.count(&worker(version)));
        assert_eq!(counts, [1, 2, 1, 1]);
    }
}
