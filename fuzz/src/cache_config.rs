//! A cache config from anywhere: read, select, write, and read what was written.

use inlay::cache::record::{InlineCache, Limits, RecordSet, select};

/// Holds the target's properties against one input.
pub fn check(config: &[u8]) {
    let limits = Limits::default();
    let Ok(set) = RecordSet::parse(config, &limits) else {
        return;
    };
    let mut half = set.clone();
    half.retain_links(|record, input, link| (record + input + link.record) % 2 == 0);
    assert!(half.finals().len() <= set.finals().len());
    let _ = select(&half);

    let Ok(cache) = select(&set) else {
        return;
    };
    let image = set.image().expect("selected of an image");
    assert_eq!(image.len(), cache.layers());

    let again = InlineCache::decode(&cache.encode(), &image, &limits).expect("read what we wrote");
    let again = select(&again).expect("select what was selected");
    assert_eq!(again.to_json(), cache.to_json());
}
