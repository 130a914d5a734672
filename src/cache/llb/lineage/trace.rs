//! The way down from the final records, along the links that are not refuted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::ends::by_key;
use super::evidence::{Assumptions, ContentRoots, Evidence};
use super::refute::{Kind, Refutation};
use super::verdict::{Certain, Lineage, LineageError, Question};
use crate::cache::llb::digest::manifest_root;
use crate::cache::llb::graph::Graph;
use crate::cache::record::{Digest, Link, RecordSet};

/// How often the search is repeated with what the last one found.
const MAX_SEARCHES: usize = 64;

/// The most records of one digest that are examined where no link leads to them.
const MAX_DETACHED: usize = 64;

impl Lineage {
    /// Compares the records of `set` with `graph`.
    ///
    /// The end is a record with the [key](by_key) of the last operation. Where that key says nothing, it is a
    /// record that has inputs and is the source of no other record.
    ///
    /// # Errors
    /// Where it takes more steps than `assumptions` allow.
    pub fn trace(
        graph: &Graph,
        set: &RecordSet,
        evidence: &Evidence,
        assumptions: &Assumptions,
    ) -> Result<Self, LineageError> {
        let ends = by_key(graph, set, assumptions.platform.as_ref());
        let finals = ends.unwrap_or_else(|| set.finals());
        let mut left = assumptions.clone();
        let mut search = |evidence: &Evidence| {
            let (lineage, contents) =
                search(graph, set, &finals, evidence, &left).map_err(|_| {
                    LineageError::TooLarge {
                        limit: assumptions.steps,
                    }
                })?;
            left.steps -= lineage.steps;
            Ok::<_, LineageError>((lineage, contents))
        };
        let given = &evidence.content;
        let mut evidence = evidence.clone();
        let (mut lineage, mut contents) = search(&evidence)?;
        let mut sources = pinned(graph, set, assumptions);
        for _ in 0..MAX_SEARCHES {
            // Each round starts from what is given and what the last one found. Refuted records add nothing.
            contents.retain(|at, roots| !roots.is_empty() && !given.contains_key(at));
            let mut known = given.clone();
            known.append(&mut contents);
            if known == evidence.content && sources.is_empty() {
                break;
            }
            evidence.content = known;
            for (vertex, root) in sources.drain(..) {
                evidence
                    .source
                    .entry(vertex)
                    .or_insert_with(|| BTreeSet::from([root]));
            }
            let (next, more) = search(&evidence)?;
            if next.contradicted {
                break;
            }
            (lineage, contents) = (next, more);
        }
        // Records narrow the content down to what they share. Several candidates remain a question.
        lineage.questions.retain(|question| {
            question.candidates.len() > 1 && !given.contains_key(&(question.vertex, question.input))
        });
        lineage.imports = assumptions.imports;
        lineage.steps = assumptions.steps - left.steps;
        Ok(lineage)
    }
}

/// The manifest keys of pinned images, if these are the daemon's only keys of images. They are if
/// `assumptions` say so and one of them is among the records.
fn pinned(graph: &Graph, set: &RecordSet, assumptions: &Assumptions) -> Vec<(usize, Digest)> {
    if !assumptions.images_by_manifest {
        return Vec::new();
    }
    let platform = assumptions.platform.as_ref();
    let vertices = graph.vertices().iter().enumerate();
    let sources =
        vertices.filter_map(|(number, vertex)| Some((number, manifest_root(vertex, platform)?)));
    let sources: Vec<_> = sources.collect();
    let roots = set.records().iter().filter(|record| record.is_root());
    let roots: HashSet<_> = roots.map(|record| &record.digest).collect();
    match sources.iter().any(|(_, root)| roots.contains(root)) {
        true => sources,
        false => Vec::new(),
    }
}

fn search(
    graph: &Graph,
    set: &RecordSet,
    finals: &[usize],
    evidence: &Evidence,
    assumptions: &Assumptions,
) -> Result<(Lineage, ContentRoots), LineageError> {
    let mut refutation = Refutation::new(graph, set, finals, evidence, assumptions)?;
    for &last in finals {
        refutation.refute(last, graph.terminal().vertex)?;
    }
    let (mut lineage, mut contents) = descend(graph, set, finals, &[], &refutation);
    let detached = detached(graph, set, &lineage, &mut refutation)?;
    if !detached.is_empty() {
        (lineage, contents) = descend(graph, set, finals, &detached, &refutation);
    }
    lineage.certain = certain(graph, set, &lineage.ends, &refutation);
    lineage.steps = refutation.steps;
    Ok((lineage, contents))
}

/// The content and keys that are certain. If there are several ends, only what all of them agree on is.
fn certain(graph: &Graph, set: &RecordSet, ends: &[usize], refutation: &Refutation<'_>) -> Certain {
    let told = ends
        .iter()
        .map(|end| certain_of(graph, set, *end, refutation));
    let common = told.reduce(|mut common, other| {
        (common.contents).retain(|at, content| other.contents.get(at) == Some(content));
        (common.sources).retain(|vertex, key| other.sources.get(vertex) == Some(key));
        common
    });
    common.unwrap_or_default()
}

/// The content and keys that are certain if `end` is the end: those of `end`, and of the records that it
/// reaches by single links.
///
/// A record may be several vertices. These then have one key, so the record's single content is that of
/// each. If an input has content beside a link to an operation, that link may be of an earlier build with the
/// same content: the daemon may have found the record by the content. Such links are not followed.
fn certain_of(graph: &Graph, set: &RecordSet, end: usize, refutation: &Refutation<'_>) -> Certain {
    let mut certain = Certain::default();
    let digest = |link: &Link| set.records()[link.record].digest.clone();
    let mut open = vec![(end, graph.terminal())];
    let mut seen: HashSet<_> = open.iter().copied().collect();
    while let Some((record, edge)) = open.pop() {
        let vertex = edge.vertex;
        if !refutation.may_be(record, edge) || refutation.keys(record, vertex).is_none() {
            continue;
        }
        for (input, &edge) in graph.vertices()[vertex].inputs.iter().enumerate() {
            let kept = refutation.kept(record, vertex, input);
            let (content, definition) = refutation.by_kind(record, vertex, input, &kept);
            match (refutation.kinds[edge.vertex], &definition[..], &content[..]) {
                (Kind::Source, [link], _) => {
                    certain.sources.insert(edge.vertex, digest(link));
                }
                (_, [link], []) => {
                    let next = (link.record, edge);
                    open.extend(seen.insert(next).then_some(next));
                }
                (_, [], [link]) => {
                    certain.contents.insert((vertex, input), digest(link));
                }
                _ => {}
            }
        }
    }
    certain
}

/// The records that cannot be reached from the final ones, but are vertices by their definition alone:
/// record and vertex.
///
/// A daemon that breaks a loop of records may drop the link that leads to them.
fn detached(
    graph: &Graph,
    set: &RecordSet,
    lineage: &Lineage,
    refutation: &mut Refutation<'_>,
) -> Result<Vec<(usize, usize)>, LineageError> {
    let mut with_digest: HashMap<&Digest, Vec<usize>> = HashMap::new();
    for (number, record) in set.records().iter().enumerate() {
        with_digest.entry(&record.digest).or_default().push(number);
    }
    let mut records_of: HashMap<usize, BTreeSet<usize>> = HashMap::new();
    for (record, vertices) in &lineage.roles {
        for vertex in vertices {
            records_of.entry(*vertex).or_default().insert(*record);
        }
    }
    let mut found = Vec::new();
    for edge in graph.edges() {
        if records_of.contains_key(&edge.vertex) {
            continue;
        }
        let digest = refutation.digests.get(&edge);
        let records = digest.and_then(|digest| with_digest.get(digest));
        let records = records.filter(|records| records.len() <= MAX_DETACHED);
        for &record in records.into_iter().flatten() {
            refutation.refute(record, edge.vertex)?;
            if refutation.is_by_definition(record, edge.vertex, &records_of) {
                records_of.entry(edge.vertex).or_default().insert(record);
                found.push((record, edge.vertex));
            }
        }
    }
    Ok(found)
}

/// The content of a vertex's input according to one record, if that is the input's only link.
struct Alone<'a> {
    record: usize,
    at: (usize, usize),
    content: Option<&'a Digest>,
}

/// The content of inputs that have no other link, where links reach the record as that vertex. If the
/// records of a vertex differ, its input is left out.
fn linked(
    alone: Vec<Alone<'_>>,
    reached: &HashSet<(usize, usize)>,
) -> BTreeMap<(usize, usize), Digest> {
    let mut told: BTreeMap<_, BTreeSet<Option<&Digest>>> = BTreeMap::new();
    for it in alone {
        if reached.contains(&(it.record, it.at.0)) {
            told.entry(it.at).or_default().insert(it.content);
        }
    }
    told.retain(|_, told| told.len() == 1);
    let told = told.into_iter();
    told.filter_map(|(at, told)| Some((at, told.into_iter().next()??.clone())))
        .collect()
}

/// Follows the links that are not refuted from the final records, and from `others`, which are known to be
/// vertices. Also returns the content that records have beside a link by definition.
fn descend(
    graph: &Graph,
    set: &RecordSet,
    finals: &[usize],
    others: &[(usize, usize)],
    refutation: &Refutation<'_>,
) -> (Lineage, ContentRoots) {
    let mut out = Lineage::default();
    let mut contents = ContentRoots::new();
    let mut allowed: BTreeMap<(usize, usize), BTreeSet<usize>> = BTreeMap::new();
    let mut candidates: BTreeMap<(usize, usize), BTreeSet<Digest>> = BTreeMap::new();
    // Records that keep everything below them.
    let mut whole = Vec::new();
    let mut open = Vec::new();
    let terminal = graph.terminal();
    let refuted = |last: &usize| refutation.refuted(*last, terminal.vertex);
    // If all are refuted, an assumption is wrong.
    out.contradicted = !finals.is_empty() && finals.iter().all(refuted);
    for last in finals.iter().filter(|last| !refuted(last)).copied() {
        out.ends.push(last);
        if refutation.may_be(last, terminal) {
            open.push((last, terminal.vertex));
        } else {
            whole.push(last);
        }
    }

    open.extend(others);
    let mut seen: HashSet<_> = open.iter().copied().collect();
    let (mut reached, mut alone) = (HashSet::new(), Vec::new());
    while let Some((record, vertex)) = open.pop() {
        if refutation.keys(record, vertex).is_none() {
            whole.push(record);
            continue;
        }
        out.roles.entry(record).or_default().insert(vertex);
        let other_roles = refutation.other_roles(record, vertex);
        open.extend(
            other_roles
                .map(|vertex| (record, vertex))
                .filter(|pair| seen.insert(*pair)),
        );
        for (input, &edge) in graph.vertices()[vertex].inputs.iter().enumerate() {
            let kept = refutation.kept(record, vertex, input);
            let (content, definition) = refutation.by_kind(record, vertex, input, &kept);
            for link in &definition {
                if !refutation.kinds[edge.vertex].is_operation() {
                    whole.push(link.record);
                    if refutation.kinds[edge.vertex] == Kind::Source {
                        let keys = out.sources.entry(edge.vertex).or_default();
                        keys.insert(set.records()[link.record].digest.clone());
                    }
                    continue;
                }
                let pair = (link.record, edge.vertex);
                reached.insert(pair);
                open.extend(seen.insert(pair).then_some(pair));
            }
            alone.push(Alone {
                record,
                at: (vertex, input),
                content: match (&definition[..], &content[..]) {
                    ([], [link]) => Some(&set.records()[link.record].digest),
                    _ => None,
                },
            });
            let roots: BTreeSet<_> = (content.iter())
                .map(|link| set.records()[link.record].digest.clone())
                .collect();
            if !roots.is_empty() {
                let candidates = candidates.entry((vertex, input)).or_default();
                candidates.extend(roots.iter().cloned());
            }
            if !definition.is_empty() {
                contents.entry((vertex, input)).or_default().extend(roots);
            }
            allowed.entry((record, input)).or_default().extend(kept);
        }
    }

    let mut all = HashSet::new();
    while let Some(record) = whole.pop() {
        if all.insert(record) {
            whole.extend(set.records()[record].sources());
        }
    }
    for ((record, input), kept) in allowed {
        if all.contains(&record) {
            continue;
        }
        let links = set.records()[record].inputs[input].iter();
        let dropped: BTreeSet<_> = (links.enumerate())
            .filter(|(number, _)| !kept.contains(number))
            .map(|(_, link)| link.clone())
            .collect();
        if !dropped.is_empty() {
            out.dropped.insert((record, input), dropped);
        }
    }
    out.contents = contents.clone();
    out.linked = linked(alone, &reached);
    out.candidates = candidates.clone();
    out.questions = (candidates.into_iter())
        .map(|((vertex, input), candidates)| {
            let source = graph.vertices()[vertex].inputs[input].vertex;
            Question {
                vertex,
                input,
                source,
                local: refutation.kinds[source] == Kind::Local,
                candidates,
            }
        })
        .collect();
    (out, contents)
}
