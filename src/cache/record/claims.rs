//! Finds records whose results contradict each other.
//!
//! A well formed record set may still have wrong results: its form cannot show that a result is what the
//! operation produced. But a step adds a layer to what it is based on. If its base has as many layers of the
//! image as the step's result, or more, one of the two has a wrong result.

use std::collections::HashMap;

use thiserror::Error;

use super::{Digest, Record, RecordSet};

/// The selector of a whole file system, such as the root file system of a step: the digest of `/`.
const ROOT: &str = "sha256:8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1";

/// A result that has too few layers for what its record is based on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "record {record} ({digest}) has {layers} layers, and all of them are already in its source, record {source_record}"
)]
pub struct Contradiction {
    /// Number of the record.
    pub record: usize,
    /// Its digest.
    pub digest: Digest,
    /// How many layers its result has.
    pub layers: usize,
    /// Number of the source with as many layers, or more.
    pub source_record: usize,
}

/// How many layers the results of a record have, at least and at most. Only results count that are the
/// image's first layers.
type Reach = Option<(usize, usize)>;

impl RecordSet {
    /// The first contradiction between the result of a record and that of its base, if there is one.
    ///
    /// Each step of BuildKit's frontends adds a layer, if only an empty one, to the layers of its first
    /// input. So if every step of a cache has its result, no result can be moved to other layers without a
    /// contradiction. Other inputs and parts of an input (with a selector) are not compared: a copy may
    /// make the very layer that it copies from.
    pub fn contradiction(&self) -> Option<Contradiction> {
        let reaches = self.reaches();
        let records = self.records().iter().enumerate();
        records.zip(&reaches).find_map(|((number, record), own)| {
            let (layers, _) = (*own)?;
            let mut below = record.inputs.first()?.iter();
            let source = below.find(|link| {
                let all = link.selector.is_empty() || *link.selector == *ROOT;
                all && reaches[link.record].is_some_and(|(_, most)| most >= layers)
            })?;
            Some(Contradiction {
                record: number,
                digest: record.digest.clone(),
                layers,
                source_record: source.record,
            })
        })
    }

    fn reaches(&self) -> Vec<Reach> {
        // Results share lists, which may be many and long: each list is read once.
        let mut beginnings = HashMap::new();
        let mut reach = |record: &Record| {
            let lengths = record.results.iter().filter_map(|result| {
                let list = result.list();
                let beginning = *beginnings.entry(list.as_ptr()).or_insert_with(|| {
                    let layers = list.iter().enumerate();
                    layers.take_while(|(place, layer)| place == *layer).count()
                });
                (result.len() <= beginning).then_some(result.len())
            });
            lengths.fold(None, |reach: Reach, length| {
                let (least, most) = reach.unwrap_or((length, length));
                Some((least.min(length), most.max(length)))
            })
        };
        self.records().iter().map(&mut reach).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::record::Limits;

    fn digest(text: &str) -> String {
        format!("sha256:{}", text.repeat(64))
    }

    /// Three steps, one upon the other, with these results.
    fn chain(layers: [Option<usize>; 3]) -> RecordSet {
        let records: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(n, layer)| {
                let step = digest(&format!("{}", n + 1));
                let inputs = n.checked_sub(1).map_or(String::new(), |below| {
                    format!(r#","inputs":[[{{"link":{below}}}]]"#)
                });
                let result = layer.map_or(String::new(), |layer| {
                    format!(r#","layers":[{{"layer":{layer}}}]"#)
                });
                format!(r#"{{"digest":"{step}"{inputs}{result}}}"#)
            })
            .collect();
        let image = ["a", "b", "c"].map(|text| Digest::parse(&digest(text)).unwrap());
        let records = format!("[{}]", records.join(","));
        RecordSet::parse_inline(records.as_bytes(), &image, &Limits::default()).unwrap()
    }

    #[test]
    fn each_step_has_a_layer_more_than_what_it_is_made_of() {
        assert_eq!(chain([Some(0), Some(1), Some(2)]).contradiction(), None);
        assert_eq!(chain([Some(0), None, Some(2)]).contradiction(), None);
        assert_eq!(chain([None, Some(0), Some(1)]).contradiction(), None);
    }

    #[test]
    fn the_root_is_all_of_it() {
        assert_eq!(Digest::of(b"/").as_str(), ROOT);
    }

    #[test]
    fn no_result_of_a_whole_chain_can_be_moved() {
        let whole = [0, 1, 2];
        for step in 0..3 {
            for layer in (0..3).filter(|layer| *layer != whole[step]) {
                let mut moved = whole.map(Some);
                moved[step] = Some(layer);
                assert!(chain(moved).contradiction().is_some(), "{moved:?}");
            }
        }
        let found = chain([Some(0), Some(2), Some(2)]).contradiction().unwrap();
        assert_eq!((found.record, found.source_record, found.layers), (2, 1, 3));
    }

    #[test]
    fn a_copy_may_make_the_layer_that_it_copies_from() {
        // Base, a stage on it, and a copy from that onto the base: two equal layers.
        let (base, stage, copy) = (digest("1"), digest("2"), digest("3"));
        let records = format!(
            r#"[{{"digest":"{base}","layers":[{{"layer":0}}]}},
                {{"digest":"{stage}","inputs":[[{{"link":0}}]],"layers":[{{"layer":1}}]}},
                {{"digest":"{copy}","inputs":[[{{"link":0}}],[{{"link":1,"selector":"s"}}]],
                  "layers":[{{"layer":1}}]}}]"#
        );
        let image = ["a", "b"].map(|text| Digest::parse(&digest(text)).unwrap());
        let set = RecordSet::parse_inline(records.as_bytes(), &image, &Limits::default());
        assert_eq!(set.unwrap().contradiction(), None);
    }

    #[test]
    fn many_results_and_links_are_looked_at_once() {
        // Each by each would be 10^12 comparisons.
        let many = |item: &str| vec![item; 10_000].join(",");
        let results = many(r#"{"layer":1}"#);
        let records = format!(
            r#"[{{"digest":"{}","layers":[{}]}},
                {{"digest":"{}","inputs":[[{}]],"layers":[{results}]}}]"#,
            digest("1"),
            many("{}"),
            digest("2"),
            many("{}")
        );
        let image = ["a", "b"].map(|text| Digest::parse(&digest(text)).unwrap());
        let set = RecordSet::parse_inline(records.as_bytes(), &image, &Limits::default());
        assert_eq!(set.unwrap().contradiction(), None);
    }
}
