//! The records of a build, by its definition and by what is known of the content of its sources.
//! It must not know what a daemon exported.
//!
//! A record of an operation has its digest, and for each input links to the records of what it
//! reads and to the content of that. All of it follows from the definition, but for contents and for
//! the keys of sources. So two builds of one definition and of one content have one set of records,
//! whatever daemon built them and however it found their steps.
//!
//! # Steps with one key
//! BuildKit finds a step by the content that it reads as well, and so it makes one record of two
//! steps with one digest and one content. If one of the two is made of the other, that record would
//! be its own source. BuildKit drops one link or another then, or has two records, as it happened to
//! find the steps. Here there are two: the first is found by the content, and the second by the steps
//! between them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::digest::{Dialect, edge_digest, input_keys};
use super::graph::{Edge, Graph};
use super::lineage::Evidence;
use crate::cache::record::{Digest, Link, Record};
use crate::protocol::proto::pb;

/// How many links may be looked at.
const MAX_STEPS: usize = 2_000_000;

/// The records of a build. None has a result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Derived {
    /// Each after its sources.
    pub records: Vec<Record>,
    /// The record of each output of an operation, where it has one.
    pub edges: BTreeMap<Edge, usize>,
    /// Records of one key, of which the second is made of the first.
    pub twins: Vec<(usize, usize)>,
}

/// Derives the records as BuildKit v0.34.2 has them, and keeps those that lead to the result. `None`
/// where the result has none, where an operation is one whose digest or inputs are not known, or where
/// it would take too long.
///
/// An operation of which an input has neither records nor known content has no record.
pub fn derive(
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
        let first = Edge {
            vertex: number,
            output: i64::MIN,
        };
        let outputs = edges
            .range(first..)
            .take_while(|edge| edge.vertex == number);
        for &edge in outputs {
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
    /// What leads to a record, and that.
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
        let twins = self.twins.iter();
        let twins = twins.filter_map(|&(one, other)| Some((numbers[one]?, numbers[other]?)));
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

    /// Adds the record of an operation, or makes it one with a record of the same key.
    fn add(&mut self, edge: Edge, digest: Digest, mut inputs: Vec<Links>) -> Option<()> {
        let known = self.by_digest.get(&digest).cloned().unwrap_or_default();
        let mut twins = Vec::new();
        for other in known {
            if !self.is_one(other, &inputs)? {
                continue;
            }
            let mut is_above = false;
            for links in &mut inputs {
                if self.leads_to(&links.definition, other)? {
                    is_above = true;
                    links.content.clear();
                }
            }
            if is_above {
                twins.push(other);
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
        let twins = twins.into_iter().map(|twin| (twin, record));
        self.out.twins.extend(twins);
        Some(())
    }

    /// Whether BuildKit makes one of a record and of one with these inputs and its digest.
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
