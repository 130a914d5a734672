//! Wire messages of BuildKit, generated from `proto/`. They must not know what inlay does with them.

/// LLB: operations and definitions.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}
