//! Whether a record can be a vertex, as far as the records below it tell.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::evidence::{Assumptions, Evidence};
use super::verdict::LineageError;
use crate::cache::llb::digest::{Dialect, InputKey, edge_digest, input_keys};
use crate::cache::llb::graph::{Edge, Graph, Vertex};
use crate::cache::record::{Digest, Link, RecordSet};
use crate::protocol::proto::pb::op::Op;

/// The kinds of vertices that the argument tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Exec,
    File,
    Merge,
    Diff,
    /// A directory of the client.
    Local,
    /// Another source.
    Source,
    /// Nothing is known of its records.
    Opaque,
}

impl Kind {
    fn of(vertex: &Vertex) -> Self {
        match &vertex.op.op {
            Some(Op::Exec(_)) => Self::Exec,
            Some(Op::File(_)) => Self::File,
            Some(Op::Merge(_)) => Self::Merge,
            Some(Op::Diff(_)) => Self::Diff,
            Some(Op::Source(_)) if vertex.is_local() => Self::Local,
            Some(Op::Source(_)) => Self::Source,
            // A nested build exports the records of what it built as its own.
            Some(Op::Build(_) | Op::Passthrough(_)) | None => Self::Opaque,
        }
    }

    pub(super) fn is_operation(self) -> bool {
        matches!(self, Self::Exec | Self::File | Self::Merge | Self::Diff)
    }
}

/// The digests of the operations of one kind, in the only dialect whose digests occur among the records.
/// Digests that are equal in both dialects do not decide it. If nothing else occurs, they alone are returned.
fn only_reading(
    readings: [HashMap<Edge, Digest>; 2],
    present: &HashSet<&Digest>,
) -> HashMap<Edge, Digest> {
    let [current, gogo] = readings;
    let is_alike = |edge: &Edge| current.get(edge) == gogo.get(edge);
    let occurs = |reading: &HashMap<Edge, Digest>, alike: bool| {
        let mut of = reading.iter().filter(|(edge, _)| is_alike(edge) == alike);
        of.any(|(_, digest)| present.contains(digest))
    };
    match (occurs(&current, false), occurs(&gogo, false)) {
        (true, false) => current,
        (false, true) => gogo,
        (false, false) if occurs(&current, true) => {
            let alike = current.iter().filter(|(edge, _)| is_alike(edge));
            alike
                .map(|(edge, digest)| (*edge, digest.clone()))
                .collect()
        }
        _ => HashMap::new(),
    }
}

/// Pairs of vertices with the same digest where one is made of the other, and which may have the same key.
/// If they read the same content, they have one record: BuildKit finds the first one's record when it looks
/// up the second by content. A record cannot be its own source, so the export lacks a link of it.
#[derive(Default)]
struct Twins(HashMap<usize, Vec<(usize, usize)>>);

impl Twins {
    /// Finds them. `spend` counts the inputs that are examined. `None` where it refuses more.
    fn of(
        graph: &Graph,
        digests: &HashMap<Edge, Digest>,
        keys: &[Option<Vec<InputKey>>],
        mut spend: impl FnMut(usize) -> Option<()>,
    ) -> Option<Self> {
        let mut groups: HashMap<&Digest, BTreeSet<usize>> = HashMap::new();
        for (edge, digest) in digests {
            groups.entry(digest).or_default().insert(edge.vertex);
        }
        let mut twins = Self::default();
        for group in groups.values().filter(|group| group.len() > 1) {
            for &vertex in group {
                let inputs = graph.vertices()[vertex].inputs.iter().enumerate();
                for (input, edge) in inputs {
                    for twin in made_of(graph, edge.vertex, group, &mut spend)? {
                        if may_be_one(graph, digests, keys, [vertex, twin], &mut spend)? {
                            twins.0.entry(vertex).or_default().push((input, twin));
                        }
                    }
                }
            }
        }
        Some(twins)
    }

    /// The twins of a vertex that it is made of: the input that leads to the twin, and the twin.
    fn of_vertex(&self, vertex: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.0.get(&vertex).into_iter().flatten().copied()
    }
}

/// The vertices of `wanted` that a vertex is or is made of.
fn made_of(
    graph: &Graph,
    vertex: usize,
    wanted: &BTreeSet<usize>,
    spend: &mut impl FnMut(usize) -> Option<()>,
) -> Option<Vec<usize>> {
    let mut seen = HashSet::from([vertex]);
    let mut open = vec![vertex];
    let mut found = Vec::new();
    let first = wanted.first().copied().unwrap_or_default();
    while let Some(vertex) = open.pop() {
        found.extend(wanted.contains(&vertex).then_some(vertex));
        spend(graph.vertices()[vertex].inputs.len())?;
        // Inputs come before what is made of them.
        let inputs = graph.vertices()[vertex].inputs.iter();
        let inputs = inputs
            .map(|edge| edge.vertex)
            .filter(|input| *input >= first);
        open.extend(inputs.filter(|input| seen.insert(*input)));
    }
    Some(found)
}

/// The kinds of operations whose digests the daemon derives in a way that inlay does not know. A kind is one
/// of them if the only end, or a record that single links lead to from there, has another digest than
/// its vertex.
fn other_kinds(
    graph: &Graph,
    set: &RecordSet,
    ends: &[usize],
    kinds: &[Kind],
    keys: &[Option<Vec<InputKey>>],
    digests: &HashMap<Edge, Digest>,
) -> HashSet<Kind> {
    let mut other = HashSet::new();
    let [end] = ends else {
        return other;
    };
    let mut open = vec![(*end, graph.terminal())];
    let mut seen: HashSet<_> = open.iter().copied().collect();
    while let Some((record, edge)) = open.pop() {
        let record = &set.records()[record];
        let inputs = &graph.vertices()[edge.vertex].inputs;
        if !kinds[edge.vertex].is_operation() || record.inputs.len() != inputs.len() {
            continue;
        }
        if digests
            .get(&edge)
            .is_some_and(|digest| *digest != record.digest)
        {
            other.insert(kinds[edge.vertex]);
        }
        let keys = keys[edge.vertex].iter().flatten();
        for ((links, key), edge) in record.inputs.iter().zip(keys).zip(inputs) {
            // An input with content may have been found by it. Its links may then be another build's.
            if let [link] = &links[..]
                && *link.selector == *key.selector
                && !(key.content && set.is_content(link))
            {
                let next = (link.record, *edge);
                open.extend(seen.insert(next).then_some(next));
            }
        }
    }
    other
}

/// Whether two vertices with the same digest may have the same key: each input has a key of content, or the
/// two read something there that may have the same key.
fn may_be_one(
    graph: &Graph,
    digests: &HashMap<Edge, Digest>,
    keys: &[Option<Vec<InputKey>>],
    pair: [usize; 2],
    spend: &mut impl FnMut(usize) -> Option<()>,
) -> Option<bool> {
    let mut open = vec![pair];
    let mut seen = HashSet::from([pair]);
    while let Some([one, other]) = open.pop() {
        let [inputs, others] = [one, other].map(|vertex| &graph.vertices()[vertex].inputs);
        spend(inputs.len())?;
        if inputs.len() != others.len() {
            return Some(false);
        }
        for (input, (edge, other)) in inputs.iter().zip(others).enumerate() {
            let key = keys[one].as_ref().and_then(|keys| keys.get(input));
            if edge == other || key.is_none_or(|key| key.content) {
                continue;
            }
            let are_sources =
                [edge, other].map(|edge| graph.vertices()[edge.vertex].source().is_some());
            match are_sources {
                [true, true] => {}
                [false, false] if digests.get(edge) == digests.get(other) => {
                    let next = [edge.vertex, other.vertex];
                    open.extend(seen.insert(next).then_some(next));
                }
                _ => return Some(false),
            }
        }
    }
    Some(true)
}

pub(super) struct Refutation<'a> {
    graph: &'a Graph,
    set: &'a RecordSet,
    evidence: &'a Evidence,
    pub(super) kinds: Vec<Kind>,
    keys: Vec<Option<Vec<InputKey>>>,
    /// The digests of edges in the daemon's dialect.
    pub(super) digests: HashMap<Edge, Digest>,
    twins: Twins,
    /// Whether a record is refuted as a vertex.
    verdicts: HashMap<(usize, usize), bool>,
    /// How many links were examined.
    pub(super) steps: usize,
    limit: usize,
}

impl<'a> Refutation<'a> {
    pub(super) fn new(
        graph: &'a Graph,
        set: &'a RecordSet,
        ends: &[usize],
        evidence: &'a Evidence,
        assumptions: &Assumptions,
    ) -> Result<Self, LineageError> {
        let kinds: Vec<_> = graph.vertices().iter().map(Kind::of).collect();
        let present: HashSet<_> = set.records().iter().map(|record| &record.digest).collect();
        let edges = graph.edges();
        let mut digests = HashMap::new();
        for kind in [Kind::Exec, Kind::File, Kind::Merge, Kind::Diff] {
            let edges = edges.iter().filter(|edge| kinds[edge.vertex] == kind);
            let platform = assumptions.platform.as_ref();
            let readings = Dialect::ALL.map(|dialect| -> HashMap<_, _> {
                let digest = |edge| Some((edge, edge_digest(graph, edge, platform, dialect)?));
                edges.clone().copied().filter_map(digest).collect()
            });
            digests.extend(only_reading(readings, &present));
        }
        let keys: Vec<_> = graph.vertices().iter().map(input_keys).collect();
        for kind in other_kinds(graph, set, ends, &kinds, &keys, &digests) {
            digests.retain(|edge, _| kinds[edge.vertex] != kind);
        }
        let mut steps = 0;
        let limit = assumptions.steps;
        let twins = Twins::of(graph, &digests, &keys, |more| {
            steps += more;
            (steps <= limit).then_some(())
        });
        let twins = twins.ok_or(LineageError::TooLarge { limit })?;
        Ok(Self {
            graph,
            set,
            evidence,
            twins,
            kinds,
            keys,
            digests,
            verdicts: HashMap::new(),
            steps,
            limit,
        })
    }

    /// The keys of the vertex's inputs, if they are known and the record has as many inputs.
    pub(super) fn keys(&self, record: usize, vertex: usize) -> Option<&[InputKey]> {
        let keys = self.keys[vertex].as_deref()?;
        (keys.len() == self.set.records()[record].inputs.len()).then_some(keys)
    }

    /// Decides whether `record` is refuted as `vertex`, and all that this depends on.
    pub(super) fn refute(&mut self, record: usize, vertex: usize) -> Result<(), LineageError> {
        let mut open = vec![(record, vertex)];
        while let Some(&(record, vertex)) = open.last() {
            if self.verdicts.contains_key(&(record, vertex)) {
                open.pop();
                continue;
            }
            let needed = self.undecided(record, vertex)?;
            if needed.is_empty() {
                let refuted = self.keys(record, vertex).is_some()
                    && (0..self.set.records()[record].inputs.len()).any(|input| {
                        self.kept(record, vertex, input).is_empty()
                            && !self.may_be_cut(record, vertex, input)
                    });
                self.verdicts.insert((record, vertex), refuted);
                open.pop();
            } else {
                open.extend(needed);
            }
        }
        Ok(())
    }

    /// The pairs that the verdict on a pair depends on and that have none yet. Each has a smaller
    /// vertex, as the graph has inputs first.
    fn undecided(
        &mut self,
        record: usize,
        vertex: usize,
    ) -> Result<Vec<(usize, usize)>, LineageError> {
        let mut out = Vec::new();
        if self.keys(record, vertex).is_none() {
            return Ok(out);
        }
        let twins = self.twins.of_vertex(vertex);
        let needed = twins.map(|(_, twin)| (record, twin));
        out.extend(needed.filter(|pair| !self.verdicts.contains_key(pair)));
        let edges = &self.graph.vertices()[vertex].inputs;
        for (links, &edge) in self.set.records()[record].inputs.iter().zip(edges) {
            self.steps += links.len();
            if self.steps > self.limit {
                return Err(LineageError::TooLarge { limit: self.limit });
            }
            for link in links {
                let pair = (link.record, edge.vertex);
                if self.may_be(link.record, edge) && !self.verdicts.contains_key(&pair) {
                    out.push(pair);
                }
            }
        }
        Ok(out)
    }

    /// Whether the daemon may have dropped this build's link for an input: the input is made of a twin that
    /// has the same record.
    fn may_be_cut(&self, record: usize, vertex: usize, input: usize) -> bool {
        let mut twins = self.twins.of_vertex(vertex);
        twins.any(|(of, twin)| of == input && !self.refuted(record, twin))
    }

    /// The other vertices that a record of `vertex` may be: the twins that it is made of.
    pub(super) fn other_roles(
        &self,
        record: usize,
        vertex: usize,
    ) -> impl Iterator<Item = usize> + '_ {
        let twins = self.twins.of_vertex(vertex);
        let kept =
            twins.filter(move |(_, twin)| self.verdicts.get(&(record, *twin)) == Some(&false));
        kept.map(|(_, twin)| twin)
    }

    /// Whether a record can be an operation, as far as the record itself tells.
    pub(super) fn may_be(&self, record: usize, edge: Edge) -> bool {
        let record = &self.set.records()[record];
        self.kinds[edge.vertex].is_operation()
            && record.is_root() == self.graph.vertices()[edge.vertex].inputs.is_empty()
            && (self.digests.get(&edge)).is_none_or(|digest| *digest == record.digest)
    }

    /// The links of an input that are not refuted, as numbers. The pairs that this depends on
    /// have their verdicts, and the record has the vertex's number of inputs.
    pub(super) fn kept(&self, record: usize, vertex: usize, input: usize) -> Vec<usize> {
        let links = &self.set.records()[record].inputs[input];
        let Some(key) = (self.keys(record, vertex)).and_then(|keys| keys.get(input)) else {
            return (0..links.len()).collect();
        };
        let edge = self.graph.vertices()[vertex].inputs[input];
        let mut kept: Vec<_> = (links.iter().enumerate())
            .filter(|(_, link)| !self.is_refuted(link, vertex, input, edge, key))
            .map(|(number, _)| number)
            .collect();
        // Another selector than the operation's is of another operation, if the operation's own
        // occurs at all: otherwise the daemon may derive selectors in another way.
        let definition = |number: &usize| !self.is_content(&links[*number], key);
        let own = |number: &usize| *links[*number].selector == key.selector;
        if kept.iter().any(|number| definition(number) && own(number)) {
            kept.retain(|number| !definition(number) || own(number));
        }
        kept
    }

    /// Divides links of an input into those by content and those by definition. Both are empty where the
    /// keys of the vertex are not known.
    pub(super) fn by_kind(
        &self,
        record: usize,
        vertex: usize,
        input: usize,
        links: &[usize],
    ) -> (Vec<&Link>, Vec<&Link>) {
        let Some(key) = (self.keys(record, vertex)).and_then(|keys| keys.get(input)) else {
            return (Vec::new(), Vec::new());
        };
        let all = &self.set.records()[record].inputs[input];
        let links = links.iter().map(|&number| &all[number]);
        links.partition(|link| self.is_content(link, key))
    }

    fn is_refuted(
        &self,
        link: &Link,
        vertex: usize,
        input: usize,
        edge: Edge,
        key: &InputKey,
    ) -> bool {
        let source = &self.set.records()[link.record];
        let unknown = |known: Option<&BTreeSet<Digest>>| {
            known.is_some_and(|known| !known.contains(&source.digest))
        };
        if self.is_content(link, key) {
            return unknown(self.evidence.content.get(&(vertex, input)));
        }
        match self.kinds[edge.vertex] {
            Kind::Local => true,
            Kind::Source => !source.is_root() || unknown(self.evidence.source.get(&edge.vertex)),
            Kind::Opaque => false,
            Kind::Exec | Kind::File | Kind::Merge | Kind::Diff => {
                !self.may_be(link.record, edge) || self.refuted(link.record, edge.vertex)
            }
        }
    }

    /// Whether a record is a vertex by its definition: it is not refuted, and each input has a link that is
    /// known to be the vertex's. Such a link leads to a known key of a source, or to a record in `records_of`
    /// of the operation. For a directory of the client, its content has to be known.
    pub(super) fn is_by_definition(
        &self,
        record: usize,
        vertex: usize,
        records_of: &HashMap<usize, BTreeSet<usize>>,
    ) -> bool {
        let Some(keys) = self
            .keys(record, vertex)
            .filter(|_| !self.refuted(record, vertex))
        else {
            return false;
        };
        let edges = &self.graph.vertices()[vertex].inputs;
        keys.iter()
            .zip(edges)
            .enumerate()
            .all(|(input, (key, edge))| {
                let links = &self.set.records()[record].inputs[input];
                let kept = self.kept(record, vertex, input);
                let mut kept = kept.into_iter().map(|number| &links[number]);
                let is_known = |link: &Link| match self.kinds[edge.vertex] {
                    Kind::Local => self.evidence.content.contains_key(&(vertex, input)),
                    _ if self.is_content(link, key) => false,
                    Kind::Source => self.evidence.source.contains_key(&edge.vertex),
                    Kind::Exec | Kind::File | Kind::Merge | Kind::Diff => {
                        let records = records_of.get(&edge.vertex);
                        records.is_some_and(|records| records.contains(&link.record))
                    }
                    Kind::Opaque => false,
                };
                kept.any(is_known)
            })
    }

    /// Whether a link is by content. An input with a selector has it on all its definition links,
    /// so a root without one is content even where v0.34.2 would not look at it.
    pub(super) fn is_content(&self, link: &Link, key: &InputKey) -> bool {
        link.selector.is_empty()
            && self.set.records()[link.record].is_root()
            && (key.content || !key.selector.is_empty())
    }

    /// Whether a record has been found refuted as a vertex.
    pub(super) fn refuted(&self, record: usize, vertex: usize) -> bool {
        self.verdicts.get(&(record, vertex)) == Some(&true)
    }
}
