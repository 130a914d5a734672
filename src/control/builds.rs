//! The builds in flight that inlay has a part in, by their refs.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Request;

use crate::daemon::BUILD_HEADER;
use crate::import::Imports;
use crate::plan::Plan;

/// A build in flight.
#[derive(Debug)]
pub struct Build {
    /// What it asks for.
    pub plan: Box<Plan>,
    /// Where its inline cache comes from.
    pub export: Export,
    /// The caches that it imports.
    pub imports: Imports,
    /// Whether its user has been told of the imports.
    pub told: AtomicBool,
}

/// Where a build's inline cache comes from.
#[derive(Debug)]
pub enum Export {
    /// It asks for none.
    None,
    /// From inlay.
    Inlay,
    /// The daemon embeds it, and this says why.
    LeftToDaemon(String),
}

/// All builds in flight that inlay has a part in.
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
    pub fn register(&self, build: Build) -> Registration {
        let reference = build.plan.build.clone();
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
    use prost::Message as _;

    use super::*;
    use crate::daemon::Daemon;
    use crate::import::{Importer, RegistryImports};
    use crate::plan::{Tasks, decide};
    use crate::proto::control::SolveRequest;
    use crate::session::Sessions;
    use crate::source::{Access, Settings};

    fn build(reason: &str) -> Build {
        let request = SolveRequest {
            r#ref: "a".to_owned(),
            frontend_attrs: HashMap::from([("cache-from".to_owned(), "b".to_owned())]),
            ..Default::default()
        };
        let tasks = Tasks {
            export: true,
            registry: RegistryImports::Checked,
        };
        let plan = decide(&request.encode_to_vec(), tasks).unwrap().unwrap();
        let importer = Importer {
            daemon: Daemon::new("unix:///nowhere".parse().unwrap()),
            sessions: Sessions::default(),
            access: Arc::new(Access::new(Settings::default()).unwrap()),
            registry: tasks.registry,
        };
        Build {
            plan,
            export: Export::LeftToDaemon(reason.to_owned()),
            imports: Imports::new(importer, Vec::new(), String::new(), Vec::new()),
            told: AtomicBool::new(false),
        }
    }

    #[tokio::test]
    async fn a_build_is_known_as_long_as_its_registration() {
        let builds = Builds::default();
        let call = Request::builder()
            .header(BUILD_HEADER, "a")
            .body(())
            .unwrap();
        let first = builds.register(build("first"));
        let second = builds.register(build("second"));
        drop(second);
        let (reference, known) = builds.of(&call).unwrap();
        assert_eq!(reference, "a");
        assert!(matches!(&known.export, Export::LeftToDaemon(reason) if reason == "first"));
        drop(first);
        assert!(builds.of(&call).is_none());
    }
}
