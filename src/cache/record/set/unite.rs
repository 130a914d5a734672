//! Merges records of an export that are the same, and finds the end of the build.

use std::collections::{HashMap, HashSet};
use std::mem;

use super::{Record, RecordSet};
use crate::cache::record::identity::ids;

impl RecordSet {
    /// Merges equal records, and the final records that are the end of one build. If a final record has a
    /// result, drops the records that lead to no final record with a result.
    ///
    /// Call it on an export before links are dropped ([`retain_links`](Self::retain_links)). Later, one of
    /// two equal records may have lost the records made of it, and look final.
    pub fn settle(&mut self) {
        self.unite_equal();
        self.unite_finals();
        let mut finals = self.finals();
        finals.retain(|&number| !self.records[number].results.is_empty());
        if !finals.is_empty() {
            let kept = self.leading_to(&finals, &self.alive(|_| true));
            self.keep_only(&kept);
        }
    }

    /// Merges `ends`, which have the same number of inputs, into one record, and drops all records that it is
    /// not made of. Returns its number. `None` where `ends` are none, or where an input was made only of the
    /// end itself.
    ///
    /// No record is made of the end of a build. But BuildKit has one record for steps with one key: if
    /// an earlier step has the end's key, records made of that step link to the end, and the end links to
    /// them. So all links to the end are dropped.
    pub fn make_end(&mut self, ends: &[usize]) -> Option<usize> {
        let (&end, others) = ends.split_first()?;
        for &other in others {
            let results = mem::take(&mut self.records[other].results);
            self.records[end].results.extend(results);
            let inputs = mem::take(&mut self.records[other].inputs);
            for (known, links) in self.records[end].inputs.iter_mut().zip(inputs) {
                known.extend(links);
            }
        }
        for links in self.records.iter_mut().flat_map(|r| &mut r.inputs) {
            links.retain(|link| !ends.contains(&link.record));
        }
        for links in &mut self.records[end].inputs {
            links.sort_unstable();
            links.dedup();
        }
        self.order.retain(|&record| record != end);
        self.order.push(end);
        let kept = self.leading_to(&[end], &self.alive(|_| true));
        self.keep_only(&kept)[end]
    }

    /// Groups records that BuildKit merges when it reads them: those with the same digest and, for each
    /// input, a source in common.
    pub fn merging(&self, records: &[usize]) -> Vec<Vec<usize>> {
        let share = |one: &Record, other: &Record| {
            let mut inputs = one.inputs.iter().zip(&other.inputs);
            one.digest == other.digest
                && inputs.all(|(one, other)| one.iter().any(|link| other.contains(link)))
        };
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for &number in records {
            let record = &self.records[number];
            let is_one = |group: &Vec<usize>| {
                let mut group = group.iter();
                group.any(|&other| share(record, &self.records[other]))
            };
            let (ones, rest): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_one);
            groups = rest;
            groups.push(ones.into_iter().flatten().chain([number]).collect());
        }
        groups
    }

    /// Merges records with the same identity into one, with the results of all.
    pub fn unite_equal(&mut self) {
        let ids = ids(self);
        let mut first = HashMap::with_capacity(ids.len());
        let mut one: Vec<usize> = (0..ids.len()).collect();
        for &number in &self.order {
            one[number] = *first.entry(ids[number]).or_insert(number);
        }
        let kept: Vec<_> = (0..).zip(&one).map(|(n, one)| n == *one).collect();
        if kept.iter().all(|kept| *kept) {
            return;
        }
        for (number, &one) in one.iter().enumerate().filter(|(n, one)| n != *one) {
            let results = mem::take(&mut self.records[number].results);
            self.records[one].results.extend(results);
        }
        for links in self.records.iter_mut().flat_map(|r| &mut r.inputs) {
            // The first one in the order comes before all records made of any of them.
            links
                .iter_mut()
                .for_each(|link| link.record = one[link.record]);
            links.sort_unstable();
            links.dedup();
        }
        self.keep_only(&kept);
    }

    /// Merges final records with the same digest and number of inputs: the one with a result gets the links
    /// of those without. If several have a result, it is not known which one the others belong to, and all
    /// stay as they are.
    ///
    /// A daemon exports the record of a build's last step as it was found, and again as it is remembered,
    /// with other links.
    fn unite_finals(&mut self) {
        let finals = self.finals();
        let key = |record: &Record| (record.digest.clone(), record.inputs.len());
        let has_result = |&number: &usize| !self.records[number].results.is_empty();
        let (with, without): (Vec<_>, Vec<_>) = finals.into_iter().partition(has_result);
        let mut targets: HashMap<_, Vec<usize>> = HashMap::new();
        for number in with {
            let targets = targets.entry(key(&self.records[number])).or_default();
            targets.push(number);
        }
        let mut kept = vec![true; self.records.len()];
        for other in without {
            let target = targets.get(&key(&self.records[other]));
            if let Some(&[target]) = target.map(Vec::as_slice) {
                kept[other] = false;
                let inputs = mem::take(&mut self.records[other].inputs);
                for (known, links) in self.records[target].inputs.iter_mut().zip(inputs) {
                    known.extend(links);
                    known.sort_unstable();
                    known.dedup();
                }
            }
        }
        // A final record is no source, so it can come last, after the sources that it has gained.
        let targets: HashSet<_> = targets.into_values().flatten().collect();
        let (last, mut order): (Vec<_>, Vec<_>) = self
            .order
            .iter()
            .partition(|number| targets.contains(number));
        order.extend(last);
        self.order = order;
        self.keep_only(&kept);
    }
}
