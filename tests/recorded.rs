//! Recorded cases: no daemon is needed.
//!
//! - The seeds of the fuzz targets: real messages, exports and configs, most of them recorded.
//! - Definitions and exports recorded from BuildKit v0.34.2 and v0.13.2 (`tests/llb/*.json`), of
//!   which the pure core makes the inline cache: `tests/recorded` has it, a record a line.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "shared; what writes seeds is not used here")]
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use inlay::{
    cache::embed::ImageCache,
    cache::export::Exported,
    cache::llb::{Assumptions, Evidence, Graph, GraphLimits, Lineage, Question},
    cache::record::{self, Digest, RecordSet},
    protocol::proto::pb,
};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

// === seeds ===

/// What a fuzz target does with an input.
type Check = fn(&[u8]);

/// The fuzz targets, as `fuzz/corpus-seed` names them.
const TARGETS: [(&str, Check); 8] = [
    ("cache_config", targets::cache_config::check),
    ("framing", targets::framing::check),
    ("hop", targets::hop::check),
    ("image_cache", |seed| {
        assert!(targets::image_cache::check(seed), "it has an export");
    }),
    ("image_config", targets::image_config::check),
    ("inline_cache", targets::inline_cache::check),
    ("byte_stream", targets::byte_stream::check),
    ("wire", targets::wire::check),
];

#[test]
fn every_fuzz_target_holds_for_its_seeds() {
    let seeds = repository().join("fuzz/corpus-seed");
    for (target, check) in TARGETS {
        let paths = paths(&seeds.join(target));
        assert!(!paths.is_empty(), "{target} has seeds");
        for path in paths {
            println!("{}", path.display());
            check(&fs::read(&path).unwrap());
        }
    }
    assert_eq!(paths(&seeds).len(), TARGETS.len(), "each has a target");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is in a directory.
fn paths(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

// === exports and definitions ===

/// Builds of one project, by name. One is `cold`: it was the first of its daemon.
#[derive(Deserialize)]
struct Recording {
    /// The operations of each, in base64.
    definitions: BTreeMap<String, Vec<String>>,
    /// The export of each.
    records: BTreeMap<String, Vec<Record>>,
    /// It is of BuildKit v0.13, whose images have two keys.
    #[serde(skip)]
    is_old: bool,
}

#[derive(Deserialize)]
struct Record {
    digest: String,
    /// For each input its links, as selector and record.
    #[serde(default)]
    inputs: Vec<Vec<(String, usize)>>,
    #[serde(default)]
    result: bool,
}

impl Recording {
    fn read(path: &Path) -> Self {
        let mut read: Self = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        read.is_old = path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("v0.13");
        read
    }

    fn definition(&self, build: &str) -> Vec<u8> {
        let def = self.definitions[build].iter();
        let def = def.map(|op| BASE64_STANDARD.decode(op).unwrap()).collect();
        let metadata = BTreeMap::new();
        pb::Definition { def, metadata }.encode_to_vec()
    }

    /// The export of a build.
    fn export(&self, build: &str) -> Exported {
        let records = &self.records[build];
        let mut layers = Layers::new(records);
        let record = |(number, record): (usize, &Record)| {
            let link =
                |(selector, link): &(String, usize)| json!({"selector": selector, "link": link});
            let input = |links: &Vec<_>| links.iter().map(link).collect::<Vec<_>>();
            let top = layers.top(number).filter(|_| record.result);
            json!({
                "digest": record.digest,
                "inputs": record.inputs.iter().map(input).collect::<Vec<_>>(),
                "layers": top.map(|top| json!({"layer": top})).into_iter().collect::<Vec<_>>(),
            })
        };
        let records: Vec<_> = records.iter().enumerate().map(record).collect();
        export(&json!({"layers": layers.written(), "records": records}))
    }

    /// What a daemon answers to a probe during the build: of the contents that may be meant, the one
    /// that the cold build had.
    fn answer(&self, questions: &[Question]) -> Exported {
        let questions = questions.iter().filter(|question| question.local);
        let is_current = |root: &&Digest| {
            let mut cold = self.records["cold"].iter();
            cold.any(|record| record.digest == root.as_str())
        };
        let mut records: Vec<_> = questions
            .map(|question| {
                let mut current = question.candidates.iter().filter(is_current);
                let (Some(root), None) = (current.next(), current.next()) else {
                    panic!("one of {:?}", question.candidates);
                };
                json!({"digest": root.as_str()})
            })
            .collect();
        let inputs: Vec<_> = (0..records.len()).map(|n| json!([{"link": n}])).collect();
        records.push(json!({"digest": format!("sha256:{:064x}", 0), "inputs": inputs}));
        export(&json!({"records": records}))
    }

    /// The inline cache of a build, a record a line.
    fn cache(&self, build: &str) -> String {
        let (definition, exported) = (self.definition(build), self.export(build));
        let assumptions = Assumptions {
            platform: Some(targets::world::platform()),
            images_by_manifest: !self.is_old,
            ..Assumptions::default()
        };
        let read = ImageCache::read(Some(&exported), &definition, assumptions.clone());
        let mut cache = read.unwrap();
        if let Some(probe) = cache.probe(&definition, "nonce") {
            let graph = Graph::parse(&definition, &GraphLimits::default()).unwrap();
            let mut set = RecordSet::parse(&exported.config, &record::Limits::default()).unwrap();
            set.settle();
            let lineage = Lineage::trace(&graph, &set, &Evidence::default(), &assumptions).unwrap();
            cache
                .learn(&probe, &self.answer(lineage.questions()))
                .unwrap();
        }
        let json = cache.finish(None, &[], |_| None).unwrap().cache.to_json();
        let records: Vec<&RawValue> = serde_json::from_slice(&json).unwrap();
        records.iter().map(|record| format!("{record}\n")).collect()
    }
}

/// The layers of an export's results. Which ones a result had was not recorded: here each has one of
/// its own, on those of its first source.
struct Layers<'a> {
    records: &'a [Record],
    /// The topmost layer of each record, once it is known.
    tops: Vec<Option<Option<usize>>>,
    parents: Vec<Option<usize>>,
}

impl<'a> Layers<'a> {
    fn new(records: &'a [Record]) -> Self {
        Self {
            records,
            tops: vec![None; records.len()],
            parents: Vec::new(),
        }
    }

    fn top(&mut self, number: usize) -> Option<usize> {
        if let Some(top) = self.tops[number] {
            return top;
        }
        let record = &self.records[number];
        let source = record.inputs.first().and_then(|links| links.first());
        let mut top = source.and_then(|(_, source)| self.top(*source));
        if record.result {
            self.parents.push(top);
            top = Some(self.parents.len() - 1);
        }
        self.tops[number] = Some(top);
        top
    }

    fn written(&self) -> Vec<serde_json::Value> {
        let layer = |(number, parent): (usize, &Option<usize>)| {
            let parent = parent.map_or(-1, |parent| parent as i64);
            json!({"blob": format!("sha256:{number:064x}"), "parent": parent})
        };
        self.parents.iter().enumerate().map(layer).collect()
    }
}

fn export(config: &serde_json::Value) -> Exported {
    Exported {
        config: config.to_string().into(),
        diff_ids: HashMap::new(),
    }
}

#[test]
fn every_recorded_build_gets_the_recorded_cache() {
    let recorded = repository().join("tests/recorded");
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recorded");
    let mut names = BTreeSet::new();
    let mut changed = Vec::new();
    for path in paths(&repository().join("tests/llb")) {
        let project = path.file_stem().unwrap().to_string_lossy();
        let recording = Recording::read(&path);
        for build in recording.records.keys() {
            let name = format!("{project}-{build}.jsonl");
            let cache = recording.cache(build);
            if fs::read_to_string(recorded.join(&name)).ok().as_ref() != Some(&cache) {
                fs::create_dir_all(&found).unwrap();
                fs::write(found.join(&name), cache).unwrap();
                changed.push(name.clone());
            }
            names.insert(recorded.join(name));
        }
    }
    assert!(
        changed.is_empty(),
        "not as in {}: {changed:?}; {} has what came",
        recorded.display(),
        found.display()
    );
    assert_eq!(paths(&recorded), names, "each is of a recorded build");
}

/// Eleven others of another directory and another command, with equal results; an export as inlay
/// asks for it, and one of a client.
#[test]
fn a_daemon_that_built_others_before_gives_the_cache_of_a_cold_one() {
    let history = Recording::read(&repository().join("tests/llb/history.json"));
    let [first, others @ ..] =
        &["cold", "cold-side", "warm", "warm-side"].map(|b| history.cache(b));
    assert!(first.lines().count() > 1, "{first}");
    for other in others {
        assert_eq!(other, first);
    }
}

#[test]
fn an_imported_cache_comes_out_as_it_was() {
    let imported = Recording::read(&repository().join("tests/llb/imported.json"));
    assert_eq!(imported.cache("importing"), imported.cache("cold"));
}
