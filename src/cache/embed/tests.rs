use std::collections::HashMap;
use std::fs;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::cache::record::base64;

/// A definition, and what BuildKit v0.34.2 exported as `type=local` when it built it, by a name for
/// what had been before.
#[derive(Deserialize)]
struct Recorded {
    definition: String,
    exports: HashMap<String, RecordedExport>,
}

#[derive(Deserialize)]
struct RecordedExport {
    config: Box<RawValue>,
    diff_ids: HashMap<String, String>,
}

impl Recorded {
    fn read(name: &str) -> Self {
        let path = format!("{}/tests/exports/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn definition(&self) -> Vec<u8> {
        base64::decode(&self.definition).unwrap()
    }

    fn exported(&self, name: &str) -> Exported {
        let export = &self.exports[name];
        let digest = |text: &String| text.parse::<Digest>().unwrap();
        let diff_ids = export.diff_ids.iter();
        Exported {
            config: export.config.get().as_bytes().to_vec(),
            diff_ids: diff_ids.map(|(b, d)| (digest(b), digest(d))).collect(),
        }
    }

    fn embedded(&self, name: &str) -> InlineCache {
        self.embedded_and_told(name).cache
    }

    fn embedded_and_told(&self, name: &str) -> Embedded {
        let embedded = embed(&self.exported(name), &self.definition(), None).unwrap();
        assert_eq!(embedded.notes, [], "{name}");
        embedded
    }
}

/// Of each record the beginning of its digest, its result, and for each input its sources.
fn shown(cache: &InlineCache) -> Vec<String> {
    let records = cache.records();
    let digest = |number: usize| &records[number].digest.as_str()[7..13];
    let shown = records.iter().enumerate().map(|(number, record)| {
        let mut text = digest(number).to_owned();
        match &record.result {
            Some(InlineResult::Layer(top)) => text += &format!(" 0..={top}"),
            Some(InlineResult::Chain(layers)) => text += &format!(" {layers:?}"),
            None => {}
        }
        for links in &record.inputs {
            let links: Vec<_> = links.iter().map(|link| digest(link.record)).collect();
            text += &format!(" <{}", links.join(","));
        }
        text
    });
    shown.collect()
}

/// `FROM scratch AS a`, `COPY sh /sh`, `RUN …`; `FROM scratch`, `COPY --from=a /sh /sh`. The two
/// copies have one key. Cold the daemon has one record of them, of which the command is made, and
/// warm it has two.
#[test]
fn the_last_step_may_have_the_key_of_another() {
    let recorded = Recorded::read("same-key");
    let cold = recorded.embedded("cold");
    assert_eq!(
        shown(&cold),
        [
            "1c1b9c <cc8c6b",
            "8f96a7",
            "cc8c6b 0..=0 <1c1b9c",
            "cc8c6b 0..=0 <8f96a7",
        ]
    );
    assert_eq!(recorded.embedded("warm"), cold);
}

/// The same loop of records, broken at its other link (`CacheChains.Add` drops one or the other, in the
/// order in which records come): the command has lost its source, and is written with an empty input
/// or as a root.
#[test]
fn a_loop_of_records_is_one_wherever_it_was_cut() {
    let recorded = Recorded::read("same-key");
    let exported = recorded.exported("cold");
    let warm: Value = serde_json::from_slice(&recorded.exported("warm").config).unwrap();
    let selector = warm["records"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|record| {
            let link = &record["inputs"][0][0];
            let is_copy = record["digest"].as_str()?.starts_with("sha256:cc8c6b");
            (is_copy && link["selector"].is_string()).then(|| link["selector"].clone())
        });
    let cut = |left: Value| {
        let mut config: Value = serde_json::from_slice(&exported.config).unwrap();
        let records = config["records"].as_array_mut().unwrap();
        let has = |digest: &str| {
            let mut digests = records.iter().map(|of| of["digest"].as_str().unwrap());
            digests.position(|of| of[7..].starts_with(digest)).unwrap()
        };
        let (command, copy) = (has("1c1b9c"), has("cc8c6b"));
        records[command]["inputs"] = left;
        let link = json!({"selector": selector, "link": command});
        records[copy]["inputs"][0]
            .as_array_mut()
            .unwrap()
            .push(link);
        let exported = Exported {
            config: config.to_string().into_bytes(),
            diff_ids: exported.diff_ids.clone(),
        };
        embed(&exported, &recorded.definition(), None)
            .unwrap()
            .cache
    };
    let whole = recorded.embedded("cold");
    assert_eq!(cut(json!([[]])), whole);
    assert_eq!(cut(json!([null])), whole);
    assert_eq!(cut(json!([])), whole);
}

/// Where the records are of another build, nothing is embedded.
#[test]
fn records_of_another_build_have_no_end() {
    let recorded = Recorded::read("same-key");
    let other = Recorded::read("equal-hops");
    let embedded = embed(&recorded.exported("cold"), &other.definition(), None);
    assert!(embedded.is_err(), "{embedded:?}");
}

/// `FROM B AS a`, `COPY --link sh /sh`; `FROM scratch`, `COPY --from=a /sh /sh`. What nothing is made
/// of is the merge, of three layers, and the image has one.
#[test]
fn the_image_is_not_what_nothing_is_made_of() {
    let recorded = Recorded::read("same-key-over-merge");
    let cold = recorded.embedded("cold");
    assert_eq!(cold.layers(), 1);
    assert_eq!(
        shown(&cold),
        [
            "060ba3",
            "5dbfba <060ba3 <cc8c6b",
            "8f96a7",
            "cc8c6b 0..=0 <5dbfba",
            "cc8c6b 0..=0 <8f96a7",
        ]
    );
    assert_eq!(recorded.embedded("warm"), cold);
}

/// `FROM B AS deps`, `RUN echo x >/m`; `FROM B AS prod`, `COPY --from=deps /m /m`; `FROM B`,
/// `COPY --from=prod /m /m`.
#[test]
fn equal_copies_in_a_row_are_found_by_what_leads_to_them() {
    let recorded = Recorded::read("equal-hops");
    let cold = recorded.embedded("cold");
    assert_eq!(
        shown(&cold),
        [
            "060ba3",
            "776d82 0..=2 <060ba3 <776d82",
            "776d82 0..=2 <060ba3 <c1966e,ce2b89",
            "c1966e",
            "ce2b89 <060ba3",
        ]
    );
    assert_eq!(recorded.embedded("warm"), cold);
    assert_eq!(recorded.embedded("imported"), cold);
}

/// `COPY --link --from` on a base that moved, with an import of the image on the old base, and cold.
#[test]
fn what_an_import_knows_of_another_base_goes() {
    let recorded = Recorded::read("moved-base");
    assert_eq!(recorded.embedded("imported"), recorded.embedded("cold"));
}

/// A stage that copies a directory, and an image that copies from it; imported, and then built on the
/// same daemon without the import. The daemon has forgotten the content that was copied.
#[test]
fn content_of_stages_is_remembered_of_the_build() {
    let recorded = Recorded::read("import-then-not");
    let cold = recorded.embedded("cold");
    assert_eq!(recorded.embedded("imported"), cold);
    assert_ne!(recorded.embedded("later"), cold);

    let mut memory: HashMap<_, _> = HashMap::new();
    let mut embedded = |name: &str| {
        let exported = recorded.exported(name);
        let assumptions = Assumptions::default();
        let cache = ImageCache::read(Some(&exported), &recorded.definition(), assumptions);
        let embedded = cache
            .unwrap()
            .finish(None, &[], |name| memory.get(name).cloned());
        let embedded = embedded.unwrap();
        memory.extend(embedded.memory);
        embedded.cache
    };
    assert_eq!(embedded("imported"), cold);
    assert_eq!(embedded("later"), cold);
    assert!(!memory.is_empty());
}

/// The same build of a daemon that exports nothing: it found the steps in another import by keys that
/// are of no use, and their layers are not pulled. The definition, the content of the directory and
/// the layers of the image are enough.
#[test]
fn a_cache_without_an_export_is_that_of_the_export() {
    let recorded = Recorded::read("import-then-not");
    let exported = recorded.exported("cold");
    let set = RecordSet::parse(&exported.config, &Limits::default()).unwrap();
    let longest = set.records().iter().flat_map(|record| &record.results);
    let longest = longest.max_by_key(|result| result.len()).unwrap();
    let image = longest.iter().map(|layer| {
        let blob = &set.layers()[*layer].blob;
        ImageLayer {
            blob: blob.clone(),
            diff_id: exported.diff_ids[blob].clone(),
        }
    });
    let image: Vec<_> = image.collect();

    let definition = recorded.definition();
    let nothing = || ImageCache::read(None, &definition, Assumptions::default()).unwrap();
    let forgotten = |_: &Digest| None;
    assert!(matches!(
        nothing().finish(Some(&image), &[], forgotten),
        Err(ImageCacheError::NoEnd(0))
    ));

    let mut cache = nothing();
    let probe = cache.probe(&definition, "nonce").unwrap();
    let content = Lineage::trace(
        cache.graph.as_ref().unwrap(),
        &set,
        &Evidence::default(),
        &Assumptions::default(),
    );
    let graph = Graph::parse(probe.definition(), &llb::GraphLimits::default()).unwrap();
    assert_eq!(graph.vertices().last().unwrap().inputs.len(), 1);
    let graph = cache.graph.as_ref().unwrap();
    let told = content.unwrap().evidence(graph, None, &Evidence::default());
    let told = told.unwrap();
    let [(vertex, input)] = nothing_of(&cache)[..] else {
        panic!("one directory is read")
    };
    let root = told.content_of(vertex, input).unwrap().clone();
    let answer = format!(
        r#"{{"records":[{{"digest":"{}"}},{{"digest":"{}","inputs":[[{{}}]]}}]}}"#,
        root.first().unwrap(),
        Digest::of(b"probe")
    );
    let answer = Exported {
        config: answer.into_bytes(),
        diff_ids: HashMap::new(),
    };
    cache.learn(&probe, &answer).unwrap();
    let told = recorded.embedded_and_told("cold").memory;
    let memory: HashMap<_, _> = told.into_iter().collect();
    let embedded = cache.finish(Some(&image), &[], |name| memory.get(name).cloned());
    let embedded = embedded.unwrap();
    assert_eq!(embedded.cache, recorded.embedded("cold"));
}

/// The inputs of which a cache asks for the content.
fn nothing_of(cache: &ImageCache) -> Vec<(usize, usize)> {
    let graph = cache.graph.as_ref().unwrap();
    let lineage = cache.lineage.as_ref().unwrap();
    lineage.unknown_content(graph, &cache.evidence).collect()
}

/// `ADD http://…` whose content changed and changed back while the step on it gave the same. The
/// source is asked for its keys, and the cache is the one of them.
#[test]
fn a_source_that_is_resolved_is_asked_for_its_keys() {
    let recorded = Recorded::read("http-changed");
    let definition = recorded.definition();
    let read = |name: &str| {
        let exported = recorded.exported(name);
        ImageCache::read(Some(&exported), &definition, Assumptions::default()).unwrap()
    };
    let cold = recorded.embedded("cold");

    let mut cache = read("second");
    let probe = cache.probe(&definition, "nonce").unwrap();
    let probed = Graph::parse(probe.definition(), &llb::GraphLimits::default()).unwrap();
    let ops = probed.vertices().iter().filter(|op| op.source().is_none());
    assert_eq!(ops.count(), 2, "its own file and a merge");
    // Without an answer both are kept, and the user is told.
    let unanswered = read("second").finish(None, &[], |_| None).unwrap();
    assert_eq!(unanswered.notes, [Note::Sources(1)]);
    assert!(unanswered.cache.records().len() > cold.records().len());

    // As if the first content were the present one.
    let graph = cache.graph.as_ref().unwrap();
    let lineage = cache.lineage.as_ref().unwrap();
    let [source] = lineage
        .unknown_sources(graph, &cache.evidence)
        .collect::<Vec<_>>()[..]
    else {
        panic!("one source is resolved")
    };
    let first = read("cold");
    let (graph, lineage) = (first.graph.unwrap(), first.lineage.unwrap());
    let told = lineage
        .evidence(&graph, None, &Evidence::default())
        .unwrap();
    let key = told
        .keys_of_source(source)
        .unwrap()
        .first()
        .unwrap()
        .clone();
    let answer = format!(
        r#"{{"records":[{{"digest":"{}"}},{{"digest":"{key}"}},{{"digest":"{}","inputs":[[{{}}],[{{"link":1}}]]}}]}}"#,
        Digest::of(b"file"),
        Digest::of(b"merge"),
    );
    let answer = Exported {
        config: answer.into_bytes(),
        diff_ids: HashMap::new(),
    };
    cache.learn(&probe, &answer).unwrap();
    let embedded = cache.finish(None, &[], |_| None).unwrap();
    assert_eq!(embedded.notes, []);
    assert_eq!(embedded.cache, cold);
}

/// As if a newer BuildKit derived the key of the command in another way: its records cannot be told
/// from those of other builds.
#[test]
fn operations_whose_keys_are_not_known_are_told() {
    let recorded = Recorded::read("equal-hops");
    let mut exported = recorded.exported("cold");
    let config = String::from_utf8(exported.config).unwrap();
    let at = config.find("sha256:ce2b89").unwrap();
    let command = config[at..at + Digest::of(b"").as_str().len()].to_owned();
    let newer = Digest::of(b"newer");
    exported.config = config.replace(&command, newer.as_str()).into_bytes();
    let embedded = embed(&exported, &recorded.definition(), None).unwrap();
    assert_eq!(embedded.notes, [Note::Operations(1)]);
    let mut records = embedded.cache.records().iter();
    assert!(records.any(|record| record.digest == newer));
}
