//! What an LLB definition says about a build's cache records, by computation alone.
//!
//! [`graph`] reads the definition, [`digest`] computes the digests that BuildKit derives from an
//! operation, [`lineage`] lays the operations over the exported records and says which links are
//! of other builds, [`probe`] makes the operation that answers what neither tells, and [`layers`]
//! says which layers are whose. All of it is computed from a definition and a record set.

pub mod derive;
pub mod digest;
mod gojson;
pub mod graph;
pub mod layers;
pub mod lineage;
pub mod probe;

pub use graph::{Edge, Graph, GraphError, GraphLimits, Vertex};
pub use lineage::{Assumptions, Evidence, Lineage, LineageError, Question};
