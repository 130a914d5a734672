//! What is known of a build beside its definition, and what is assumed.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::record::Digest;
use crate::protocol::proto::pb;

/// What is known of this build beside its definition. Each set is complete: a digest that is not
/// in it is not of this build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    pub(super) content: ContentRoots,
    pub(super) source: BTreeMap<usize, BTreeSet<Digest>>,
}

/// Roots of content, by vertex and input.
pub(super) type ContentRoots = BTreeMap<(usize, usize), BTreeSet<Digest>>;

/// What is taken for given.
#[derive(Debug, Clone, PartialEq)]
pub struct Assumptions {
    /// The platform of the daemon, for operations that name none.
    pub platform: Option<pb::Platform>,
    /// Whether the daemon's only key of an image is that of its manifest, as since v0.33.
    pub images_by_manifest: bool,
    /// How many links may be looked at, each time counted.
    pub steps: usize,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            platform: None,
            images_by_manifest: true,
            steps: 2_000_000,
        }
    }
}

// === impl Evidence ===

impl Evidence {
    /// The roots of the content that `vertex` reads as its input `input`.
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

    /// What is known of the keys of a source.
    pub fn keys_of_source(&self, vertex: usize) -> Option<&BTreeSet<Digest>> {
        self.source.get(&vertex)
    }

    /// The keys of a source `vertex` that is no directory of the client, such as the
    /// [manifest root](crate::cache::llb::digest::manifest_root) of a pinned image where the daemon
    /// makes no other key of it.
    pub fn source(&mut self, vertex: usize, roots: impl IntoIterator<Item = Digest>) {
        self.source.entry(vertex).or_default().extend(roots);
    }
}
