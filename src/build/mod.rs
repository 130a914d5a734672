//! A build's way through inlay, top to bottom.
//!
//! 1. [`Router`] answers the calls of clients. It reads four methods and forwards every other call
//!    as it is. The session of a client is the first of the four (`sessions`).
//! 2. `Control.Solve` begins a build (`begin`): what it asks for is read, and what inlay does itself
//!    is taken out of the request. The build is known by its ref from then on (`registry`).
//! 3. [`import`] reads and checks the images that the build names as cache sources.
//! 4. `LLBBridge.Solve` names these imports again (`gateway`), and they are replaced there. It may name
//!    others, which are read then.
//! 5. `LLBBridge.Return` has the build's result (`finish`). [`export`] puts the inline cache into
//!    the configs of its images.
//! 6. The user is told in the progress output of the build (`report`).
//!
//! A client that solves a frontend or a definition by `Control.Solve` itself sends no `Return`.
//! inlay is the gateway client of such a build (`drive`), and steps 4 and 5 are the same.
//!
//! Whatever fails on this way, the image is built without cache and the user is told, unless the
//! build has `ignore-error=false`.

mod begin;
mod drive;
pub mod export;
mod finish;
mod gateway;
pub mod import;
mod policy;
mod registry;
mod report;
mod router;
mod sessions;
mod shared;
mod solves;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio_util::task::TaskTracker;

use self::import::Imports;
use crate::daemon::Daemon;
use crate::daemon::progress::LastWord;
use crate::protocol::solve::Plan;

pub use policy::{Policy, RegistryImports};
pub use router::Router;
pub use shared::Shared;

/// A build in flight.
#[derive(Debug)]
pub struct Build {
    /// What all builds share.
    shared: Arc<Shared>,
    /// The daemon that it is on, by the connection of its solve.
    daemon: Daemon,
    /// What its solve request asks for.
    plan: Plan,
    /// Who embeds its inline cache.
    embedding: Embedding,
    /// A warning that can still reach its user if the daemon takes no more calls.
    last_word: Option<LastWord>,
    /// The caches that it imports.
    imports: Imports,
    /// Whether its user has been told of imports that cannot be read, or are too many.
    told_unused: AtomicBool,
    /// The tasks that tell the user of imports.
    telling: TaskTracker,
    /// Whether the client replaces sources by policies in its gateway calls. The definitions of its
    /// results are then not what was solved.
    sources_changed: AtomicBool,
}

/// Who embeds the inline cache of a build.
#[derive(Debug)]
enum Embedding {
    /// Nobody: the build asks for none.
    None,
    /// inlay.
    Inlay,
    /// The daemon, for this reason.
    LeftToDaemon(String),
}

// === impl Build ===

impl Build {
    /// The ref, which ties the calls of the build together.
    fn reference(&self) -> &str {
        &self.plan.build
    }

    /// Whether its result passes as it is, and the user has not to be told anything before.
    fn is_left_to_daemon(&self) -> bool {
        matches!(self.embedding, Embedding::None) && self.telling.is_empty()
    }
}
