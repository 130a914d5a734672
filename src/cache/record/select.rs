//! Selects the records that an image's own build determines, as in `mode=min`, in canonical form.
//!
//! The outcome depends on the records alone, and not on the order in which the daemon held or wrote them.
//! So equal builds embed equal bytes. The image is the chain of layers that the final record names.
//! Links of earlier builds are not recognized here, so the caller drops those that it knows first
//! ([`RecordSet::retain_links`]).

use std::collections::{HashMap, HashSet};

use thiserror::Error;

use super::identity::{ids, ids_among};
use super::{
    Digest, InlineCache, InlineRecord, InlineResult, Layer, LayerChain, Link, RecordSet, merge,
};

/// Selects the records of the image that the final record of `set` is.
///
/// A record is final if it has inputs and a result and is the source of no other. Its layers are the
/// image's, in order. A record that is equal to a source of another is the same record to BuildKit, so it is
/// not final. Records that do not lead to a final record are dropped, and so are those that have a `random:`
/// key or need a record that has one. A result stays if it consists of the image's layers. Layers are the
/// same if their diff IDs are, or their blobs where the diff IDs are not known.
///
/// Final records are found before records with `random:` keys are dropped. Otherwise, if the last record of a
/// build has such a key, the one before it would count as the image, with fewer or other layers.
///
/// ```
/// use inlay::cache::record::{Limits, RecordSet, select};
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
/// A [`SelectError`] where there is no final record that can be kept, where final records differ in their
/// layers, or where the records are too many or BuildKit would make a loop of them.
pub fn select(set: &RecordSet) -> Result<InlineCache, SelectError> {
    select_expecting(set, &HashMap::new())
}

/// Selects as [`select`] does, and gives records their `expected` results, by number.
///
/// A daemon exports the newest result of each record. If the image was built on another one, the record has
/// no result in the image, and gets the expected one. If one expected result contradicts an exported one,
/// none of them is used.
///
/// # Errors
/// As [`select`].
pub fn select_expecting(
    set: &RecordSet,
    expected: &HashMap<usize, InlineResult>,
) -> Result<InlineCache, SelectError> {
    let finals = finals(set);
    let mut image = ImageLayers::of(set, &finals)?;

    let alive = set.alive(|record| !record.digest.is_random());
    let kept = set.leading_to(&finals, &alive);
    if !finals.iter().any(|&r| kept[r]) {
        return Err(SelectError::RandomFinal(Named::all(set, &finals)));
    }

    let limit = set.limits().links;
    let mut numbers = 0;
    let mut spend = |spent: usize| {
        numbers += spent;
        (numbers <= limit)
            .then_some(())
            .ok_or(SelectError::TooLarge { limit })
    };
    let mut results: Vec<Option<InlineResult>> = vec![None; set.records().len()];
    for (best, record) in results.iter_mut().zip(set.records()) {
        for result in &record.results {
            if let Some(found) = image.place(result) {
                // Results that are not chosen count too: they were made and compared.
                spend(found.numbers())?;
                *best = best.take().into_iter().chain([found]).min();
            }
        }
    }
    fill(&mut results, expected, &image);
    for (number, record) in set.records().iter().enumerate().filter(|(r, _)| kept[*r]) {
        spend(record.sources().count())?;
        // The result may be an expected one, which has not been counted.
        if record.results.is_empty() {
            spend(results[number].as_ref().map_or(0, InlineResult::numbers))?;
        }
    }
    let records = canonical(set, &kept, results);
    if !merge::survives(&records) {
        return Err(SelectError::Loop);
    }
    Ok(InlineCache::new(records, image.layers.len()))
}

impl RecordSet {
    /// The layers of the image that [`select`] finds, base first: their diff IDs, or the blobs where these
    /// are not known. `None` where it finds none.
    pub fn image(&self) -> Option<Vec<Digest>> {
        let finals = finals(self);
        let mut results = finals.iter().flat_map(|&r| &self.records()[r].results);
        let layers = results.next()?.iter().map(|&layer| &self.layers()[layer]);
        let names: Vec<_> = layers.map(|layer| layer.name().clone()).collect();
        ImageLayers::of(self, &finals).ok().map(|_| names)
    }
}

/// The records with inputs and a result that are the source of no other, and not equal to a record that
/// is.
fn finals(set: &RecordSet) -> Vec<usize> {
    let records = set.records();
    let mut finals = set.finals();
    finals.retain(|&r| !records[r].results.is_empty());
    let mut digests: Vec<_> = finals.iter().map(|&r| &records[r].digest).collect();
    digests.sort_unstable();
    let is_source = set.is_source();
    let like_a_final =
        |&r: &usize| is_source[r] && digests.binary_search(&&records[r].digest).is_ok();
    let sources: Vec<_> = (0..records.len()).filter(like_a_final).collect();
    if !sources.is_empty() {
        let ids = ids(set);
        let sources: HashSet<_> = sources.into_iter().map(|r| ids[r]).collect();
        finals.retain(|&r| !sources.contains(&ids[r]));
    }
    finals
}

/// Gives records the expected results, unless one of them contradicts a result that was found. If several
/// layers of the image have the same content, the expected result names the right ones.
///
/// An expected result that is a chain within the image may differ from the one found: the daemon may have
/// the result of an earlier run of the step, which equals another layer. That is no contradiction if
/// results found elsewhere end right below the chain, and at its top.
fn fill(
    results: &mut [Option<InlineResult>],
    expected: &HashMap<usize, InlineResult>,
    image: &ImageLayers,
) {
    let mut fitting = Vec::with_capacity(expected.len());
    let mut tops = HashSet::new();
    let mut bounds = Vec::new();
    for (&number, result) in expected {
        let (Some(found), Some(result)) = (results.get(number), image.canonical(result)) else {
            return;
        };
        if let Some(found) = found {
            match (image.is_same(found, &result), &result) {
                (true, InlineResult::Layer(top)) => {
                    tops.insert(*top);
                }
                (true, InlineResult::Chain(_)) => {}
                (false, InlineResult::Layer(_)) => return,
                (false, InlineResult::Chain(places)) => {
                    let below = places.first().and_then(|first| first.checked_sub(1));
                    bounds.extend([below, places.last().copied()]);
                }
            }
        }
        fitting.push((number, result));
    }
    if !bounds
        .iter()
        .all(|top| top.is_some_and(|top| tops.contains(&top)))
    {
        return;
    }
    for (number, result) in fitting {
        results[number] = Some(result);
    }
}

// === layers: which are the image's ===

/// The content of a layer, as a number. Layers with the same name have the same number, see [`Layer::name`].
type Content = usize;

/// The content of each layer. Its name is the diff ID, or else the digest of the blob. The two are equal if
/// the blob is not compressed.
fn contents(layers: &[Layer]) -> Vec<Content> {
    let mut contents = HashMap::new();
    layers
        .iter()
        .map(|layer| {
            let next = contents.len();
            *contents.entry(layer.name()).or_insert(next)
        })
        .collect()
}

/// The layers of the image, and where in it the layers of results are.
struct ImageLayers {
    layers: Vec<Content>,
    /// The lowest place of each content.
    places: HashMap<Content, usize>,
    /// The place of each layer of the set that the final record names.
    own: HashMap<usize, usize>,
    /// The content of each layer of the set.
    contents: Vec<Content>,
    /// The places of the layers of lists, by the list's address in memory. Results that lie on one another
    /// share a list, and may be many.
    lists: HashMap<*const usize, Places>,
}

/// The places in the image of the layers of a list.
struct Places {
    /// How many layers of the list, from the first on, are the image's in the same places.
    same: usize,
    /// The places of the list's layers, up to the first that the image does not have.
    places: Vec<usize>,
}

impl ImageLayers {
    /// The image that the results of `finals` are. Fails where they differ.
    fn of(set: &RecordSet, finals: &[usize]) -> Result<Self, SelectError> {
        let mut results = finals.iter().flat_map(|&r| &set.records()[r].results);
        let first = results.next().ok_or(SelectError::NoFinal)?;

        let contents = contents(set.layers());
        let layers: Vec<_> = first.iter().map(|&layer| contents[layer]).collect();
        let mut places = HashMap::new();
        for (place, &content) in layers.iter().enumerate() {
            places.entry(content).or_insert(place);
        }
        let own = first.iter().zip(0..);
        let own = own.map(|(layer, place)| (*layer, place)).collect();
        let mut image = Self {
            layers,
            places,
            own,
            contents,
            lists: HashMap::new(),
        };
        let whole = image.place(first);
        if results.any(|result| image.place(result) != whole) {
            return Err(SelectError::AmbiguousFinal(Named::all(set, finals)));
        }
        Ok(image)
    }

    /// The places of a result's layers, if the image has all of them.
    fn place(&mut self, result: &LayerChain) -> Option<InlineResult> {
        let list = result.list();
        if !self.lists.contains_key(&list.as_ptr()) {
            let places = self.places(list);
            self.lists.insert(list.as_ptr(), places);
        }
        self.lists.get(&list.as_ptr())?.first(result.len())
    }

    fn places(&self, list: &[usize]) -> Places {
        let pairs = list.iter().zip(&self.layers);
        let place = |layer: &usize| {
            let own = self.own.get(layer).copied();
            own.or_else(|| self.places.get(&self.contents[*layer]).copied())
        };
        Places {
            same: pairs
                .take_while(|(one, other)| self.contents[**one] == **other)
                .count(),
            places: list.iter().map_while(place).collect(),
        }
    }

    /// A result in the form that [`place`](Self::place) returns, if the image has its layers.
    fn canonical(&self, result: &InlineResult) -> Option<InlineResult> {
        let contents = self.contents_of(result)?;
        let first = contents.iter().zip(&self.layers);
        let is_first = first.filter(|(one, other)| one == other).count() == contents.len();
        match (is_first, contents.len().checked_sub(1)) {
            (_, None) => None,
            (true, Some(top)) => Some(InlineResult::Layer(top)),
            (false, Some(_)) => Some(result.clone()),
        }
    }

    /// Whether two results have the same content.
    fn is_same(&self, one: &InlineResult, other: &InlineResult) -> bool {
        self.contents_of(one) == self.contents_of(other)
    }

    fn contents_of(&self, result: &InlineResult) -> Option<Vec<Content>> {
        match result {
            InlineResult::Layer(top) => Some(self.layers.get(..=*top)?.to_vec()),
            InlineResult::Chain(places) => {
                let content = |place: &usize| self.layers.get(*place).copied();
                places.iter().map(content).collect()
            }
        }
    }
}

impl Places {
    /// The result of so many of the first layers.
    fn first(&self, length: usize) -> Option<InlineResult> {
        if length <= self.same {
            length.checked_sub(1).map(InlineResult::Layer)
        } else {
            let places = self.places.get(..length)?;
            Some(InlineResult::Chain(places.into()))
        }
    }
}

// === canonical form ===

/// The kept records, sorted by digest and then by identity, each identity once. Links are sorted by selector
/// and then by number, each once. If records with one identity have several results, the least stays.
fn canonical(
    set: &RecordSet,
    kept: &[bool],
    mut results: Vec<Option<InlineResult>>,
) -> Vec<InlineRecord> {
    let ids = ids_among(set, |record| kept[record]);
    let records = set.records();
    let key = |&number: &usize| (&records[number].digest, ids[number]);
    let mut sorted: Vec<usize> = (0..kept.len()).filter(|&r| kept[r]).collect();
    sorted.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    let equal: Vec<&[usize]> = sorted.chunk_by(|a, b| ids[*a] == ids[*b]).collect();

    let mut numbers = vec![0; kept.len()];
    for (number, equal) in equal.iter().enumerate() {
        for &record in *equal {
            numbers[record] = number;
        }
    }
    let links = |links: &Vec<Link>| {
        let mut renumbered = Vec::with_capacity(links.len());
        let links = links.iter().filter(|link| kept[link.record]);
        renumbered.extend(links.map(|link| Link {
            selector: link.selector.clone(),
            record: numbers[link.record],
        }));
        renumbered.sort_unstable();
        renumbered.dedup();
        renumbered
    };
    let record = |equal: &[usize]| {
        let first = &records[equal[0]];
        InlineRecord {
            digest: first.digest.clone(),
            inputs: first.inputs.iter().map(links).collect(),
            result: equal.iter().filter_map(|&r| results[r].take()).min(),
        }
    };
    equal.into_iter().map(record).collect()
}

// === errors ===

/// Why there is nothing to embed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectError {
    /// No record with inputs and a result is the source of no other.
    #[error("no record is final: none has inputs and a result and is the source of no other")]
    NoFinal,
    /// The results of the final records have different layers, so the image's are not known.
    #[error("no telling which layers are the image's: they differ between the results of {}", list(.0))]
    AmbiguousFinal(Vec<Named>),
    /// All final records have or need a `random:` key. Without them the image's layers are not known.
    #[error("no final record may be embedded: each has or needs a `random:` key: {}", list(.0))]
    RandomFinal(Vec<Named>),
    /// BuildKit would merge the records into a loop when it reads them, and crash. Also where it would take
    /// too long to tell.
    #[error("of its records BuildKit would make a loop, and not survive it")]
    Loop,
    /// The records would exceed the limit on links that the set was read with. Results that share layers
    /// in the set each name their layers here. All results of a record count, although one is written.
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

/// A list of records for an error, cut to a readable length.
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
