//! What each fuzz target holds against an input. The targets run it with libFuzzer on whatever that
//! finds, and `tests/recorded.rs` on the seeds.

pub mod byte_stream;
pub mod cache_config;
pub mod framing;
pub mod hop;
pub mod image_cache;
pub mod image_config;
pub mod inline_cache;
pub mod wire;
pub mod world;
