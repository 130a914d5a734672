//! BuildKit's messages: read, and edited as bytes, so that fields that inlay does not know stay.
//!
//! [`solve`] reads what a build asks for, [`imports`] finds and replaces the cache imports of a
//! request, and [`result`] finds the images of a result and puts configs into it. All three edit
//! with [`wire`], the protobuf editor. [`proto`] is the generated code of `proto/`.
//!
//! All of it is functions of bytes.

#[cfg(feature = "server")]
pub mod imports;
pub mod proto;
#[cfg(feature = "server")]
pub mod result;
#[cfg(feature = "server")]
pub mod solve;
#[cfg(feature = "server")]
pub mod wire;
