//! The messages and services of `proto/`, as `build.rs` generates them.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));
}

/// LLB: operations and definitions.
pub use generated::pb;

/// containerd's content service, as a session offers it.
#[cfg(feature = "server")]
pub use generated::containerd::services::content::v1 as content;
/// buildkitd's control service.
#[cfg(feature = "server")]
pub use generated::moby::buildkit::v1 as control;
/// The gateway of a build in flight.
#[cfg(feature = "server")]
pub use generated::moby::buildkit::v1::frontend as gateway;
/// The registry credentials of a client's session.
#[cfg(feature = "server")]
pub use generated::moby::filesync::v1 as auth;
/// Errors of calls with their details.
#[cfg(feature = "server")]
pub mod google {
    pub use super::generated::google::rpc;
}
