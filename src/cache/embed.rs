//! The inline cache of one image: made of what the daemon exported, and of the definition that was
//! solved.
//!
//! It lays the two over each other, so that records of other builds go and records of this build
//! have their results. [`embed`] does it in one call. Where a daemon can be asked, [`ImageCache`]
//! does the same in steps: read the export, solve the [probe](ImageCache::probe) if there is one,
//! [learn](ImageCache::learn) from its answer, [finish](ImageCache::finish).
//!
//! ```
//! use inlay::cache::embed::embed;
//! use inlay::cache::export::Exported;
//! use inlay::cache::image::config;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What a daemon exported as `type=local`, and the LLB definition that it was solved from.
//! let exported = Exported {
//!     config: std::fs::read("examples/image/cache.json")?,
//!     diff_ids: Default::default(),
//! };
//! let definition = std::fs::read("examples/image/definition.pb")?;
//! let embedded = embed(&exported, &definition, None)?;
//! assert_eq!((embedded.cache.records().len(), embedded.cache.layers()), (9, 3));
//! assert_eq!(embedded.notes, []);
//!
//! let image = br#"{"architecture":"amd64","os":"linux"}"#;
//! let cached = config::embed(image, &embedded.cache.encode(), config::DEFAULT_LIMIT)?;
//! assert_eq!(config::strip(&cached, config::DEFAULT_LIMIT)?, image);
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use thiserror::Error;

use crate::cache::export::Exported;
use crate::cache::llb::derive::{Derived, derive};
use crate::cache::llb::digest::{Dialect, edge_digest};
use crate::cache::llb::probe::Probe;
use crate::cache::llb::{
    self, Assumptions, Edge, Evidence, Graph, GraphError, Lineage, LineageError, layers, lineage,
};
use crate::cache::record::{
    self, Digest, ImageLayer, InlineCache, InlineResult, LayerChain, Limits, ParseError, RecordSet,
    SelectError,
};
use crate::protocol::proto::pb::{self, op::Op};

mod memory;

use memory::Names;
pub use memory::{ImportedContents, Remembered};

/// How many records may be looked at for the end of the build.
const MAX_ENDS: usize = 64;

/// How many records of one digest may be compared with one that has no content.
const MAX_REPEATED: usize = 64;

/// Why there is no cache.
#[derive(Debug, Error)]
pub enum ImageCacheError {
    /// The export is no sound cache.
    #[error("the exported cache: {0}")]
    Records(#[from] ParseError),
    /// No record set can be made of it.
    #[error("the exported cache: {0}")]
    Select(#[from] SelectError),
    /// No record can be the end of the build that the definition describes.
    #[error("none of the {0} exported records is the last step of this build")]
    NoEnd(usize),
    /// Several records can be.
    #[error("no telling which of {0} exported records is the last step of this build")]
    SeveralEnds(usize),
}

/// The inline cache of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// Its records.
    pub cache: InlineCache,
    /// What could not be told of them.
    pub notes: Vec<Note>,
    /// What is to be remembered, by its name: a daemon may not tell it again.
    pub memory: Vec<(Digest, Remembered)>,
}

/// Why a cache may hold more than its own build determines. It is sound all the same.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Note {
    /// The definition cannot be read.
    #[error("records of other builds may be kept: {0}")]
    Definition(#[from] GraphError),
    /// The definition cannot be compared with the records.
    #[error("records of other builds may be kept: {0}")]
    Lineage(#[from] LineageError),
    /// No record has the key that inlay derives of these operations: a newer BuildKit may derive it in
    /// another way.
    #[error("records of other builds may be kept: the keys of {0} operations are not known")]
    Operations(usize),
    /// Several keys may be the content that an input of a step has now.
    #[error("records of earlier builds may be kept: the content of {0} inputs is not told")]
    Content(usize),
    /// Several keys may be those that a source has now.
    #[error("records of earlier builds may be kept: the keys of {0} sources are not told")]
    Sources(usize),
}

/// Makes the inline cache of an image of an export and of the encoded definition that it is the
/// cache of. `platform` is the daemon's own, of operations that name none.
///
/// # Errors
/// Where the export is no sound cache, or no record set can be made of it.
pub fn embed(
    exported: &Exported,
    definition: &[u8],
    platform: Option<pb::Platform>,
) -> Result<Embedded, ImageCacheError> {
    let assumptions = Assumptions {
        platform,
        ..Default::default()
    };
    let cache = ImageCache::read(Some(exported), definition, assumptions)?;
    cache.finish(None, &[], |_| None)
}

/// The cache of an image in the making.
#[derive(Debug)]
pub struct ImageCache {
    set: RecordSet,
    /// Whether the end of the build is told by its key.
    has_key: bool,
    /// Nothing is concluded from a definition that cannot be read.
    graph: Result<Graph, GraphError>,
    assumptions: Assumptions,
    evidence: Evidence,
    /// Of the set, by all the evidence there is.
    lineage: Result<Lineage, Note>,
}

// === impl ImageCache ===

impl ImageCache {
    /// Reads an export, if there is one, and the encoded definition that it is the cache of.
    ///
    /// # Errors
    /// Where the export is no sound cache.
    pub fn read(
        exported: Option<&Exported>,
        definition: &[u8],
        assumptions: Assumptions,
    ) -> Result<Self, ImageCacheError> {
        let config = exported.map_or(&b"{}"[..], |exported| &exported.config);
        let mut set = RecordSet::parse_export(config, &Limits::default())?;
        if let Some(exported) = exported {
            set.set_diff_ids(|blob| exported.diff_ids.get(blob).cloned());
        }
        let graph = Graph::parse(definition, &llb::GraphLimits::default());
        let platform = assumptions.platform.as_ref();
        let has_key = settle(&mut set, graph.as_ref().ok(), platform);
        let evidence = Evidence::default();
        let mut assumptions = assumptions;
        let lineage = trace(&graph, &set, &evidence, &mut assumptions);
        Ok(Self {
            set,
            has_key,
            graph,
            assumptions,
            evidence,
            lineage,
        })
    }

    /// What the daemon is to be asked before the records of this build can be told from others;
    /// `None` if there is nothing to ask.
    pub fn probe(&self, definition: &[u8], nonce: &str) -> Option<Probe> {
        let graph = self.graph.as_ref().ok()?;
        let lineage = self.lineage.as_ref().ok()?;
        let content = lineage.unknown_content(graph, &self.evidence);
        let sources = lineage.unknown_sources(graph, &self.evidence);
        Probe::new(graph, definition, content, sources, nonce)
    }

    /// Takes what the export of a solved probe tells.
    ///
    /// # Errors
    /// Where the export is no sound cache.
    pub fn learn(&mut self, probe: &Probe, exported: &Exported) -> Result<(), ImageCacheError> {
        let answer = RecordSet::parse(&exported.config, &Limits::default())?;
        if let [record] = answer.finals()[..] {
            probe.read(&answer, record, &mut self.evidence);
            self.lineage = trace(
                &self.graph,
                &self.set,
                &self.evidence,
                &mut self.assumptions,
            );
        }
        Ok(())
    }

    /// How many records were exported.
    pub fn exported(&self) -> usize {
        self.set.records().len()
    }

    /// The layers of the image, as the export tells them, see [`RecordSet::image`].
    pub fn layers(&self) -> Option<Vec<Digest>> {
        self.set.image()
    }

    /// Makes the cache of an image, whose layers are those of its `image` if that is known.
    ///
    /// `told` is what the caches of the images tell that the build imports. `recall` gives what is
    /// remembered by a name, see [`Embedded::memory`].
    ///
    /// # Errors
    /// Where no record set can be made of the export.
    pub fn finish(
        self,
        image: Option<&[ImageLayer]>,
        told: &[ImportedContents],
        recall: impl Fn(&Digest) -> Option<Remembered>,
    ) -> Result<Embedded, ImageCacheError> {
        let (graph, lineage) = match (self.graph, self.lineage) {
            (Ok(graph), Ok(lineage)) => (graph, lineage),
            // Nothing is known of the records but what they say of each other.
            (graph, lineage) => {
                let notes = [lineage.err(), graph.err().map(Note::Definition)];
                let cache = record::select(&self.set)?;
                let notes = notes.into_iter().flatten().take(1).collect();
                return Ok(Embedded {
                    cache,
                    notes,
                    memory: Vec::new(),
                });
            }
        };
        let known = Known {
            set: self.set,
            has_key: self.has_key,
            graph,
            lineage,
            assumptions: self.assumptions,
            evidence: self.evidence,
        };
        let mut notes = known.notes();
        let derived = match known.ends() {
            Ok(ends) => {
                let derived = known.derived(&ends, image, told, recall);
                let set = known.own(&ends, image)?;
                match derived.filter(|derived| derived.has_all_of(&set)) {
                    Some(derived) => derived,
                    None => {
                        notes.extend(known.unknown_operations());
                        return Ok(Embedded {
                            cache: known.select(&set)?,
                            notes,
                            memory: Vec::new(),
                        });
                    }
                }
            }
            // The daemon found the last steps by keys that are of no use to another build.
            Err(ImageCacheError::NoEnd(_)) if !known.lineage.contradicted() => {
                let derived = known.derived(&[], image, told, recall);
                let none = ImageCacheError::NoEnd(known.set.records().len());
                derived.ok_or(none)?
            }
            Err(err) => return Err(err),
        };
        Ok(Embedded {
            cache: derived.select()?,
            notes,
            memory: derived.memory,
        })
    }
}

/// All that is known of a build.
struct Known {
    set: RecordSet,
    has_key: bool,
    graph: Graph,
    lineage: Lineage,
    assumptions: Assumptions,
    evidence: Evidence,
}

impl Known {
    fn platform(&self) -> Option<&pb::Platform> {
        self.assumptions.platform.as_ref()
    }

    /// What could not be told.
    fn notes(&self) -> Vec<Note> {
        let questions = self.lineage.questions().iter();
        let content = questions.filter(|question| question.local).count();
        let sources = self.lineage.ambiguous_sources(&self.graph);
        let content = (content > 0).then_some(Note::Content(content));
        let sources = (sources > 0).then_some(Note::Sources(sources));
        content.into_iter().chain(sources).collect()
    }

    /// The operations whose keys no record has. Nothing tells their records from those of other builds.
    fn unknown_operations(&self) -> Option<Note> {
        let records = self.set.records().iter();
        let present: HashSet<_> = records.map(|record| &record.digest).collect();
        let (graph, platform) = (&self.graph, self.platform());
        let is_unknown = |edge: &Edge| {
            let vertex = &graph.vertices()[edge.vertex];
            let is_operation = match &vertex.op.op {
                Some(Op::Exec(_) | Op::File(_) | Op::Merge(_) | Op::Diff(_)) | None => true,
                // Their records are those of what they fetch or build.
                Some(Op::Source(_) | Op::Build(_) | Op::Passthrough(_)) => false,
            };
            let mut digests = Dialect::ALL
                .into_iter()
                .filter_map(|dialect| edge_digest(graph, *edge, platform, dialect));
            is_operation
                && !vertex.inputs.is_empty()
                && !digests.any(|digest| present.contains(&digest))
        };
        let unknown = graph.edges().into_iter().filter(is_unknown).count();
        (unknown > 0).then_some(Note::Operations(unknown))
    }

    /// The records that are the end of the build.
    fn ends(&self) -> Result<Vec<usize>, ImageCacheError> {
        if self.has_key {
            the_end(&self.set, self.lineage.ends())
        } else {
            Ok(self.lineage.ends().to_vec())
        }
    }

    /// The exported records without those of other builds.
    fn own(
        &self,
        ends: &[usize],
        image: Option<&[ImageLayer]>,
    ) -> Result<RecordSet, ImageCacheError> {
        let mut set = self.set.clone();
        let doubtful = doubtful(&self.lineage, &set);
        let ends = set.retain_links_to(ends, |record, input, link| {
            let is_doubtful =
                link.selector.is_empty() && doubtful.contains(&(record, input, link.record));
            self.lineage.keeps(record, input, link) && !is_doubtful
        });
        if self.has_key {
            let none = ImageCacheError::NoEnd(self.set.records().len());
            let end = set.make_end(&ends).ok_or(none)?;
            if let Some(image) = image {
                set.give_image(end, image);
            }
        }
        Ok(set)
    }

    /// Selects of the exported records, with the results that the definition tells.
    fn select(&self, set: &RecordSet) -> Result<InlineCache, SelectError> {
        let lineage = Lineage::trace(&self.graph, set, &self.evidence, &self.assumptions);
        let expected = lineage.map_or_else(
            |_| HashMap::new(),
            |lineage| expected_results(set, &self.graph, &lineage, self.platform()),
        );
        record::select_expecting(set, &expected)
    }

    /// Derives the records of the build from its definition, and from what is known of the content
    /// and the keys of its sources. `None` where that is not all told, or where an older daemon
    /// derives keys in another way.
    fn derived(
        &self,
        ends: &[usize],
        image: Option<&[ImageLayer]>,
        told: &[ImportedContents],
        recall: impl Fn(&Digest) -> Option<Remembered>,
    ) -> Option<DerivedSet> {
        let (graph, platform, exported) = (&self.graph, self.platform(), self.set.records());
        let terminal = graph.terminal();
        let digest = edge_digest(graph, terminal, platform, Dialect::Current)?;
        let is_end = |end: &usize| exported[*end].digest == digest;
        ends.iter().all(is_end).then_some(())?;
        let results = ends.iter().flat_map(|end| &exported[*end].results);
        let results: Vec<_> = results.cloned().collect();

        let mut evidence = self.lineage.evidence(graph, platform, &self.evidence)?;
        let names = self.names(&evidence, &results, image).unwrap_or_default();
        names.recall(&mut evidence, told, recall);
        self.complete_repeated(&mut evidence);
        let mut derived = derive(graph, platform, &evidence)?;
        let end = *derived.edges.get(&terminal)?;
        let own = own_results(graph, &derived);
        let mut of_vertex: HashMap<usize, Vec<usize>> = HashMap::new();
        for record in 0..exported.len() {
            for vertex in self.lineage.vertices(record) {
                of_vertex.entry(vertex).or_default().push(record);
            }
        }
        for (edge, record) in derived.edges.iter().filter(|(_, it)| own.contains(it)) {
            let own = &mut derived.records[*record];
            let found = of_vertex.get(&edge.vertex).into_iter().flatten();
            let found = found.map(|record| &exported[*record]);
            for found in found.filter(|found| found.digest == own.digest) {
                own.results.extend(found.results.iter().cloned());
            }
        }
        derived.records[end].results = results;
        let mut set = self.set.with_records(derived.records).ok()?;
        if let Some(image) = image {
            set.give_image(end, image);
        }
        let layers = set.records()[end].results.first()?.len();

        let places = layers::of_image(graph, layers).into_iter();
        let mut expected: HashMap<usize, InlineResult> = places
            .filter_map(|(edge, range)| Some((*derived.edges.get(&edge)?, result_of(range)?)))
            .collect();
        // What has one key has one result.
        for twins in derived.twins.into_iter().rev() {
            if let Some(result) = expected.get(&twins.second).cloned() {
                expected.entry(twins.first).or_insert(result);
            }
        }
        Some(DerivedSet {
            set,
            expected,
            memory: names.told(&evidence),
        })
    }

    /// Adds the content of steps that repeat another one, which an imported cache does not tell.
    ///
    /// [`derive`](mod@llb::derive) leaves out the content of a step that is made of another one with
    /// its key. If both have one result, they have read one content. So has a record that may be either
    /// step, and has its content alone.
    fn complete_repeated(&self, evidence: &mut Evidence) {
        let records = self.set.records();
        let known = evidence.clone();
        let mut equal: HashMap<&Digest, Vec<usize>> = HashMap::new();
        for (number, record) in records.iter().enumerate() {
            if !record.is_root() && !record.results.is_empty() {
                equal.entry(&record.digest).or_default().push(number);
            }
        }
        equal.retain(|_, equal| (2..=MAX_REPEATED).contains(&equal.len()));
        let mut told: BTreeMap<_, BTreeSet<Remembered>> = BTreeMap::new();
        for &number in equal.values().flatten() {
            let record = &records[number];
            let mut same = equal[&record.digest].clone();
            same.retain(|other| {
                let mut results = records[*other].results.iter();
                *other != number && results.any(|result| record.results.contains(result))
            });
            for (vertex, input) in self.untold(number, &known) {
                let others = same.iter().flat_map(|same| {
                    let links = records[*same].inputs.get(input).into_iter().flatten();
                    let has_content = links.into_iter().any(|link| self.set.is_content(link));
                    // Of two steps of which one is made of the other, the lower one has the content.
                    let others = self.lineage.vertices(*same);
                    others.filter(move |other| has_content || *other < vertex)
                });
                let read = others.filter_map(|other| known.content_of(other, input));
                let mut read: BTreeSet<_> = read.cloned().collect();
                if read.is_empty() {
                    let may_be =
                        |same: &&usize| self.lineage.vertices(**same).any(|of| of == vertex);
                    let same = same.iter().filter(may_be);
                    let links = same
                        .filter_map(|same| records[*same].inputs.get(input))
                        .flatten();
                    let content = links.filter(|link| self.set.is_content(link));
                    let content = content.map(|link| records[link.record].digest.clone());
                    let content: Remembered = content.collect();
                    read.extend((!content.is_empty()).then_some(content));
                }
                told.entry((vertex, input)).or_default().extend(read);
            }
        }
        // Of several, whatever their order, none is used.
        for ((vertex, input), told) in told {
            if let [content] = &Vec::from_iter(told)[..]
                && content.len() == 1
            {
                evidence.content(vertex, input, content.clone());
            }
        }
    }

    /// The inputs of a record that it has no content for, by the vertices that it may be and of which
    /// none is known.
    fn untold(&self, record: usize, known: &Evidence) -> Vec<(usize, usize)> {
        let inputs = self.set.records()[record].inputs.iter().enumerate();
        let without =
            inputs.filter(|(_, links)| !links.iter().any(|link| self.set.is_content(link)));
        let pairs = without.flat_map(|(input, _)| {
            let vertices = self.lineage.vertices(record);
            vertices.map(move |vertex| (vertex, input))
        });
        pairs
            .filter(|(vertex, input)| known.content_of(*vertex, *input).is_none())
            .collect()
    }

    /// The names of the build, by what is known without the content of its stages, and by its layers.
    fn names(
        &self,
        evidence: &Evidence,
        results: &[LayerChain],
        image: Option<&[ImageLayer]>,
    ) -> Option<Names> {
        let (graph, platform) = (&self.graph, self.platform());
        let known = evidence.without_stages(graph, platform);
        let derived = derive(graph, platform, &known)?;
        let end = *derived.edges.get(&graph.terminal())?;
        let mut set = self.set.with_records(derived.records.clone()).ok()?;
        match image {
            Some(image) => set.give_image(end, image),
            None => set.give_results(end, results),
        }
        Some(Names::of(graph, &derived, &set, &set.image()?))
    }
}

/// The records that the definition tells of a build, with the results that an export has of them.
struct DerivedSet {
    set: RecordSet,
    expected: HashMap<usize, InlineResult>,
    memory: Vec<(Digest, Remembered)>,
}

impl DerivedSet {
    /// Whether there is a record with the digest of each that is not a root.
    fn has_all_of(&self, other: &RecordSet) -> bool {
        let digests: HashSet<_> = self.set.records().iter().map(|of| &of.digest).collect();
        let mut records = other.records().iter();
        records.all(|record| record.is_root() || digests.contains(&record.digest))
    }

    fn select(&self) -> Result<InlineCache, SelectError> {
        record::select_expecting(&self.set, &self.expected)
    }
}

/// Lays the definition over the records. What that takes is gone from the assumptions' steps.
fn trace(
    graph: &Result<Graph, GraphError>,
    set: &RecordSet,
    evidence: &Evidence,
    assumptions: &mut Assumptions,
) -> Result<Lineage, Note> {
    let graph = graph.as_ref().map_err(Clone::clone)?;
    let lineage = Lineage::trace(graph, set, evidence, assumptions);
    let steps = lineage.as_ref().map_or(assumptions.steps, Lineage::steps);
    assumptions.steps -= steps;
    Ok(lineage?)
}

/// Makes the records of an export what can be laid a definition over: equal ones are one, and none is
/// cut off from what it was made of. Gives whether the end of the build is told by its key; where it
/// is not, it is what nothing is made of.
fn settle(set: &mut RecordSet, graph: Option<&Graph>, platform: Option<&pb::Platform>) -> bool {
    if let Some(graph) = graph {
        lineage::drop_cut(graph, set, platform);
        if set.records().is_empty() || lineage::by_key(graph, set, platform).is_some() {
            set.unite_equal();
            return true;
        }
    }
    set.settle();
    false
}

/// Which of the records that may be the end of the build are it.
///
/// A daemon exports of a build what leads to its end. So what nothing is made of and has the end's
/// key is the end, as it was found and as it is remembered, and so is what BuildKit makes one with it.
/// If something is made of each, the end has the key of a step before it, and must be told by that
/// key alone.
fn the_end(set: &RecordSet, may_be: &[usize]) -> Result<Vec<usize>, ImageCacheError> {
    if may_be.len() > MAX_ENDS {
        return Err(ImageCacheError::SeveralEnds(may_be.len()));
    }
    let is_source = set.is_source();
    let is_last = |record: &usize| !is_source[*record];
    let groups = set.merging(may_be);
    let has_last = |group: &Vec<usize>| group.iter().any(is_last);
    if groups.iter().any(has_last) {
        let ends = groups.into_iter().filter(has_last);
        return Ok(ends.flatten().collect());
    }
    match &groups[..] {
        [] => Err(ImageCacheError::NoEnd(set.records().len())),
        [one] => Ok(one.clone()),
        several => Err(ImageCacheError::SeveralEnds(several.len())),
    }
}

/// The records whose results are the image's: of what it is put on or merged of, and of steps that such
/// a one repeats. Those that a daemon has of others depend on what else it built.
fn own_results(graph: &Graph, derived: &Derived) -> HashSet<usize> {
    let below = layers::below_image(graph);
    let edges = derived.edges.iter();
    let edges = edges.filter(|(edge, _)| below.contains(&edge.vertex));
    let mut own: HashSet<usize> = edges.map(|(_, record)| *record).collect();
    for twins in derived.twins.iter().rev() {
        if own.contains(&twins.second) {
            own.insert(twins.first);
        }
    }
    own
}

/// The results that the definition tells: of each record that is one vertex, and that no other
/// record is.
fn expected_results(
    set: &RecordSet,
    graph: &Graph,
    lineage: &Lineage,
    platform: Option<&pb::Platform>,
) -> HashMap<usize, InlineResult> {
    let finals = set.finals();
    let results = finals
        .iter()
        .flat_map(|record| &set.records()[*record].results);
    let Some(image) = results.map(|result| result.len()).max() else {
        return HashMap::new();
    };
    let mut records: HashMap<usize, Vec<usize>> = HashMap::new();
    for record in 0..set.records().len() {
        let mut vertices = lineage.vertices(record);
        if let (Some(vertex), None) = (vertices.next(), vertices.next()) {
            records.entry(vertex).or_default().push(record);
        }
    }
    let places = layers::of_image(graph, image).into_iter();
    places
        .filter_map(|(edge, range)| {
            let &[record] = &records.get(&edge.vertex)?[..] else {
                return None;
            };
            // Not one that has the place only because nothing is known of operations.
            let digest = &set.records()[record].digest;
            if !llb::digest::is_of_edge(graph, edge, platform, digest) {
                return None;
            }
            Some((record, result_of(range)?))
        })
        .collect()
}

/// The result that is these layers of the image.
fn result_of(range: Range<usize>) -> Option<InlineResult> {
    let top = range.end.checked_sub(1)?;
    Some(if range.start == 0 {
        InlineResult::Layer(top)
    } else {
        InlineResult::Chain(range.collect())
    })
}

/// The links to content that may not be this build's: record, input and source.
///
/// An operation that gave other content when it ran again leaves the earlier content linked to the
/// later result. Which of them is true cannot be told without running it, so where the operation's
/// own key leads to the same record, that alone is to stay.
fn doubtful(lineage: &Lineage, set: &RecordSet) -> HashSet<(usize, usize, usize)> {
    let questions = lineage
        .questions()
        .iter()
        .filter(|question| !question.local);
    let asked: HashSet<_> = questions
        .map(|question| (question.vertex, question.input))
        .collect();
    let mut doubtful = HashSet::new();
    for (number, record) in set.records().iter().enumerate() {
        for (input, links) in record.inputs.iter().enumerate() {
            let (content, definition): (Vec<_>, Vec<_>) =
                links.iter().partition(|link| set.is_content(link));
            let mut definition = definition.into_iter();
            let has_definition = definition.any(|link| lineage.keeps(number, input, link));
            let is_asked = |vertex| asked.contains(&(vertex, input));
            if has_definition && lineage.vertices(number).any(is_asked) {
                doubtful.extend(content.iter().map(|link| (number, input, link.record)));
            }
        }
    }
    doubtful
}

#[cfg(test)]
mod tests;
