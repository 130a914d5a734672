//! What clients may have inlay take: imports of several builds at a time.

use std::thread::scope;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use inlay::cache::record::Digest;
use serde_json::json;

use crate::support::{INLINE_CACHE_KEY, Project, Registry, Stand, wait_for};

/// How many builds there are at a time.
const BUILDS: usize = 6;
/// How many imports each names: as many are read at a time of one build.
const IMPORTS: usize = 4;
/// What checking all of them at a time takes: 800 MiB, and in turn 150.
const MOST: u64 = 400 << 20;
/// What stays, in kB.
const LEFT: u64 = 150 << 10;

/// An image whose cache has many records, and as long a config as is read.
fn put_large(registry: &Registry, image: &str) {
    let layer = b"no layer that is read";
    assert!(registry.put("large", layer));
    let records = (0..55_000_u32).map(|number| {
        let digest = Digest::of(&number.to_be_bytes());
        format!(r#"{{"digest":"{digest}"}}"#)
    });
    let records = format!("[{}]", records.collect::<Vec<_>>().join(","));
    let mut config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer).as_str()]},
    });
    config[INLINE_CACHE_KEY] = BASE64_STANDARD.encode(records).into();
    let config = config.to_string();
    assert!(registry.put("large", config.as_bytes()));
    let blob = |kind: &str, data: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": Digest::of(data).as_str(), "size": data.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", config.as_bytes()),
        "layers": [blob("layer.v1.tar+gzip", layer)],
    });
    assert!(registry.tag(image, manifest.to_string().as_bytes()));
}

#[test]
fn imports_of_several_builds_are_checked_in_turn() {
    let stand = Stand::start();
    for number in 0..IMPORTS {
        put_large(&stand.registry, &format!("large:{number}"));
    }
    scope(|scope| {
        for _ in 0..BUILDS {
            scope.spawn(|| {
                let project = Project::new().dockerfile("FROM scratch\nCOPY Dockerfile /\n");
                let mut build = stand.build(&project);
                for number in 0..IMPORTS {
                    build = build.import_cache(&stand.import(&format!("large:{number}")));
                }
                let built = build.run_ok();
                assert_eq!(built.warnings.len(), IMPORTS, "{built}");
            });
        }
    });
    let peak = stand.inlay.peak_rss();
    assert!(peak < MOST, "{} MiB", peak >> 20);
    let returned = wait_for(Duration::from_secs(30), || {
        (stand.inlay.usage().memory < LEFT).then_some(())
    });
    let now = stand.inlay.usage();
    println!("{} MiB at most, and then {now:?}", peak >> 20);
    assert!(returned.is_some(), "{now:?}");
}
