//! Derives the records of a build from its definition and from what is known of the content of its sources.
//!
//! The record of an operation has the operation's digest. For each input it has links to the records of
//! what the input reads, and to the content of that. All of it follows from the definition, except content
//! and the keys of sources. So two builds of the same definition and the same content have the same records,
//! whichever daemon built them and however it found their steps.
//!
//! # Steps with one key
//! BuildKit also finds a step by the content that it reads, so it merges two steps with the same digest and
//! the same content into one record. If one of the two is made of the other, that record would be its own
//! source. BuildKit then drops a link or has two records, depending on how it found the steps. Here there
//! are always two: the first is found by the content, and the second by the steps between them. A daemon that
//! finds the second one by the content leaves those steps out of its export, and exports them when it
//! builds the same again. What such an export tells of their content is not used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::digest::{Dialect, edge_digest, input_keys};
use super::graph::{Edge, Graph};
use super::lineage::Evidence;
use crate::cache::record::{Digest, Link, Record};
use crate::protocol::proto::pb;

/// The most links that are followed.
const MAX_STEPS: usize = 2_000_000;

/// The records of a build, without results.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Derived {
    /// Each after its sources.
    pub records: Vec<Record>,
    /// The record of each output of an operation. Some outputs have none.
    pub edges: BTreeMap<Edge, usize>,
    /// Pairs of records with one key, where one is made of the other.
    pub twins: Vec<Twins>,
}

/// Two records of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Twins {
    /// The record that is found by the content.
    pub first: usize,
    /// The record that is made of it.
    pub second: usize,
    /// The inputs of the second one that lead to the first one.
    pub inputs: Vec<usize>,
}

/// Derives the records as BuildKit v0.34.2 has them, and keeps those that lead to the result. `None`
/// where the result has no record, where the digest or the inputs of an operation are not known, or where
/// it takes too many steps.
///
/// An operation has no record if one of its inputs has neither records nor known content.
pub fn derive(
    graph: &Graph,
    platform: Option<&pb::Platform>,
    evidence: &Evidence,
) -> Option<Derived> {
    let derived = derive_with(graph, platform, evidence)?;
    let exported = derived.exported(*derived.edges.get(&graph.terminal())?);
    let edges = derived.edges.iter();
    let told: HashSet<_> = edges
        .filter(|(_, record)| exported[**record])
        .map(|(edge, _)| edge.vertex)
        .collect();
    let of_others = evidence.of_vertices(graph, |vertex| told.contains(&vertex));
    if of_others == *evidence {
        return Some(derived);
    }
    derive_with(graph, platform, &of_others)
}

fn derive_with(
    graph: &Graph,
    platform: Option<&pb::Platform>,
    evidence: &Evidence,
) -> Option<Derived> {
    let mut derivation = Derivation::default();
    let edges = graph.edges();
    for (number, vertex) in graph.vertices().iter().enumerate() {
        if vertex.is_local() {
            continue;
        }
        if vertex.source().is_some() {
            let roots = evidence.keys_of_source(number).into_iter().flatten();
            let roots: Vec<_> = roots.map(|root| derivation.root(root)).collect();
            derivation.sources.insert(number, roots);
            continue;
        }
        let keys = input_keys(vertex)?;
        let mut inputs = Vec::with_capacity(keys.len());
        for (input, (key, edge)) in keys.iter().zip(&vertex.inputs).enumerate() {
            let selector: Arc<str> = key.selector.as_str().into();
            let definition = derivation.records_of(*edge).into_iter().map(|record| Link {
                selector: Arc::clone(&selector),
                record,
            });
            let definition: Vec<_> = definition.collect();
            let content = evidence.content_of(number, input).into_iter().flatten();
            let content = content.map(|root| Link {
                selector: Arc::from(""),
                record: derivation.root(root),
            });
            let content: Vec<_> = content.collect();
            inputs.push(Links {
                definition,
                content,
            });
        }
        for &edge in edges.range(Edge::all_of(number)) {
            let digest = edge_digest(graph, edge, platform, Dialect::Current)?;
            if inputs.iter().all(|links| !links.is_empty()) {
                derivation.add(edge, digest, inputs.clone())?;
            }
        }
    }
    derivation
        .out
        .of_end(*derivation.out.edges.get(&graph.terminal())?)
}

impl Derived {
    /// The records that a daemon exports if it finds the second of twins by the first one's content.
    fn exported(&self, end: usize) -> Vec<bool> {
        let mut exported = vec![false; self.records.len()];
        let mut open = vec![end];
        let mut firsts: HashMap<usize, Vec<&Twins>> = HashMap::new();
        for twins in &self.twins {
            firsts.entry(twins.second).or_default().push(twins);
        }
        while let Some(number) = open.pop() {
            if mem::replace(&mut exported[number], true) {
                continue;
            }
            let twins = firsts.get(&number).map_or(&[][..], Vec::as_slice);
            open.extend(twins.iter().map(|twins| twins.first));
            for (input, links) in self.records[number].inputs.iter().enumerate() {
                if !twins.iter().any(|twins| twins.inputs.contains(&input)) {
                    open.extend(links.iter().map(|link| link.record));
                }
            }
        }
        exported
    }

    /// The record `end` and all records that it is made of.
    fn of_end(&self, end: usize) -> Option<Self> {
        let mut leading = vec![false; self.records.len()];
        let mut open = vec![end];
        while let Some(record) = open.pop() {
            if !mem::replace(&mut leading[record], true) {
                open.extend(self.records[record].sources());
            }
        }
        let mut next = 0..;
        let numbers: Vec<_> = (leading.iter())
            .map(|leads| leads.then(|| next.next()).flatten())
            .collect();
        let mut records = Vec::new();
        for (record, _) in self
            .records
            .iter()
            .zip(&leading)
            .filter(|(_, leads)| **leads)
        {
            let mut record = record.clone();
            for link in record.inputs.iter_mut().flatten() {
                link.record = numbers[link.record]?;
            }
            records.push(record);
        }
        let edges = self.edges.iter();
        let edges = edges.filter_map(|(edge, record)| Some((*edge, numbers[*record]?)));
        let twins = self.twins.iter().filter_map(|twins| {
            Some(Twins {
                first: numbers[twins.first]?,
                second: numbers[twins.second]?,
                inputs: twins.inputs.clone(),
            })
        });
        Some(Self {
            records,
            edges: edges.collect(),
            twins: twins.collect(),
        })
    }
}

/// The links of one input.
#[derive(Clone)]
struct Links {
    definition: Vec<Link>,
    content: Vec<Link>,
}

impl Links {
    fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    fn all(&self) -> impl Iterator<Item = &Link> {
        self.definition.iter().chain(&self.content)
    }
}

#[derive(Default)]
struct Derivation {
    out: Derived,
    roots: HashMap<Digest, usize>,
    /// The roots of each source, by vertex.
    sources: HashMap<usize, Vec<usize>>,
    by_digest: HashMap<Digest, Vec<usize>>,
    steps: usize,
}

impl Derivation {
    fn root(&mut self, digest: &Digest) -> usize {
        let records = &mut self.out.records;
        *self.roots.entry(digest.clone()).or_insert_with(|| {
            records.push(Record {
                digest: digest.clone(),
                inputs: Vec::new(),
                results: Vec::new(),
            });
            records.len() - 1
        })
    }

    fn records_of(&self, edge: Edge) -> Vec<usize> {
        match self.sources.get(&edge.vertex) {
            Some(roots) => roots.clone(),
            None => self.out.edges.get(&edge).copied().into_iter().collect(),
        }
    }

    /// Adds the record of an operation, or merges it with a record of the same key.
    fn add(&mut self, edge: Edge, digest: Digest, mut inputs: Vec<Links>) -> Option<()> {
        let known = self.by_digest.get(&digest).cloned().unwrap_or_default();
        let mut twins = Vec::new();
        for other in known {
            if !self.is_one(other, &inputs)? {
                continue;
            }
            let mut above = Vec::new();
            for (input, links) in inputs.iter_mut().enumerate() {
                if self.leads_to(&links.definition, other)? {
                    above.push(input);
                    links.content.clear();
                }
            }
            if !above.is_empty() {
                twins.push((other, above));
                continue;
            }
            for (known, links) in self.out.records[other].inputs.iter_mut().zip(&inputs) {
                let new = links.all().filter(|link| !known.contains(link));
                let new: Vec<_> = new.cloned().collect();
                known.extend(new);
            }
            self.out.edges.insert(edge, other);
            return Some(());
        }
        let record = self.out.records.len();
        let inputs = inputs.iter().map(|links| links.all().cloned().collect());
        self.out.records.push(Record {
            digest: digest.clone(),
            inputs: inputs.collect(),
            results: Vec::new(),
        });
        self.by_digest.entry(digest).or_default().push(record);
        self.out.edges.insert(edge, record);
        let twins = twins.into_iter().map(|(first, inputs)| Twins {
            first,
            second: record,
            inputs,
        });
        self.out.twins.extend(twins);
        Some(())
    }

    /// Whether BuildKit merges a record with one that has the same digest and these inputs.
    fn is_one(&mut self, record: usize, inputs: &[Links]) -> Option<bool> {
        let known = &self.out.records[record].inputs;
        self.steps += known.iter().map(Vec::len).sum::<usize>();
        (self.steps <= MAX_STEPS).then_some(())?;
        let mut both = known.iter().zip(inputs);
        let is_one = both.all(|(known, links)| links.all().any(|link| known.contains(link)));
        Some(is_one && known.len() == inputs.len())
    }

    /// Whether one of these links leads to a record.
    fn leads_to(&mut self, links: &[Link], record: usize) -> Option<bool> {
        let mut seen = HashSet::new();
        let mut open: Vec<_> = links.iter().map(|link| link.record).collect();
        while let Some(next) = open.pop() {
            if next == record {
                return Some(true);
            }
            if seen.insert(next) {
                let inputs = &self.out.records[next].inputs;
                self.steps += 1 + inputs.iter().map(Vec::len).sum::<usize>();
                (self.steps <= MAX_STEPS).then_some(())?;
                open.extend(self.out.records[next].sources());
            }
        }
        Some(false)
    }
}
