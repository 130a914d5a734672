//! BuildKit's messages: read, and edited as bytes, so that fields that inlay does not know stay.
//!
//! `solve` reads what a build asks for, `imports` finds and replaces the cache imports of a
//! request, and `result` finds the images of a result and puts configs into it. All three edit
//! with `wire`, the protobuf editor. `proto` is the generated code of `proto/`.
//!
//! All of it is functions of bytes.

/// The largest message that buildkitd and its clients take (bytes). gRPC's own default is 4 MiB.
#[cfg(feature = "server")]
pub const MAX_MESSAGE: usize = 16 << 20;

#[cfg(feature = "server")]
pub mod imports;
pub mod proto;
#[cfg(feature = "server")]
pub mod result;
#[cfg(feature = "server")]
pub mod solve;
#[cfg(feature = "server")]
pub mod wire;
