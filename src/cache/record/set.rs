//! The record set: a cache's records and layers, checked.
//!
//! A cache from outside is checked here: in a set, every number is in range, and there are no loops.
//! [`select`](super::select()) decides which records are wanted.
//!
//! The format is BuildKit's, `application/vnd.buildkit.cacheconfig.v0`, as described in
//! `cache/remotecache/v1/types`. What BuildKit's reader (`cache/remotecache/v1/parse.go`) refuses is refused
//! here, with two exceptions. Links to `random:` keys are read, and [`select`](super::select()) drops them.
//! Dates are not read, so malformed ones are accepted. A loop of layers that no result names is refused here,
//! while BuildKit skips it. `tests/e2e/differential` compares the two readers.

mod unite;

use std::{
    collections::{HashMap, HashSet},
    fmt, mem,
    ops::Deref,
    sync::Arc,
};

use thiserror::Error;

use super::{
    Digest, DigestError, Limits,
    json::{self, RawLayer, RawLink, RawRecord, ReadError},
    order,
};
use crate::cache::JsonError;

/// A link from an input of one record to a record that is a source of it. Ordered by selector,
/// then by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// The part of the source's result that the key is for. Mostly empty.
    pub selector: Arc<str>,
    /// Number of the source.
    pub record: usize,
}

/// The layers of one result, base first, by their numbers in the set. It has at least one. Clones share the
/// list, and so do results that lie on one another.
#[derive(Clone)]
pub struct LayerChain {
    list: Arc<[usize]>,
    /// How many layers of the list, from the first on, it has.
    length: usize,
}

/// A cache key: an operation by its digest, and where its inputs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Digest of the operation, or of a source's content.
    pub digest: Digest,
    /// For each input the records that can be its source. Any one of them is enough, and there is at least
    /// one. A record without inputs is a root.
    pub inputs: Vec<Vec<Link>>,
    /// The results of the operation, where the cache has them.
    pub results: Vec<LayerChain>,
}

/// A layer that results name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob, compressed as it is stored; never a `random:` one.
    pub blob: Digest,
    /// Number of the layer below.
    pub parent: Option<usize>,
    /// Digest of the uncompressed blob, where known; the same for all layers with this blob.
    pub diff_id: Option<Digest>,
}

impl Layer {
    /// The digest that identifies its content: the diff ID, or the blob where that is not known.
    pub fn name(&self) -> &Digest {
        self.diff_id.as_ref().unwrap_or(&self.blob)
    }
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// Digest of the blob, as it is stored.
    pub blob: Digest,
    /// Digest of the uncompressed blob.
    pub diff_id: Digest,
}

/// Records and their layers, checked: every number is in range, there are no loops of records or layers, and
/// every input has a source.
#[derive(Debug, Clone)]
pub struct RecordSet {
    layers: Vec<Layer>,
    records: Vec<Record>,
    /// All records, each after its sources.
    order: Vec<usize>,
    limits: Limits,
}

// === impl RecordSet ===

impl RecordSet {
    /// Reads a BuildKit cache config, `{"layers":[…],"records":[…]}`.
    ///
    /// ```
    /// use inlay::cache::record::{Limits, RecordSet};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // Of `--export-cache type=local`, the blob that the manifest has as its config.
    /// let export = std::fs::read("examples/image/cache.json")?;
    /// let set = RecordSet::parse(&export, &Limits::default())?;
    /// assert_eq!((set.layers().len(), set.records().len()), (3, 9));
    /// let [last] = set.finals()[..] else { panic!("one build has one end") };
    /// assert_eq!(set.records()[last].results[0].len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A [`ParseError`] where it is not such JSON, exceeds `limits` or breaks a rule of the
    /// format.
    pub fn parse(config: &[u8], limits: &Limits) -> Result<Self, ParseError> {
        check_size(config, limits)?;
        let config = json::config(config, limits)?;
        let layers = layers(&config.layers)?;
        Self::check(layers, config.records, EmptyInputs::Refused, limits)
    }

    /// Reads a cache config that a daemon has just exported.
    ///
    /// A daemon breaks loops of records by dropping links (`CacheChains.Add` and `marshalItem` of
    /// `cache/remotecache/v1`), so an input of a record may have no source left. Such a record is
    /// dropped, and so are the records that need it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), except that inputs may be empty.
    pub fn parse_export(config: &[u8], limits: &Limits) -> Result<Self, ParseError> {
        check_size(config, limits)?;
        let config = json::config(config, limits)?;
        let layers = layers(&config.layers)?;
        let mut set = Self::check(layers, config.records, EmptyInputs::Cut, limits)?;
        set.keep_alive(|_| true);
        Ok(set)
    }

    /// Reads the records of an inline cache, a JSON array, that is embedded in an image with the
    /// layers `image_layers` (digests of their blobs, base first). A result `n` is the image's
    /// layers 0 to n.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_inline(
        records: &[u8],
        image_layers: &[Digest],
        limits: &Limits,
    ) -> Result<Self, ParseError> {
        check_size(records, limits)?;
        if image_layers.len() > limits.layers {
            return Err(ParseError::TooMany {
                what: "layers",
                limit: limits.layers,
            });
        }
        let layers = image_layers
            .iter()
            .enumerate()
            .map(|(number, blob)| layer(number, blob.clone(), number.checked_sub(1)))
            .collect::<Result<_, _>>()?;
        let records = json::records(records, limits)?;
        Self::check(layers, records, EmptyInputs::Refused, limits)
    }

    /// The layers, as numbered in [`Layer::parent`] and [`LayerChain`].
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The records, as numbered in [`Link::record`].
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Numbers of all records, each after its sources.
    pub fn sources_first(&self) -> &[usize] {
        &self.order
    }

    /// The limits that the set was read with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Sets the diff ID of each layer whose blob `diff_id` knows. A cache manifest has it in the layer's
    /// annotation `containerd.io/uncompressed`.
    pub fn set_diff_ids(&mut self, diff_id: impl Fn(&Digest) -> Option<Digest>) {
        for layer in &mut self.layers {
            if let Some(known) = diff_id(&layer.blob) {
                layer.diff_id = Some(known);
            }
        }
    }

    /// Keeps only the links for which `keep(record, input, link)` holds.
    ///
    /// A record with an input that loses all its sources is dropped, and so are the links to it. Records that
    /// no longer lead to a record that was the source of no other are dropped, too. Otherwise a record in
    /// the middle could look like the end of the build. The remaining records get new numbers, in the same
    /// order. Layers stay as they are.
    pub fn retain_links(&mut self, keep: impl FnMut(usize, usize, &Link) -> bool) {
        let ends = self.ends();
        self.retain_links_to(&ends, keep);
    }

    /// As [`retain_links`](Self::retain_links), with these `ends` of the build. Returns the new numbers of
    /// the ends that remain.
    pub fn retain_links_to(
        &mut self,
        ends: &[usize],
        mut keep: impl FnMut(usize, usize, &Link) -> bool,
    ) -> Vec<usize> {
        for (number, record) in self.records.iter_mut().enumerate() {
            for (input, links) in record.inputs.iter_mut().enumerate() {
                links.retain(|link| keep(number, input, link));
            }
        }
        let kept = self.leading_to(ends, &self.alive(|_| true));
        let numbers = self.keep_only(&kept);
        ends.iter().filter_map(|&end| numbers[end]).collect()
    }

    /// Keeps only the records that are alive: `allowed` holds for them, and for a source of each input in
    /// turn.
    pub fn keep_alive(&mut self, allowed: impl Fn(&Record) -> bool) {
        let alive = self.alive(allowed);
        if alive.contains(&false) {
            self.keep_only(&alive);
        }
    }

    /// Drops the other records, and the links to them, and renumbers the rest. Returns the new numbers, by
    /// the old ones.
    fn keep_only(&mut self, kept: &[bool]) -> Vec<Option<usize>> {
        let mut next = 0..;
        let numbers: Vec<_> = kept
            .iter()
            .map(|&kept| if kept { next.next() } else { None })
            .collect();

        let mut kept = kept.iter();
        self.records.retain(|_| kept.next() == Some(&true));
        for links in self.records.iter_mut().flat_map(|r| &mut r.inputs) {
            links.retain_mut(|link| {
                let number = numbers[link.record];
                number.inspect(|&number| link.record = number).is_some()
            });
        }
        self.order = self.order.iter().filter_map(|&r| numbers[r]).collect();
        numbers
    }

    /// Replaces the results of `end` with the layers of the image, base first. Layers of the set with the
    /// same blobs get the diff IDs of the image's, if they have none.
    pub fn give_image(&mut self, end: usize, image: &[ImageLayer]) {
        let known: HashMap<_, _> = image.iter().map(|layer| (&layer.blob, layer)).collect();
        for layer in self
            .layers
            .iter_mut()
            .filter(|layer| layer.diff_id.is_none())
        {
            layer.diff_id = known.get(&layer.blob).map(|known| known.diff_id.clone());
        }
        let first = self.layers.len();
        for (place, layer) in image.iter().enumerate() {
            self.layers.push(Layer {
                blob: layer.blob.clone(),
                parent: place.checked_sub(1).map(|below| first + below),
                diff_id: Some(layer.diff_id.clone()),
            });
        }
        let list: Arc<[usize]> = (first..self.layers.len()).collect();
        let results = &mut self.records[end].results;
        results.clear();
        if !list.is_empty() {
            let length = list.len();
            results.push(LayerChain { list, length });
        }
    }

    /// Replaces the results of a record. They consist of layers of this set.
    pub fn give_results(&mut self, record: usize, results: &[LayerChain]) {
        self.records[record].results = results.to_vec();
    }

    /// Whether a link is by content: to a root, and without a selector. A link by definition has the
    /// selector of what is read, and leads to a root only if that is a source or made of nothing.
    pub fn is_content(&self, link: &Link) -> bool {
        link.selector.is_empty() && self.records[link.record].is_root()
    }

    /// Numbers of the records that have inputs and are the source of no other record.
    pub fn finals(&self) -> Vec<usize> {
        let mut finals = self.ends();
        finals.retain(|&r| !self.records[r].inputs.is_empty());
        finals
    }

    /// Numbers of the records that are the source of no other.
    fn ends(&self) -> Vec<usize> {
        let is_source = self.is_source();
        (0..is_source.len()).filter(|&r| !is_source[r]).collect()
    }

    /// For each record whether it is the source of another.
    pub fn is_source(&self) -> Vec<bool> {
        let mut is_source = vec![false; self.records.len()];
        for source in self.records.iter().flat_map(Record::sources) {
            is_source[source] = true;
        }
        is_source
    }

    /// For each record whether it is alive: `allowed` holds for it, and each of its inputs has a source
    /// that is alive.
    pub(super) fn alive(&self, allowed: impl Fn(&Record) -> bool) -> Vec<bool> {
        let mut alive = vec![false; self.records.len()];
        for &number in &self.order {
            let record = &self.records[number];
            alive[number] = allowed(record)
                && record
                    .inputs
                    .iter()
                    .all(|links| links.iter().any(|link| alive[link.record]));
        }
        alive
    }

    /// For each record whether it is one of `ends` or leads to one of them through records that are alive.
    pub(super) fn leading_to(&self, ends: &[usize], alive: &[bool]) -> Vec<bool> {
        let mut leading = vec![false; self.records.len()];
        let mut to_visit: Vec<usize> = ends.iter().copied().filter(|&r| alive[r]).collect();
        while let Some(number) = to_visit.pop() {
            if !mem::replace(&mut leading[number], true) {
                to_visit.extend(self.records[number].sources().filter(|&s| alive[s]));
            }
        }
        leading
    }

    fn check(
        layers: Vec<Layer>,
        records: Vec<RawRecord<'_>>,
        empty: EmptyInputs,
        limits: &Limits,
    ) -> Result<Self, ParseError> {
        let count = records.len();
        let mut chains = Chains::of(&layers, limits)?;
        let mut selectors = Selectors::default();
        let records = records
            .into_iter()
            .enumerate()
            .map(|(number, raw)| record(number, raw, count, empty, &mut chains, &mut selectors))
            .collect::<Result<Vec<_>, _>>()?;
        Self::ordered(layers, records, limits.clone())
    }

    fn ordered(
        layers: Vec<Layer>,
        records: Vec<Record>,
        limits: Limits,
    ) -> Result<Self, ParseError> {
        let sources = |record: usize| Record::sources(&records[record]);
        let order = order::sources_first(records.len(), sources)
            .map_err(|record| ParseError::RecordLoop { record })?;
        check_depth(&records, &order, &limits)?;
        Ok(Self {
            layers,
            records,
            order,
            limits,
        })
    }

    /// The same layers with other records, whose links and results are in range.
    ///
    /// # Errors
    /// Where the records exceed the limits on their number or depth, or have a loop.
    pub fn with_records(&self, records: Vec<Record>) -> Result<Self, ParseError> {
        let limits = self.limits.clone();
        if records.len() > limits.records {
            return Err(ParseError::TooMany {
                what: "records",
                limit: limits.records,
            });
        }
        Self::ordered(self.layers.clone(), records, limits)
    }
}

// === impl Record ===

impl Record {
    /// Whether it has no inputs: it is content, a source, or an operation on nothing.
    pub fn is_root(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Numbers of the sources of all inputs, once per link.
    pub fn sources(&self) -> impl Iterator<Item = usize> + '_ {
        self.inputs.iter().flatten().map(|link| link.record)
    }
}

// === impl LayerChain ===

impl LayerChain {
    /// The list that it shares with other chains. Its own layers are the first of the list.
    pub(super) fn list(&self) -> &[usize] {
        &self.list
    }
}

impl Deref for LayerChain {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.list[..self.length]
    }
}

impl PartialEq for LayerChain {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for LayerChain {}

impl fmt::Debug for LayerChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

// === the checks ===

/// Whether a record may have an input without sources.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EmptyInputs {
    /// The cache is refused.
    Refused,
    /// The daemon broke a loop there. The record is kept, and the caller drops it.
    Cut,
}

fn check_size(json: &[u8], limits: &Limits) -> Result<(), ParseError> {
    if json.len() > limits.bytes {
        return Err(ParseError::TooLarge {
            bytes: json.len(),
            limit: limits.bytes,
        });
    }
    Ok(())
}

fn check_depth(records: &[Record], order: &[usize], limits: &Limits) -> Result<(), ParseError> {
    let mut depth = vec![0; records.len()];
    for &record in order {
        depth[record] = records[record]
            .sources()
            .map(|source| depth[source] + 1)
            .max()
            .unwrap_or(0);
        if depth[record] > limits.depth {
            return Err(ParseError::TooDeep {
                record,
                limit: limits.depth,
            });
        }
    }
    Ok(())
}

fn layers(layers: &[RawLayer<'_>]) -> Result<Vec<Layer>, ParseError> {
    let count = layers.len();
    layers
        .iter()
        .enumerate()
        .map(|(number, raw)| {
            let blob = Digest::parse(&raw.blob.0)
                .map_err(|why| ParseError::LayerDigest { layer: number, why })?;
            let parent = match raw.parent {
                -1 => None,
                parent => Some(in_range(parent, count).ok_or(ParseError::LayerParent {
                    layer: number,
                    parent,
                    layers: count,
                })?),
            };
            layer(number, blob, parent)
        })
        .collect()
}

fn layer(number: usize, blob: Digest, parent: Option<usize>) -> Result<Layer, ParseError> {
    if blob.is_random() {
        return Err(ParseError::LayerDigest {
            layer: number,
            why: DigestError::NotABlob,
        });
    }
    Ok(Layer {
        blob,
        parent,
        diff_id: None,
    })
}

fn record(
    number: usize,
    raw: RawRecord<'_>,
    records: usize,
    empty: EmptyInputs,
    chains: &mut Chains<'_>,
    selectors: &mut Selectors,
) -> Result<Record, ParseError> {
    Ok(Record {
        digest: Digest::parse(&raw.digest.0).map_err(|why| ParseError::RecordDigest {
            record: number,
            why,
        })?,
        results: results(number, &raw, chains)?,
        inputs: inputs(number, raw.inputs, records, empty, selectors)?,
    })
}

fn inputs(
    record: usize,
    inputs: Vec<Vec<RawLink<'_>>>,
    records: usize,
    empty: EmptyInputs,
    selectors: &mut Selectors,
) -> Result<Vec<Vec<Link>>, ParseError> {
    let mut link = |input, raw: RawLink<'_>| {
        Ok(Link {
            record: in_range(raw.link, records).ok_or(ParseError::Link {
                record,
                input,
                link: raw.link,
                records,
            })?,
            selector: selectors.shared(&raw.selector.0),
        })
    };
    inputs
        .into_iter()
        .enumerate()
        .map(|(input, links)| {
            if links.is_empty() && empty == EmptyInputs::Refused {
                return Err(ParseError::EmptyInput { record, input });
            }
            links.into_iter().map(|raw| link(input, raw)).collect()
        })
        .collect()
}

/// The results of a record. Results without layers are left out, as BuildKit does when it writes records that
/// it has read.
fn results(
    record: usize,
    raw: &RawRecord<'_>,
    chains: &mut Chains<'_>,
) -> Result<Vec<LayerChain>, ParseError> {
    let number = |layer| {
        in_range(layer, chains.layers.len()).ok_or(ParseError::ResultLayer {
            record,
            layer,
            layers: chains.layers.len(),
        })
    };
    let tops = raw
        .layers
        .iter()
        .map(|top| number(top.layer))
        .collect::<Result<Vec<_>, _>>()?;
    let explicit = raw
        .chains
        .iter()
        .filter(|chain| !chain.layers.is_empty())
        .map(|chain| chain.layers.iter().map(|&layer| number(layer)).collect())
        .collect::<Result<Vec<Vec<_>>, _>>()?;
    let mut results = Vec::with_capacity(tops.len() + explicit.len());
    for top in tops {
        results.push(chains.down_from(top)?);
    }
    for layers in explicit {
        chains.check_length(layers.len())?;
        results.push(LayerChain {
            length: layers.len(),
            list: layers.into(),
        });
    }
    Ok(results)
}

fn in_range(number: i64, count: usize) -> Option<usize> {
    usize::try_from(number).ok().filter(|&n| n < count)
}

/// The chains of layers that results name by their topmost one. Chains that lie on one another share a list,
/// so a chain where each layer is a result takes as much memory as one result.
struct Chains<'a> {
    layers: &'a [Layer],
    /// For each layer the end of its list: a layer on top of it, or itself, that is no other layer's parent.
    ends: Vec<usize>,
    /// The chains made so far, by topmost layer.
    made: Vec<Option<LayerChain>>,
    /// Length of all lists made so far.
    length: usize,
    limits: &'a Limits,
}

impl<'a> Chains<'a> {
    fn of(layers: &'a [Layer], limits: &'a Limits) -> Result<Self, ParseError> {
        check_no_loop(layers)?;
        Ok(Self {
            layers,
            ends: ends(layers),
            made: vec![None; layers.len()],
            length: 0,
            limits,
        })
    }

    fn down_from(&mut self, top: usize) -> Result<LayerChain, ParseError> {
        if let Some(chain) = &self.made[top] {
            return Ok(chain.clone());
        }
        let end = self.ends[top];
        let mut list = Vec::new();
        let mut next = Some(end);
        while let Some(layer) = next {
            self.length += 1;
            if self.length > self.limits.links {
                return Err(ParseError::TooMany {
                    what: "layers in results",
                    limit: self.limits.links,
                });
            }
            list.push(layer);
            next = self.layers[layer].parent;
        }
        list.reverse();
        let list: Arc<[usize]> = list.into();
        let chain = |below: usize| LayerChain {
            list: Arc::clone(&list),
            length: below + 1,
        };
        for (below, &layer) in list.iter().enumerate() {
            if self.ends[layer] == end {
                self.made[layer] = Some(chain(below));
            }
        }
        Ok(chain(
            list.iter().take_while(|&&layer| layer != top).count(),
        ))
    }

    fn check_length(&self, length: usize) -> Result<(), ParseError> {
        if length > self.limits.layers {
            return Err(ParseError::TooMany {
                what: "layers in one result",
                limit: self.limits.layers,
            });
        }
        Ok(())
    }
}

/// The end of each layer's list. Walks down from each layer that is no other's parent until a layer that has
/// been visited. The layers must have no loop.
fn ends(layers: &[Layer]) -> Vec<usize> {
    let mut is_parent = vec![false; layers.len()];
    for parent in layers.iter().filter_map(|layer| layer.parent) {
        is_parent[parent] = true;
    }
    let mut ends: Vec<_> = (0..layers.len()).collect();
    let mut walked = vec![false; layers.len()];
    for end in (0..layers.len()).filter(|&layer| !is_parent[layer]) {
        let mut next = Some(end);
        while let Some(layer) = next
            && !mem::replace(&mut walked[layer], true)
        {
            ends[layer] = end;
            next = layers[layer].parent;
        }
    }
    ends
}

/// Refuses a loop of layers. Walks down from each layer until a layer that has been visited.
fn check_no_loop(layers: &[Layer]) -> Result<(), ParseError> {
    let mut walked_from = vec![None; layers.len()];
    for start in 0..layers.len() {
        let mut next = Some(start);
        while let Some(layer) = next {
            match walked_from[layer] {
                None => walked_from[layer] = Some(start),
                Some(walk) if walk == start => return Err(ParseError::LayerLoop { layer }),
                Some(_) => break,
            }
            next = layers[layer].parent;
        }
    }
    Ok(())
}

/// Selectors, each different one held once.
#[derive(Default)]
struct Selectors {
    known: HashSet<Arc<str>>,
    empty: Arc<str>,
}

impl Selectors {
    fn shared(&mut self, selector: &str) -> Arc<str> {
        if selector.is_empty() {
            return Arc::clone(&self.empty);
        }
        if let Some(known) = self.known.get(selector) {
            return known.clone();
        }
        let shared: Arc<str> = selector.into();
        self.known.insert(shared.clone());
        shared
    }
}

/// Why a cache was refused. Records, layers and inputs are numbered from 0, as in the cache.
#[derive(Debug, Error)]
pub enum ParseError {
    /// The text is longer than [`Limits::bytes`].
    #[error("the cache has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// There is more of something than a limit allows.
    #[error("the cache has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The text is not JSON, or a value has a wrong type.
    #[error("the cache is not readable: {0}")]
    Json(#[source] JsonError),
    /// A layer's blob is not named by a digest of a blob.
    #[error("layer {layer}: {why}")]
    LayerDigest {
        /// The layer.
        layer: usize,
        /// What is wrong with the digest.
        #[source]
        why: DigestError,
    },
    /// A layer's parent does not exist.
    #[error("layer {layer}: its parent is layer {parent}, of {layers} layers")]
    LayerParent {
        /// The layer.
        layer: usize,
        /// The number that it names.
        parent: i64,
        /// How many layers there are.
        layers: usize,
    },
    /// A layer is its own ancestor.
    #[error("layer {layer}: it is among its own parents")]
    LayerLoop {
        /// The layer.
        layer: usize,
    },
    /// A record's digest is malformed.
    #[error("record {record}: {why}")]
    RecordDigest {
        /// The record.
        record: usize,
        /// What is wrong with the digest.
        #[source]
        why: DigestError,
    },
    /// An input has no source.
    #[error("record {record}: its input {input} is empty")]
    EmptyInput {
        /// The record.
        record: usize,
        /// The input.
        input: usize,
    },
    /// A link leads to a record that does not exist.
    #[error("record {record}: its input {input} links to record {link}, of {records} records")]
    Link {
        /// The record.
        record: usize,
        /// The input.
        input: usize,
        /// The number that it links to.
        link: i64,
        /// How many records there are.
        records: usize,
    },
    /// A result names a layer that does not exist.
    #[error("record {record}: its result has layer {layer}, of {layers} layers")]
    ResultLayer {
        /// The record.
        record: usize,
        /// The number that it names.
        layer: i64,
        /// How many layers there are.
        layers: usize,
    },
    /// A record is its own ancestor.
    #[error("record {record}: it is among its own sources")]
    RecordLoop {
        /// The record.
        record: usize,
    },
    /// A path of links is longer than [`Limits::depth`].
    #[error("record {record}: it has more than {limit} records below it in a row")]
    TooDeep {
        /// The first record that is too far up.
        record: usize,
        /// The limit.
        limit: usize,
    },
}

impl From<ReadError> for ParseError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooMany { what, limit } => Self::TooMany { what, limit },
            ReadError::Json(error) => Self::Json(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
