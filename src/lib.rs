//! Reproducible inline build cache for BuildKit.
pub mod image;
pub mod proto;
pub mod record;
