//! Names of what a daemon may forget: the content that a build's stages gave.
//! It must not know where that is remembered.
//!
//! A name is made of the operations, of the content and the keys of the sources, and of the layers, but
//! of no number, so that another build with the same steps has it too. The layers are those of the lowest
//! part of the image that the content went into. Equal layers alone would not tell: a step may read
//! another content and give the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::llb::derive::Derived;
use crate::cache::llb::digest::input_keys;
use crate::cache::llb::{Edge, Evidence, Graph, layers};
use crate::cache::record::{Digest, RecordSet};

/// What is known by a name.
pub type Remembered = BTreeSet<Digest>;

/// The names of a build.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of the content that a vertex reads as an input, where that is no directory of the client.
    contents: BTreeMap<(usize, usize), Digest>,
    /// Of the keys of an image that the definition pins. Older daemons have several.
    images: BTreeMap<usize, Digest>,
}

// === impl Names ===

impl Names {
    /// The names of a build with these derived records, which are those of the set, and layers.
    pub(super) fn of(graph: &Graph, derived: &Derived, set: &RecordSet, image: &[Digest]) -> Self {
        let identities = set.identities();
        let mut parts: Vec<_> = layers::of_image(graph, image.len()).into_iter().collect();
        parts.push((graph.terminal(), 0..image.len()));
        parts.sort_by_key(|(_, layers)| (layers.end, layers.len()));
        let mut names = Self::default();
        let mut seen = BTreeSet::new();
        for (edge, range) in parts {
            let Some(&record) = derived.edges.get(&edge) else {
                continue;
            };
            let mut part = vec![&identities[record]];
            part.extend(&image[range]);
            let mut open = vec![edge.vertex];
            while let Some(vertex) = open.pop() {
                if seen.insert(vertex) {
                    names.add(graph, derived, &identities, &part, vertex);
                    open.extend(
                        graph.vertices()[vertex]
                            .inputs
                            .iter()
                            .map(|edge| edge.vertex),
                    );
                }
            }
        }
        names
    }

    /// Adds the names of what a vertex reads, or of its keys.
    fn add(
        &mut self,
        graph: &Graph,
        derived: &Derived,
        identities: &[Digest],
        part: &[&Digest],
        number: usize,
    ) {
        let name = |of: &str, kind: &str| {
            let part = part.iter().map(|digest| digest.as_str());
            let text: Vec<_> = part.chain([of, kind]).collect();
            Digest::of(text.join(" ").as_bytes())
        };
        let vertex = &graph.vertices()[number];
        if vertex.is_pinned_image() {
            self.images.insert(number, name(&vertex.digest, "image"));
        }
        let Some((_, &record)) = derived.edges.range(Edge::all_of(number)).next() else {
            return;
        };
        let keys = input_keys(vertex).unwrap_or_default();
        for (input, (key, edge)) in keys.iter().zip(&vertex.inputs).enumerate() {
            if key.content && !graph.vertices()[edge.vertex].is_local() {
                let name = name(identities[record].as_str(), &input.to_string());
                self.contents.insert((number, input), name);
            }
        }
    }

    /// Adds to what is known what is remembered by these names.
    pub(super) fn recall(
        &self,
        evidence: &mut Evidence,
        recall: impl Fn(&Digest) -> Option<Remembered>,
    ) {
        for (&(vertex, input), name) in &self.contents {
            if evidence.content_of(vertex, input).is_none()
                && let Some(content) = recall(name)
            {
                evidence.content(vertex, input, content);
            }
        }
        for (&vertex, name) in &self.images {
            evidence.source(vertex, recall(name).into_iter().flatten());
        }
    }

    /// What is known, by these names.
    pub(super) fn told(&self, evidence: &Evidence) -> Vec<(Digest, Remembered)> {
        let contents = self.contents.iter().filter_map(|(&(vertex, input), name)| {
            Some((name, evidence.content_of(vertex, input)?))
        });
        let images = (self.images.iter())
            .filter_map(|(&vertex, name)| Some((name, evidence.keys_of_source(vertex)?)));
        let told = contents.chain(images);
        told.map(|(name, known)| (name.clone(), known.clone()))
            .collect()
    }
}
