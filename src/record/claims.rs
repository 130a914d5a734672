//! What records claim of an image, as far as they cannot all be right.
//!
//! A record set that is in order may still lie: nothing in its form says that a result is what the
//! operation gave. But an operation adds to what it is made of. Where a source has all the layers
//! of a result, or more, one of the two has a result that is not its own. Knows nothing of what
//! operations do beyond that.

use thiserror::Error;

use super::{Digest, RecordSet};

/// A result that is too small for what its record is made of.
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

impl RecordSet {
    /// The first contradiction between the results of records and of their sources, if there is
    /// one.
    ///
    /// Each operation that BuildKit's frontends make leaves a layer of its own on top of those
    /// that it is made of, if only an empty one. So of a cache in which every step has its result,
    /// none can be moved to other layers without contradiction.
    pub fn contradiction(&self) -> Option<Contradiction> {
        let records = self.records();
        records.iter().enumerate().find_map(|(number, record)| {
            let own = &record.results;
            let source = record.sources().find(|source| {
                let below = &records[*source].results;
                below
                    .iter()
                    .any(|below| own.iter().any(|own| below.starts_with(own)))
            })?;
            Some(Contradiction {
                record: number,
                digest: record.digest.clone(),
                layers: own.first()?.len(),
                source_record: source,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Limits;

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
}
