//! Names for the content that a build's stages produced, which a daemon may leave out of an export.
//!
//! The content is found by its name in the caches that a build imports, and in what is remembered of
//! earlier builds. A name is a hash of the operations, of the content and the keys of the sources, and of
//! layers. It has no numbers of records, so another build with the same steps has the same name. The layers
//! are those of the lowest part of the image that the content went into. Layers alone would not be enough:
//! a step may read other content and produce the same layers.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::cache::llb::derive::Derived;
use crate::cache::llb::digest::input_keys;
use crate::cache::llb::{Edge, Evidence, Graph, layers};
use crate::cache::record::{Contents, Digest, RecordSet};

/// What is remembered by a name: digests of root records.
pub type Remembered = BTreeSet<Digest>;

/// The content of stages that the cache of an image has.
#[derive(Debug)]
pub struct ImportedContents {
    /// The parts of the image, as `part` names them.
    parts: HashSet<Digest>,
    contents: Contents,
}

/// The names of a build.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The names of content, by vertex and input. Content of the client's directories has none.
    contents: BTreeMap<(usize, usize), Name>,
    /// The names of the keys of pinned images, by vertex. Older daemons have several keys of one image.
    images: BTreeMap<usize, Digest>,
}

/// The name of a content.
#[derive(Debug)]
struct Name {
    /// The part of the image that it went into.
    part: Digest,
    /// The identity of the record that reads it, and the input.
    reader: (Digest, usize),
}

// === impl ImportedContents ===

impl ImportedContents {
    /// Reads it from a cache. `None` where the cache exceeds its limits.
    pub fn of(cache: &RecordSet) -> Option<Self> {
        let (without, contents) = cache.without_contents()?;
        let mut parts = HashSet::new();
        for (record, identity) in without.records().iter().zip(without.identities()) {
            for result in &record.results {
                let layers = result.iter().map(|layer| without.layers()[*layer].name());
                parts.insert(part(&identity, layers));
            }
        }
        Some(Self { parts, contents })
    }

    fn get(&self, name: &Name) -> Option<&Remembered> {
        let content = self.contents.get(&name.reader)?;
        // If there are several, some may be of earlier builds.
        (self.parts.contains(&name.part) && content.len() == 1).then_some(content)
    }
}

/// The name of a part of an image: a digest of the record whose result it is, and of its layers.
fn part<'a>(record: &Digest, layers: impl IntoIterator<Item = &'a Digest>) -> Digest {
    let mut text = record.to_string();
    for layer in layers {
        text.push(' ');
        text.push_str(layer.as_str());
    }
    Digest::of(text.as_bytes())
}

// === impl Name ===

impl Name {
    fn digest(&self) -> Digest {
        let (record, input) = &self.reader;
        Digest::of(format!("{} {record} {input}", self.part).as_bytes())
    }
}

// === impl Names ===

impl Names {
    /// The names of a build. `set` has the derived records, and `image` the image's layers.
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
            let part = part(&identities[record], &image[range]);
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

    /// Adds the names of the content that a vertex reads, and of its keys if it is a pinned image.
    fn add(
        &mut self,
        graph: &Graph,
        derived: &Derived,
        identities: &[Digest],
        part: &Digest,
        number: usize,
    ) {
        let vertex = &graph.vertices()[number];
        if vertex.is_pinned_image() {
            let name = format!("{part} {} image", vertex.digest);
            self.images.insert(number, Digest::of(name.as_bytes()));
        }
        let Some((_, &record)) = derived.edges.range(Edge::all_of(number)).next() else {
            return;
        };
        let keys = input_keys(vertex).unwrap_or_default();
        for (input, (key, edge)) in keys.iter().zip(&vertex.inputs).enumerate() {
            if key.content && !graph.vertices()[edge.vertex].is_local() {
                let name = Name {
                    part: part.clone(),
                    reader: (identities[record].clone(), input),
                };
                self.contents.insert((number, input), name);
            }
        }
    }

    /// Adds to `evidence` what imported caches have by these names, or else what is remembered. If the
    /// caches differ on a name, none of them is used.
    pub(super) fn recall(
        &self,
        evidence: &mut Evidence,
        told: &[ImportedContents],
        recall: impl Fn(&Digest) -> Option<Remembered>,
    ) {
        for (&(vertex, input), name) in &self.contents {
            if evidence.content_of(vertex, input).is_none() {
                let told: BTreeSet<_> = told.iter().filter_map(|told| told.get(name)).collect();
                let content = match told.len() {
                    0 => recall(&name.digest()),
                    1 => told.into_iter().next().cloned(),
                    _ => None,
                };
                if let Some(content) = content {
                    evidence.content(vertex, input, content);
                }
            }
        }
        for (&vertex, name) in &self.images {
            evidence.source(vertex, recall(name).into_iter().flatten());
        }
    }

    /// What `evidence` has, by these names.
    pub(super) fn told(&self, evidence: &Evidence) -> Vec<(Digest, Remembered)> {
        let contents = self.contents.iter().filter_map(|(&(vertex, input), name)| {
            Some((name.digest(), evidence.content_of(vertex, input)?))
        });
        let images = (self.images.iter())
            .filter_map(|(&vertex, name)| Some((name.clone(), evidence.keys_of_source(vertex)?)));
        let told = contents.chain(images);
        told.map(|(name, known)| (name, known.clone())).collect()
    }
}
