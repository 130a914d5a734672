//! The identity of records: a hash that is the same in every set that has the record.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::{Digest, LayerChain, RecordSet};

/// The identity of a record: a hash of its digest and of the selectors and sources of its inputs, and so of
/// all records below it. Numbers of records and results do not count.
pub(super) type Id = [u8; 32];

impl RecordSet {
    /// The identity of each record: a digest of the record's digest and of all records that it is made of.
    /// It is the same in every set, whatever the record's number or results.
    pub fn identities(&self) -> Vec<Digest> {
        ids(self).into_iter().map(Digest::from_sha256).collect()
    }

    /// Its records by their identities, each with the blobs of its results.
    pub fn by_identity(&self) -> HashMap<Digest, HashSet<Vec<&Digest>>> {
        let blobs = |chain: &LayerChain| {
            let blobs = chain.iter().map(|layer| &self.layers()[*layer].blob);
            blobs.collect()
        };
        let mut records: HashMap<_, HashSet<_>> = HashMap::new();
        for (record, id) in self.records().iter().zip(ids(self)) {
            let results = records.entry(Digest::from_sha256(id)).or_default();
            results.extend(record.results.iter().map(blobs));
        }
        records
    }
}

/// The identities of all records.
pub(super) fn ids(set: &RecordSet) -> Vec<Id> {
    ids_among(set, |_| true)
}

/// The identities of the records that are `kept`, as if the set had no others.
pub(super) fn ids_among(set: &RecordSet, kept: impl Fn(usize) -> bool) -> Vec<Id> {
    let mut ids = vec![Id::default(); set.records().len()];
    let mut sources: Vec<(&str, Id)> = Vec::new();
    let mut text = Vec::new();
    for &number in set.sources_first().iter().filter(|&&r| kept(r)) {
        let record = &set.records()[number];
        // Every part is led by its length or is of a fixed one, so that no two records have the
        // same text.
        let mut part = |bytes: &[u8]| {
            text.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            text.extend_from_slice(bytes);
        };
        part(record.digest.as_str().as_bytes());
        for links in &record.inputs {
            sources.clear();
            let links = links.iter().filter(|link| kept(link.record));
            sources.extend(links.map(|link| (&*link.selector, ids[link.record])));
            sources.sort_unstable();
            sources.dedup();
            part(&(sources.len() as u64).to_be_bytes());
            for (selector, id) in &sources {
                part(selector.as_bytes());
                part(id);
            }
        }
        ids[number] = Sha256::digest(&text).into();
        text.clear();
    }
    ids
}
