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

use super::{Digest, InlineCache, InlineRecord, InlineResult, Layer, LayerChain, Link, RecordSet};

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
/// # Errors
/// A [`SelectError`] where there is no such final record, or no one image that it is.
pub fn select(set: &RecordSet) -> Result<InlineCache, SelectError> {
    let finals = finals(set)?;
    let contents = contents(set.layers());
    let image = Image::of(set, &finals, &contents)?;

    let alive = set.alive(|record| !record.digest.is_random());
    let kept = set.leading_to(&finals, &alive);
    if !finals.iter().any(|&r| kept[r]) {
        return Err(SelectError::RandomFinal(Named::all(set, &finals)));
    }

    let mut canonical = Canonical::default();
    let mut places = Places::new(&image, &contents);
    let mut numbers = 0;
    for &number in set.sources_first().iter().filter(|&&r| kept[r]) {
        let result = places.best(&set.records()[number].results);
        numbers += set.records()[number].sources().count();
        numbers += result.as_ref().map_or(0, InlineResult::numbers);
        if numbers > set.limits().links {
            return Err(SelectError::TooLarge {
                limit: set.limits().links,
            });
        }
        canonical.add(set, number, &kept, result);
    }
    Ok(InlineCache::new(canonical.sorted(), image.layers.len()))
}

/// The final records that have a result.
fn finals(set: &RecordSet) -> Result<Vec<usize>, SelectError> {
    let mut finals = set.finals();
    finals.retain(|&r| !set.records()[r].results.is_empty());
    if finals.is_empty() {
        return Err(SelectError::NoFinal);
    }
    Ok(finals)
}

// === layers: which are the image's ===

/// What a layer holds, as a number that is equal for layers that hold the same: those of one
/// blob, and those of one diff ID.
type Content = usize;

/// The content of each layer. It is named by the diff ID that is known for its blob, or else by
/// the blob, which is the diff ID where the blob is not compressed.
fn contents(layers: &[Layer]) -> Vec<Content> {
    let mut diff_ids = HashMap::new();
    for layer in layers {
        if let Some(diff_id) = &layer.diff_id {
            // One blob has one diff ID; where somebody claims two, take the lesser, so that the
            // order of the layers decides nothing.
            let known = diff_ids.entry(&layer.blob).or_insert(diff_id);
            *known = diff_id.min(known);
        }
    }
    let mut contents = HashMap::new();
    layers
        .iter()
        .map(|layer| {
            let name = diff_ids.get(&layer.blob).copied().unwrap_or(&layer.blob);
            let next = contents.len();
            *contents.entry(name).or_insert(next)
        })
        .collect()
}

/// The layers of the image.
struct Image {
    layers: Vec<Content>,
    /// The lowest place of each content.
    places: HashMap<Content, usize>,
}

impl Image {
    /// The image that all results of all `finals` are.
    fn of(set: &RecordSet, finals: &[usize], contents: &[Content]) -> Result<Self, SelectError> {
        let mut chains = finals
            .iter()
            .flat_map(|&r| &set.records()[r].results)
            .map(|chain| chain.iter().map(|&layer| contents[layer]));
        let layers: Vec<_> = chains.next().ok_or(SelectError::NoFinal)?.collect();
        if !chains.all(|other| other.eq(layers.iter().copied())) {
            return Err(SelectError::AmbiguousFinal(Named::all(set, finals)));
        }
        let mut places = HashMap::new();
        for (place, &content) in layers.iter().enumerate() {
            places.entry(content).or_insert(place);
        }
        Ok(Self { layers, places })
    }

    /// Where in the image the layers of a result are, if all of them are there.
    fn place(&self, chain: &[Content]) -> Option<InlineResult> {
        if self.layers.starts_with(chain) {
            return chain.len().checked_sub(1).map(InlineResult::Layer);
        }
        let places: Option<Vec<_>> = chain.iter().map(|c| self.places.get(c).copied()).collect();
        places.map(|places| InlineResult::Chain(places.into()))
    }
}

/// The places of results in the image, each chain of layers looked at once.
struct Places<'a> {
    image: &'a Image,
    contents: &'a [Content],
    /// By where the chain is in memory, which is the same for all results that share it.
    known: HashMap<*const usize, Option<InlineResult>>,
}

impl<'a> Places<'a> {
    fn new(image: &'a Image, contents: &'a [Content]) -> Self {
        Self {
            image,
            contents,
            known: HashMap::new(),
        }
    }

    /// The one result to keep.
    fn best(&mut self, results: &[LayerChain]) -> Option<InlineResult> {
        results.iter().filter_map(|chain| self.of(chain)).min()
    }

    fn of(&mut self, chain: &LayerChain) -> Option<InlineResult> {
        self.known
            .entry(chain.as_ptr())
            .or_insert_with(|| {
                let contents: Vec<_> = chain.iter().map(|&layer| self.contents[layer]).collect();
                self.image.place(&contents)
            })
            .clone()
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
    /// Adds record `number` of the set, or only its result where there is an equal record. Of
    /// two results the lesser stays.
    fn add(&mut self, set: &RecordSet, number: usize, kept: &[bool], result: Option<InlineResult>) {
        let record = &set.records()[number];
        let inputs: Vec<Vec<Link>> = record
            .inputs
            .iter()
            .map(|links| self.different(links.iter().filter(|link| kept[link.record])))
            .collect();
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
    fn different<'a>(&self, links: impl Iterator<Item = &'a Link>) -> Vec<Link> {
        let mut links: Vec<Link> = links
            .map(|link| Link {
                selector: link.selector.clone(),
                record: self.added[&link.record],
            })
            .collect();
        links.sort_by(|a, b| {
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
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        order.sort_unstable_by(|&a, &b| {
            (&self.records[a].digest, self.ids[a]).cmp(&(&self.records[b].digest, self.ids[b]))
        });
        let mut rank = vec![0; order.len()];
        for (number, &record) in order.iter().enumerate() {
            rank[record] = number;
        }
        let mut records: Vec<(usize, InlineRecord)> =
            rank.iter().copied().zip(self.records).collect();
        records.sort_unstable_by_key(|&(number, _)| number);
        records
            .into_iter()
            .map(|(_, mut record)| {
                for links in &mut record.inputs {
                    for link in links.iter_mut() {
                        link.record = rank[link.record];
                    }
                    links.sort_unstable_by(|a, b| {
                        (&a.selector, a.record).cmp(&(&b.selector, b.record))
                    });
                }
                record
            })
            .collect()
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
