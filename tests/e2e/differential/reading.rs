//! What we hold, told as the oracle tells what BuildKit reads.

use std::{collections::BTreeMap, mem};

use inlay::cache::record::{InlineCache, InlineResult, Link, RecordSet};

use super::oracle::{Read, Source};

/// A set as the oracle tells of its reading: each record after its sources, as BuildKit's parser
/// visits them. Like BuildKit's it has no `random:` records, which nothing may link to.
pub fn reading(set: &RecordSet) -> Vec<Read> {
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
pub fn without_empty(records: &[Read]) -> Vec<Read> {
    let mut records = records.to_vec();
    for record in &mut records {
        record.results.retain(|result| !result.is_empty());
    }
    records
}

/// Numbers of the records, each after its sources in the order of its links, like BuildKit's.
pub fn visited<'a>(records: usize, links: impl Fn(usize) -> &'a [Vec<Link>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(records);
    let mut seen = vec![false; records];
    let mut to_visit: Vec<(usize, bool)> = (0..records).rev().map(|r| (r, false)).collect();
    while let Some((record, sources_done)) = to_visit.pop() {
        if sources_done {
            order.push(record);
        } else if !mem::replace(&mut seen[record], true) {
            to_visit.push((record, true));
            let sources = links(record).iter().flatten().rev();
            to_visit.extend(sources.map(|link| (link.record, false)));
        }
    }
    order
}

pub fn told<'a>(
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

pub fn first_places<'a>(blobs: &[&'a str]) -> BTreeMap<&'a str, usize> {
    let mut places = BTreeMap::new();
    for (place, blob) in blobs.iter().enumerate() {
        places.entry(*blob).or_insert(place);
    }
    places
}

/// What we are about to write, as the oracle would tell of reading it.
pub fn held(cache: &InlineCache, image: &[String]) -> Vec<Read> {
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
