//! The outcome of the comparison of records with a definition.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::evidence::{ContentRoots, Evidence};
use crate::cache::llb::digest::{Dialect, input_keys, manifest_root, operation_digest};
use crate::cache::llb::graph::Graph;
use crate::cache::record::{Digest, Link};
use crate::protocol::proto::pb;

/// An input with several keys of content, where the records do not say which is this build's.
///
/// For a directory of the client, each content had its own records. For the result of an operation or an
/// image, the contents are links of one record, which has the result of one of them. If an operation runs
/// again and produces other content, the earlier content stays linked to the later result. So a link that
/// is kept here may be wrong, and not only superfluous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The vertex that reads.
    pub vertex: usize,
    /// Number of its input.
    pub input: usize,
    /// The vertex of what is read.
    pub source: usize,
    /// Whether that is a directory of the client.
    pub local: bool,
    /// Digests of the roots that it may be.
    pub candidates: BTreeSet<Digest>,
}

/// The links and records that belong to the build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The links of other builds, by record and input.
    pub(super) dropped: BTreeMap<(usize, usize), BTreeSet<Link>>,
    /// The vertices that each record may be.
    pub(super) roles: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) ends: Vec<usize>,
    /// Content that records have for an input beside a key of its definition.
    pub(super) contents: ContentRoots,
    pub(super) certain: Certain,
    /// All content that records have for an input.
    pub(super) candidates: ContentRoots,
    /// The content of inputs that have no other link, of records that links lead to. All records of the
    /// vertex that links lead to have the same.
    pub(super) linked: BTreeMap<(usize, usize), Digest>,
    /// The keys that records have for each source that is no directory of the client.
    pub(super) sources: BTreeMap<usize, BTreeSet<Digest>>,

    pub(super) questions: Vec<Question>,
    pub(super) contradicted: bool,
    /// As in [`Assumptions`](super::Assumptions).
    pub(super) imports: bool,
    /// How many links were examined.
    pub(super) steps: usize,
}

/// What is known from records that are certain to be their vertex.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Certain {
    /// The content of an input that has no other key, by vertex and input.
    pub(super) contents: BTreeMap<(usize, usize), Digest>,
    /// The only key of a source.
    pub(super) sources: BTreeMap<usize, Digest>,
}

/// Why no lineage was traced.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum LineageError {
    /// It takes more steps than the assumptions allow.
    #[error("the records and the definition take more than {limit} steps to compare")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

// === impl Lineage ===

impl Lineage {
    /// How many links were examined. A link counts each time that it is examined.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Whether a link may belong to the build. Links of a record that no kept link leads to count as kept.
    pub fn keeps(&self, record: usize, input: usize, link: &Link) -> bool {
        let dropped = self.dropped.get(&(record, input));
        !dropped.is_some_and(|links| links.contains(link))
    }

    /// The inputs that are a directory of the client and whose content the records leave in doubt: vertex
    /// and input.
    pub fn unknown_content<'a>(
        &'a self,
        graph: &'a Graph,
        given: &'a Evidence,
    ) -> impl Iterator<Item = (usize, usize)> + 'a {
        let vertices = graph.vertices().iter().enumerate();
        let inputs = vertices.flat_map(|(number, vertex)| {
            let keys = input_keys(vertex).unwrap_or_default();
            let inputs = vertex.inputs.iter().zip(keys).enumerate();
            let by_content = inputs.filter(|(_, (_, key))| key.content);
            by_content.map(move |(input, (edge, _))| ((number, input), edge.vertex))
        });
        let local = inputs.filter(|(_, source)| graph.vertices()[*source].is_local());
        let several = self.roles.values().filter(|vertices| vertices.len() > 1);
        let repeated: BTreeSet<usize> = several.flatten().copied().collect();
        local.map(|(at, _)| at).filter(move |at| {
            let told = self.candidates.get(at).map_or(0, BTreeSet::len);
            let is_told = told == 1 && !self.imports && !repeated.contains(&at.0);
            !is_told && !self.certain.contents.contains_key(at) && !given.content.contains_key(at)
        })
    }

    /// The number of sources that the daemon resolves and that have several keys.
    pub fn ambiguous_sources(&self, graph: &Graph) -> usize {
        let several = self.sources.iter().filter(|(_, keys)| keys.len() > 1);
        let resolved = several.filter(|(vertex, _)| graph.vertices()[**vertex].is_resolved());
        resolved.count()
    }

    /// The sources that a daemon resolves and whose key the records leave in doubt.
    pub fn unknown_sources<'a>(
        &'a self,
        graph: &'a Graph,
        given: &'a Evidence,
    ) -> impl Iterator<Item = usize> + 'a {
        let vertices = graph.vertices().iter().enumerate();
        let sources = vertices.filter(|(_, vertex)| vertex.is_resolved());
        let mut uses: HashMap<&Digest, usize> = HashMap::new();
        for key in self.sources.values().flatten() {
            *uses.entry(key).or_default() += 1;
        }
        sources.map(|(number, _)| number).filter(move |number| {
            let told: Vec<_> = self.sources.get(number).into_iter().flatten().collect();
            let is_told = matches!(told[..], [key] if !self.imports && uses[key] == 1);
            !is_told
                && !self.certain.sources.contains_key(number)
                && !given.source.contains_key(number)
        })
    }

    /// All that is known of the build: what was `given`, and what the records tell. `None` where
    /// they leave open which content or which key is this build's.
    pub fn evidence(
        &self,
        graph: &Graph,
        platform: Option<&pb::Platform>,
        given: &Evidence,
    ) -> Option<Evidence> {
        let mut evidence = given.clone();
        let digest = |vertex| operation_digest(vertex, platform, Dialect::Current);
        let mut steps: HashMap<Option<Digest>, usize> = HashMap::new();
        for vertex in graph.vertices() {
            *steps.entry(digest(vertex)).or_default() += 1;
        }
        for (number, vertex) in graph.vertices().iter().enumerate() {
            let keys = input_keys(vertex).unwrap_or_default();
            let is_only = steps.get(&digest(vertex)) == Some(&1);
            for (input, (edge, _)) in vertex.inputs.iter().zip(keys).enumerate() {
                let at = (number, input);
                if given.content.contains_key(&at) {
                    continue;
                }
                let is_local = graph.vertices()[edge.vertex].is_local();
                let beside = self.contents.get(&at).filter(|roots| !roots.is_empty());
                let certain = self.certain.contents.get(&at).filter(|_| is_local);
                let told: Vec<_> = match beside {
                    _ if certain.is_some() => certain.into_iter().collect(),
                    Some(beside) if !is_local => beside.iter().collect(),
                    // Without a definition beside it, it may be of another step with the same digest.
                    _ if is_local || is_only => {
                        self.candidates.get(&at).into_iter().flatten().collect()
                    }
                    _ => match self.certain.contents.get(&at) {
                        None if !self.imports => self.linked.get(&at).into_iter().collect(),
                        certain => certain.into_iter().collect(),
                    },
                };
                match told[..] {
                    [root] => evidence.content(number, input, [root.clone()]),
                    [_, _, ..] if is_local => return None,
                    // The operation produced other content when it ran again: none is certain.
                    _ => {}
                }
            }
            if vertex.source().is_none() || vertex.is_local() || given.source.contains_key(&number)
            {
                continue;
            }
            let pinned = manifest_root(vertex, platform);
            if pinned.is_none()
                && let Some(key) = self.certain.sources.get(&number)
            {
                evidence.source(number, [key.clone()]);
                continue;
            }
            let told = self.sources.get(&number);
            match (told, pinned) {
                (None, Some(root)) => evidence.source(number, [root]),
                // A pinned image may have several keys.
                (Some(roots), Some(_)) => evidence.source(number, roots.iter().cloned()),
                (Some(roots), None) if roots.len() == 1 => {
                    evidence.source(number, roots.iter().cloned());
                }
                (Some(_), None) => return None,
                (None, None) => {}
            }
        }
        Some(evidence)
    }

    /// The records that may be the end of the build.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The inputs with several keys of content.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The vertices that a record may be.
    pub fn vertices(&self, record: usize) -> impl Iterator<Item = usize> + '_ {
        self.roles.get(&record).into_iter().flatten().copied()
    }

    /// Whether the evidence or the assumptions contradict the records: no record can be the end of the build.
    pub fn contradicted(&self) -> bool {
        self.contradicted
    }
}
