//! Image configs: how a cache is put into one and taken out of it.
//!
//! Pure functions of a config's bytes. Nothing here knows what a cache holds, or where images
//! come from and go to.

pub mod config;
pub mod default;
#[cfg(feature = "server")]
pub mod manifest;
#[cfg(feature = "server")]
pub mod spelling;
