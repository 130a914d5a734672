//! Reproducible inline build cache for BuildKit.
pub mod image;
pub mod llb;
pub mod proto;
pub mod record;
