//! A cache config from anywhere: read, select, write, and read what was written.
#![no_main]

use inlay::cache::record::{InlineCache, Limits, RecordSet, select};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|config: &[u8]| -> Corpus {
    let limits = Limits::default();
    let Ok(set) = RecordSet::parse(config, &limits) else {
        return Corpus::Keep;
    };
    let mut half = set.clone();
    half.retain_links(|record, input, link| (record + input + link.record) % 2 == 0);
    assert!(half.finals().len() <= set.finals().len());
    let _ = select(&half);

    let Ok(cache) = select(&set) else {
        return Corpus::Keep;
    };
    let image = set.image().expect("selected of an image");
    assert_eq!(image.len(), cache.layers());

    let again = InlineCache::decode(&cache.encode(), &image, &limits).expect("read what we wrote");
    let again = select(&again).expect("select what was selected");
    assert_eq!(again.to_json(), cache.to_json());
    Corpus::Keep
});
