//! Reproducible inline build cache for BuildKit.
#![warn(clippy::unwrap_used, clippy::expect_used)]

pub mod image;
pub mod llb;
pub mod proto;
pub mod record;

#[cfg(feature = "server")]
pub mod address;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod export;
#[cfg(feature = "server")]
pub mod exported;
#[cfg(feature = "server")]
pub mod image_cache;
#[cfg(feature = "server")]
pub mod plan;
#[cfg(feature = "server")]
pub mod result;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod wire;
