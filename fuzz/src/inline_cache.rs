//! The records of somebody's image, as JSON and as base64, over an image of a few layers. The
//! first byte says of how many.

use inlay::cache::record::{Digest, InlineCache, InlineResult, Limits, RecordSet, select};

/// Holds the target's properties against one input.
pub fn check(input: &[u8]) {
    let Some((&layers, records)) = input.split_first() else {
        return;
    };
    let image: Vec<Digest> = (0..layers % 16)
        // Every fifth layer is the same, as empty layers are in real images.
        .map(|n| format!("sha256:{:064x}", n % 5).parse().expect("64 digits"))
        .collect();
    let limits = Limits::default();
    if let Ok(text) = std::str::from_utf8(records) {
        let _ = InlineCache::decode(text, &image, &limits);
    }
    let Ok(set) = RecordSet::parse_inline(records, &image, &limits) else {
        return;
    };
    let Ok(cache) = select(&set) else {
        return;
    };
    for record in cache.records() {
        match &record.result {
            Some(InlineResult::Layer(top)) => assert!(*top < cache.layers()),
            Some(InlineResult::Chain(chain)) => assert!(chain.iter().all(|&n| n < cache.layers())),
            None => {}
        }
    }
    // A result may be the layers given in any order, and so may the image.
    let image = set.image().expect("selected of an image");
    let read = RecordSet::parse_inline(&cache.to_json(), &image, &limits);
    let again = select(&read.expect("read what we wrote")).expect("select what was selected");
    assert_eq!(again.to_json(), cache.to_json());
}
