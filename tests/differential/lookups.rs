//! What a daemon finds in an image's cache, by whom it was written.

use std::collections::{BTreeMap, BTreeSet};

use inlay::record::{Link, RecordSet};
use serde_json::Value;

use crate::{
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
/// it loses links (`lossy`). With the first we hold it only to what both readings have in common,
/// with the second to nothing.
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
    /// The image's layers, and the first place of the blob of each.
    image: Vec<String>,
    places: Vec<usize>,
}

impl Lookups {
    pub fn of(set: &RecordSet, finals: &[usize], image: &[String], chance: &mut Chance) -> Self {
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
