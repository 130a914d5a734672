//! The record set: the cache keys of a build, and their form in an image.
//!
//! A cache goes through here in three steps, each a pure function of the one before:
//! [`RecordSet::parse`] checks what BuildKit exported, [`select()`] keeps what the image's own
//! build determines and puts it in its one canonical order, and [`InlineCache::encode`] writes
//! that as images carry it. [`InlineCache::decode`] leads back to the first step.

pub(crate) mod base64;
mod claims;
mod config;
mod contents;
mod digest;
mod identity;
mod inline;
mod json;
mod limits;
mod merge;
mod order;
mod select;
mod set;

pub use base64::Base64Error;
pub use claims::Contradiction;
pub use config::to_config;
pub use contents::Contents;
pub use digest::{Digest, DigestError};
pub use inline::{DecodeError, InlineCache, InlineRecord, InlineResult};
#[cfg(feature = "server")]
pub(crate) use json::is_same_to_go;
pub use limits::Limits;
pub use select::{Named, SelectError, select, select_expecting};
pub use set::{ImageLayer, Layer, LayerChain, Link, ParseError, Record, RecordSet};
