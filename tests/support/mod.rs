//! Real daemons, clients and build contexts for the end-to-end tests.
//!
//! Each value here owns what it started: a daemon runs in namespaces of its own,
//! writes to a temporary directory, and ends with the value, however the test ends.
//! When a test panics, the logs of its daemons are printed.
//!
//! ```no_run
//! let registry = Registry::start();
//! let buildkitd = Buildkitd::start();
//! let project = Project::new().base().dockerfile("FROM scratch\nADD rootfs.tar /\nRUN date > /now\n");
//! let built = Buildctl::new(buildkitd.addr())
//!     .project(&project)
//!     .push(&registry.image("demo:1"))
//!     .export_cache("type=inline")
//!     .run_ok();
//! assert_eq!(built.steps_ran().len(), 2);
//! assert!(!inline_records(&registry.config("demo:1", None)).is_empty());
//! ```
//!
//! The programs come from `make peers`. A missing one fails the test: nothing skips.

// To fail loudly is what a test harness is for; clippy exempts only `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod buildctl;
mod buildkitd;
mod buildx;
mod chance;
mod columns;
mod containerd;
mod daemon;
mod direct;
mod docker_engine;
mod gate;
mod git_server;
mod http_server;
mod inlay;
mod layout;
mod listening;
mod llb;
mod output;
mod peers;
mod platform;
mod project;
mod reader;
mod records;
mod registry;
mod scripted;
mod stand;

pub use buildctl::{Buildctl, Running, limited};
pub use buildkitd::Buildkitd;
pub use buildx::Buildx;
pub use chance::{seed, setting};
pub use columns::{Built, Columns, Row};
pub use containerd::Containerd;
pub use daemon::Daemon;
pub use direct::Direct;
pub use docker_engine::{DockerEngine, ImageStore};
pub use gate::{Gate, Passage};
pub use git_server::GitServer;
pub use http_server::HttpServer;
pub use inlay::{Inlay, Usage};
pub use layout::Layout;
pub use listening::Listening;
pub use llb::{Llb, State};
pub use output::{BuildOutput, instruction};
pub use peers::Peers;
pub use platform::{other_platform, own_platform};
pub use project::{Project, STAGES, failing};
pub use reader::{LIMIT, Reader, User};
pub use records::{INLINE_CACHE_KEY, inline_records};
pub use registry::{Door, Registry};
pub use scripted::{Asked, Scripted, answer};
pub use stand::{Pushed, Stand, assert_one};

use std::time::{Duration, Instant};

/// How long anything may take that has nothing to wait for.
pub const SOON: Duration = Duration::from_secs(10);

/// Asks `ready` every few milliseconds until it gives something, for at most `limit`.
pub fn wait_for<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
