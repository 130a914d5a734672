//! The inline cache of one image: made of what the daemon exported, and of the definition that was
//! solved.
//!
//! Pure. It lays the two over each other, so that records of other builds go and records of this
//! build have their results; it knows nothing of how an export or an answer comes.

use std::collections::{HashMap, HashSet};

use thiserror::Error;
use tracing::debug;

use crate::cache::export::Exported;
use crate::cache::llb::probe::Probe;
use crate::cache::llb::{self, Assumptions, Evidence, Graph, Lineage, Link, layers};
use crate::cache::record::{
    self, Digest, InlineCache, InlineResult, Limits, ParseError, RecordSet, SelectError,
};
use crate::protocol::proto::pb;

/// Why there is no cache.
#[derive(Debug, Error)]
pub enum ImageCacheError {
    /// The export is no sound cache.
    #[error("the exported cache: {0}")]
    Records(#[from] ParseError),
    /// No record set can be made of it.
    #[error("the exported cache: {0}")]
    Select(#[from] SelectError),
}

/// The cache of an image in the making.
#[derive(Debug)]
pub struct ImageCache {
    set: RecordSet,
    /// `None` if the definition cannot be read; nothing is concluded from it then.
    graph: Option<Graph>,
    assumptions: Assumptions,
    evidence: Evidence,
    /// Of the set, by all the evidence there is.
    lineage: Option<Lineage>,
}

// === impl ImageCache ===

impl ImageCache {
    /// Reads an export and the encoded definition that it is the cache of. `platform` is the
    /// daemon's own.
    ///
    /// # Errors
    /// Where the export is no sound cache.
    pub fn read(
        exported: &Exported,
        definition: &[u8],
        platform: Option<pb::Platform>,
    ) -> Result<Self, ImageCacheError> {
        let mut set = RecordSet::parse(&exported.config, &Limits::default())?;
        set.set_diff_ids(|blob| exported.diff_ids.get(blob).cloned());
        set.settle();
        let graph = Graph::parse(definition, &llb::Limits::default())
            .inspect_err(|err| debug!("records are not compared with the definition: {err}"))
            .ok();
        let assumptions = Assumptions {
            platform,
            ..Default::default()
        };
        let mut cache = Self {
            set,
            graph,
            assumptions,
            evidence: Evidence::default(),
            lineage: None,
        };
        cache.lineage = cache.trace();
        Ok(cache)
    }

    /// What the daemon is to be asked before the records of this build can be told from others;
    /// `None` if there is nothing to ask.
    pub fn probe(&self, definition: &[u8], nonce: &str) -> Option<Probe> {
        let graph = self.graph.as_ref()?;
        let lineage = self.lineage.as_ref()?;
        Probe::new(graph, definition, lineage.questions(), nonce)
    }

    /// Takes what the export of a solved probe tells.
    ///
    /// # Errors
    /// Where the export is no sound cache.
    pub fn learn(&mut self, probe: &Probe, exported: &Exported) -> Result<(), ImageCacheError> {
        let answer = RecordSet::parse(&exported.config, &Limits::default())?;
        if let [record] = answer.finals()[..] {
            probe.read(&answer, record, &mut self.evidence);
            self.lineage = self.trace();
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

    /// Makes the cache. `complete` may add to the records, once they are known to be this build's.
    ///
    /// # Errors
    /// Where no record set can be made of the export.
    pub fn finish(
        mut self,
        complete: impl FnOnce(&mut RecordSet),
    ) -> Result<InlineCache, ImageCacheError> {
        // Without a lineage nothing is known of the records but what they say of each other.
        if let Some(lineage) = self.lineage.take() {
            let doubtful = doubtful(&lineage, &self.set);
            self.set.retain_links(|record, input, link| {
                let is_doubtful =
                    link.selector.is_empty() && doubtful.contains(&(record, input, link.record));
                lineage.keeps(record, input, known(link)) && !is_doubtful
            });
            if !lineage.contradicted() {
                complete(&mut self.set);
            }
        }
        let expected = self.expected_results();
        Ok(record::select_expecting(&self.set, &expected)?)
    }

    fn trace(&self) -> Option<Lineage> {
        let graph = self.graph.as_ref()?;
        let lineage = Lineage::trace(graph, &self.set, &self.evidence, &self.assumptions)
            .inspect_err(|err| debug!("records of other builds are kept: {err}"))
            .ok()?;
        if lineage.contradicted() {
            debug!("records of other builds are kept: the records do not fit the definition");
        }
        Some(lineage)
    }

    /// The results that the definition tells: of each record that is one vertex, and that no other
    /// record is.
    fn expected_results(&self) -> HashMap<usize, InlineResult> {
        let finals = self.set.finals();
        let results = finals
            .iter()
            .flat_map(|record| &self.set.records()[*record].results);
        let image = results.map(|result| result.len()).max();
        let (Some(graph), Some(lineage), Some(image)) = (&self.graph, self.trace(), image) else {
            return HashMap::new();
        };
        let mut records: HashMap<usize, Vec<usize>> = HashMap::new();
        for record in 0..self.set.records().len() {
            let mut vertices = lineage.vertices(record);
            if let (Some(vertex), None) = (vertices.next(), vertices.next()) {
                records.entry(vertex).or_default().push(record);
            }
        }
        let places = layers::of_image(graph, image).into_iter();
        let platform = self.assumptions.platform.as_ref();
        places
            .filter_map(|(edge, range)| {
                let &[record] = &records.get(&edge.vertex)?[..] else {
                    return None;
                };
                // Not one that has the place only because nothing is known of operations.
                let digest = self.set.records()[record].digest.as_str();
                if !llb::digest::is_of_edge(graph, edge, platform, digest) {
                    return None;
                }
                let top = range.end.checked_sub(1)?;
                let result = if range.start == 0 {
                    InlineResult::Layer(top)
                } else {
                    InlineResult::Chain(range.collect())
                };
                Some((record, result))
            })
            .collect()
    }
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
            let has_definition = definition.any(|link| lineage.keeps(number, input, known(link)));
            let is_asked = |vertex| asked.contains(&(vertex, input));
            if has_definition && lineage.vertices(number).any(is_asked) {
                doubtful.extend(content.iter().map(|link| (number, input, link.record)));
            }
        }
    }
    doubtful
}

/// A link in the terms of a lineage.
fn known(link: &record::Link) -> Link<'_> {
    Link {
        selector: &link.selector,
        record: link.record,
    }
}

impl llb::Records for RecordSet {
    fn count(&self) -> usize {
        self.records().len()
    }

    fn digest(&self, record: usize) -> &str {
        self.records()[record].digest.as_str()
    }

    fn inputs(&self, record: usize) -> usize {
        self.records()[record].inputs.len()
    }

    fn links(&self, record: usize, input: usize) -> impl Iterator<Item = Link<'_>> {
        let links = self.records()[record].inputs[input].iter();
        links.map(known)
    }
}
