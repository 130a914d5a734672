//! Images: their configs, manifests and platforms.
//!
//! [`config`] puts a cache into an image's config and takes it out again. All functions take and
//! give bytes.

pub mod config;
pub mod default;
mod json;
#[cfg(feature = "server")]
pub mod manifest;
mod platform;
#[cfg(feature = "server")]
pub mod spelling;

pub use json::JsonError;
pub use platform::{Platform, normalized};
