//! What a daemon finds in an image's cache, by whom it was written.

use std::collections::{BTreeMap, BTreeSet};

use inlay::cache::record::{Link, RecordSet};
use serde_json::Value;

use super::{
    Tally,
    generate::{Case, Chance},
    oracle::{Answer, Build, Found, Oracle, Read, Source, Step},
    reading::first_places,
};

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
/// it loses links (`lossy`). With the first we hold what we write to give no less, with the second
/// to nothing.
pub struct Lookups {
    pub builds: Vec<Build>,
    /// Of each build, of each step the records that it finds.
    matches: Vec<Vec<BTreeSet<usize>>>,
    /// For each record of the set a number that it shares with those that are equal to it.
    classes: Vec<usize>,
    /// Of each class the results that it has in the set; `None` for one of other layers than
    /// the image's.
    results: BTreeMap<usize, BTreeSet<Option<Vec<usize>>>>,
    /// Whether some of these are of records that do not lead to a final one, though equal ones do.
    stray: bool,
    /// The same of records that have no more than the digest in common.
    stray_digest: bool,
    /// The image's layers, and the first place of the blob of each.
    image: Vec<String>,
    places: Vec<usize>,
}

impl Lookups {
    pub fn of(set: &RecordSet, finals: &[usize], image: &[String], chance: &mut Chance) -> Self {
        let records = set.records();
        // What a `random:` key does not keep from being found.
        let mut alive = vec![false; records.len()];
        for &number in set.sources_first() {
            let mut inputs = records[number].inputs.iter();
            alive[number] = !records[number].digest.is_random()
                && inputs.all(|links| links.iter().any(|link| alive[link.record]));
        }
        let mut wanted = BTreeSet::new();
        let mut to_visit = finals.to_vec();
        while let Some(record) = to_visit.pop() {
            if alive[record] && wanted.insert(record) {
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
        let classes = classes(set, &alive);
        let mut results: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let kept: BTreeSet<_> = wanted.iter().map(|&record| classes[record]).collect();
        let digests: BTreeSet<_> = wanted.iter().map(|&r| &records[r].digest).collect();
        let (mut stray, mut stray_digest) = (false, false);
        for (number, (record, class)) in records.iter().zip(&classes).enumerate() {
            if !wanted.contains(&number) {
                stray |= kept.contains(class) && !record.results.is_empty();
                stray_digest |= digests.contains(&record.digest) && !record.results.is_empty();
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
            stray_digest,
            image: image.to_vec(),
            places: blobs.iter().map(|blob| places[blob]).collect(),
        }
    }

    /// Holds what was found in what we wrote against the set, and against what is found in what
    /// BuildKit writes.
    pub fn compare(
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
        self.hold_against_set(set, ours);
        if !read.error.is_empty() {
            return tally.count("3 looked up: ours only, BuildKit refuses the config");
        }
        if self.stray {
            return tally.count("3 looked up: ours only, equal records of which one leads nowhere");
        }

        let text = oracle.inline(&case.text, &self.image);
        let theirs = oracle.lookup(&text.unwrap(), &self.image, &self.builds);
        assert_eq!(theirs.error, "", "BuildKit refuses what it writes");
        if mixed(&read.records) || read.merges.lossy || theirs.merges.lossy {
            return tally.count("3 looked up: ours only, BuildKit loses links");
        }
        if read.merges.inexact && self.stray_digest {
            return tally.count("3 looked up: ours only, BuildKit merges what leads nowhere");
        }
        if read.merges.inexact {
            self.hold_no_less(ours, &theirs);
            return tally.count("3 looked up: no less than in BuildKit's, which merges records");
        }
        for merges in [ours.merges, theirs.merges] {
            assert!(!merges.inexact, "merges what is apart in the config");
        }
        // One without layers may be BuildKit's choice too.
        let no_layers = |record: &Read| record.results.iter().any(Vec::is_empty);
        if read.records.iter().any(no_layers) || self.results.values().any(|r| r.len() > 1) {
            self.hold_no_less(ours, &theirs);
            self.hold_to_set(&theirs);
            tally.count("3 looked up: no less than in BuildKit's, several results of one key");
        } else if !dated(&case.usual) {
            self.hold_no_less(ours, &theirs);
            self.hold_to_set(&theirs);
            tally.count("3 looked up: no less than in BuildKit's, results without dates");
        } else {
            let mut steps = 0;
            self.each(|_, build, at| {
                let (ours, theirs) = (&ours.found[build][at], &theirs.found[build][at]);
                assert_eq!(ours, theirs, "step {at} of {:?}", self.builds[build]);
                steps += 1;
            });
            let how = if read.merges.exact {
                "; some records are equal"
            } else {
                ""
            };
            tally.count(format!("3 looked up: the same layers for all steps{how}"));
            tally.add("3 steps looked up with the same layers", steps);
        }
    }

    /// What we wrote gives what the set says, or, where BuildKit makes one record of several, at
    /// least that and nothing that is not of them.
    fn hold_against_set(&self, set: &RecordSet, ours: &Answer) {
        self.each(|step, build, at| {
            let found = &ours.found[build][at];
            let expected = self.expected(step);
            let place = || format!("step {at} of {:?}", self.builds[build]);
            if !ours.merges.inexact {
                assert_eq!(found, &expected, "{}", place());
                return;
            }
            // In one record, two results of one date and length are one to BuildKit.
            let as_long = |result: &Vec<_>| found.iter().any(|other| other.len() == result.len());
            assert!(expected.iter().all(as_long), "{}", place());
            let possible = self.possible(set, &self.builds[build][at].digest);
            assert!(
                found.iter().all(|result| possible.contains(result)),
                "{}",
                place()
            );
        });
    }

    /// Whatever is found in what BuildKit wrote, something is found in what we wrote.
    ///
    /// Of several results of a record BuildKit keeps the newest, whether or not it is of the
    /// image, and it loses one that is the image's first layer if it has no date. We keep the
    /// least that is of the image.
    fn hold_no_less(&self, ours: &Answer, theirs: &Answer) {
        self.each(|_, build, at| {
            let (ours, theirs) = (&ours.found[build][at], &theirs.found[build][at]);
            let less = ours.is_empty() && !theirs.is_empty();
            assert!(!less, "step {at} of {:?}", self.builds[build]);
        });
    }

    /// What is found are results that the records of the step have in the set.
    fn hold_to_set(&self, theirs: &Answer) {
        self.each(|step, build, at| {
            let results = |&record: &usize| self.results.get(&self.classes[record]);
            let all: BTreeSet<_> = step
                .iter()
                .filter_map(results)
                .flatten()
                .flatten()
                .collect();
            let theirs = &theirs.found[build][at];
            let known = theirs.iter().all(|result| all.contains(result));
            assert!(known, "step {at} of {:?}", self.builds[build]);
        });
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

/// A number for each record, equal for records of one digest with the same links to equal ones,
/// if those that are not alive count for nothing.
fn classes(set: &RecordSet, alive: &[bool]) -> Vec<usize> {
    let mut classes = vec![0; set.records().len()];
    let mut known = BTreeMap::new();
    for &number in set.sources_first() {
        let record = &set.records()[number];
        let links = |links: &Vec<Link>| {
            let link = |link: &Link| (link.selector.clone(), classes[link.record]);
            let links = links.iter().filter(|link| alive[link.record]);
            links.map(link).collect::<BTreeSet<_>>()
        };
        let inputs: Vec<_> = record.inputs.iter().map(links).collect();
        let next = known.len();
        classes[number] = *known
            .entry((record.digest.as_str(), inputs))
            .or_insert(next);
    }
    classes
}
