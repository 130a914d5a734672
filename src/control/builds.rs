//! The builds in flight that asked for inline cache, by their refs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Request;

use crate::daemon::BUILD_HEADER;
use crate::plan::Plan;

/// A build in flight that asked for inline cache.
#[derive(Debug)]
pub enum Build {
    /// It gets the cache from inlay.
    Inline(Box<Plan>),
    /// The daemon embeds the cache itself, and this says why.
    LeftToDaemon(String),
}

/// All builds in flight that asked for inline cache.
#[derive(Debug, Clone, Default)]
pub struct Builds(Arc<Mutex<HashMap<String, Arc<Build>>>>);

/// Keeps a build known until it is dropped.
#[derive(Debug)]
pub struct Registration {
    builds: Builds,
    reference: String,
    build: Arc<Build>,
}

// === impl Builds ===

impl Builds {
    /// Makes a build known by its ref. A second build of the same ref, which the daemon refuses,
    /// leaves the first one known.
    pub fn register(&self, reference: String, build: Build) -> Registration {
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

    /// The build that a gateway call is of, and its ref.
    pub fn of<T>(&self, call: &Request<T>) -> Option<(String, Arc<Build>)> {
        let reference = call.headers().get(BUILD_HEADER)?.to_str().ok()?;
        let build = self.lock().get(reference).cloned()?;
        Some((reference.to_owned(), build))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Build>>> {
        // Each change of the map is one call, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Registration ===

impl Registration {
    /// The build.
    pub fn build(&self) -> &Build {
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
    use super::*;

    #[test]
    fn a_build_is_known_as_long_as_its_registration() {
        let builds = Builds::default();
        let call = Request::builder()
            .header(BUILD_HEADER, "a")
            .body(())
            .unwrap();
        let first = builds.register("a".to_owned(), Build::LeftToDaemon("first".to_owned()));
        let second = builds.register("a".to_owned(), Build::LeftToDaemon("second".to_owned()));
        drop(second);
        let (reference, known) = builds.of(&call).unwrap();
        assert_eq!(reference, "a");
        assert!(matches!(&*known, Build::LeftToDaemon(reason) if reason == "first"));
        drop(first);
        assert!(builds.of(&call).is_none());
    }
}
