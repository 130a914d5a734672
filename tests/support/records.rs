//! The inline cache of an image config, as BuildKit reads it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// Where BuildKit keeps it.
pub const INLINE_CACHE_KEY: &str = "moby.buildkit.cache.v0";

/// The cache records that an image config carries; none if it has no such key.
/// Decoded here and not by the library: tests judge what BuildKit would read.
pub fn inline_records(config: &[u8]) -> Vec<Value> {
    let config: Value = serde_json::from_slice(config).expect("an image config is JSON");
    let Some(encoded) = config.get(INLINE_CACHE_KEY) else {
        return Vec::new();
    };
    let encoded = encoded.as_str().expect("an inline cache is a string");
    let json = BASE64_STANDARD
        .decode(encoded)
        .expect("an inline cache is base64");
    serde_json::from_slice(&json).expect("an inline cache is a JSON list")
}
