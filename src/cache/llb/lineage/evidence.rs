//! What is known of a build beside its definition, and what is assumed.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::llb::digest::manifest_root;
use crate::cache::llb::graph::Graph;
use crate::cache::record::Digest;
use crate::protocol::proto::pb;

/// What is known of this build beside its definition. Each set is complete: this build has no other digest
/// there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    pub(super) content: ContentRoots,
    pub(super) source: BTreeMap<usize, BTreeSet<Digest>>,
}

/// Roots of content, by vertex and input.
pub(super) type ContentRoots = BTreeMap<(usize, usize), BTreeSet<Digest>>;

/// What the caller knows of the daemon and of the build, and a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Assumptions {
    /// The platform of the daemon, for operations that name none.
    pub platform: Option<pb::Platform>,
    /// Whether the daemon's only key of an image is that of its manifest, as since v0.34.
    pub images_by_manifest: bool,
    /// Whether the build imports caches. If a daemon finds a step in such a cache by content, it does not
    /// add the keys of this build to it. The links of that step may then be those of an earlier build.
    pub imports: bool,
    /// The most links that are examined for one build. A link counts each time that it is examined.
    pub steps: usize,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            platform: None,
            images_by_manifest: true,
            imports: false,
            steps: 8_000_000,
        }
    }
}

// === impl Evidence ===

impl Evidence {
    /// Adds roots of the content that `vertex` reads as its input `input`.
    pub fn content(
        &mut self,
        vertex: usize,
        input: usize,
        roots: impl IntoIterator<Item = Digest>,
    ) {
        (self.content.entry((vertex, input)).or_default()).extend(roots);
    }

    /// What is known of the content that `vertex` reads as its input `input`.
    pub fn content_of(&self, vertex: usize, input: usize) -> Option<&BTreeSet<Digest>> {
        self.content.get(&(vertex, input))
    }

    /// The part that every daemon tells of a build: the content of the client's directories, and the keys of
    /// sources. A pinned image has only the key of its manifest there.
    pub fn without_stages(&self, graph: &Graph, platform: Option<&pb::Platform>) -> Self {
        let keys = self.source.iter().map(|(number, keys)| {
            let vertex = graph.vertices().get(*number);
            let pinned = vertex.and_then(|vertex| manifest_root(vertex, platform));
            let pinned = pinned.map(|root| BTreeSet::from([root]));
            (*number, pinned.unwrap_or_else(|| keys.clone()))
        });
        Self {
            source: keys.collect(),
            ..self.filtered(|at| reads_local(graph, at))
        }
    }

    /// The part about the client's directories, about sources, and about the content that the vertices read
    /// for which `keep` holds.
    pub fn of_vertices(&self, graph: &Graph, keep: impl Fn(usize) -> bool) -> Self {
        Self {
            source: self.source.clone(),
            ..self.filtered(|at| reads_local(graph, at) || keep(at.0))
        }
    }

    fn filtered(&self, keep: impl Fn((usize, usize)) -> bool) -> Self {
        let kept = self.content.iter().filter(|(at, _)| keep(**at));
        Self {
            content: kept.map(|(at, roots)| (*at, roots.clone())).collect(),
            source: BTreeMap::new(),
        }
    }

    /// What is known of the keys of a source.
    pub fn keys_of_source(&self, vertex: usize) -> Option<&BTreeSet<Digest>> {
        self.source.get(&vertex)
    }

    /// Adds keys of a source `vertex` that is no directory of the client, such as the
    /// [manifest root](crate::cache::llb::digest::manifest_root) of a pinned image where the daemon
    /// makes no other key of it.
    pub fn source(&mut self, vertex: usize, roots: impl IntoIterator<Item = Digest>) {
        self.source.entry(vertex).or_default().extend(roots);
    }
}

/// Whether an input of a vertex is a directory of the client.
fn reads_local(graph: &Graph, (vertex, input): (usize, usize)) -> bool {
    let edge = (graph.vertices().get(vertex)).and_then(|vertex| vertex.inputs.get(input));
    edge.is_some_and(|edge| graph.vertices()[edge.vertex].is_local())
}
