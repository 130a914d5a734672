//! Caches as BuildKit's own packages read, write and look them up, against ours.
//!
//! For each generated cache config:
//!
//! 1. what BuildKit accepts we accept, and read as the same records with the same results; what
//!    it refuses we refuse. Where we differ on purpose, [`Difference`] says so, and the case must
//!    show that it is one of those;
//! 2. what we write of it, a daemon imports, and it reads the records that we hold;
//! 3. looking up any build in it gives the same layers as in what BuildKit's own inline exporter
//!    writes of the same config: see [`Lookups`].
//!
//! Cases depend on the seed alone; a failure names its own. `make differential` runs many:
//! `INLAY_DIFFERENTIAL_CASES` is their number, `INLAY_SEED` the first one's seed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod difference;
mod generate;
mod lookups;
mod oracle;
mod reading;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::Instant,
};

use difference::Difference;
use generate::Case;
pub use generate::Chance;
use inlay::cache::record::{
    InlineCache, InlineResult, Limits, Link, RecordSet, SelectError, select,
};
use lookups::Lookups;
use oracle::{Answer, Oracle};
use reading::{held, reading, without_empty};
use serde_json::{Value, json};

use crate::support::{Peers, seed, setting};

#[test]
fn we_agree_with_buildkit() {
    let cases = setting("INLAY_DIFFERENTIAL_CASES", 400);
    let first = seed();
    let mut oracle = Oracle::start(&Peers::locate().oracle());
    let recorded = recorded();

    let started = Instant::now();
    let mut tally = Tally::default();
    for text in &recorded {
        let case = Case::whole(text.clone());
        compare(&case, &mut Chance::new(first), &mut oracle, &mut tally);
    }
    for seed in first..first + cases {
        let case = Case::of(seed, &recorded);
        let agree = || compare(&case, &mut Chance::new(!seed), &mut oracle, &mut tally);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(agree)) {
            let text = String::from_utf8_lossy(&case.text);
            eprintln!(
                "INLAY_SEED={seed} INLAY_DIFFERENTIAL_CASES=1 ({:?}):\n{:.9000}",
                case.textual, text
            );
            resume_unwind(panic);
        }
    }
    println!(
        "{cases} cases from seed {first}, and {} recorded: {:.1?}",
        recorded.len(),
        started.elapsed()
    );
    for (what, count) in &tally.0 {
        println!("{count:>9} {what}");
    }
}

/// One by one what is too large, or too odd, to be generated.
#[test]
fn the_edges_are_where_we_say() {
    let mut oracle = Oracle::start(&Peers::locate().oracle());
    let digest = |n: usize| format!(r#""digest":"sha256:{n:064x}""#);
    let row = |length: usize| {
        let record = |n: usize| match n {
            0 => format!("{{{}}}", digest(0)),
            n => format!(r#"{{{},"inputs":[[{{"link":{}}}]]}}"#, digest(n), n - 1),
        };
        let records: Vec<_> = (0..length).map(record).collect();
        format!(r#"{{"records":[{}]}}"#, records.join(","))
    };
    let nested = |depth: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let twice = |second: &str| format!(r#"{{"records":[{{{}}}],{second}}}"#, digest(1));
    for (text, theirs, ours, why) in [
        ("null".to_owned(), true, true, "nothing is an empty cache"),
        (String::new(), false, false, "no JSON"),
        ("[]".into(), false, false, "another type"),
        (row(10_001), true, true, "as deep as we go"),
        (row(10_002), true, false, "deeper than Limits::depth"),
        (
            nested(9_000),
            true,
            true,
            "unknown fields, as deep as Go goes",
        ),
        (
            nested(10_001),
            false,
            true,
            "unknown fields, deeper than Go goes",
        ),
        (
            twice(r#""records":null"#),
            true,
            false,
            "a list twice: the last counts for Go",
        ),
        (
            // Go reads into the record that was there, which so keeps its digest.
            twice(r#""records":[{}]"#),
            true,
            false,
            "a list twice: Go reads a mix of both",
        ),
        (
            // The second record is linked to itself by Go's reading, and by that of the last alone to
            // the first.
            format!(
                r#"{{"records":[{{{}}},{{{},"inputs":[[{{"link":1}}]],"inputs":[[{{}}]]}}]}}"#,
                digest(1),
                digest(2)
            ),
            false,
            false,
            "a loop in what the first of two lists left behind",
        ),
    ] {
        let shown: String = text.chars().take(80).collect();
        let read = oracle.parse(text.as_bytes());
        assert_eq!(
            read.error.is_empty(),
            theirs,
            "{why}: {shown}: {}",
            read.error
        );
        let set = RecordSet::parse(text.as_bytes(), &Limits::default());
        assert_eq!(set.is_ok(), ours, "{why}: {shown}: {:?}", set.err());
        if let (Ok(set), true) = (set, theirs) {
            assert_eq!(reading(&set), read.records, "{why}: {shown}");
        }
    }
}

/// The build that benches measure, smaller.
#[test]
fn a_large_build_comes_out_the_same() {
    let mut oracle = Oracle::start(&Peers::locate().oracle());
    let (text, layers) = generate::build(1_000, 20);
    let set = RecordSet::parse(&text, &Limits::default()).unwrap();
    let written = select(&set).unwrap().to_json();
    let ours = oracle.lookup(&written, &layers, &[]);
    let theirs = oracle.inline(&text, &layers).unwrap();
    let theirs = oracle.lookup(&theirs, &layers, &[]);
    let sorted = |answer: &Answer| {
        let told =
            |read: &oracle::Read| (read.digest.clone(), read.inputs.len(), read.results.clone());
        let mut records: Vec<_> = answer.records.iter().map(told).collect();
        records.sort();
        records
    };
    assert_eq!(ours.records.len(), 1_000);
    assert_eq!(sorted(&ours), sorted(&theirs));
}

/// The caches that fuzzing starts from, and the records that BuildKit exported of real builds,
/// each with layers made up.
fn recorded() -> Vec<Vec<u8>> {
    let mut caches = Vec::new();
    for dir in ["fuzz/corpus-seed/cache_config", "tests/llb"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        let mut paths: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        paths.sort();
        for text in paths.iter().map(|path| fs::read(path).unwrap()) {
            let value: Value = serde_json::from_slice(&text).unwrap();
            match value["records"].as_object() {
                Some(builds) => caches.extend(builds.values().map(with_layers)),
                None => caches.push(text),
            }
        }
    }
    caches
}

/// A config of these records, of which each result has a layer more than the one before, and the
/// last one, that of what is the source of no other, has all.
fn with_layers(records: &Value) -> Vec<u8> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let records = list(records);
    let links = |record: &Value| list(&record["inputs"]).iter().flat_map(list).collect();
    let links: Vec<Vec<Value>> = records.iter().map(links).collect();
    let sources: BTreeSet<_> = links
        .iter()
        .flatten()
        .map(|link| link[1].as_u64())
        .collect();
    let mut layer = 0;
    let record = |(number, record): (usize, &Value)| {
        let link = |link: &Value| json!({"selector": link[0], "link": link[1]});
        let input = |links: &Value| list(links).iter().map(link).collect::<Value>();
        let inputs: Vec<_> = list(&record["inputs"]).iter().map(input).collect();
        let last = !sources.contains(&Some(number as u64));
        layer += 1;
        let layer = if last { records.len() - 1 } else { layer - 1 };
        let results = match record["result"] == true {
            true => json!([{"layer": layer, "createdAt": "2024-02-03T04:05:06Z"}]),
            false => json!([]),
        };
        json!({"digest": record["digest"], "inputs": inputs, "layers": results})
    };
    let made: Vec<_> = records.iter().enumerate().map(record).collect();
    let layer = |n: usize| json!({"blob": format!("sha256:{n:064x}"), "parent": n as i64 - 1});
    let layers: Vec<_> = (0..records.len()).map(layer).collect();
    serde_json::to_vec(&json!({"layers": layers, "records": made})).unwrap()
}

/// How often what was seen.
#[derive(Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn add(&mut self, what: &str, count: usize) {
        *self.0.entry(what.into()).or_default() += count as u64;
    }
}

fn compare(case: &Case, chance: &mut Chance, oracle: &mut Oracle, tally: &mut Tally) {
    let theirs = oracle.parse(&case.text);
    let ours = RecordSet::parse(&case.text, &Limits::default());
    let same = match &ours {
        Ok(set) => theirs.error.is_empty() && reading(set) == without_empty(&theirs.records),
        Err(_) => !theirs.error.is_empty(),
    };
    if same {
        tally.count(if ours.is_ok() {
            "1 read: same records"
        } else {
            "1 read: both refuse"
        });
    } else {
        let difference = Difference::of(case, &theirs, &ours).unwrap_or_else(|| {
            panic!(
                "BuildKit reads {theirs:?}\nand we {:?}",
                ours.as_ref().map(reading)
            )
        });
        tally.count(format!("1 read: differs on purpose, {difference:?}"));
    }
    // What BuildKit did not read, it may read once it is written without `random:` keys.
    if let Ok(set) = &ours
        && (same || !theirs.error.is_empty())
    {
        write_and_look_up(case, set, &theirs, chance, oracle, tally);
    }
}

/// A number for each record that is the same for those that are equal, all that is below included.
fn classes(set: &RecordSet) -> Vec<usize> {
    let mut classes = vec![0; set.records().len()];
    let mut known = BTreeMap::new();
    for &number in set.sources_first() {
        let record = &set.records()[number];
        let input = |links: &Vec<Link>| -> BTreeSet<_> {
            let sources = links.iter();
            sources
                .map(|l| (l.selector.clone(), classes[l.record]))
                .collect()
        };
        let inputs: Vec<_> = record.inputs.iter().map(input).collect();
        let next = known.len();
        classes[number] = *known.entry((record.digest.clone(), inputs)).or_insert(next);
    }
    classes
}

fn write_and_look_up(
    case: &Case,
    set: &RecordSet,
    read: &Answer,
    chance: &mut Chance,
    oracle: &mut Oracle,
    tally: &mut Tally,
) {
    let cache = match select(set) {
        Ok(cache) => cache,
        Err(error) => {
            let why = match error {
                SelectError::NoFinal => "no final record",
                SelectError::AmbiguousFinal(_) => "several images",
                SelectError::RandomFinal(_) => "random final record",
                SelectError::Loop => "a loop in BuildKit",
                SelectError::TooLarge { .. } => "too large",
            };
            return tally.count(format!("2 written: nothing, {why}"));
        }
    };
    let classes = classes(set);
    let sources: BTreeSet<_> = set.records().iter().flat_map(|r| r.sources()).collect();
    let sources: BTreeSet<_> = sources.into_iter().map(|r| classes[r]).collect();
    let is_end = |&r: &usize| !sources.contains(&classes[r]);
    let has_result = |&r: &usize| !set.records()[r].results.is_empty();
    let finals = set.finals().into_iter();
    let finals: Vec<_> = finals.filter(has_result).filter(is_end).collect();
    let image: Vec<String> = set.records()[finals[0]].results[0]
        .iter()
        .map(|&layer| set.layers()[layer].blob.to_string())
        .collect();
    assert_eq!(cache.layers(), image.len());
    for record in cache.records() {
        assert!(!record.digest.is_random());
        if let Some(result) = &record.result {
            let top = match result {
                InlineResult::Layer(top) => *top,
                InlineResult::Chain(layers) => *layers.iter().max().unwrap(),
            };
            assert!(top < image.len(), "a layer outside the image");
        }
    }

    let lookups = Lookups::of(set, &finals, &image, chance);
    let written = cache.to_json();
    let theirs = oracle.lookup(&written, &image, &lookups.builds);
    assert_eq!(
        theirs.error,
        "",
        "BuildKit refuses what we write: {}",
        String::from_utf8_lossy(&written)
    );
    let held = held(&cache, &image);
    assert_eq!(theirs.records, held, "BuildKit reads what we write");
    let blobs: Vec<_> = image.iter().map(|blob| blob.parse().unwrap()).collect();
    let again = InlineCache::decode(&cache.encode(), &blobs, &Limits::default()).unwrap();
    assert_eq!(reading(&again), held, "we read what we write");
    tally.count("2 written: read back as the same records");

    lookups.compare(case, set, read, &theirs, oracle, tally);
}
