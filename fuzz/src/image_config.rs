//! Somebody's image config: what is embedded is found, and stripping leaves no trace of it.

use inlay::cache::image::config::{cache_of, embed, strip};

const LIMIT: usize = 1 << 20;
const CACHE: &str = "W3t9XQ==";

/// Holds the target's properties against one input.
pub fn check(config: &[u8]) {
    let found = cache_of(config, LIMIT);
    let Ok(stripped) = strip(config, LIMIT) else {
        assert!(found.is_err() && embed(config, CACHE, LIMIT).is_err());
        return;
    };
    assert!(matches!(cache_of(&stripped, LIMIT), Ok(None)));
    assert_eq!(strip(&stripped, LIMIT).expect("an object still"), stripped);
    if stripped.len() == config.len() {
        assert_eq!(stripped, config);
    }

    let embedded = embed(config, CACHE, LIMIT).expect("far below the limit");
    let cache = cache_of(&embedded, LIMIT).expect("what we wrote");
    assert_eq!(cache.as_deref(), Some(&b"[{}]"[..]));
    assert_eq!(strip(&embedded, LIMIT).expect("what we wrote"), stripped);
    assert_eq!(embed(&embedded, CACHE, LIMIT).expect("again"), embedded);
}
