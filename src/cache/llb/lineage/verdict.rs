//! What laying a definition over records tells.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{ContentRoots, Evidence};
use crate::cache::llb::digest::{input_keys, manifest_root};
use crate::cache::llb::graph::Graph;
use crate::cache::record::{Digest, Link};
use crate::protocol::proto::pb;

/// An input read by content of which nothing here tells which of several it is now.
///
/// For a directory of the client, each of them had its own records. For the result of an
/// operation or an image, they are links of one record, which has the result of one of them: an
/// operation that gave different content when it ran again leaves the earlier content linked to
/// the later result, and a link kept here is not merely superfluous, it may be untrue.
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

/// What belongs to the build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// By record and input.
    pub(super) dropped: BTreeMap<(usize, usize), BTreeSet<Link>>,
    /// The vertices that each record may be.
    pub(super) roles: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) ends: Vec<usize>,
    /// Content that records have for an input beside a key of its definition.
    pub(super) contents: ContentRoots,
    /// All content that records have for an input.
    pub(super) candidates: ContentRoots,
    /// The keys that records have for each source that is no directory of the client.
    pub(super) sources: BTreeMap<usize, BTreeSet<Digest>>,
    /// The sources whose keys were known.
    pub(super) known: BTreeSet<usize>,
    pub(super) questions: Vec<Question>,
    pub(super) contradicted: bool,
}

/// Why no lineage was traced.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum LineageError {
    /// More work than the assumptions allow.
    #[error("the records and the definition take more than {limit} steps to compare")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

// === impl Lineage ===

impl Lineage {
    /// Whether a link may belong to the build. Of a record that no kept link leads to, nothing
    /// is said, and its links count as kept.
    pub fn keeps(&self, record: usize, input: usize, link: &Link) -> bool {
        let dropped = self.dropped.get(&(record, input));
        !dropped.is_some_and(|links| links.contains(link))
    }

    /// The sources of which records have several keys, and nothing tells which of them is this
    /// build's.
    pub fn unknown_sources(&self) -> impl Iterator<Item = usize> + '_ {
        let several = self.sources.iter().filter(|(_, keys)| keys.len() > 1);
        several
            .map(|(vertex, _)| *vertex)
            .filter(|vertex| !self.known.contains(vertex))
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
        for (number, vertex) in graph.vertices().iter().enumerate() {
            let keys = input_keys(vertex).unwrap_or_default();
            for (input, (edge, _)) in vertex.inputs.iter().zip(keys).enumerate() {
                let at = (number, input);
                if given.content.contains_key(&at) {
                    continue;
                }
                let is_local = graph.vertices()[edge.vertex].is_local();
                let told = if is_local {
                    self.candidates.get(&at)
                } else {
                    // What a record has alone may be of another step with the same key.
                    self.contents.get(&at)
                };
                match told
                    .map(|roots| roots.iter().collect::<Vec<_>>())
                    .as_deref()
                {
                    Some([root]) => evidence.content(number, input, [(*root).clone()]),
                    Some([_, _, ..]) if is_local => return None,
                    // An operation that gave other content when it ran again: none is sure.
                    _ => {}
                }
            }
            if vertex.source().is_none() || vertex.is_local() || given.source.contains_key(&number)
            {
                continue;
            }
            let told = self.sources.get(&number);
            let pinned = manifest_root(vertex, platform);
            match (told, pinned) {
                (None, Some(root)) => evidence.source(number, [root]),
                // Of several keys of an image all may be its own.
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

    /// What would tell more, if it were known.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The vertices that a record may be.
    pub fn vertices(&self, record: usize) -> impl Iterator<Item = usize> + '_ {
        self.roles.get(&record).into_iter().flatten().copied()
    }

    /// Whether what was taken for known contradicts the records, so that none of them is the end of
    /// the build.
    pub fn contradicted(&self) -> bool {
        self.contradicted
    }
}
