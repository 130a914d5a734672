//! The inline cache of an image: from what a daemon exported to what the image's config carries.
//!
//! [`embed::embed`] does the whole job: it compares an export of a build's cache with the build's definition,
//! and returns the cache that this build alone determines. [`export`] reads what a daemon exported,
//! [`record`] is the set of cache records and its canonical form, [`llb`] reads definitions and
//! derives cache keys from them, and [`image`] puts a cache into an image's config and takes it out
//! again.
//!
//! All of it is functions of bytes, without I/O and without a log. What makes a cache worse than it could be
//! is returned as [notes](embed::Note). It is available without the crate's default features.

pub mod embed;
pub mod export;
pub mod image;
mod json;
pub mod llb;
pub mod record;

pub use json::JsonError;
