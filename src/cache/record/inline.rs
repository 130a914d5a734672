//! The records of one image, as the image carries them.
//!
//! Writes what [`select`](super::select()) has put in order, and reads it back. The format is
//! that of BuildKit's inline cache (`cache/remotecache/inline`): a JSON array of the records of
//! a cache config, in which layers are numbered as in the image. In the image config it is
//! base64, which [`image::config`](crate::cache::image::config) embeds.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use thiserror::Error;

use super::{
    Base64Error, Digest, Limits, Link, ParseError, RecordSet,
    base64::{decode, encode},
};

/// The records of an image in canonical form, and the number of its layers. Equal builds have equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineCache {
    records: Vec<InlineRecord>,
    layers: usize,
}

/// A record of an [`InlineCache`]; its links are numbers in [`InlineCache::records`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineRecord {
    /// As in [`Record`](super::Record).
    pub digest: Digest,
    /// As in [`Record`](super::Record).
    pub inputs: Vec<Vec<Link>>,
    /// The result of the operation, if it consists of layers of the image.
    pub result: Option<InlineResult>,
}

/// Layers of the image that are the result of a record. The order puts the preferred one of two first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum InlineResult {
    /// This layer and all below it.
    Layer(usize),
    /// These layers, base first.
    Chain(Arc<[usize]>),
}

impl InlineResult {
    /// How many numbers it takes to write.
    pub(super) fn numbers(&self) -> usize {
        match self {
            Self::Layer(_) => 1,
            Self::Chain(layers) => layers.len(),
        }
    }
}

// === impl InlineCache ===

impl InlineCache {
    pub(super) fn new(records: Vec<InlineRecord>, layers: usize) -> Self {
        Self { records, layers }
    }

    /// The records, sorted.
    pub fn records(&self) -> &[InlineRecord] {
        &self.records
    }

    /// How many layers the image must have. In an image with more or fewer layers, results would mean other
    /// layers, so the cache must not be embedded there.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Whether it has as many records, links and results as `set`. If it was selected from `set`, nothing was
    /// left out then.
    pub fn is_all_of(&self, set: &RecordSet) -> bool {
        let links = |inputs: &Vec<Vec<Link>>| inputs.iter().map(Vec::len).sum::<usize>();
        let own = self.records.iter();
        let own = own.map(|of| (links(&of.inputs), usize::from(of.result.is_some())));
        let all = set.records().iter();
        let all = all.map(|of| (links(&of.inputs), of.results.len()));
        let sum = |(a, b), (c, d)| (a + c, b + d);
        self.records.len() == set.records().len() && own.fold((0, 0), sum) == all.fold((0, 0), sum)
    }

    /// Whether it has exactly the records of another cache, with the results that the other one has. It may
    /// have more results.
    pub fn extends(&self, other: &Self) -> bool {
        let mut pairs = self.records.iter().zip(&other.records);
        self.layers == other.layers
            && self.records.len() == other.records.len()
            && pairs.all(|(own, other)| {
                own.digest == other.digest
                    && own.inputs == other.inputs
                    && (other.result.is_none() || own.result == other.result)
            })
    }

    /// The JSON array. It has no `createdAt`, which would differ between equal builds. BuildKit needs
    /// none.
    pub fn to_json(&self) -> Vec<u8> {
        let records: Vec<_> = self.records.iter().map(JsonRecord::of).collect();
        #[expect(
            clippy::expect_used,
            reason = "serde_json fails on writers that fail, maps whose keys are no text and \
                      types that refuse; here are a `Vec<u8>`, no map and derived types"
        )]
        serde_json::to_vec(&records).expect("plain records in memory")
    }

    /// The base64 text for the image config.
    pub fn encode(&self) -> String {
        encode(&self.to_json())
    }

    /// Reads and checks the base64 text of an image config. `image_layers` has the digests of the image's
    /// layers. Any program may have written the text, not always in canonical form, so this returns a set.
    ///
    /// ```
    /// use inlay::cache::record::{InlineCache, Limits, RecordSet, select};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let export = std::fs::read("examples/image/cache.json")?;
    /// let set = RecordSet::parse(&export, &Limits::default())?;
    /// let cache = select(&set)?;
    /// // An image names its layers by the digests of their blobs, or by their diff IDs.
    /// let layers: Vec<_> = (1..=3).map(|n| format!("sha256:{n:064}").parse()).collect::<Result<_, _>>()?;
    /// let read = InlineCache::decode(&cache.encode(), &layers, &Limits::default())?;
    /// assert_eq!(select(&read)?, cache);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`DecodeError::Base64`] where the text is not base64. Otherwise as [`RecordSet::parse_inline`].
    pub fn decode(
        encoded: &str,
        image_layers: &[Digest],
        limits: &Limits,
    ) -> Result<RecordSet, DecodeError> {
        let bytes = encoded.len() / 4 * 3;
        if bytes.saturating_sub(2) > limits.bytes {
            let limit = limits.bytes;
            return Err(ParseError::TooLarge { bytes, limit }.into());
        }
        Ok(RecordSet::parse_inline(
            &decode(encoded)?,
            image_layers,
            limits,
        )?)
    }
}

/// Why an embedded cache was refused.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// It is not base64.
    #[error("the inline cache is {0}")]
    Base64(#[from] Base64Error),
    /// Its records were refused.
    #[error(transparent)]
    Records(#[from] ParseError),
}

// === the JSON, with fields in BuildKit's order ===

// A 0 is left out: BuildKit reads an absent number as 0.

#[derive(Serialize)]
struct JsonRecord<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<[JsonLayer; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chains: Option<[JsonChain<'a>; 1]>,
    digest: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "inputs")]
    inputs: &'a [Vec<Link>],
}

#[derive(Serialize)]
struct JsonLayer {
    #[serde(skip_serializing_if = "is_zero")]
    layer: usize,
}

#[derive(Serialize)]
struct JsonChain<'a> {
    layers: &'a [usize],
}

#[derive(Serialize)]
struct JsonLink<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    selector: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    link: usize,
}

struct JsonInput<'a>(&'a [Link]);

impl<'a> JsonRecord<'a> {
    fn of(record: &'a InlineRecord) -> Self {
        let (layers, chains) = match &record.result {
            None => (None, None),
            Some(InlineResult::Layer(layer)) => (Some([JsonLayer { layer: *layer }]), None),
            Some(InlineResult::Chain(layers)) => (None, Some([JsonChain { layers }])),
        };
        Self {
            layers,
            chains,
            digest: record.digest.as_str(),
            inputs: &record.inputs,
        }
    }
}

impl Serialize for JsonInput<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|link| JsonLink {
            selector: &link.selector,
            link: link.record,
        }))
    }
}

fn inputs<S: Serializer>(inputs: &[Vec<Link>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(inputs.iter().map(|links| JsonInput(links)))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoded: &str, limits: &Limits) -> Result<RecordSet, DecodeError> {
        let blob = format!("sha256:{:064x}", 1).parse().unwrap();
        InlineCache::decode(encoded, &[blob], limits)
    }

    #[test]
    fn an_embedded_cache_is_read_over_the_layers_of_its_image() {
        let json = format!(r#"[{{"digest":"sha256:{:064x}","layers":[{{}}]}}]"#, 2);
        let set = decode(&encode(json.as_bytes()), &Limits::default()).unwrap();
        assert_eq!(*set.records()[0].results[0], [0]);
    }

    #[test]
    fn each_refusal_says_why() {
        let limits = Limits {
            bytes: 8,
            ..Limits::default()
        };
        for (encoded, message) in [
            ("*", "the inline cache is not base64 at character 1"),
            // `[{}]`, and then nine spaces.
            ("W3t9XQ==", "record 0: the digest is absent"),
            ("ICAgICAgICAg", "the cache has 9 bytes, more than 8"),
            // So long that it is not even decoded.
            ("****************", "the cache has 12 bytes, more than 8"),
        ] {
            assert_eq!(decode(encoded, &limits).unwrap_err().to_string(), message);
        }
    }
}
