//! What random tests take from the environment: where they begin, and how far they go.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher as _;
use std::sync::LazyLock;

static SEED: LazyLock<u64> = LazyLock::new(|| {
    // Short enough to be typed.
    let random = RandomState::new().hash_one(()) >> 32;
    setting("INLAY_SEED", random)
});

/// The seed of this run: `INLAY_SEED`, or a new one. It is printed, so that a failure shows it.
pub fn seed() -> u64 {
    println!("INLAY_SEED={}", *SEED);
    *SEED
}

/// A number that the environment may set.
pub fn setting(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(value) => value
            .parse()
            .unwrap_or_else(|error| panic!("{name}={value}: {error}")),
        Err(_) => default,
    }
}
