//! What an LLB definition says about a build's cache records, by computation alone.
//!
//! [`graph`] reads the definition, [`digest`] computes the digests that BuildKit derives from an
//! operation. It must not know where definitions and records come from, nor ask anything.

pub mod digest;
mod gojson;
pub mod graph;

pub use graph::{Edge, Graph, GraphError, Limits, Vertex};
