//! Writes record sets as one BuildKit cache config (`cache/remotecache/v1/types`, v0.34.2), which
//! [`RecordSet::parse`] reads.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::identity::{Id, ids};
use super::{Digest, LayerChain, RecordSet};

/// Writes the records of several sets as one cache config. Records with the same identity are written once,
/// with the results of all of them. Equal chains of layers are written once, too.
///
/// ```
/// use inlay::cache::record::{Limits, RecordSet, to_config};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let export = std::fs::read("examples/image/cache.json")?;
/// let set = RecordSet::parse(&export, &Limits::default())?;
/// let config = to_config(&[&set, &set]);
/// assert_eq!(RecordSet::parse(&config, &Limits::default())?.records().len(), 9);
/// # Ok(())
/// # }
/// ```
pub fn to_config(sets: &[&RecordSet]) -> Vec<u8> {
    let of_sets: Vec<Vec<Id>> = sets.iter().map(|set| ids(set)).collect();
    let mut numbers: HashMap<Id, usize> = HashMap::new();
    let mut firsts = Vec::new();
    for (set, ids) in sets.iter().zip(&of_sets) {
        for (record, id) in set.records().iter().zip(ids) {
            numbers.entry(*id).or_insert_with(|| {
                firsts.push((record, ids));
                firsts.len() - 1
            });
        }
    }
    let mut layers = Layers::default();
    let mut results = vec![BTreeSet::new(); firsts.len()];
    for (set, ids) in sets.iter().zip(&of_sets) {
        for (record, id) in set.records().iter().zip(ids) {
            let chains = record.results.iter();
            let tops = chains.filter_map(|chain| layers.place(set, chain));
            results[numbers[id]].extend(tops);
        }
    }
    let records = firsts.iter().zip(&results).map(|((record, ids), results)| {
        let link = |link: &super::Link| JsonLink {
            selector: link.selector.to_string(),
            link: numbers[&ids[link.record]],
        };
        let inputs = record.inputs.iter();
        JsonRecord {
            layers: results
                .iter()
                .map(|layer| JsonResult { layer: *layer })
                .collect(),
            digest: record.digest.as_str(),
            inputs: inputs
                .map(|links| links.iter().map(link).collect())
                .collect(),
        }
    });
    let config = JsonConfig {
        layers: layers.written,
        records: records.collect(),
    };
    #[expect(
        clippy::expect_used,
        reason = "serde_json fails on writers that fail, maps whose keys are no text and \
                  types that refuse; here are a `Vec<u8>`, no map and derived types"
    )]
    serde_json::to_vec(&config).expect("a plain config in memory")
}

/// The layers, each of which has one layer below it.
#[derive(Default)]
struct Layers<'a> {
    written: Vec<JsonLayer<'a>>,
    /// Their numbers, by what is below them and their blob.
    numbers: HashMap<(Option<usize>, &'a Digest), usize>,
}

impl<'a> Layers<'a> {
    /// The topmost layer of a chain.
    fn place(&mut self, set: &'a RecordSet, chain: &LayerChain) -> Option<usize> {
        let mut below = None;
        for layer in chain.iter() {
            let blob = &set.layers()[*layer].blob;
            let written = &mut self.written;
            let number = *self.numbers.entry((below, blob)).or_insert_with(|| {
                let parent = below.map_or(-1, |below| below as i64);
                written.push(JsonLayer {
                    blob: blob.as_str(),
                    parent,
                });
                written.len() - 1
            });
            below = Some(number);
        }
        below
    }
}

#[derive(Serialize)]
struct JsonConfig<'a> {
    layers: Vec<JsonLayer<'a>>,
    records: Vec<JsonRecord<'a>>,
}

#[derive(Serialize)]
struct JsonLayer<'a> {
    blob: &'a str,
    /// -1 for none.
    parent: i64,
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<JsonResult>,
    digest: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Vec<JsonLink>>,
}

#[derive(Serialize)]
struct JsonResult {
    layer: usize,
}

#[derive(Serialize)]
struct JsonLink {
    #[serde(skip_serializing_if = "String::is_empty")]
    selector: String,
    link: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::record::{Limits, select};

    fn digest(n: usize) -> String {
        format!("sha256:{n:064x}")
    }

    fn set(records: &str, layers: usize) -> RecordSet {
        let layers: Vec<_> = (0..layers).map(|n| digest(n).parse().unwrap()).collect();
        RecordSet::parse_inline(records.as_bytes(), &layers, &Limits::default()).unwrap()
    }

    #[test]
    fn what_two_sets_share_is_written_once() {
        let base = format!(r#"{{"digest":"{}"}}"#, digest(0xa));
        let step = |n: usize, layer: usize| {
            format!(
                r#"{{"digest":"{}","inputs":[[{{"link":0}}]],"layers":[{{"layer":{layer}}}]}}"#,
                digest(n)
            )
        };
        let one = set(&format!("[{base},{},{}]", step(0xb, 0), step(0xc, 1)), 2);
        let other = set(&format!("[{base},{},{}]", step(0xd, 1), step(0xb, 0)), 2);
        let config = to_config(&[&one, &other]);
        let read = RecordSet::parse(&config, &Limits::default()).unwrap();
        assert_eq!(read.records().len(), 4);
        assert_eq!(read.layers().len(), 2);
        let results = |n: usize| {
            let digest = digest(n);
            let record = read
                .records()
                .iter()
                .find(|of| of.digest.as_str() == digest);
            record.unwrap().results.len()
        };
        assert_eq!([0xa, 0xb, 0xc, 0xd].map(results), [0, 1, 1, 1]);
    }

    #[test]
    fn a_set_is_read_as_it_was() {
        let export = std::fs::read("examples/image/cache.json").unwrap();
        let set = RecordSet::parse(&export, &Limits::default()).unwrap();
        let read = RecordSet::parse(&to_config(&[&set]), &Limits::default()).unwrap();
        assert_eq!(select(&read).unwrap(), select(&set).unwrap());
    }
}
