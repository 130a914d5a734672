//! The messages and services of `proto/`, as `build.rs` generates them; nothing else.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));
}

/// containerd's content service.
pub use generated::containerd::services::content::v1 as content;
/// buildkitd's control service.
pub use generated::moby::buildkit::v1 as control;
/// The gateway of a build in flight.
pub use generated::moby::buildkit::v1::frontend as gateway;
/// LLB, the language of build steps.
pub use generated::pb;
