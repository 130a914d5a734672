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
//! `INLAY_DIFFERENTIAL_CASES` is their number, `INLAY_DIFFERENTIAL_SEED` the first one's seed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod generate;
mod oracle;
#[path = "../support/peers.rs"]
#[allow(dead_code, reason = "shared; this uses one of them")]
mod peers;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Instant,
};

use generate::{Case, Chance, Textual};
use inlay::record::{
    DigestError, InlineCache, InlineResult, Limits, Link, ParseError, RecordSet, SelectError,
    select,
};
use oracle::{Answer, Build, Found, Oracle, Read, Source, Step};
use serde_json::Value;

#[test]
fn we_agree_with_buildkit() {
    let number = |name, default| env::var(name).map_or(default, |n| n.parse().unwrap());
    let cases = number("INLAY_DIFFERENTIAL_CASES", 600);
    let first = number("INLAY_DIFFERENTIAL_SEED", 1);
    let mut oracle = Oracle::start(&peers::Peers::locate().oracle());
    let recorded = recorded();

    let started = Instant::now();
    let mut tally = Tally::default();
    for seed in first..first + cases {
        let case = Case::of(seed, &recorded);
        let agree = || compare(&case, &mut Chance::new(!seed), &mut oracle, &mut tally);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(agree)) {
            let text = String::from_utf8_lossy(&case.text);
            eprintln!(
                "INLAY_DIFFERENTIAL_SEED={seed} INLAY_DIFFERENTIAL_CASES=1 ({:?}):\n{:.9000}",
                case.textual, text
            );
            resume_unwind(panic);
        }
    }
    println!(
        "seeds {first} to {}, {:.1?}",
        first + cases - 1,
        started.elapsed()
    );
    for (what, count) in &tally.0 {
        println!("{count:>9} {what}");
    }
}

/// One by one what is too large, or too odd, to be generated.
#[test]
fn the_edges_are_where_we_say() {
    let mut oracle = Oracle::start(&peers::Peers::locate().oracle());
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
            true,
            "a list twice: the last counts",
        ),
        (
            // Go reads into the record that was there, which so keeps its digest.
            twice(r#""records":[{}]"#),
            true,
            false,
            "a list twice: Go reads a mix of both, we the last",
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

/// Caches that BuildKit exported of real builds.
fn recorded() -> Vec<Vec<u8>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus-seed/cache_config");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
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
    if let Ok(set) = &ours
        && same
    {
        write_and_look_up(case, set, &theirs, chance, oracle, tally);
    }
}

// === 1: reading ===

/// Where we read another thing than BuildKit does, on purpose.
#[derive(Debug)]
enum Difference {
    /// Any text is a digest to BuildKit, and the absence of one.
    DigestForm,
    /// A fault in layers that no result names is not seen by BuildKit.
    UnnamedLayer,
    /// BuildKit has no place for a `random:` key, and so refuses what links to it. We read it,
    /// and select nothing that needs it.
    RandomSource,
    /// We skip dates, and BuildKit refuses what is none.
    Date,
    /// serde_json has no negative zero but of floating point.
    MinusZero,
    /// Go puts U+FFFD for what is not Unicode, and we refuse.
    NotUnicode,
    /// To Go the case of a field's name is no matter, and to us it is another field.
    FieldCase,
}

impl Difference {
    /// The difference that the case shows, if it is one.
    fn of(case: &Case, theirs: &Answer, ours: &Result<RecordSet, ParseError>) -> Option<Self> {
        if case.textual == Some(Textual::Case) {
            let without = RecordSet::parse(&case.without, &Limits::default());
            let as_without = match (ours, &without) {
                (Ok(ours), Ok(without)) => reading(ours) == reading(without),
                (Err(ours), Err(without)) => ours.to_string() == without.to_string(),
                _ => false,
            };
            // Else there may be another difference in the same case.
            if as_without && Self::in_values(case, theirs, ours).is_none() {
                return Some(Self::FieldCase);
            }
        }
        Self::in_values(case, theirs, ours)
    }

    fn in_values(
        case: &Case,
        theirs: &Answer,
        ours: &Result<RecordSet, ParseError>,
    ) -> Option<Self> {
        let accepted = theirs.error.is_empty();
        match ours {
            Ok(set) if !accepted => {
                let source_is_random = |link: &Link| set.records()[link.record].digest.is_random();
                let mut links = set.records().iter().flat_map(|r| r.inputs.iter().flatten());
                // The first link to it, or one after it was left out.
                let refused = theirs.error.starts_with("failed to add record")
                    && theirs.error.contains("invalid dependency type <nil>")
                    || theirs.error == "invalid looping record";
                if refused && links.any(source_is_random) {
                    return Some(Self::RandomSource);
                }
                let date = case.textual == Some(Textual::Unread)
                    && theirs.error.starts_with("parsing time ")
                    && theirs.error.contains("yesterday");
                date.then_some(Self::Date)
            }
            Err(error) if accepted => {
                let config: Value = serde_json::from_slice(&case.text).unwrap_or_default();
                match error {
                    ParseError::RecordDigest { record, why } => {
                        Self::of_digest(&config["records"][record]["digest"], why)
                    }
                    ParseError::LayerDigest { layer, why } => {
                        Self::of_digest(&config["layers"][layer]["blob"], why)
                    }
                    ParseError::LayerParent { layer, .. } | ParseError::LayerLoop { layer } => {
                        (!named(&config).contains(layer)).then_some(Self::UnnamedLayer)
                    }
                    ParseError::Json(_) => match case.textual? {
                        Textual::MinusZero => Some(Self::MinusZero),
                        Textual::NotUnicode => Some(Self::NotUnicode),
                        _ => None,
                    },
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn of_digest(field: &Value, why: &DigestError) -> Option<Self> {
        let text = field.as_str().unwrap_or_default();
        let (algorithm, hex) = text.split_once(':').unwrap_or_default();
        let digits = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => 0,
        };
        let lower_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let well_formed = digits > 0 && hex.len() == digits && hex.chars().all(lower_hex);
        let right = match why {
            DigestError::Absent => text.is_empty(),
            DigestError::NotABlob(_) => text.starts_with("random:"),
            DigestError::Malformed { .. } => !text.is_empty(),
        };
        (right && !well_formed).then_some(Self::DigestForm)
    }
}

/// The layers that BuildKit walks over: those of `layers` results, and what is below them.
fn named(config: &Value) -> BTreeSet<usize> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let layers = list(&config["layers"]);
    let records = list(&config["records"]);
    let number = |value: &Value| match value {
        Value::Null => Some(0),
        value => value.as_u64().map(|n| n as usize),
    };
    let mut named = BTreeSet::new();
    for top in records.iter().flat_map(|record| list(&record["layers"])) {
        let mut next = number(&top["layer"]);
        while let Some(layer) = next
            && layer < layers.len()
            && named.insert(layer)
        {
            next = number(&layers[layer]["parent"]);
        }
    }
    named
}

/// A set as the oracle tells of its reading: each record after its sources, as BuildKit's parser
/// visits them. Like BuildKit's it has no `random:` records, which nothing may link to.
fn reading(set: &RecordSet) -> Vec<Read> {
    let blobs: Vec<_> = set
        .layers()
        .iter()
        .map(|layer| layer.blob.as_str())
        .collect();
    let places = first_places(&blobs);
    let links = |record: usize| set.records()[record].inputs.as_slice();
    let order = visited(set.records().len(), links);
    let order = order
        .into_iter()
        .filter(|&r| !set.records()[r].digest.is_random());
    told(order, links, |r| {
        let record = &set.records()[r];
        let place = |layer: &usize| places[blobs[*layer]];
        let results = record
            .results
            .iter()
            .map(|chain| chain.iter().map(place).collect());
        (record.digest.to_string(), results.collect())
    })
}

/// A result without layers is none to us, as it is to BuildKit when it writes what it read.
fn without_empty(records: &[Read]) -> Vec<Read> {
    let mut records = records.to_vec();
    for record in &mut records {
        record.results.retain(|result| !result.is_empty());
    }
    records
}

/// Numbers of the records, each after its sources in the order of its links, like BuildKit's.
fn visited<'a>(records: usize, links: impl Fn(usize) -> &'a [Vec<Link>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(records);
    let mut seen = vec![false; records];
    let mut to_visit: Vec<(usize, bool)> = (0..records).rev().map(|r| (r, false)).collect();
    while let Some((record, sources_done)) = to_visit.pop() {
        if sources_done {
            order.push(record);
        } else if !std::mem::replace(&mut seen[record], true) {
            to_visit.push((record, true));
            let sources = links(record).iter().flatten().rev();
            to_visit.extend(sources.map(|link| (link.record, false)));
        }
    }
    order
}

fn told<'a>(
    order: impl Iterator<Item = usize>,
    links: impl Fn(usize) -> &'a [Vec<Link>],
    digest_and_results: impl Fn(usize) -> (String, Vec<Vec<usize>>),
) -> Vec<Read> {
    let mut numbers = BTreeMap::new();
    let mut told = Vec::new();
    for record in order {
        let source = |link: &Link| Source {
            selector: link.selector.to_string(),
            node: numbers.get(&link.record).copied().unwrap_or(usize::MAX),
        };
        let inputs = links(record).iter();
        let inputs = inputs
            .map(|links| links.iter().map(source).collect())
            .collect();
        let (digest, results) = digest_and_results(record);
        numbers.insert(record, told.len());
        told.push(Read {
            digest,
            inputs,
            results,
        });
    }
    told
}

fn first_places<'a>(blobs: &[&'a str]) -> BTreeMap<&'a str, usize> {
    let mut places = BTreeMap::new();
    for (place, blob) in blobs.iter().enumerate() {
        places.entry(*blob).or_insert(place);
    }
    places
}

// === 2: writing ===

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
                SelectError::TooLarge { .. } => "too large",
            };
            return tally.count(format!("2 written: nothing, {why}"));
        }
    };
    let finals: Vec<_> = set
        .finals()
        .into_iter()
        .filter(|&r| !set.records()[r].results.is_empty())
        .collect();
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

/// What we are about to write, as the oracle would tell of reading it.
fn held(cache: &InlineCache, image: &[String]) -> Vec<Read> {
    let blobs: Vec<_> = image.iter().map(String::as_str).collect();
    let places = first_places(&blobs);
    let place = |layer: usize| places[blobs[layer]];
    let links = |record: usize| cache.records()[record].inputs.as_slice();
    let order = visited(cache.records().len(), links);
    told(order.into_iter(), links, |r| {
        let record = &cache.records()[r];
        let result: Option<Vec<_>> = record.result.as_ref().map(|result| match result {
            InlineResult::Layer(top) => (0..=*top).map(place).collect(),
            InlineResult::Chain(layers) => layers.iter().map(|&l| place(l)).collect(),
        });
        (record.digest.to_string(), result.into_iter().collect())
    })
}

// === 3: looking up ===

/// Builds that the records of a set may be looked up with: those that lead to its final records,
/// as steps; of each input one of its sources.
///
/// A step is found if a record has its digest and for each input a link to one that was found
/// for that input's step. What it gives are the results of all such records. That is what the
/// solver gathers, with all keys of an input in turn.
///
/// BuildKit takes records for one that have a link of each input in common, and lookups in
/// what comes of that depend on the order of records where these differ in other links
/// (`inexact`). Where there are several to choose from, or a record would become its own source,
/// it loses links (`lossy`). With the first we hold it only to what both readings have in common,
/// with the second to nothing.
struct Lookups {
    builds: Vec<Build>,
    /// Of each build, of each step the records that it finds.
    matches: Vec<Vec<BTreeSet<usize>>>,
    /// For each record of the set a number that it shares with those that are equal to it.
    classes: Vec<usize>,
    /// Of each class the results that it has in the set; `None` for one of other layers than
    /// the image's.
    results: BTreeMap<usize, BTreeSet<Option<Vec<usize>>>>,
    /// Whether some of these are of records that do not lead to a final one, though equal ones do.
    stray: bool,
    /// The image's layers, and the first place of the blob of each.
    image: Vec<String>,
    places: Vec<usize>,
}

impl Lookups {
    fn of(set: &RecordSet, finals: &[usize], image: &[String], chance: &mut Chance) -> Self {
        let records = set.records();
        let mut wanted = BTreeSet::new();
        let mut to_visit = finals.to_vec();
        while let Some(record) = to_visit.pop() {
            if !records[record].digest.is_random() && wanted.insert(record) {
                to_visit.extend(records[record].sources());
            }
        }
        let order: Vec<_> = set
            .sources_first()
            .iter()
            .copied()
            .filter(|r| wanted.contains(r))
            .collect();
        let builds: Vec<_> = (0..4).map(|_| build(set, &order, chance)).collect();

        let blobs: Vec<_> = image.iter().map(String::as_str).collect();
        let places = first_places(&blobs);
        let classes = classes(set);
        let mut results: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let kept: BTreeSet<_> = wanted.iter().map(|&record| classes[record]).collect();
        let mut stray = false;
        for (number, (record, class)) in records.iter().zip(&classes).enumerate() {
            if !wanted.contains(&number) {
                stray |= kept.contains(class) && !record.results.is_empty();
                continue;
            }
            let placed = record.results.iter().map(|chain| {
                let place = |&layer: &usize| places.get(set.layers()[layer].blob.as_str()).copied();
                chain.iter().map(place).collect::<Option<Vec<_>>>()
            });
            results.entry(*class).or_default().extend(placed);
        }
        Self {
            matches: builds.iter().map(|build| matches(set, build)).collect(),
            builds,
            classes,
            results,
            stray,
            image: image.to_vec(),
            places: blobs.iter().map(|blob| places[blob]).collect(),
        }
    }

    /// Holds what was found in what we wrote against the set, and against what is found in what
    /// BuildKit writes.
    fn compare(
        &self,
        case: &Case,
        set: &RecordSet,
        read: &Answer,
        ours: &Answer,
        oracle: &mut Oracle,
        tally: &mut Tally,
    ) {
        if ours.merges.lossy {
            return tally.count("3 looked up: no, BuildKit loses links");
        }
        self.each(|step, build, at| {
            let found = &ours.found[build][at];
            let expected = self.expected(step);
            if ours.merges.inexact {
                // In one record, two results of one date and length are one to BuildKit.
                let as_long =
                    |result: &Vec<_>| found.iter().any(|other| other.len() == result.len());
                assert!(expected.iter().all(as_long), "build {build}, step {at}");
                let possible = self.possible(set, &self.builds[build][at].digest);
                assert!(
                    found.iter().all(|result| possible.contains(result)),
                    "build {build}, step {at}"
                );
            } else {
                assert_eq!(
                    found, &expected,
                    "build {build}, step {at}: {:?}",
                    self.builds[build]
                );
            }
        });

        let theirs = match oracle.inline(&case.text, &self.image) {
            Ok(text) if text.is_empty() => {
                return tally.count("3 looked up: BuildKit embeds nothing");
            }
            Ok(text) => oracle.lookup(&text, &self.image, &self.builds),
            Err(error) => panic!("BuildKit does not embed: {error}"),
        };
        assert_eq!(theirs.error, "", "BuildKit refuses what it writes");
        let exact = |answer: &Answer| !answer.merges.inexact && !answer.merges.lossy;
        if mixed(&read.records) || !exact(read) {
            let same = !theirs.merges.lossy && ours.found == theirs.found;
            let how = if same {
                "the same all the same"
            } else {
                "no matter"
            };
            return tally.count(format!("3 looked up: BuildKit merges inexactly, {how}"));
        }
        if self.stray {
            return tally
                .count("3 looked up: results of a record that leads nowhere, but for its equal");
        }
        assert!(
            exact(ours) && exact(&theirs),
            "one of them merges what is apart in the config"
        );
        // One without layers may be BuildKit's choice too.
        let no_layers = |record: &Read| record.results.iter().any(Vec::is_empty);
        let dated = dated(&case.text);
        let one_each = self.results.values().all(|results| results.len() < 2)
            && !read.records.iter().any(no_layers);
        let mut steps = 0;
        self.each(|step, build, at| {
            let (ours, theirs) = (&ours.found[build][at], &theirs.found[build][at]);
            steps += 1;
            if one_each && dated {
                assert_eq!(
                    ours, theirs,
                    "build {build}, step {at}: {:?}",
                    self.builds[build]
                );
            } else {
                // Of several results BuildKit keeps the newest, whether or not it is of the image,
                // and it loses one without a date that is the image's first layer. We keep the
                // least that is of the image.
                let all: BTreeSet<_> = step
                    .iter()
                    .filter_map(|&r| self.results.get(&self.classes[r]))
                    .flatten()
                    .collect();
                assert!(
                    theirs
                        .iter()
                        .all(|result| all.contains(&Some(result.clone())))
                );
                assert!(
                    theirs.is_empty() || !ours.is_empty(),
                    "build {build}, step {at}"
                );
            }
        });
        if one_each && dated {
            tally.count("3 looked up: the same layers for all steps");
            if read.merges.exact {
                tally.count(
                    "3 looked up: the same layers for all steps, and equal records made one",
                );
            }
            tally.add("3 steps looked up with the same layers", steps);
        } else if one_each {
            tally.count("3 looked up: no less than in BuildKit's, without dates");
        } else {
            tally.count("3 looked up: no less than in BuildKit's, several results of one key");
        }
    }

    fn each(&self, mut check: impl FnMut(&BTreeSet<usize>, usize, usize)) {
        for (build, steps) in self.matches.iter().enumerate() {
            for (at, step) in steps.iter().enumerate() {
                check(step, build, at);
            }
        }
    }

    /// What a step must find in what we write: of each of its records' results the least.
    fn expected(&self, step: &BTreeSet<usize>) -> Found {
        let classes: BTreeSet<_> = step.iter().map(|&record| self.classes[record]).collect();
        let least = classes.into_iter().filter_map(|class| {
            let placed = self.results.get(&class).into_iter().flatten().flatten();
            // A prefix of the image comes before any other, and the shorter before the longer.
            placed
                .min_by_key(|result| (!self.places.starts_with(result), *result))
                .cloned()
        });
        least.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// All results of this digest.
    fn possible(&self, set: &RecordSet, digest: &str) -> BTreeSet<Vec<usize>> {
        let records = set.records().iter().zip(&self.classes);
        let classes = records.filter(|(record, _)| record.digest.as_str() == digest);
        let results = classes.filter_map(|(_, class)| self.results.get(class));
        results.flatten().flatten().cloned().collect()
    }
}

/// Whether each result says when it was made, as all do that BuildKit writes.
fn dated(config: &[u8]) -> bool {
    let config: Value = serde_json::from_slice(config).unwrap();
    let records = config["records"].as_array().into_iter().flatten();
    let lists = records.flat_map(|record| [&record["layers"], &record["chains"]]);
    let mut results = lists.filter_map(Value::as_array).flatten();
    results.all(|result| result["createdAt"].is_string())
}

/// Whether some digest has records of several numbers of inputs, as no operation has. Whether
/// BuildKit takes these for one depends on which comes first.
fn mixed(records: &[Read]) -> bool {
    let mut inputs = BTreeMap::new();
    let mut other = |record: &&Read| {
        let number = record.inputs.len();
        *inputs.entry(record.digest.clone()).or_insert(number) != number
    };
    records.iter().any(|record| other(&record))
}

/// One way to build the records of `order`.
fn build(set: &RecordSet, order: &[usize], chance: &mut Chance) -> Build {
    let mut steps = BTreeMap::new();
    let mut build = Build::new();
    for &number in order {
        let record = &set.records()[number];
        let mut source = |links: &Vec<Link>| {
            let known: Vec<_> = links
                .iter()
                .filter(|link| steps.contains_key(&link.record))
                .collect();
            let link = chance.pick(&known);
            Source {
                selector: link.selector.to_string(),
                node: steps[&link.record],
            }
        };
        let inputs = record.inputs.iter().map(&mut source).collect();
        steps.insert(number, build.len());
        build.push(Step {
            digest: record.digest.to_string(),
            inputs,
        });
    }
    build
}

/// The records of `set` that each step finds.
fn matches(set: &RecordSet, build: &Build) -> Vec<BTreeSet<usize>> {
    let mut by_digest: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (number, record) in set.records().iter().enumerate() {
        by_digest
            .entry(record.digest.as_str())
            .or_default()
            .push(number);
    }
    let mut found: Vec<BTreeSet<usize>> = Vec::new();
    for step in build {
        let of_digest = by_digest
            .get(step.digest.as_str())
            .into_iter()
            .flatten()
            .copied();
        let matching = of_digest.filter(|&number| {
            let inputs = &set.records()[number].inputs;
            // BuildKit does not look at inputs that it was not asked for.
            (step.inputs.is_empty() == inputs.is_empty())
                && step.inputs.len() <= inputs.len()
                && step.inputs.iter().zip(inputs).all(|(source, links)| {
                    let leads = |link: &Link| {
                        *link.selector == *source.selector
                            && found[source.node].contains(&link.record)
                    };
                    links.iter().any(leads)
                })
        });
        found.push(matching.collect());
    }
    found
}

/// A number for each record, equal for records of one digest with the same links to equal ones.
fn classes(set: &RecordSet) -> Vec<usize> {
    let mut classes = vec![0; set.records().len()];
    let mut known = BTreeMap::new();
    for &number in set.sources_first() {
        let record = &set.records()[number];
        let links = |links: &Vec<Link>| {
            let link = |link: &Link| (link.selector.clone(), classes[link.record]);
            links.iter().map(link).collect::<BTreeSet<_>>()
        };
        let inputs: Vec<_> = record.inputs.iter().map(links).collect();
        let next = known.len();
        classes[number] = *known
            .entry((record.digest.as_str(), inputs))
            .or_insert(next);
    }
    classes
}
