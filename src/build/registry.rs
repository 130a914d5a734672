//! The builds in flight, by their refs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Request;

use super::Build;
use crate::daemon::build_of;

/// All builds in flight.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<HashMap<String, Arc<Build>>>>);

/// Keeps a build known until it is dropped.
#[derive(Debug)]
pub struct Registration {
    builds: Registry,
    reference: String,
    build: Arc<Build>,
}

// === impl Registry ===

impl Registry {
    /// Makes a build known by its ref. A second build of the same ref, which the daemon refuses,
    /// leaves the first one known.
    pub fn register(&self, build: Build) -> Registration {
        let reference = build.reference().to_owned();
        let build = Arc::new(build);
        self.lock()
            .entry(reference.clone())
            .or_insert_with(|| Arc::clone(&build));
        Registration {
            builds: self.clone(),
            reference,
            build,
        }
    }

    /// The build that a gateway call belongs to.
    pub fn of<T>(&self, call: &Request<T>) -> Option<Arc<Build>> {
        self.lock().get(build_of(call.headers())?).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Build>>> {
        // Each change of the map is one call, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Registration ===

impl Registration {
    /// The build.
    pub fn build(&self) -> &Arc<Build> {
        &self.build
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut builds = self.builds.lock();
        if builds
            .get(&self.reference)
            .is_some_and(|known| Arc::ptr_eq(known, &self.build))
        {
            builds.remove(&self.reference);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use prost::Message as _;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::build::import::Imports;
    use crate::build::{Embedding, Policy, Shared};
    use crate::daemon::{BUILD_HEADER, Daemon};
    use crate::protocol::proto::control::SolveRequest;
    use crate::protocol::solve::Plan;

    fn build(reason: &str) -> Build {
        let request = SolveRequest {
            r#ref: "a".to_owned(),
            ..Default::default()
        };
        let daemon = Daemon::new(Arc::new("unix:///nowhere".parse().unwrap()));
        let shared = Arc::new(Shared::new(Policy::of_tests()));
        Build {
            plan: Plan::read(&request.encode_to_vec()).unwrap(),
            embedding: Embedding::LeftToDaemon(reason.to_owned()),
            last_word: None,
            imports: Imports::new(
                Arc::clone(&shared),
                daemon.clone(),
                Vec::new(),
                String::new(),
                Vec::new(),
            ),
            shared,
            daemon,
            told_unused: AtomicBool::new(false),
            telling: TaskTracker::new(),
            sources_changed: AtomicBool::new(false),
        }
    }

    #[tokio::test]
    async fn a_build_is_known_as_long_as_its_registration() {
        let builds = Registry::default();
        let call = Request::builder()
            .header(BUILD_HEADER, "a")
            .body(())
            .unwrap();
        let first = builds.register(build("first"));
        let second = builds.register(build("second"));
        drop(second);
        let known = builds.of(&call).unwrap();
        assert!(matches!(&known.embedding, Embedding::LeftToDaemon(reason) if reason == "first"));
        drop(first);
        assert!(builds.of(&call).is_none());
    }
}
