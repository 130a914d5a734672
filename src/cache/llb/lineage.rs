//! Which links of an exported cache belong to the build that a definition describes.
//! It must not know the form of the export, nor learn anything by asking.
//!
//! # The question
//! A daemon exports, beside the keys of this build, whatever other chain of keys once led to the
//! same content. So an input of a record has links to the keys of its source in this build and to
//! those of the past. Links of the past that can be told are dropped; what nothing can tell stays.
//!
//! # The argument
//! Say that record `r` *is* vertex `v` if `r` is the key of `v` in this build. Then for each
//! input of `v`, with `u` the vertex it reads, `r` has a link that this build made, and that link
//! leads either to the key of `u` (a *definition* link, with the selector that `v` has for the
//! input), or to the root of the content that was read (a *content* link, without a selector).
//! So a link from `r` is *refuted* for the input if
//! 1. it is a content link and the content is known to be another;
//! 2. it is a definition link, and
//!    - `u` is a directory of the client: keys of those are random, and never exported;
//!    - or `u` is another source, and the link leads to a record with inputs, or to a root that
//!      is known not to be its key;
//!    - or `u` is an operation, and the link leads to a record that has inputs where `u` has none
//!      or the other way round, or that has another digest than `u`, or that is refuted as `u`.
//!
//! And `r` is refuted as `v` if all links of one of its inputs are. Vertices form an order, inputs
//! first, and each step from a pair `(r, v)` to a pair `(s, u)` descends in it, so this recursion
//! ends, whatever the links of the records are.
//!
//! From the final records, which are the terminal vertex, the links that are not refuted lead to
//! all that may belong to the build. A record may be several vertices: it keeps what any of them
//! keeps. Refutation is of a link for a vertex's input, never of a root as such, because one
//! content is current in one place and past in another.
//!
//! # What the records tell of content
//! If `r` has a definition link that is not refuted, then its content links for the same input are
//! of what `u` gave under a key that this build has: a daemon finds the record of an operation by
//! any of its keys, and adds the others to it. So content that no such record has is another's,
//! and known to be: the search is done again with that. If all such records have no content, or
//! there is none, nothing is concluded.
//!
//! # What is not concluded
//! - The digest of an operation only counts if it occurs among the records, and so do those of
//!   all operations of its kind, in one dialect and not in another: otherwise the daemon may
//!   derive digests in another way.
//! - Where the number of inputs differs, or the vertex is of a kind that is not covered, a record
//!   keeps all that leads to it.
//! - Should a final record be refuted as the terminal vertex, then something that was taken for
//!   known is wrong: everything stays, and [`Lineage::contradicted`] says so.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    digest::{Dialect, InputKey, edge_digest, input_keys},
    graph::{Edge, Graph, Vertex},
};
use crate::protocol::proto::pb::{self, op::Op};

/// One link of an input of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link<'a> {
    /// Which part of the source is meant, or nothing.
    pub selector: &'a str,
    /// The source.
    pub record: usize,
}

/// The records of an export.
pub trait Records {
    /// How many there are.
    fn count(&self) -> usize;
    /// The digest of a record.
    fn digest(&self, record: usize) -> &str;
    /// How many inputs a record has. A record with none is a root.
    fn inputs(&self, record: usize) -> usize;
    /// The links of an input of a record.
    fn links(&self, record: usize, input: usize) -> impl Iterator<Item = Link<'_>>;
}

/// What is known of this build beside its definition. Each set is complete: a digest that is not
/// in it is not of this build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    content: Contents,
    source: BTreeMap<usize, BTreeSet<String>>,
}

/// Roots of content, by vertex and input.
type Contents = BTreeMap<(usize, usize), BTreeSet<String>>;

/// How often the search is done again with what it told.
const MAX_SEARCHES: usize = 64;

/// What is taken for given.
#[derive(Debug, Clone, PartialEq)]
pub struct Assumptions {
    /// The platform of the daemon, for operations that name none.
    pub platform: Option<pb::Platform>,
    /// How many links may be looked at, each time counted.
    pub steps: usize,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            platform: None,
            steps: 2_000_000,
        }
    }
}

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
    pub candidates: BTreeSet<String>,
}

/// What belongs to the build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// By record and input: source and selector.
    dropped: BTreeMap<(usize, usize), BTreeSet<(usize, String)>>,
    roles: BTreeMap<usize, BTreeSet<usize>>,
    questions: Vec<Question>,
    contradicted: bool,
}

/// Why no lineage was traced.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LineageError {
    /// More work than the assumptions allow.
    #[error("the records and the definition take more than {limit} steps to compare")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// A link leads to a record that is not there.
    #[error("record {record} has a link to record {source_record} of {count}")]
    BadLink {
        /// The record with the link.
        record: usize,
        /// Where it leads.
        source_record: usize,
        /// How many records there are.
        count: usize,
    },
}

// === impl Evidence ===

impl Evidence {
    /// The roots of the content that `vertex` reads as its input `input`.
    pub fn content<T: Into<String>>(
        &mut self,
        vertex: usize,
        input: usize,
        roots: impl IntoIterator<Item = T>,
    ) {
        let roots = roots.into_iter().map(Into::into);
        (self.content.entry((vertex, input)).or_default()).extend(roots);
    }

    /// The keys of a source `vertex` that is no directory of the client, such as the
    /// [manifest root](super::digest::manifest_root) of a pinned image where the daemon makes no
    /// other key of it.
    pub fn source<T: Into<String>>(&mut self, vertex: usize, roots: impl IntoIterator<Item = T>) {
        let roots = roots.into_iter().map(Into::into);
        self.source.entry(vertex).or_default().extend(roots);
    }
}

// === impl Lineage ===

impl Lineage {
    /// Lays `graph` over `records`.
    pub fn trace(
        graph: &Graph,
        records: &impl Records,
        evidence: &Evidence,
        assumptions: &Assumptions,
    ) -> Result<Self, LineageError> {
        let export = Export::read(records)?;
        let given = &evidence.content;
        let mut evidence = evidence.clone();
        let (mut lineage, mut contents) = Self::search(graph, &export, &evidence, assumptions)?;
        for _ in 0..MAX_SEARCHES {
            // Each round from what is given and what the last one left: what it refuted tells nothing.
            contents.retain(|at, roots| !roots.is_empty() && !given.contains_key(at));
            let mut known = given.clone();
            known.append(&mut contents);
            if known == evidence.content {
                break;
            }
            evidence.content = known;
            let (next, more) = Self::search(graph, &export, &evidence, assumptions)?;
            if next.contradicted {
                break;
            }
            (lineage, contents) = (next, more);
        }
        // What the records tell of content is what they have in common, not which of it is true.
        lineage.questions.retain(|question| {
            question.candidates.len() > 1 && !given.contains_key(&(question.vertex, question.input))
        });
        Ok(lineage)
    }

    fn search(
        graph: &Graph,
        export: &Export<'_>,
        evidence: &Evidence,
        assumptions: &Assumptions,
    ) -> Result<(Self, Contents), LineageError> {
        let mut tracer = Tracer::new(graph, export, evidence, assumptions);
        for &last in &export.finals {
            tracer.refute(last, graph.terminal().vertex)?;
        }
        Ok(tracer.descend())
    }

    /// Whether a link may belong to the build. Of a record that no kept link leads to, nothing
    /// is said, and its links count as kept.
    pub fn keeps(&self, record: usize, input: usize, link: Link<'_>) -> bool {
        let dropped = self.dropped.get(&(record, input));
        // The owned selector is only made where something was dropped.
        !dropped.is_some_and(|set| set.contains(&(link.record, link.selector.to_owned())))
    }

    /// The links that belong to other builds: record, input, and the link.
    pub fn dropped(&self) -> impl Iterator<Item = (usize, usize, Link<'_>)> {
        (self.dropped.iter()).flat_map(|(&(record, input), links)| {
            links.iter().map(move |(source, selector)| {
                let link = Link {
                    selector,
                    record: *source,
                };
                (record, input, link)
            })
        })
    }

    /// What would tell more, if it were known.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The vertices that a record may be.
    pub fn vertices(&self, record: usize) -> impl Iterator<Item = usize> + '_ {
        self.roles.get(&record).into_iter().flatten().copied()
    }

    /// Whether what was taken for known contradicts the records. Nothing is dropped then from
    /// what leads to the record in question.
    pub fn contradicted(&self) -> bool {
        self.contradicted
    }
}

// === the export ===

struct Record<'a> {
    digest: &'a str,
    inputs: Vec<Vec<Link<'a>>>,
}

impl Record<'_> {
    fn is_root(&self) -> bool {
        self.inputs.is_empty()
    }
}

/// The records with every link known to lead to one.
struct Export<'a> {
    records: Vec<Record<'a>>,
    /// Those with inputs that no link leads to.
    finals: Vec<usize>,
}

impl<'a> Export<'a> {
    fn read(from: &'a impl Records) -> Result<Self, LineageError> {
        let count = from.count();
        let mut used = vec![false; count];
        let mut records = Vec::with_capacity(count);
        for record in 0..count {
            let inputs: Vec<Vec<_>> = (0..from.inputs(record))
                .map(|input| from.links(record, input).collect())
                .collect();
            for link in inputs.iter().flatten() {
                *(used.get_mut(link.record)).ok_or(LineageError::BadLink {
                    record,
                    source_record: link.record,
                    count,
                })? = true;
            }
            records.push(Record {
                digest: from.digest(record),
                inputs,
            });
        }
        let is_final = |&index: &usize| !used[index] && !records[index].is_root();
        let finals = (0..count).filter(is_final).collect();
        Ok(Self { records, finals })
    }
}

// === the search ===

/// What a vertex is to the argument.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
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

    fn is_operation(self) -> bool {
        matches!(self, Self::Exec | Self::File | Self::Merge | Self::Diff)
    }
}

/// The digests of all operations of a kind in the one dialect in which all of them occur.
fn only_reading(
    readings: [HashMap<Edge, String>; 2],
    present: &HashSet<&str>,
) -> HashMap<Edge, String> {
    let occurs = |reading: &HashMap<Edge, String>| {
        reading
            .values()
            .all(|digest| present.contains(digest.as_str()))
    };
    let [current, gogo] = readings;
    match (occurs(&current), occurs(&gogo)) {
        (true, false) => current,
        (false, true) => gogo,
        (true, true) if current == gogo => current,
        _ => HashMap::new(),
    }
}

struct Tracer<'a> {
    graph: &'a Graph,
    export: &'a Export<'a>,
    evidence: &'a Evidence,
    kinds: Vec<Kind>,
    keys: Vec<Option<Vec<InputKey>>>,
    /// The digests of edges that count.
    digests: HashMap<Edge, String>,
    /// Whether a record is refuted as a vertex.
    refuted: HashMap<(usize, usize), bool>,
    steps: usize,
    limit: usize,
}

impl<'a> Tracer<'a> {
    fn new(
        graph: &'a Graph,
        export: &'a Export<'a>,
        evidence: &'a Evidence,
        assumptions: &Assumptions,
    ) -> Self {
        let kinds: Vec<_> = graph.vertices().iter().map(Kind::of).collect();
        let present: HashSet<_> = export.records.iter().map(|record| record.digest).collect();
        let edges = graph.vertices().iter().flat_map(|vertex| &vertex.inputs);
        let edges: BTreeSet<_> = edges.copied().chain([graph.terminal()]).collect();
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
        Self {
            graph,
            export,
            evidence,
            kinds,
            keys: graph.vertices().iter().map(input_keys).collect(),
            digests,
            refuted: HashMap::new(),
            steps: 0,
            limit: assumptions.steps,
        }
    }

    /// The keys of the inputs, if the record can be this vertex input by input.
    fn keys(&self, record: usize, vertex: usize) -> Option<&[InputKey]> {
        let keys = self.keys[vertex].as_deref()?;
        (keys.len() == self.export.records[record].inputs.len()).then_some(keys)
    }

    /// Decides whether `record` is refuted as `vertex`, and all that this depends on.
    fn refute(&mut self, record: usize, vertex: usize) -> Result<(), LineageError> {
        let mut open = vec![(record, vertex)];
        while let Some(&(record, vertex)) = open.last() {
            if self.refuted.contains_key(&(record, vertex)) {
                open.pop();
                continue;
            }
            let needed = self.undecided(record, vertex)?;
            if needed.is_empty() {
                let refuted = self.keys(record, vertex).is_some()
                    && (0..self.export.records[record].inputs.len())
                        .any(|input| self.kept(record, vertex, input).is_empty());
                self.refuted.insert((record, vertex), refuted);
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
        let edges = &self.graph.vertices()[vertex].inputs;
        for (links, &edge) in self.export.records[record].inputs.iter().zip(edges) {
            self.steps += links.len();
            if self.steps > self.limit {
                return Err(LineageError::TooLarge { limit: self.limit });
            }
            for link in links {
                let pair = (link.record, edge.vertex);
                if self.may_be(link.record, edge) && !self.refuted.contains_key(&pair) {
                    out.push(pair);
                }
            }
        }
        Ok(out)
    }

    /// Whether a record can be an operation, as far as the record itself tells.
    fn may_be(&self, record: usize, edge: Edge) -> bool {
        let record = &self.export.records[record];
        self.kinds[edge.vertex].is_operation()
            && record.is_root() == self.graph.vertices()[edge.vertex].inputs.is_empty()
            && (self.digests.get(&edge)).is_none_or(|digest| digest == record.digest)
    }

    /// The links of an input that are not refuted, as numbers. The pairs that this depends on
    /// have their verdicts, and the record has the vertex's number of inputs.
    fn kept(&self, record: usize, vertex: usize, input: usize) -> Vec<usize> {
        let links = &self.export.records[record].inputs[input];
        let Some(key) = (self.keys(record, vertex)).and_then(|keys| keys.get(input)) else {
            return (0..links.len()).collect();
        };
        let edge = self.graph.vertices()[vertex].inputs[input];
        let mut kept: Vec<_> = (links.iter().enumerate())
            .filter(|(_, link)| !self.is_refuted(**link, vertex, input, edge, key))
            .map(|(number, _)| number)
            .collect();
        // Another selector than the operation's is of another operation, if the operation's own
        // occurs at all: otherwise the daemon may derive selectors in another way.
        let definition = |number: &usize| !self.is_content(links[*number], key);
        let own = |number: &usize| links[*number].selector == key.selector;
        if kept.iter().any(|number| definition(number) && own(number)) {
            kept.retain(|number| !definition(number) || own(number));
        }
        kept
    }

    fn is_refuted(
        &self,
        link: Link<'_>,
        vertex: usize,
        input: usize,
        edge: Edge,
        key: &InputKey,
    ) -> bool {
        let source = &self.export.records[link.record];
        let unknown = |known: Option<&BTreeSet<String>>| {
            known.is_some_and(|known| !known.contains(source.digest))
        };
        if self.is_content(link, key) {
            return unknown(self.evidence.content.get(&(vertex, input)));
        }
        match self.kinds[edge.vertex] {
            Kind::Local => true,
            Kind::Source => !source.is_root() || unknown(self.evidence.source.get(&edge.vertex)),
            Kind::Opaque => false,
            Kind::Exec | Kind::File | Kind::Merge | Kind::Diff => {
                !self.may_be(link.record, edge)
                    || (self.refuted.get(&(link.record, edge.vertex))).is_some_and(|&is| is)
            }
        }
    }

    /// Whether a link is by content. An input with a selector has it on all its definition links,
    /// so a root without one is content even where v0.34.2 would not look at it.
    fn is_content(&self, link: Link<'_>, key: &InputKey) -> bool {
        link.selector.is_empty()
            && self.export.records[link.record].is_root()
            && (key.content || !key.selector.is_empty())
    }

    /// Follows what is not refuted from the final records. Also gives the content that records have
    /// beside a definition.
    fn descend(self) -> (Lineage, Contents) {
        let mut out = Lineage::default();
        let mut contents = Contents::new();
        let mut allowed: BTreeMap<(usize, usize), BTreeSet<usize>> = BTreeMap::new();
        let mut candidates: BTreeMap<(usize, usize), BTreeSet<String>> = BTreeMap::new();
        // Records of which everything stays.
        let mut whole = Vec::new();
        let mut open = Vec::new();
        let terminal = self.graph.terminal();
        for &last in &self.export.finals {
            let refuted = self.refuted.get(&(last, terminal.vertex)) == Some(&true);
            out.contradicted |= refuted;
            if !refuted && self.may_be(last, terminal) {
                open.push((last, terminal.vertex));
            } else {
                whole.push(last);
            }
        }

        let mut seen: HashSet<_> = open.iter().copied().collect();
        while let Some((record, vertex)) = open.pop() {
            let Some(keys) = self.keys(record, vertex) else {
                whole.push(record);
                continue;
            };
            out.roles.entry(record).or_default().insert(vertex);
            let edges = &self.graph.vertices()[vertex].inputs;
            for (input, (key, &edge)) in keys.iter().zip(edges).enumerate() {
                let links = &self.export.records[record].inputs[input];
                let kept = self.kept(record, vertex, input);
                for link in kept.iter().map(|&number| links[number]) {
                    if self.is_content(link, key) {
                        let digests = candidates.entry((vertex, input)).or_default();
                        digests.insert(self.export.records[link.record].digest.to_owned());
                    } else if !self.kinds[edge.vertex].is_operation() {
                        whole.push(link.record);
                    } else if seen.insert((link.record, edge.vertex)) {
                        open.push((link.record, edge.vertex));
                    }
                }
                let (content, definition): (Vec<_>, Vec<_>) = (kept.iter())
                    .map(|&number| links[number])
                    .partition(|link| self.is_content(*link, key));
                if !definition.is_empty() {
                    let roots = content
                        .iter()
                        .map(|link| self.export.records[link.record].digest.to_owned());
                    contents.entry((vertex, input)).or_default().extend(roots);
                }
                allowed.entry((record, input)).or_default().extend(kept);
            }
        }

        let mut all = HashSet::new();
        while let Some(record) = whole.pop() {
            if all.insert(record) {
                let links = self.export.records[record].inputs.iter().flatten();
                whole.extend(links.map(|link| link.record));
            }
        }
        for ((record, input), kept) in allowed {
            if all.contains(&record) {
                continue;
            }
            let links = self.export.records[record].inputs[input].iter();
            let dropped: BTreeSet<_> = (links.enumerate())
                .filter(|(number, _)| !kept.contains(number))
                .map(|(_, link)| (link.record, link.selector.to_owned()))
                .collect();
            if !dropped.is_empty() {
                out.dropped.insert((record, input), dropped);
            }
        }
        out.questions = (candidates.into_iter())
            .map(|((vertex, input), candidates)| {
                let source = self.graph.vertices()[vertex].inputs[input].vertex;
                Question {
                    vertex,
                    input,
                    source,
                    local: self.kinds[source] == Kind::Local,
                    candidates,
                }
            })
            .collect();
        (out, contents)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::llb::{
        digest::{content_root, manifest_root},
        graph::{
            Limits,
            tests::{encode, exec, source},
        },
    };

    /// Records under construction.
    #[derive(Debug, Clone, Default)]
    struct Set(Vec<(String, Inputs)>);

    type Inputs = Vec<Vec<(String, usize)>>;

    impl Records for Set {
        fn count(&self) -> usize {
            self.0.len()
        }
        fn digest(&self, record: usize) -> &str {
            &self.0[record].0
        }
        fn inputs(&self, record: usize) -> usize {
            self.0[record].1.len()
        }
        fn links(&self, record: usize, input: usize) -> impl Iterator<Item = Link<'_>> {
            (self.0[record].1[input].iter()).map(|(selector, record)| Link {
                selector,
                record: *record,
            })
        }
    }

    impl Set {
        fn add(&mut self, digest: &str, inputs: &[&[(&str, usize)]]) -> usize {
            let links =
                |links: &&[(&str, usize)]| links.iter().map(|&(s, r)| (s.to_owned(), r)).collect();
            self.0
                .push((digest.to_owned(), inputs.iter().map(links).collect()));
            self.0.len() - 1
        }
    }

    fn copy(src: &str, dest: &str) -> Op {
        Op::File(pb::FileOp {
            actions: vec![pb::FileAction {
                input: 0,
                secondary_input: 1,
                output: 0,
                action: Some(pb::file_action::Action::Copy(pb::FileActionCopy {
                    src: src.into(),
                    dest: dest.into(),
                    ..Default::default()
                })),
            }],
        })
    }

    const IMAGE: &str = "docker-image://docker.io/library/a@\
        sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn graph(ops: Vec<(Op, Vec<(usize, i64)>)>) -> Graph {
        Graph::parse(&encode(ops), &Limits::default()).unwrap()
    }

    fn find(graph: &Graph, op: &Op) -> usize {
        let is = |vertex: &Vertex| vertex.op.op.as_ref() == Some(op);
        graph.vertices().iter().position(is).unwrap()
    }

    fn digest_of(graph: &Graph, op: &Op) -> String {
        let vertex = find(graph, op);
        edge_digest(graph, Edge { vertex, output: 0 }, None, Dialect::Current).unwrap()
    }

    fn selector(graph: &Graph, op: &Op, input: usize) -> String {
        let keys = input_keys(&graph.vertices()[find(graph, op)]).unwrap();
        keys[input].selector.clone()
    }

    fn trace(graph: &Graph, set: &Set, evidence: &Evidence) -> Lineage {
        Lineage::trace(graph, set, evidence, &Assumptions::default()).unwrap()
    }

    fn dropped(lineage: &Lineage) -> Vec<(usize, usize, usize)> {
        let links = lineage.dropped();
        links.map(|(r, i, link)| (r, i, link.record)).collect()
    }

    /// A stage of a copied directory and a command, of which the result is copied.
    struct Stage {
        graph: Graph,
        set: Set,
        from_directory: usize,
        contents: [usize; 2],
        copies: [usize; 2],
        runs: [usize; 2],
        other: usize,
        last: usize,
    }

    fn stage() -> Stage {
        let ops = [copy("src", "/src"), exec("make"), copy("out", "/out")];
        let graph = graph(vec![
            (source("local://context"), vec![]),
            (source(IMAGE), vec![]),
            (ops[0].clone(), vec![(1, 0), (0, 0)]),
            (ops[1].clone(), vec![(2, 0)]),
            (ops[2].clone(), vec![(1, 0), (3, 0)]),
        ]);
        let mut set = Set::default();
        let [copied, made, last] = [0, 1, 2].map(|op| digest_of(&graph, &ops[op]));
        let whole = selector(&graph, &ops[1], 0);
        let out = selector(&graph, &ops[2], 1);
        let vertex = find(&graph, &source(IMAGE));
        let image = set.add(
            &manifest_root(&graph.vertices()[vertex], None).unwrap(),
            &[],
        );
        let contents = ["1", "2"].map(|content| set.add(&content_root(content), &[]));
        let copies = contents.map(|content| set.add(&copied, &[&[("", image)], &[("", content)]]));
        let runs = copies.map(|copy| set.add(&made, &[&[(&whole, copy)]]));
        let other = set.add("sha256:other", &[&[(&whole, copies[0])]]);
        let content = set.add(&content_root("out"), &[]);
        let sources = [
            (&*out, runs[0]),
            (&*out, runs[1]),
            (&*out, other),
            ("", content),
        ];
        let last = set.add(&last, &[&[("", image)], &sources]);
        let from_directory = find(&graph, &ops[0]);
        Stage {
            graph,
            set,
            from_directory,
            contents,
            copies,
            runs,
            other,
            last,
        }
    }

    #[test]
    fn another_operation_goes_and_another_content_is_asked_for() {
        let stage = stage();
        let lineage = trace(&stage.graph, &stage.set, &Evidence::default());
        assert_eq!(dropped(&lineage), [(stage.last, 1, stage.other)]);
        let [question] = lineage.questions() else {
            panic!("{:?}", lineage.questions());
        };
        assert_eq!((question.vertex, question.input), (stage.from_directory, 1));
        assert_eq!(
            question.candidates,
            stage
                .contents
                .map(|c| stage.set.digest(c).to_owned())
                .into()
        );
        let vertices: Vec<_> = lineage.vertices(stage.copies[1]).collect();
        assert_eq!(vertices, [stage.from_directory]);
    }

    #[test]
    fn what_comes_from_another_content_goes() {
        let stage = stage();
        let mut evidence = Evidence::default();
        evidence.content(stage.from_directory, 1, [content_root("2")]);
        let lineage = trace(&stage.graph, &stage.set, &evidence);
        let gone = [stage.runs[0], stage.other].map(|record| (stage.last, 1, record));
        assert_eq!(dropped(&lineage), gone);
        assert_eq!(lineage.questions(), []);
        assert!(!lineage.contradicted());
    }

    #[test]
    fn all_stays_where_the_evidence_fits_nothing() {
        let mut stage = stage();
        // Without the content of the result, only the refuted stages are left.
        stage.set.0[stage.last].1[1].pop();
        let mut evidence = Evidence::default();
        evidence.content(stage.from_directory, 1, [content_root("3")]);
        let lineage = trace(&stage.graph, &stage.set, &evidence);
        assert!(lineage.contradicted());
        assert_eq!(dropped(&lineage), []);
    }

    #[test]
    fn digests_that_do_not_occur_conclude_nothing_of_their_kind() {
        let mut stage = stage();
        for run in stage.runs {
            stage.set.0[run].0 = "sha256:derived in another way".into();
        }
        let lineage = trace(&stage.graph, &stage.set, &Evidence::default());
        assert_eq!(dropped(&lineage), []);
        // Where it comes from still counts.
        let mut evidence = Evidence::default();
        evidence.content(stage.from_directory, 1, [content_root("2")]);
        let lineage = trace(&stage.graph, &stage.set, &evidence);
        let gone = [stage.runs[0], stage.other].map(|record| (stage.last, 1, record));
        assert_eq!(dropped(&lineage), gone);
    }

    #[test]
    fn a_record_of_two_vertices_keeps_what_either_keeps() {
        // Two stages with one result, copied by one operation each, merged.
        let ops = [exec("one"), exec("two"), copy("out", "/out")];
        let merge = Op::Merge(pb::MergeOp {
            inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
        });
        let graph = graph(vec![
            (source(IMAGE), vec![]),
            (ops[0].clone(), vec![(0, 0)]),
            (ops[1].clone(), vec![(0, 0)]),
            (ops[2].clone(), vec![(0, 0), (1, 0)]),
            (ops[2].clone(), vec![(0, 0), (2, 0)]),
            (merge.clone(), vec![(3, 0), (4, 0)]),
        ]);
        let mut set = Set::default();
        let image = set.add("sha256:image", &[]);
        let whole = selector(&graph, &ops[0], 0);
        let runs = [0, 1].map(|op| set.add(&digest_of(&graph, &ops[op]), &[&[(&whole, image)]]));
        let past = set.add("sha256:past", &[&[(&whole, image)]]);
        let out = selector(&graph, &ops[2], 1);
        let sources = [(&*out, runs[0]), (&*out, runs[1]), (&*out, past)];
        let both = set.add(&digest_of(&graph, &ops[2]), &[&[("", image)], &sources]);
        set.add(&digest_of(&graph, &merge), &[&[("", both)], &[("", both)]]);
        let lineage = trace(&graph, &set, &Evidence::default());
        assert_eq!(dropped(&lineage), [(both, 1, past)]);
        assert_eq!(lineage.vertices(both).count(), 2);
    }

    /// A stage is mounted whole, and once had other content of which only the content is left to
    /// tell.
    #[test]
    fn content_that_no_record_of_the_build_has_is_of_another_build() {
        let ops = [exec("make"), copy("all", "/all")];
        let mut mount = pb::ExecOp::default();
        if let Op::Exec(exec) = exec("cat") {
            mount = exec;
        }
        mount.mounts.push(pb::Mount {
            input: 1,
            dest: "/made".into(),
            output: -1,
            readonly: true,
            ..Default::default()
        });
        let mounted = Op::Exec(mount);
        let graph = graph(vec![
            (source(IMAGE), vec![]),
            (ops[0].clone(), vec![(0, 0)]),
            (mounted.clone(), vec![(0, 0), (1, 0)]),
            (ops[1].clone(), vec![(0, 0), (2, 0)]),
        ]);
        let mut set = Set::default();
        let vertex = find(&graph, &source(IMAGE));
        let image = manifest_root(&graph.vertices()[vertex], None).unwrap();
        let image = set.add(&image, &[]);
        let contents = ["now", "past"].map(|content| set.add(&content_root(content), &[]));
        let selectors = [(&ops[0], 0), (&mounted, 0), (&mounted, 1), (&ops[1], 1)]
            .map(|(op, input)| selector(&graph, op, input));
        let made = set.add(&digest_of(&graph, &ops[0]), &[&[(&selectors[0], image)]]);
        let cat = digest_of(&graph, &mounted);
        let base = (&*selectors[1], image);
        let now = set.add(
            &cat,
            &[&[base], &[("", contents[0]), (&selectors[2], made)]],
        );
        let past = set.add(&cat, &[&[base], &[("", contents[1])]]);
        let sources = [(&*selectors[3], now), (&*selectors[3], past)];
        let last = set.add(&digest_of(&graph, &ops[1]), &[&[("", image)], &sources]);
        let lineage = trace(&graph, &set, &Evidence::default());
        assert_eq!(dropped(&lineage), [(last, 1, past)]);

        // Where the definition has no content beside it, there is nothing to compare with.
        set.0[now].1[1].remove(0);
        let lineage = trace(&graph, &set, &Evidence::default());
        assert_eq!(dropped(&lineage), []);
    }

    #[test]
    fn a_record_that_something_unknown_may_need_stays_whole() {
        let run = exec("make");
        let pass = Op::Passthrough(pb::PassthroughOp {
            id: "id".into(),
            outputs: vec![0],
        });
        let merge = Op::Merge(pb::MergeOp {
            inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
        });
        let graph = graph(vec![
            (source(IMAGE), vec![]),
            (run.clone(), vec![(0, 0)]),
            (pass, vec![(1, 0)]),
            (merge.clone(), vec![(1, 0), (2, 0)]),
        ]);
        let mut set = Set::default();
        let roots = ["sha256:a", "sha256:b"].map(|root| set.add(root, &[]));
        let whole = selector(&graph, &run, 0);
        let run = digest_of(&graph, &run);
        let made = set.add(&run, &[&[(&whole, roots[0]), ("another", roots[1])]]);
        let passed = set.add("sha256:passed", &[&[("", made)]]);
        set.add(
            &digest_of(&graph, &merge),
            &[&[("", made)], &[("", passed)]],
        );
        let lineage = trace(&graph, &set, &Evidence::default());
        assert_eq!(dropped(&lineage), []);
        // The operation alone would keep its own selector only.
        set.0[passed].1.clear();
        let lineage = trace(&graph, &set, &Evidence::default());
        assert_eq!(dropped(&lineage), [(made, 0, roots[1])]);
    }

    #[test]
    fn of_an_image_the_roots_known_to_be_past_go() {
        let run = exec("make");
        let graph = graph(vec![(source(IMAGE), vec![]), (run.clone(), vec![(0, 0)])]);
        let mut set = Set::default();
        let manifest = manifest_root(&graph.vertices()[0], None).unwrap();
        let roots = [&manifest, "sha256:config or past"].map(|root| set.add(root, &[]));
        let whole = selector(&graph, &run, 0);
        let links = roots.map(|root| (&*whole, root));
        let last = set.add(&digest_of(&graph, &run), &[&links]);
        let mut evidence = Evidence::default();
        assert_eq!(dropped(&trace(&graph, &set, &evidence)), []);
        evidence.source(0, [manifest]);
        assert_eq!(
            dropped(&trace(&graph, &set, &evidence)),
            [(last, 0, roots[1])]
        );
    }

    /// Three stages in a row copy from one another, and one that is built on them gave the same
    /// output before: what is past of the first makes all of the past go.
    #[test]
    fn what_is_past_of_one_stage_is_past_of_all_that_are_made_of_it() {
        let ops = [
            copy("f", "/f"),
            copy("/f", "/g"),
            copy("/g", "/h"),
            exec("run"),
            copy("/out", "/out"),
        ];
        let graph = graph(vec![
            (source("local://context"), vec![]),
            (source(IMAGE), vec![]),
            (ops[0].clone(), vec![(1, 0), (0, 0)]),
            (ops[1].clone(), vec![(1, 0), (2, 0)]),
            (ops[2].clone(), vec![(1, 0), (3, 0)]),
            (ops[3].clone(), vec![(4, 0)]),
            (ops[4].clone(), vec![(1, 0), (5, 0)]),
        ]);
        let mut set = Set::default();
        let digests: Vec<_> = ops.iter().map(|op| digest_of(&graph, op)).collect();
        let image = find(&graph, &source(IMAGE));
        let image = manifest_root(&graph.vertices()[image], None).unwrap();
        let image = set.add(&image, &[]);
        let selectors = [(1, 1), (2, 1), (3, 0), (4, 1)]
            .map(|(op, input): (usize, usize)| selector(&graph, &ops[op], input));
        let runs = ["now", "past"].map(|version| {
            let [local, first, second] = ["local", "first", "second"]
                .map(|content| set.add(&content_root(&format!("{content} {version}")), &[]));
            let a = set.add(&digests[0], &[&[("", image)], &[("", local)]]);
            let b = &[(&*selectors[0], a), ("", first)];
            let b = set.add(&digests[1], &[&[("", image)], b]);
            let c = &[(&*selectors[1], b), ("", second)];
            let c = set.add(&digests[2], &[&[("", image)], c]);
            set.add(&digests[3], &[&[(&selectors[2], c)]])
        });
        let out = set.add(&content_root("out"), &[]);
        let copied = runs.map(|run| (&*selectors[3], run));
        let copied = &[copied[0], copied[1], ("", out)];
        let last = set.add(&digests[4], &[&[("", image)], copied]);
        let mut evidence = Evidence::default();
        let local = content_root("local now");
        evidence.content(find(&graph, &ops[0]), 1, [local]);
        let lineage = trace(&graph, &set, &evidence);
        assert!(dropped(&lineage).contains(&(last, 1, runs[1])));
        assert!(lineage.questions().is_empty(), "{:?}", lineage.questions());
    }

    #[test]
    fn bad_links_and_too_much_work_are_refused() {
        let mut stage = stage();
        let assumptions = Assumptions {
            steps: 3,
            ..Assumptions::default()
        };
        let evidence = Evidence::default();
        assert_eq!(
            Lineage::trace(&stage.graph, &stage.set, &evidence, &assumptions),
            Err(LineageError::TooLarge { limit: 3 })
        );
        let count = stage.set.count();
        stage.set.0[stage.last].1[0].push((String::new(), count));
        assert_eq!(
            Lineage::trace(&stage.graph, &stage.set, &evidence, &Assumptions::default()),
            Err(LineageError::BadLink {
                record: stage.last,
                source_record: count,
                count
            })
        );
    }

    /// What a daemon would export for a random build, with random alternatives added.
    #[derive(Debug, Clone)]
    struct World {
        /// For each operation: whether it is a command, and what it reads.
        ops: Vec<(bool, prop::sample::Index, prop::sample::Index)>,
        /// A past record: the true record whose operation or shape it has, whether its digest is
        /// another, and what it links to.
        past: Vec<(prop::sample::Index, bool, [prop::sample::Index; 2])>,
        /// A link to the past, or to another true record: from, input, to, with the own selector.
        links: Vec<(prop::sample::Index, bool, prop::sample::Index, bool)>,
        /// Which contents are known.
        known: u32,
    }

    fn world() -> impl Strategy<Value = World> {
        use prop::sample::Index;
        let index = any::<Index>;
        (
            prop::collection::vec((any::<bool>(), index(), index()), 1..8),
            prop::collection::vec((index(), any::<bool>(), [index(), index()]), 0..8),
            prop::collection::vec((index(), any::<bool>(), index(), any::<bool>()), 0..24),
            any::<u32>(),
        )
            .prop_map(|(ops, past, links, known)| World {
                ops,
                past,
                links,
                known,
            })
    }

    proptest! {
        /// Whatever the past has left, no link of the build itself is dropped, and no record
        /// that stays loses all links of an input.
        #[test]
        fn nothing_of_the_build_itself_is_dropped(world in world()) {
            // The build: a directory, an image, and operations on what is before them. A command
            // reads one result; a copy puts a file of a result, or of the directory, on another.
            let mut ops = vec![(source("local://context"), vec![]), (source(IMAGE), vec![])];
            for (number, (command, a, b)) in world.ops.iter().enumerate() {
                let first = 1 + a.index(ops.len() - 1);
                let op = if *command {
                    (exec(&format!("run {}", number % 3)), vec![(first, 0)])
                } else {
                    let path = format!("dir{}/file", number % 2);
                    (copy(&path, "/"), vec![(first, 0), (b.index(ops.len()), 0)])
                };
                ops.push(op);
            }
            let graph = graph(ops);
            prop_assume!(graph.vertices().len() > 1);

            // What the daemon would export.
            let mut set = Set::default();
            let mut evidence = Evidence::default();
            let mut truth = Vec::new();
            let mut record_of = vec![None; graph.vertices().len()];
            for (vertex, op) in graph.vertices().iter().enumerate() {
                if op.is_local() {
                    continue;
                }
                if let Some(root) = manifest_root(op, None) {
                    record_of[vertex] = Some(set.add(&root, &[]));
                    if world.known & 1 == 1 {
                        evidence.source(vertex, [root]);
                    }
                    continue;
                }
                let keys = input_keys(op).unwrap();
                let mut inputs = Inputs::new();
                for (input, (key, edge)) in keys.iter().zip(&op.inputs).enumerate() {
                    let mut links = Vec::new();
                    if let Some(source) = record_of[edge.vertex] {
                        links.push((key.selector.clone(), source));
                    }
                    if key.content {
                        // What has one content here and there has one root.
                        let root = content_root(&format!("{} {}", edge.vertex % 3, key.selector));
                        let have = set.0.iter().position(|record| record.0 == root);
                        let content = have.unwrap_or_else(|| set.add(&root, &[]));
                        links.push((String::new(), content));
                        if world.known >> (1 + (vertex + input) % 31) & 1 == 1 {
                            evidence.content(vertex, input, [root]);
                        }
                    }
                    inputs.push(links);
                }
                let digest = edge_digest(&graph, Edge { vertex, output: 0 }, None, Dialect::Current).unwrap();
                // Vertices with one key have one record.
                let have = (set.0.iter()).position(|(d, i)| *d == digest && *i == inputs);
                let record = have.unwrap_or_else(|| {
                    set.0.push((digest, inputs.clone()));
                    set.0.len() - 1
                });
                for (input, links) in inputs.into_iter().enumerate() {
                    truth.extend(links.into_iter().map(|link| (record, input, link)));
                }
                record_of[vertex] = Some(record);
            }
            let last = record_of[graph.terminal().vertex].unwrap();
            prop_assume!(!set.0[last].1.is_empty());

            // The past.
            for (like, other, to) in &world.past {
                let (digest, mut inputs) = set.0[like.index(set.0.len())].clone();
                for (links, to) in inputs.iter_mut().zip(to) {
                    let to = to.index(set.0.len());
                    for link in links.iter_mut().filter(|_| to != last) {
                        link.1 = to;
                    }
                }
                let digest = if *other { format!("other than {digest}") } else { digest };
                set.0.push((digest, inputs));
            }
            for (from, second, to, own) in &world.links {
                let to = to.index(set.0.len());
                let from = from.index(set.0.len());
                if to == last || from == to {
                    continue;
                }
                let input = usize::from(*second);
                if let Some(links) = set.0[from].1.get_mut(input) {
                    let own = links.first().map(|link| link.0.clone()).filter(|_| *own);
                    links.push((own.unwrap_or_default(), to));
                }
            }

            let lineage = trace(&graph, &set, &evidence);
            for (record, input, (selector, source)) in truth {
                let link = Link { selector: &selector, record: source };
                prop_assert!(lineage.keeps(record, input, link), "{record} {input} {link:?}");
            }
            for (record, (_, inputs)) in set.0.iter().enumerate() {
                for (input, links) in inputs.iter().enumerate() {
                    let kept = links.iter().any(|(selector, to)| {
                        lineage.keeps(record, input, Link { selector, record: *to })
                    });
                    prop_assert!(kept || links.is_empty(), "{record} {input}");
                }
            }
        }
    }
}
