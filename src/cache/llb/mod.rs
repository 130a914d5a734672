//! What an LLB definition says about a build's cache records.
//!
//! [`graph`] reads the definition, and [`digest`] computes the digests that BuildKit derives from an
//! operation. [`lineage`] compares the operations with the exported records, and finds the links of other
//! builds. [`probe`] makes an operation that asks the daemon what the two leave open. [`mod@derive`] makes
//! the records of the build anew, and [`layers`] finds the layers of each operation. All of it is
//! computed from a definition and a record set.

pub mod derive;
pub mod digest;
mod gojson;
pub mod graph;
pub mod layers;
pub mod lineage;
pub mod probe;

pub use graph::{Edge, Graph, GraphError, GraphLimits, Vertex};
pub use lineage::{Assumptions, Evidence, Lineage, LineageError, Question};
