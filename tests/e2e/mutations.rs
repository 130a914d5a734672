//! Caches that were damaged or made to lie: a build that imports one succeeds, and its files are
//! those that the Dockerfile makes.
//!
//! Each is imported in one of the ways in which a daemon is given a cache: from its registry, from inlay on
//! a loopback address, and over the session of the client.
//!
//! `INLAY_MUTATIONS` is how many are tried (40), `INLAY_SEED` the first one's seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use inlay::cache::image::config::{self, DEFAULT_LIMIT};
use inlay::cache::record::Digest;
use serde_json::{Value, json};

use crate::differential::Chance;
use crate::support::{Project, STAGES, Stand, seed, setting};

/// An image as its documents.
#[derive(Clone)]
struct Image {
    manifest: Value,
    /// Without its cache.
    config: Vec<u8>,
    records: Vec<u8>,
}

/// What was done to an image, and what it is now.
struct Mutated {
    what: String,
    manifest: Vec<u8>,
    config: Vec<u8>,
    /// By which the manifest names the config.
    config_digest: String,
}

/// The paths of all values for which `wanted` holds.
fn paths(value: &Value, at: &str, wanted: &dyn Fn(&str, &Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    if wanted(at, value) {
        found.push(at.to_owned());
    }
    match value {
        Value::Array(values) => {
            for (n, value) in values.iter().enumerate() {
                found.extend(paths(value, &format!("{at}/{n}"), wanted));
            }
        }
        Value::Object(values) => {
            for (key, value) in values {
                found.extend(paths(value, &format!("{at}/{key}"), wanted));
            }
        }
        _ => {}
    }
    found
}

fn flip(bytes: &mut [u8], chance: &mut Chance) -> String {
    let at = chance.below(bytes.len());
    let bit = chance.below(8);
    bytes[at] ^= 1 << bit;
    format!("bit {bit} of byte {at} flipped")
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

impl Image {
    /// Does one thing to it.
    fn mutated(&self, chance: &mut Chance) -> Mutated {
        let mut image = self.clone();
        let mut records: Value = serde_json::from_slice(&self.records).unwrap();
        let count = records.as_array().unwrap().len();
        let layers = self.manifest["layers"].as_array().unwrap().len();
        let mut text = None;
        let mut lies = false;
        let pick = |records: &Value, name: &'static str, chance: &mut Chance| {
            let found = paths(records, "", &|at, _| at.ends_with(name));
            found[chance.below(found.len())].clone()
        };
        let what = match chance.below(15) {
            0 => {
                let done = flip(&mut image.records, chance);
                text = Some(BASE64_STANDARD.encode(&image.records));
                format!("records: {done}")
            }
            1 => {
                let mut encoded = BASE64_STANDARD.encode(&image.records).into_bytes();
                let done = flip(&mut encoded, chance);
                text = Some(String::from_utf8_lossy(&encoded).into_owned());
                format!("base64: {done}")
            }
            2 => {
                // But no diff ID: that of a compressed layer is seen by who unpacks it, and no sooner.
                let ids = find(&image.config, b"\"diff_ids\"").unwrap();
                let end = ids + find(&image.config[ids..], b"]").unwrap();
                let whole = [0..ids, end..image.config.len()];
                let part = whole[chance.below(2)].clone();
                let done = flip(&mut image.config[part.clone()], chance);
                format!("config from {}: {done}", part.start)
            }
            3 => {
                let end = chance.below(image.config.len());
                image.config.truncate(end);
                format!("config cut at {end}")
            }
            4 => {
                let at = pick(&records, "/link", chance);
                let to = chance.below(count);
                *records.pointer_mut(&at).unwrap() = json!(to);
                format!("{at} is {to}")
            }
            5 => {
                let at = pick(&records, "/layer", chance);
                let to = chance.below(layers + 2);
                *records.pointer_mut(&at).unwrap() = json!(to);
                format!("{at} is {to}")
            }
            6 => {
                let found = paths(&records, "", &|_, value| value.is_number());
                let at = &found[chance.below(found.len())];
                let to = [-1_i64, 1 << 20, i64::MAX, i64::MIN][chance.below(4)];
                *records.pointer_mut(at).unwrap() = json!(to);
                format!("{at} is {to}")
            }
            7 => {
                let found = paths(&records, "", &|_, value| value.is_object());
                let at = &found[chance.below(found.len())];
                let object = records.pointer_mut(at).unwrap().as_object_mut().unwrap();
                let keys: Vec<_> = object.keys().cloned().collect();
                let key = &keys[chance.below(keys.len())];
                object.remove(key);
                format!("{at}/{key} is dropped")
            }
            8 => {
                let found = paths(&records, "", &|_, value| {
                    value.as_array().is_some_and(|array| !array.is_empty())
                });
                let at = &found[chance.below(found.len())];
                let array = records.pointer_mut(at).unwrap().as_array_mut().unwrap();
                let item = chance.below(array.len());
                array.remove(item);
                format!("{at}/{item} is dropped")
            }
            9 => {
                let found = paths(&records, "", &|at, _| at.ends_with("/digest"));
                let (a, b) = (chance.below(found.len()), chance.below(found.len()));
                let other = records.pointer(&found[b]).unwrap().clone();
                *records.pointer_mut(&found[a]).unwrap() = other;
                format!("{} is {}", found[a], found[b])
            }
            10 => {
                let layer = chance.below(layers);
                let size = image.manifest["layers"][layer]["size"].as_u64().unwrap();
                let size = [size + 1, size * 1000, 0, u64::MAX >> 1][chance.below(4)];
                image.manifest["layers"][layer]["size"] = json!(size);
                format!("layer {layer} has {size} bytes")
            }
            11 => {
                let layer = chance.below(layers);
                let digest = image.manifest["layers"][layer]["digest"].as_str().unwrap();
                let mut digest = digest.as_bytes().to_vec();
                let done = flip(&mut digest, chance);
                let digest = String::from_utf8_lossy(&digest).into_owned();
                image.manifest["layers"][layer]["digest"] = json!(digest);
                format!("digest of layer {layer}: {done}")
            }
            12 => {
                let layer = chance.below(layers);
                image.manifest["layers"]
                    .as_array_mut()
                    .unwrap()
                    .remove(layer);
                format!("layer {layer} is dropped")
            }
            13 => {
                // Go reads that as `layers`, and of two it takes the last.
                let mut others = image.manifest["layers"].clone();
                others.as_array_mut().unwrap().reverse();
                image.manifest["layer\u{17f}"] = others;
                "the layers are twice there, and otherwise".to_owned()
            }
            _ => {
                lies = true;
                "the config is not the one that the manifest names".to_owned()
            }
        };
        let text = text.unwrap_or_else(|| BASE64_STANDARD.encode(records.to_string()));
        // A config that is not JSON any more has no place for a cache: it stays as it is.
        let with_cache = |config: &[u8]| {
            let end = config.iter().rposition(|byte| *byte == b'}')?;
            let member = format!(",\"{}\":{}}}", config::CACHE_KEY, json!(text));
            Some([&config[..end], member.as_bytes()].concat())
        };
        let mut config = with_cache(&image.config).unwrap_or(image.config);
        let digest = Digest::of(&config).to_string();
        image.manifest["config"]["digest"] = json!(digest);
        image.manifest["config"]["size"] = json!(config.len());
        if lies {
            flip(&mut config, chance);
        }
        Mutated {
            what,
            manifest: image.manifest.to_string().into_bytes(),
            config,
            config_digest: digest,
        }
    }
}

/// The files of a directory: what each holds or links to.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut to_visit = vec![dir.to_owned()];
    while let Some(visited) = to_visit.pop() {
        for entry in fs::read_dir(&visited).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let kind = path.symlink_metadata().unwrap();
            if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                found.insert(name, target.display().to_string().into_bytes());
            } else if kind.is_dir() {
                to_visit.push(path);
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn no_damaged_cache_fails_a_build_or_gives_a_wrong_file() {
    let count = setting("INLAY_MUTATIONS", 40);
    let first = seed();
    let dir = tempfile::tempdir().unwrap();
    let mut stand = Stand::reading(dir.path());
    let mut of_sessions = Stand::in_two_networks(dir.path());
    let project = Project::new()
        .base()
        .dockerfile(STAGES)
        .file("source.txt", "some text\n");

    // By BuildKit itself: with dates, and in no order.
    let name = stand.registry.image("demo:1");
    let plain = stand.build_plain(&project).export_cache("type=inline");
    plain.push(&name).run_ok();
    let whole = stand.registry.config("demo:1", None);
    let image = Image {
        manifest: stand.registry.manifest("demo:1"),
        config: config::strip(&whole, DEFAULT_LIMIT).unwrap(),
        records: config::cache_of(&whole, DEFAULT_LIMIT).unwrap().unwrap(),
    };
    let tree = dir.path().join("files");
    let archive = dir.path().join("image.tar");
    let outputs = [
        format!("type=local,dest={}", tree.display()),
        format!("type=oci,dest={}", archive.display()),
    ];
    let build = stand
        .build(&project)
        .output(&outputs[0])
        .output(&outputs[1]);
    build.run_ok();
    let expected = files(&tree);
    assert!(expected.contains_key("all.txt"));

    let mut outcomes: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for seed in first..first + count {
        let mutated = image.mutated(&mut Chance::new(seed));
        let context = format!("INLAY_SEED={seed} INLAY_MUTATIONS=1: {}", mutated.what);
        // A registry takes no manifest that is not whole, and no blob that is not its digest. Of what the
        // daemon fetches from it, nobody checks the layers beforehand.
        let tag = format!("demo:mutated-{seed}");
        let manifest = serde_json::from_slice::<Value>(&mutated.manifest).unwrap_or_default();
        let in_registry = seed % 3 == 0
            && manifest["layers"] == image.manifest["layers"]
            && Digest::of(&mutated.config).to_string() == mutated.config_digest
            && stand.registry.put("demo", &mutated.config)
            && stand.registry.tag(&tag, &mutated.manifest);
        let import = if in_registry {
            stand.import(&tag)
        } else {
            let layout = dir.path().join(format!("layout-{seed}"));
            lay_out(&layout, &stand, &image, &mutated);
            format!("type=inline,ref=oci:{}", layout.display())
        };
        let (way, stand) = match seed % 3 {
            0 if in_registry => ("registry", &mut stand),
            2 => ("session", &mut of_sessions),
            _ => ("loopback", &mut stand),
        };
        let build = build.clone().addr(stand.inlay.addr());
        let build = build.import_cache(&import);
        let run = || {
            fs::remove_dir_all(&tree).unwrap();
            let built = build.run();
            assert!(built.status.success(), "{context}\n{built}");
            assert_eq!(files(&tree), expected, "{context}\n{built}");
            built
        };
        let mut built = run();
        // A daemon that has all steps itself does not use what is imported.
        if built.warnings.is_empty() {
            stand.buildkitd.wipe();
            built = run();
        }
        let outcome = if !built.warnings.is_empty() {
            "refused"
        } else if built.steps_ran().is_empty() {
            "used"
        } else {
            "used in part or not at all"
        };
        println!("{context}: {way}: {outcome} {:?}", built.warnings);
        *outcomes.entry((way, outcome)).or_default() += 1;
    }
    println!("{count} mutations from seed {first}: {outcomes:?}");
    // A few may all be harmless.
    assert!(count < 40 || outcomes.contains_key(&("loopback", "refused")));
    for inlay in [stand.inlay, of_sessions.inlay] {
        let said = inlay.log();
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// A folder with an image, as OCI's image layout: its layers are links to the registry's.
fn lay_out(layout: &Path, stand: &Stand, image: &Image, mutated: &Mutated) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let write = |digest: &str, blob: &[u8]| {
        let name = digest.strip_prefix("sha256:").unwrap();
        fs::write(blobs.join(name), blob).unwrap();
    };
    for layer in image.manifest["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        write(digest, &stand.registry.blob("demo", digest));
    }
    write(&mutated.config_digest, &mutated.config);
    let manifest = Digest::of(&mutated.manifest).to_string();
    write(&manifest, &mutated.manifest);
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest,
            "size": mutated.manifest.len(),
        }],
    });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}
