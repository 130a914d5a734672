//! `min`: of all records, those that an image's own build determines, in canonical form.
//!
//! What comes out depends on the records alone and not on the order in which the daemon held or
//! wrote them, so that equal builds embed equal bytes. It sees one [`RecordSet`] and nothing of
//! the image but the chain of layers that the final record names; whether a link is of this
//! build or of an earlier one it cannot tell, so links that are known to be an earlier build's
//! must have gone before ([`RecordSet::retain_links`]).

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    Digest, InlineCache, InlineRecord, InlineResult, Layer, LayerChain, Link, Record, RecordSet,
};

/// Selects the records of the image that the final record of `set` is.
///
/// A record is final if it has inputs and a result and is the source of no other; its layers are
/// the image's, in order. What does not lead to it goes, and so does what has a `random:` key
/// or needs a record that has one. A result stays if it is made of the image's layers; layers
/// are the same if their blobs or their diff IDs are.
///
/// Which records are final is settled before any go for their `random:` key: what the lost end
/// of a build leaves behind as last would be taken for the image, with fewer layers or others.
///
/// ```
/// use inlay::record::{Limits, RecordSet, select};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let export = std::fs::read("examples/image/cache.json")?;
/// let set = RecordSet::parse(&export, &Limits::default())?;
/// let cache = select(&set)?;
/// assert_eq!((cache.layers(), cache.records().len()), (3, 9));
/// // The clock of the build has no place in it.
/// assert!(String::from_utf8(export)?.contains("createdAt"));
/// assert!(!String::from_utf8(cache.to_json())?.contains("createdAt"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A [`SelectError`] where there is no such final record, or no one image that it is.
pub fn select(set: &RecordSet) -> Result<InlineCache, SelectError> {
    select_expecting(set, &HashMap::new())
}

/// Selects as [`select`] does, and gives records that lack a result the one `expected` of them, by
/// number.
///
/// A daemon exports of each record its newest result, which is not always the one that the image
/// was built on, and then the record has none of the image's layers. What the image itself tells
/// is as good. If one expected result differs from one that is exported, none is trusted.
///
/// # Errors
/// As [`select`].
pub fn select_expecting(
    set: &RecordSet,
    expected: &HashMap<usize, InlineResult>,
) -> Result<InlineCache, SelectError> {
    let mut finals = set.finals();
    finals.retain(|&r| !set.records()[r].results.is_empty());
    let mut image = Image::of(set, &finals)?;

    let alive = set.alive(|record| !record.digest.is_random());
    let kept = set.leading_to(&finals, &alive);
    if !finals.iter().any(|&r| kept[r]) {
        return Err(SelectError::RandomFinal(Named::all(set, &finals)));
    }

    let mut results: Vec<Option<InlineResult>> = vec![None; set.records().len()];
    for (result, record) in results.iter_mut().zip(set.records()) {
        *result = record.results.iter().filter_map(|r| image.place(r)).min();
    }
    fill(&mut results, expected, &image);

    let mut canonical = Canonical::default();
    let mut numbers = 0;
    for &number in set.sources_first().iter().filter(|&&r| kept[r]) {
        let record = &set.records()[number];
        let result = results[number].take();
        numbers += record.sources().count() + result.as_ref().map_or(0, InlineResult::numbers);
        if numbers > set.limits().links {
            return Err(SelectError::TooLarge {
                limit: set.limits().links,
            });
        }
        canonical.add(number, record, result);
    }
    Ok(InlineCache::new(canonical.sorted(), image.layers.len()))
}

/// Gives records without a result the expected one, unless some expected one is not what was found.
fn fill(
    results: &mut [Option<InlineResult>],
    expected: &HashMap<usize, InlineResult>,
    image: &Image,
) {
    let mut fitting = Vec::with_capacity(expected.len());
    for (&number, result) in expected {
        let (Some(found), Some(result)) = (results.get(number), image.canonical(result)) else {
            return;
        };
        match found {
            Some(found) if *found != result => return,
            Some(_) => {}
            None => fitting.push((number, result)),
        }
    }
    for (number, result) in fitting {
        results[number] = Some(result);
    }
}

// === layers: which are the image's ===

/// What a layer holds, as a number that is equal for layers that hold the same: those of one
/// blob, and those of one diff ID.
type Content = usize;

/// The content of each layer. It is named by the diff ID, or else by the blob, which is the diff
/// ID where the blob is not compressed.
fn contents(layers: &[Layer]) -> Vec<Content> {
    let mut contents = HashMap::new();
    layers
        .iter()
        .map(|layer| {
            let name = layer.diff_id.as_ref().unwrap_or(&layer.blob);
            let next = contents.len();
            *contents.entry(name).or_insert(next)
        })
        .collect()
}

/// The layers of the image, and where in it the layers of results are.
struct Image {
    layers: Vec<Content>,
    /// The lowest place of each content.
    places: HashMap<Content, usize>,
    /// The content of each layer of the set.
    contents: Vec<Content>,
    /// What [`place`](Self::place) found, by where the chain is in memory. Results that share a
    /// chain share that, and may be many and long.
    found: HashMap<*const usize, Option<InlineResult>>,
}

impl Image {
    /// The image that all results of all `finals` are.
    fn of(set: &RecordSet, finals: &[usize]) -> Result<Self, SelectError> {
        let mut results = finals.iter().flat_map(|&r| &set.records()[r].results);
        let first = results.next().ok_or(SelectError::NoFinal)?;

        let contents = contents(set.layers());
        let layers: Vec<_> = first.iter().map(|&layer| contents[layer]).collect();
        let mut places = HashMap::new();
        for (place, &content) in layers.iter().enumerate() {
            places.entry(content).or_insert(place);
        }
        let mut image = Self {
            layers,
            places,
            contents,
            found: HashMap::new(),
        };
        let whole = image.place(first);
        if results.any(|result| image.place(result) != whole) {
            return Err(SelectError::AmbiguousFinal(Named::all(set, finals)));
        }
        Ok(image)
    }

    /// Where in the image the layers of a result are, if all of them are there.
    fn place(&mut self, result: &LayerChain) -> Option<InlineResult> {
        if let Some(found) = self.found.get(&result.as_ptr()) {
            return found.clone();
        }
        let chain: Vec<_> = result.iter().map(|&layer| self.contents[layer]).collect();
        let found = self.result_of(&chain);
        self.found.insert(result.as_ptr(), found.clone());
        found
    }

    /// The result with this content.
    fn result_of(&self, chain: &[Content]) -> Option<InlineResult> {
        if self.layers.starts_with(chain) {
            chain.len().checked_sub(1).map(InlineResult::Layer)
        } else {
            let places: Option<Vec<_>> =
                chain.iter().map(|c| self.places.get(c).copied()).collect();
            places.map(|places| InlineResult::Chain(places.into()))
        }
    }

    /// The result in the form that [`place`](Self::place) gives it, if the image has its layers.
    fn canonical(&self, result: &InlineResult) -> Option<InlineResult> {
        let chain: Vec<_> = match result {
            InlineResult::Layer(top) => self.layers.get(..=*top)?.to_vec(),
            InlineResult::Chain(places) => {
                let content = |place: &usize| self.layers.get(*place).copied();
                places.iter().map(content).collect::<Option<_>>()?
            }
        };
        self.result_of(&chain)
    }
}

// === canonical form ===

/// Identity of a record: a hash of its digest and of its inputs' selectors and sources, and so
/// of all that is below it, but of no number.
type Id = [u8; 32];

/// Records by identity. They are added sources first and numbered as they come; these numbers
/// are arbitrary until [`sorted`](Self::sorted).
#[derive(Default)]
struct Canonical {
    records: Vec<InlineRecord>,
    ids: Vec<Id>,
    by_id: HashMap<Id, usize>,
    /// The number here of each record of the set that was added.
    added: HashMap<usize, usize>,
}

impl Canonical {
    /// Adds record `number` of the set, or only its result where there is an equal record; of two
    /// results the lesser stays. Links to records that were not added are left out.
    fn add(&mut self, number: usize, record: &Record, result: Option<InlineResult>) {
        let links = |links: &Vec<Link>| self.different(links);
        let inputs: Vec<_> = record.inputs.iter().map(links).collect();
        let id = self.id(&record.digest, &inputs);
        let canonical = *self.by_id.entry(id).or_insert(self.records.len());
        self.added.insert(number, canonical);
        match self.records.get_mut(canonical) {
            Some(equal) => equal.result = equal.result.take().into_iter().chain(result).min(),
            None => {
                self.ids.push(id);
                self.records.push(InlineRecord {
                    digest: record.digest.clone(),
                    inputs,
                    result,
                });
            }
        }
    }

    /// The links in numbers of this, by selector and then by identity, each once.
    fn different(&self, links: &[Link]) -> Vec<Link> {
        let mut links: Vec<_> = links
            .iter()
            .filter_map(|link| {
                Some(Link {
                    selector: link.selector.clone(),
                    record: *self.added.get(&link.record)?,
                })
            })
            .collect();
        links.sort_unstable_by(|a, b| {
            (&a.selector, self.ids[a.record]).cmp(&(&b.selector, self.ids[b.record]))
        });
        links.dedup();
        links
    }

    /// Every part is led by its length or is of a fixed one, so that no two records hash the
    /// same text.
    fn id(&self, digest: &Digest, inputs: &[Vec<Link>]) -> Id {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(digest.as_str().as_bytes());
        for links in inputs {
            part(&(links.len() as u64).to_be_bytes());
            for link in links {
                part(link.selector.as_bytes());
                part(&self.ids[link.record]);
            }
        }
        hash.finalize().into()
    }

    /// The records by digest, then by identity; links by selector, then by number.
    fn sorted(self) -> Vec<InlineRecord> {
        let mut sorted: Vec<_> = self.ids.into_iter().zip(self.records).enumerate().collect();
        sorted.sort_unstable_by(|(_, (a_id, a)), (_, (b_id, b))| {
            (&a.digest, a_id).cmp(&(&b.digest, b_id))
        });
        let mut rank = vec![0; sorted.len()];
        for (number, &(added, _)) in sorted.iter().enumerate() {
            rank[added] = number;
        }
        let mut records: Vec<_> = sorted.into_iter().map(|(_, (_, record))| record).collect();
        for links in records.iter_mut().flat_map(|r| &mut r.inputs) {
            for link in links.iter_mut() {
                link.record = rank[link.record];
            }
            links.sort_unstable();
        }
        records
    }
}

// === errors ===

/// Why there is nothing to embed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectError {
    /// No record with inputs and a result is the source of no other.
    #[error("no record is final: none has inputs and a result and is the source of no other")]
    NoFinal,
    /// The results of the final records are not all the same layers, so that nothing says which
    /// the image's are.
    #[error("no telling which layers are the image's: they differ between the results of {}", list(.0))]
    AmbiguousFinal(Vec<Named>),
    /// The final records cannot be kept, and without them nothing says which layers the image has.
    #[error("no final record may be embedded: each has or needs a `random:` key: {}", list(.0))]
    RandomFinal(Vec<Named>),
    /// Written out, it would exceed the limit that the set was read with: results that share a
    /// topmost layer there each name their layers one by one here.
    #[error("the records have more than {limit} links and layers of results")]
    TooLarge {
        /// The limit, [`Limits::links`](super::Limits::links) of the set.
        limit: usize,
    },
}

/// A record that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its number in the set.
    pub number: usize,
    /// Its digest.
    pub digest: Digest,
}

impl Named {
    fn all(set: &RecordSet, numbers: &[usize]) -> Vec<Self> {
        let named = |&number: &usize| Self {
            number,
            digest: set.records()[number].digest.clone(),
        };
        numbers.iter().map(named).collect()
    }
}

/// As many as one can read.
fn list(records: &[Named]) -> String {
    const SHOWN: usize = 8;
    let mut shown: Vec<_> = records
        .iter()
        .take(SHOWN)
        .map(|r| format!("record {} ({})", r.number, r.digest))
        .collect();
    if records.len() > SHOWN {
        shown.push(format!("{} more", records.len() - SHOWN));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests;
