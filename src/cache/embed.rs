//! Makes the inline cache of one image from what the daemon exported and the definition that was solved.
//!
//! It compares the exported records with the operations of the definition. It drops records of other
//! builds, and gives records of this build their results. [`embed`] does it in one call. A caller that can
//! ask the daemon uses [`ImageCache`], which does it in steps: read the export, solve the
//! [probe](ImageCache::probe) if there is one, [learn](ImageCache::learn) from its answer,
//! [finish](ImageCache::finish).
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

/// The most records that may be the end of the build. With more, the end is not searched.
const MAX_ENDS: usize = 64;

/// The most records of one digest that are compared to find the content that one of them lacks.
const MAX_REPEATED: usize = 64;

/// Why there is no cache.
#[derive(Debug, Error)]
pub enum ImageCacheError {
    /// The export breaks a rule of the format, or a limit.
    #[error("the exported cache: {0}")]
    Records(#[from] ParseError),
    /// The records of the image cannot be selected from it.
    #[error("the exported cache: {0}")]
    Select(#[from] SelectError),
    /// No record can be the end of the build that the definition describes.
    #[error("none of the {0} exported records is the last step of this build")]
    NoEnd(usize),
    /// Several records can be the end of the build.
    #[error("no telling which of {0} exported records is the last step of this build")]
    SeveralEnds(usize),
}

/// The inline cache of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// Its records.
    pub cache: InlineCache,
    /// Why it may have records of other builds.
    pub notes: Vec<Note>,
    /// What the caller should remember, by its name. A daemon may leave it out of the next export.
    pub memory: Vec<(Digest, Remembered)>,
}

/// Why a cache may have records that its own build does not determine. It is valid all the same.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Note {
    /// The definition cannot be read.
    #[error("records of other builds may be kept: {0}")]
    Definition(#[from] GraphError),
    /// The definition cannot be compared with the records.
    #[error("records of other builds may be kept: {0}")]
    Lineage(#[from] LineageError),
    /// No record has the key that inlay derives for these operations. A newer BuildKit may derive it in
    /// another way.
    #[error("records of other builds may be kept: the keys of {0} operations are not known")]
    Operations(usize),
    /// An input of a step has several keys of content, and each may be this build's.
    #[error("records of earlier builds may be kept: the content of {0} inputs is not told")]
    Content(usize),
    /// A source has several keys, and each may be this build's.
    #[error("records of earlier builds may be kept: the keys of {0} sources are not told")]
    Sources(usize),
}

/// Makes the inline cache of an image from an export and the encoded definition that was solved.
/// `platform` is the daemon's own. It applies to operations that name none.
///
/// # Errors
/// Where the export is invalid, the end of the build is not found in it, or no records can be selected.
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
    /// Whether the end of the build is found by its key.
    has_key: bool,
    /// Or why the definition cannot be read.
    graph: Result<Graph, GraphError>,
    assumptions: Assumptions,
    evidence: Evidence,
    /// The lineage of the set, by the evidence so far.
    lineage: Result<Lineage, Note>,
}

// === impl ImageCache ===

impl ImageCache {
    /// Reads an export, if there is one, and the encoded definition that was solved.
    ///
    /// # Errors
    /// Where the export is invalid.
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

    /// The probe that asks the daemon which records are this build's. `None` if there is nothing to ask.
    /// `nonce` has to differ from probe to probe.
    pub fn probe(&self, definition: &[u8], nonce: &str) -> Option<Probe> {
        let graph = self.graph.as_ref().ok()?;
        let lineage = self.lineage.as_ref().ok()?;
        let content = lineage.unknown_content(graph, &self.evidence);
        let sources = lineage.unknown_sources(graph, &self.evidence);
        Probe::new(graph, definition, content, sources, nonce)
    }

    /// Adds what the export of a solved probe tells. An export without a single final record tells nothing.
    ///
    /// # Errors
    /// Where the export is invalid.
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

    /// The layers of the image according to the export, see [`RecordSet::image`].
    pub fn layers(&self) -> Option<Vec<Digest>> {
        self.set.image()
    }

    /// Makes the cache of an image. `image` has the image's layers, if the caller knows them. Otherwise
    /// they are those of the export.
    ///
    /// `told` is the content of stages in the caches that the build imports. `recall` returns what is
    /// remembered by a name, see [`Embedded::memory`].
    ///
    /// # Errors
    /// Where the end of the build is not found in the export, or no records can be selected.
    pub fn finish(
        self,
        image: Option<&[ImageLayer]>,
        told: &[ImportedContents],
        recall: impl Fn(&Digest) -> Option<Remembered>,
    ) -> Result<Embedded, ImageCacheError> {
        let (graph, lineage) = match (self.graph, self.lineage) {
            (Ok(graph), Ok(lineage)) => (graph, lineage),
            // Without a lineage the records are selected by their links alone.
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
            // The daemon found the last steps by keys that no other build can have.
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

    /// Notes on content and sources with several keys.
    fn notes(&self) -> Vec<Note> {
        let questions = self.lineage.questions().iter();
        let content = questions.filter(|question| question.local).count();
        let sources = self.lineage.ambiguous_sources(&self.graph);
        let content = (content > 0).then_some(Note::Content(content));
        let sources = (sources > 0).then_some(Note::Sources(sources));
        content.into_iter().chain(sources).collect()
    }

    /// A note on operations whose keys no record has. Records of other builds are kept for these.
    fn unknown_operations(&self) -> Option<Note> {
        let records = self.set.records().iter();
        let present: HashSet<_> = records.map(|record| &record.digest).collect();
        let (graph, platform) = (&self.graph, self.platform());
        let is_unknown = |edge: &Edge| {
            let vertex = &graph.vertices()[edge.vertex];
            let is_operation = match &vertex.op.op {
                Some(Op::Exec(_) | Op::File(_) | Op::Merge(_) | Op::Diff(_)) | None => true,
                // These have no digest that inlay derives.
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

    /// Selects from the exported records, with the results that follow from the definition.
    fn select(&self, set: &RecordSet) -> Result<InlineCache, SelectError> {
        let lineage = Lineage::trace(&self.graph, set, &self.evidence, &self.assumptions);
        let expected = lineage.map_or_else(
            |_| HashMap::new(),
            |lineage| expected_results(set, &self.graph, &lineage, self.platform()),
        );
        record::select_expecting(set, &expected)
    }

    /// Derives the records of the build from its definition, and from what is known of the content
    /// and the keys of its sources. `None` where too little is known, or where an older daemon
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
        // Twins have one key, and so one result.
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

    /// Adds the content that repeated steps read, where an imported cache has none for them.
    ///
    /// [`derive`](mod@llb::derive) leaves out the content of a step that is made of another step with the
    /// same key. If records of both have the same result, both read the same content. So the content is
    /// taken from the other step, or else from a record that may be either step and has content.
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
                    // If one of two steps is made of the other, the lower one has the content.
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
        // If they differ, none is used: the choice would depend on their order.
        for ((vertex, input), told) in told {
            if let [content] = &Vec::from_iter(told)[..]
                && content.len() == 1
            {
                evidence.content(vertex, input, content.clone());
            }
        }
    }

    /// For each vertex that a record may be, the inputs whose content neither the record nor `known` has:
    /// vertex and input.
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

    /// The names of the build's content. They depend on its layers, and on the evidence without the content
    /// of stages.
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

/// The records derived from a build's definition, with the results that an export has for them.
struct DerivedSet {
    set: RecordSet,
    expected: HashMap<usize, InlineResult>,
    memory: Vec<(Digest, Remembered)>,
}

impl DerivedSet {
    /// Whether it has a record with the digest of each record of `other` that is not a root.
    fn has_all_of(&self, other: &RecordSet) -> bool {
        let digests: HashSet<_> = self.set.records().iter().map(|of| &of.digest).collect();
        let mut records = other.records().iter();
        records.all(|record| record.is_root() || digests.contains(&record.digest))
    }

    fn select(&self) -> Result<InlineCache, SelectError> {
        record::select_expecting(&self.set, &self.expected)
    }
}

/// Traces the lineage of the records. Subtracts the steps that this takes from those of `assumptions`.
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

/// Prepares exported records for the comparison with the definition: merges equal records, and drops those
/// that lost the links of their inputs. Returns whether the end of the build is found by its key. If not,
/// the end is the record that is the source of no other.
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

/// The records that are the end of the build, of those that have its key.
///
/// A daemon exports only what leads to the end. So a record with the end's key that is the source of no
/// other is the end. There can be two: the daemon exports the end as it was found, and as it is remembered.
/// Records that BuildKit merges with such a record are the end, too. If each record is the source of
/// another one, a step before the end has the same key. The end is found then only if BuildKit merges all
/// of these records.
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

/// The records whose results are layers of the image: those of the image's own steps, of what it is based
/// on or merged from, and of the steps that these repeat. Results of other records depend on earlier
/// builds of the daemon.
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

/// The results that follow from the definition, by record. A record has one if it is exactly one vertex,
/// and no other record is that vertex.
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
            // Without digests of operations, a record may be this vertex only for want of a contradiction.
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
/// If an operation runs again and produces other content, the earlier content stays linked to the later
/// result. Only another run could show which link is true. So a record that has a link by definition as
/// well keeps that one alone.
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
