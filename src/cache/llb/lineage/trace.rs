//! The way down from the final records, along the links that are not refuted.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::ends::by_key;
use super::evidence::{Assumptions, ContentRoots, Evidence};
use super::refute::{Kind, Refutation};
use super::verdict::{Lineage, LineageError, Question};
use crate::cache::llb::digest::manifest_root;
use crate::cache::llb::graph::Graph;
use crate::cache::record::{Digest, RecordSet};

/// How often the search is done again with what it told.
const MAX_SEARCHES: usize = 64;

impl Lineage {
    /// Lays `graph` over the records of `set`.
    ///
    /// Its end is what has the [key](by_key) of the last operation, or, where that tells nothing,
    /// what has inputs and is the source of no other record.
    ///
    /// # Errors
    /// Where that takes more steps than `assumptions` allow.
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
        let mut sources = pinned(graph, &lineage, assumptions);
        for _ in 0..MAX_SEARCHES {
            // Each round from what is given and what the last one left: what it refuted tells nothing.
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
        // What the records tell of content is what they have in common, not which of it is true.
        lineage.questions.retain(|question| {
            question.candidates.len() > 1 && !given.contains_key(&(question.vertex, question.input))
        });
        lineage.steps = assumptions.steps - left.steps;
        Ok(lineage)
    }
}

/// The keys of images that the definition pins, where they are all the keys that the daemon has: so it
/// is if the records have one of them for its image.
fn pinned(graph: &Graph, lineage: &Lineage, assumptions: &Assumptions) -> Vec<(usize, Digest)> {
    if !assumptions.images_by_manifest {
        return Vec::new();
    }
    let platform = assumptions.platform.as_ref();
    let sources = lineage.sources.keys().filter_map(|vertex| {
        let root = manifest_root(&graph.vertices()[*vertex], platform)?;
        Some((*vertex, root))
    });
    let sources: Vec<_> = sources.collect();
    let mut told = sources.iter();
    match told.any(|(vertex, root)| lineage.sources[vertex].contains(root)) {
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
    let mut refutation = Refutation::new(graph, set, evidence, assumptions)?;
    for &last in finals {
        refutation.refute(last, graph.terminal().vertex)?;
    }
    let (mut lineage, contents) = descend(graph, set, finals, &refutation);
    lineage.steps = refutation.steps;
    Ok((lineage, contents))
}

/// Follows what is not refuted from the final records. Also gives the content that records have
/// beside a definition.
fn descend(
    graph: &Graph,
    set: &RecordSet,
    finals: &[usize],
    refutation: &Refutation<'_>,
) -> (Lineage, ContentRoots) {
    let mut out = Lineage::default();
    let mut contents = ContentRoots::new();
    let mut allowed: BTreeMap<(usize, usize), BTreeSet<usize>> = BTreeMap::new();
    let mut candidates: BTreeMap<(usize, usize), BTreeSet<Digest>> = BTreeMap::new();
    // Records of which everything stays.
    let mut whole = Vec::new();
    let mut open = Vec::new();
    let terminal = graph.terminal();
    let refuted = |last: &usize| refutation.refuted(*last, terminal.vertex);
    // Where all are refuted, what was taken for known is not.
    out.contradicted = !finals.is_empty() && finals.iter().all(refuted);
    for last in finals.iter().filter(|last| !refuted(last)).copied() {
        out.ends.push(last);
        if refutation.may_be(last, terminal) {
            open.push((last, terminal.vertex));
        } else {
            whole.push(last);
        }
    }

    let mut seen: HashSet<_> = open.iter().copied().collect();
    while let Some((record, vertex)) = open.pop() {
        let Some(keys) = refutation.keys(record, vertex) else {
            whole.push(record);
            continue;
        };
        out.roles.entry(record).or_default().insert(vertex);
        let other_roles = refutation.other_roles(record, vertex);
        open.extend(
            other_roles
                .map(|vertex| (record, vertex))
                .filter(|pair| seen.insert(*pair)),
        );
        let edges = &graph.vertices()[vertex].inputs;
        for (input, (key, &edge)) in keys.iter().zip(edges).enumerate() {
            let links = &set.records()[record].inputs[input];
            let kept = refutation.kept(record, vertex, input);
            let (content, definition): (Vec<_>, Vec<_>) = (kept.iter())
                .map(|&number| &links[number])
                .partition(|link| refutation.is_content(link, key));
            for link in &definition {
                if !refutation.kinds[edge.vertex].is_operation() {
                    whole.push(link.record);
                    if refutation.kinds[edge.vertex] == Kind::Source {
                        let keys = out.sources.entry(edge.vertex).or_default();
                        keys.insert(set.records()[link.record].digest.clone());
                    }
                } else if seen.insert((link.record, edge.vertex)) {
                    open.push((link.record, edge.vertex));
                }
            }
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
