//! A registry, a daemon and inlay in front of it: what most scenarios begin with.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{Buildctl, Buildkitd, Inlay, Project, Registry, inline_records};

/// One of each, all empty.
#[derive(Debug)]
pub struct Stand {
    // First, so that it ends before what it stands in front of.
    pub inlay: Inlay,
    pub buildkitd: Buildkitd,
    pub registry: Registry,
}

/// What a build left in the registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pushed {
    /// Of each image: under a name of several platforms there are several, and attestations are
    /// none.
    pub digests: BTreeMap<String, String>,
    /// How many cache records the image configs carry.
    pub records: usize,
    /// How many of those have a result.
    pub results: usize,
}

// === impl Stand ===

impl Stand {
    /// Starts them.
    pub fn start() -> Self {
        Self::with(Buildkitd::start(), &[])
    }

    /// Starts them. inlay may read images below a folder.
    pub fn reading(images: &Path) -> Self {
        Self::with(Buildkitd::start(), &[&allowed(images)])
    }

    /// The same with a daemon in a network of its own: it reaches neither the registry nor inlay.
    pub fn in_two_networks(images: &Path) -> Self {
        Self::with(Buildkitd::in_own_network(), &[&allowed(images)])
    }

    fn with(buildkitd: Buildkitd, args: &[&str]) -> Self {
        let inlay = Inlay::start(&buildkitd, args);
        Self {
            inlay,
            buildkitd,
            registry: Registry::start(),
        }
    }

    /// A build of a project through inlay.
    pub fn build(&self, project: &Project) -> Buildctl {
        Buildctl::new(self.inlay.addr()).project(project)
    }

    /// The same past inlay, on the daemon itself.
    pub fn build_plain(&self, project: &Project) -> Buildctl {
        Buildctl::new(self.buildkitd.addr()).project(project)
    }

    /// A cache import from an image of the registry.
    pub fn import(&self, image: &str) -> String {
        format!("type=registry,ref={}", self.registry.image(image))
    }

    /// What is there under a name.
    pub fn pushed(&self, image: &str) -> Pushed {
        Pushed::under(&self.registry, image)
    }

    /// Runs a build that pushes an image with its cache, and gives what it left.
    pub fn push(&self, build: &Buildctl, image: &str, attributes: &str) -> Pushed {
        let name = self.registry.image(image);
        let build = build.clone().push_with(&name, attributes);
        let built = build.export_cache("type=inline").run_ok();
        assert_eq!(built.warnings, [""; 0], "{built}");
        self.pushed(image)
    }
}

fn allowed(images: &Path) -> String {
    format!("--allow-path={}", images.display())
}

// === impl Pushed ===

impl Pushed {
    /// What a registry has under a name.
    pub fn under(registry: &Registry, image: &str) -> Self {
        let digests = registry.image_digests(image);
        let mut pushed = Self {
            digests,
            records: 0,
            results: 0,
        };
        for platform in pushed.digests.keys() {
            let platform = (!platform.is_empty()).then_some(&**platform);
            let records = inline_records(&registry.config(image, platform));
            let has_result =
                |record: &&Value| record["layers"].is_array() || record["chains"].is_array();
            pushed.results += records.iter().filter(has_result).count();
            pushed.records += records.len();
        }
        pushed
    }
}

/// That all builds left the same, with a cache of some results.
pub fn assert_one(what: &str, pushed: &[Pushed]) {
    let [first, rest @ ..] = pushed else {
        panic!("{what}: nothing to compare")
    };
    assert!(
        !first.digests.is_empty() && first.results > 0,
        "{what}: {pushed:#?}"
    );
    assert!(
        rest.iter().all(|other| other == first),
        "{what}: has to be one image: {pushed:#?}"
    );
    println!("{what}: {} builds, {first:?}", pushed.len());
}
