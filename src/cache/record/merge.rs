//! Finds the records that BuildKit merges when it reads a cache, and whether that makes a loop.
//!
//! `CacheChains.Add` (`cache/remotecache/v1/chains.go`, v0.34.2) merges two records if they have the same
//! digest and, for each input that both have, a source in common. The merged record has the links of both.
//! If a record is merged with one that it is made of, records without a loop get one. BuildKit does not
//! check for that: buildkitd follows the loop until its stack overflows, and ends.

use std::collections::{HashMap, HashSet};

use super::{Digest, InlineRecord, Link, Record, RecordSet};

/// How often a link is examined on average, at most. Sets that need more are refused. No build comes near.
const LOOKS: usize = 64;

/// Sets of merged records, as a union-find forest. The root of each set is its lowest number.
struct Classes(Vec<usize>);

/// A source of an input: the selector, and the record.
type Source<'a> = (&'a str, usize);

/// A record's digest and inputs, which decide whether it is merged.
pub(super) trait Keyed {
    fn digest(&self) -> &Digest;
    fn inputs(&self) -> &[Vec<Link>];
}

/// Records, of which some may be merged.
struct Merging<'a, R> {
    records: &'a [R],
    /// For each record, whether it has inputs and shares its digest with another record that has inputs.
    may_merge: Vec<bool>,
}

impl RecordSet {
    /// Whether the records stay free of loops when BuildKit reads and merges them. False also where it would
    /// take too long to tell.
    pub fn survives_merging(&self) -> bool {
        survives(self.records())
    }
}

/// Whether records without loops stay so when BuildKit reads and merges them. False also where it would take
/// too long to tell.
pub(super) fn survives<R: Keyed>(records: &[R]) -> bool {
    let with_inputs = |record: &&R| !record.inputs().is_empty();
    let mut counts: HashMap<&Digest, usize> = HashMap::new();
    for record in records.iter().filter(with_inputs) {
        *counts.entry(record.digest()).or_default() += 1;
    }
    // Most caches have no two such records. Merged roots make no loop.
    if counts.values().all(|count| *count == 1) {
        return true;
    }
    let may_merge = records.iter().map(|record| {
        let several = counts.get(record.digest()).is_some_and(|count| *count > 1);
        with_inputs(&record) && several
    });
    let merging = Merging {
        records,
        may_merge: may_merge.collect(),
    };
    let links = records.iter().flat_map(|record| record.inputs());
    let links: usize = links.map(Vec::len).sum();
    let mut looks = (links + records.len()).saturating_mul(LOOKS);
    let mut classes = Classes((0..records.len()).collect());
    merging.merge_roots(&mut classes);
    loop {
        match merging.merge(&mut classes, &mut looks) {
            Some(true) => {}
            Some(false) => return !merging.has_loop(&mut classes),
            None => return false,
        }
    }
}

impl<R: Keyed> Merging<'_, R> {
    /// Merges roots with the same digest.
    fn merge_roots(&self, classes: &mut Classes) {
        let mut roots: HashMap<&Digest, usize> = HashMap::new();
        for (number, record) in self.records.iter().enumerate() {
            if record.inputs().is_empty() {
                let root = *roots.entry(record.digest()).or_insert(number);
                classes.unite(root, number);
            }
        }
    }

    /// Makes one pass over the records and merges them. Returns whether any were merged. `None` where `looks`
    /// run out.
    fn merge(&self, classes: &mut Classes, looks: &mut usize) -> Option<bool> {
        let mut inputs: HashMap<usize, Vec<HashSet<Source<'_>>>> = HashMap::new();
        let mut by_source: HashMap<(&Digest, Source<'_>), Vec<usize>> = HashMap::new();
        let mut merged = false;
        let may_merge = self.may_merge.iter().enumerate().filter(|(_, may)| **may);
        for (number, _) in may_merge {
            let record = &self.records[number];
            let mut own = Vec::with_capacity(record.inputs().len());
            for links in record.inputs() {
                *looks = looks.checked_sub(links.len())?;
                let links = links.iter();
                let sources = links.map(|link| (&*link.selector, classes.of(link.record)));
                own.push(sources.collect::<HashSet<_>>());
            }
            let first = own.first()?;
            let mut like = Vec::new();
            for source in first {
                let key = (record.digest(), *source);
                let known = by_source.entry(key).or_default();
                *looks = looks.checked_sub(known.len())?;
                like.extend(known.iter().copied());
                known.push(number);
            }
            let class = classes.of(number);
            for other in like {
                let other = classes.of(other);
                if other == classes.of(class) {
                    continue;
                }
                // Records with different numbers of inputs are merged if the inputs of both match.
                let shared = inputs.get(&other).is_some_and(|known| {
                    let mut pairs = known.iter().zip(&own);
                    pairs.all(|(known, own)| !known.is_disjoint(own))
                });
                *looks = looks.checked_sub(own.iter().map(HashSet::len).sum())?;
                if shared {
                    merged |= classes.unite(other, class);
                }
            }
            // A merged record has the links of all.
            let all = inputs.entry(classes.of(number)).or_default();
            all.resize_with(own.len().max(all.len()), HashSet::new);
            for (all, own) in all.iter_mut().zip(own) {
                all.extend(own);
            }
        }
        Some(merged)
    }

    fn has_loop(&self, classes: &mut Classes) -> bool {
        let count = self.records.len();
        let mut sources: Vec<HashSet<usize>> = vec![HashSet::new(); count];
        for (number, record) in self.records.iter().enumerate() {
            let of = classes.of(number);
            let links = record.inputs().iter().flatten();
            sources[of].extend(links.map(|link| classes.of(link.record)));
        }
        let mut made_of_it: Vec<Vec<usize>> = vec![Vec::new(); count];
        let mut open: Vec<usize> = sources.iter().map(HashSet::len).collect();
        for (number, sources) in sources.iter().enumerate() {
            for source in sources {
                made_of_it[*source].push(number);
            }
        }
        let mut free: Vec<usize> = (0..count).filter(|n| open[*n] == 0).collect();
        let mut done = 0;
        while let Some(number) = free.pop() {
            done += 1;
            for next in &made_of_it[number] {
                open[*next] -= 1;
                if open[*next] == 0 {
                    free.push(*next);
                }
            }
        }
        done < count
    }
}

impl Keyed for Record {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn inputs(&self) -> &[Vec<Link>] {
        &self.inputs
    }
}

impl Keyed for InlineRecord {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn inputs(&self) -> &[Vec<Link>] {
        &self.inputs
    }
}

// === impl Classes ===

impl Classes {
    fn of(&mut self, mut number: usize) -> usize {
        while self.0[number] != number {
            self.0[number] = self.0[self.0[number]];
            number = self.0[number];
        }
        number
    }

    /// Unites the sets of two records. Returns whether they were two.
    fn unite(&mut self, one: usize, other: usize) -> bool {
        let (one, other) = (self.of(one), self.of(other));
        self.0[one.max(other)] = one.min(other);
        one != other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::record::Limits;

    fn survives(records: &str) -> bool {
        let mut records = records.to_owned();
        for name in ["a", "b", "c"] {
            let digest = format!("\"sha256:{}\"", name.repeat(64));
            records = records.replace(&format!("\"{name}\""), &digest);
        }
        let config = format!(r#"{{"records":{records}}}"#);
        let set = RecordSet::parse(config.as_bytes(), &Limits::default());
        set.unwrap().survives_merging()
    }

    #[test]
    fn a_step_upon_itself_is_two_unless_its_sources_are_one() {
        // The same step two times, one upon the other.
        assert!(survives(
            r#"[{"digest":"a"},{"digest":"b","inputs":[[{"link":0}]]},
                {"digest":"b","inputs":[[{"link":1}]]}]"#
        ));
        // The second may be upon what the first is upon.
        assert!(!survives(
            r#"[{"digest":"a"},{"digest":"b","inputs":[[{"link":0}]]},
                {"digest":"b","inputs":[[{"link":1},{"link":0}]]}]"#
        ));
        // But not in both of its inputs.
        assert!(survives(
            r#"[{"digest":"a"},{"digest":"c"},
                {"digest":"b","inputs":[[{"link":0}],[{"link":1}]]},
                {"digest":"b","inputs":[[{"link":2},{"link":0}],[{"link":0}]]}]"#
        ));
    }

    #[test]
    fn one_with_fewer_inputs_is_one_with_another() {
        assert!(!survives(
            r#"[{"digest":"a"},{"digest":"b","inputs":[[{"link":0}],[{"link":0}]]},
                {"digest":"b","inputs":[[{"link":0},{"link":1}]]}]"#
        ));
    }

    #[test]
    fn what_becomes_one_makes_others_one() {
        // Roots of one digest, what is made of them, and what is made of that.
        assert!(!survives(
            r#"[{"digest":"a"},{"digest":"a"},
                {"digest":"b","inputs":[[{"link":0}]]},
                {"digest":"b","inputs":[[{"link":1}]]},
                {"digest":"c","inputs":[[{"link":2}]]},
                {"digest":"c","inputs":[[{"link":3},{"link":4}]]}]"#
        ));
    }

    #[test]
    fn what_is_too_much_to_look_at_is_refused() {
        let one = |n: usize| {
            format!(
                r#"{{"digest":"b","inputs":[[{{"link":0}}],[{{"link":{}}}]]}}"#,
                n + 1
            )
        };
        let roots = (0..2000).map(|n| format!(r#"{{"digest":"sha256:{n:064x}"}}"#));
        let records: Vec<_> = roots.chain((0..1999).map(one)).collect();
        assert!(!survives(&format!("[{}]", records.join(","))));
    }
}
