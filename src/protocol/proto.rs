//! The messages and services of `proto/`, as `build.rs` generates them; nothing else.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "server")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));
}

/// containerd's content service.
#[cfg(feature = "server")]
pub use generated::containerd::services::content::v1 as content;
/// containerd's image service.
#[cfg(feature = "server")]
pub use generated::containerd::services::images::v1 as images;
/// buildkitd's control service.
#[cfg(feature = "server")]
pub use generated::moby::buildkit::v1 as control;
/// The gateway of a build in flight.
#[cfg(feature = "server")]
pub use generated::moby::buildkit::v1::frontend as gateway;
/// Errors of calls with their details.
#[cfg(feature = "server")]
pub mod google {
    pub use super::generated::google::rpc;
}
/// The registry credentials of a client's session.
#[cfg(feature = "server")]
pub use generated::moby::filesync::v1 as auth;
/// LLB: operations and definitions.
#[cfg(feature = "server")]
pub use generated::pb;

/// LLB: operations and definitions. It has no services, and needs no more than prost.
#[cfg(not(feature = "server"))]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}
