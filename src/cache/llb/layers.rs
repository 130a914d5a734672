//! Finds the layers of an image that each operation made, by the definition alone.
//!
//! An exec and a file operation add one layer to the result that they start from. A merge stacks the layers
//! of its inputs. So each layer has its operation, from the last layer of the image down to a source, or
//! to another operation whose number of layers the definition does not tell.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::graph::{ABSENT, Edge, Graph, Vertex};
use crate::protocol::proto::pb::{self, MountType, op::Op};

/// What the result of an edge is based on.
enum Base {
    /// An empty file system.
    Scratch,
    /// One layer on another result.
    On(Edge),
    /// The results of its inputs in order, without a layer of its own.
    Merged,
    /// The definition does not tell.
    Unknown,
}

/// The layers of each edge on the way to an image of `layers` layers.
///
/// A vertex that is in several places has one of them here. A vertex with several outputs in use is
/// left out. The map is empty where the definition and the number of layers contradict each other.
pub fn of_image(graph: &Graph, layers: usize) -> BTreeMap<Edge, Range<usize>> {
    let edges = graph.edges();
    let mut placed = place(graph, &edges, layers).unwrap_or_default();
    let mut outputs: HashMap<usize, usize> = HashMap::new();
    for edge in &edges {
        *outputs.entry(edge.vertex).or_default() += 1;
    }
    placed.retain(|edge, _| outputs.get(&edge.vertex) == Some(&1));
    placed
}

/// The vertices whose layers the image may have: the last one, and those that it is based on or merged
/// from. If another vertex has a layer of the image, that is by chance.
pub fn below_image(graph: &Graph) -> BTreeSet<usize> {
    let mut below = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut rest = vec![graph.terminal()];
    while let Some(edge) = rest.pop() {
        if !seen.insert(edge) {
            continue;
        }
        below.insert(edge.vertex);
        let vertex = &graph.vertices()[edge.vertex];
        match base(vertex, edge.output) {
            Base::Scratch => {}
            Base::On(base) => rest.push(base),
            Base::Merged | Base::Unknown => rest.extend(&vertex.inputs),
        }
    }
    below
}

fn place(
    graph: &Graph,
    edges: &BTreeSet<Edge>,
    layers: usize,
) -> Option<BTreeMap<Edge, Range<usize>>> {
    let sizes = sizes(graph, edges);
    let mut placed = BTreeMap::new();
    let mut rest = vec![(graph.terminal(), 0..layers)];
    while let Some((edge, range)) = rest.pop() {
        let vertex = &graph.vertices()[edge.vertex];
        let Entry::Vacant(place) = placed.entry(edge) else {
            continue;
        };
        place.insert(range.clone());
        match base(vertex, edge.output) {
            Base::Scratch if range.len() != 1 => return None,
            Base::Scratch | Base::Unknown => {}
            Base::On(_) if range.is_empty() => return None,
            Base::On(below) => rest.push((below, range.start..range.end - 1)),
            Base::Merged => {
                let mut end = range.end;
                for (n, input) in vertex.inputs.iter().enumerate().rev() {
                    let start = match (n, sizes.get(input)) {
                        (0, _) => range.start,
                        (_, Some(size)) => end.checked_sub(*size)?,
                        // Where this one begins, and with it all below, cannot be told.
                        (_, None) => break,
                    };
                    if start < range.start {
                        return None;
                    }
                    rest.push((*input, start..end));
                    end = start;
                }
            }
        }
    }
    Some(placed)
}

/// How many layers each edge has, as far as the definition tells.
fn sizes(graph: &Graph, edges: &BTreeSet<Edge>) -> HashMap<Edge, usize> {
    let mut sizes: HashMap<Edge, usize> = HashMap::new();
    // In the order of the vertices, so that what an edge is put on comes before it.
    for &edge in edges {
        let vertex = &graph.vertices()[edge.vertex];
        let size = match base(vertex, edge.output) {
            Base::Scratch => Some(1),
            Base::On(below) => sizes.get(&below).and_then(|size| size.checked_add(1)),
            // A merge of merges of merges soon has more than can be counted.
            Base::Merged => vertex
                .inputs
                .iter()
                .try_fold(0_usize, |sum, input| sum.checked_add(*sizes.get(input)?)),
            Base::Unknown => None,
        };
        if let Some(size) = size {
            sizes.insert(edge, size);
        }
    }
    sizes
}

fn base(vertex: &Vertex, output: i64) -> Base {
    let input = |number: i64| match usize::try_from(number) {
        Ok(number) => vertex
            .inputs
            .get(number)
            .map_or(Base::Unknown, |edge| Base::On(*edge)),
        Err(_) if number == ABSENT => Base::Scratch,
        Err(_) => Base::Unknown,
    };
    match &vertex.op.op {
        Some(Op::Exec(exec)) => {
            written(exec, output).map_or(Base::Unknown, |mount| input(mount.input))
        }
        Some(Op::File(file)) => {
            lowest(file, vertex.inputs.len(), output).map_or(Base::Unknown, input)
        }
        Some(Op::Merge(_)) => Base::Merged,
        Some(Op::Source(_) | Op::Diff(_) | Op::Build(_) | Op::Passthrough(_)) | None => {
            Base::Unknown
        }
    }
}

/// The mount behind an output of an exec, if the output is one layer on it.
fn written(exec: &pb::ExecOp, output: i64) -> Option<&pb::Mount> {
    // Secrets and SSH sockets have an output number, but no output.
    let is_of = |mount: &pb::Mount, kind: MountType| mount.mount_type == i32::from(kind);
    let outputs = || {
        let mounts = exec.mounts.iter().filter(|mount| mount.output != ABSENT);
        mounts.filter(|mount| is_of(mount, MountType::Bind) || is_of(mount, MountType::Cache))
    };
    // BuildKit counts them in this order, whatever numbers they have.
    if !outputs()
        .zip(0..)
        .all(|(mount, number)| mount.output == number)
    {
        return None;
    }
    let mount = outputs().find(|mount| mount.output == output)?;
    let is_layer = is_of(mount, MountType::Bind) && (!mount.readonly || mount.dest == "/");
    is_layer.then_some(mount)
}

/// The input that an output of a file operation is based on, if the output is one layer on it.
///
/// The actions of an operation make one layer together. If one in between is an output or is read twice,
/// it makes a layer of its own, and this returns `None`.
fn lowest(file: &pb::FileOp, inputs: usize, output: i64) -> Option<i64> {
    let mut last = file.actions.iter().filter(|action| action.output == output);
    let (Some(mut action), None) = (last.next(), last.next()) else {
        return None;
    };
    let mut readers: HashMap<i64, usize> = HashMap::new();
    for by in &file.actions {
        for read in BTreeSet::from([by.input, by.secondary_input]) {
            *readers.entry(read).or_default() += 1;
        }
    }
    for _ in &file.actions {
        let earlier = usize::try_from(action.input)
            .ok()
            .and_then(|n| n.checked_sub(inputs));
        let Some(number) = earlier else {
            return Some(action.input);
        };
        let below = file.actions.get(number)?;
        if below.output != ABSENT || readers.get(&action.input) != Some(&1) {
            return None;
        }
        action = below;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::llb::graph::GraphLimits;
    use crate::cache::llb::graph::tests::{encode, exec, source};
    use crate::protocol::proto::pb::file_action::Action;

    fn action(input: i64, output: i64) -> pb::FileAction {
        pb::FileAction {
            input,
            secondary_input: ABSENT,
            output,
            action: Some(Action::Mkfile(pb::FileActionMkFile::default())),
        }
    }

    fn file(actions: &[pb::FileAction]) -> Op {
        Op::File(pb::FileOp {
            actions: actions.to_vec(),
        })
    }

    /// Where the vertices are, by their order from the base up.
    fn ranges(ops: Vec<(Op, Vec<(usize, i64)>)>, layers: usize) -> Vec<Range<usize>> {
        let graph = Graph::parse(&encode(ops), &GraphLimits::default()).unwrap();
        of_image(&graph, layers).into_values().collect()
    }

    #[test]
    fn a_step_is_a_layer_on_what_it_starts_from() {
        let ops = vec![
            (source("docker-image://a"), vec![]),
            (exec("x"), vec![(0, 0)]),
            (file(&[action(0, ABSENT), action(1, 0)]), vec![(1, 0)]),
        ];
        assert_eq!(ranges(ops, 5), [0..3, 0..4, 0..5]);
    }

    #[test]
    fn a_merge_puts_layers_in_a_row() {
        let merge = Op::Merge(pb::MergeOp::default());
        let ops = vec![
            (source("docker-image://a"), vec![]),
            (file(&[action(ABSENT, 0)]), vec![]),
            (merge, vec![(0, 0), (1, 0)]),
        ];
        assert_eq!(ranges(ops, 3), [0..2, 2..3, 0..3]);
    }

    #[test]
    fn a_secret_is_no_output() {
        let Op::Exec(mut exec) = exec("x") else {
            panic!("an execution")
        };
        exec.mounts.push(pb::Mount {
            input: ABSENT,
            dest: "/run/secrets/s".into(),
            mount_type: MountType::Secret.into(),
            ..Default::default()
        });
        let ops = vec![
            (source("docker-image://a"), vec![]),
            (Op::Exec(exec), vec![(0, 0)]),
        ];
        assert_eq!(ranges(ops, 3), [0..2, 0..3]);
    }

    #[test]
    fn a_stage_that_is_copied_from_is_not_below_the_image() {
        let ops = vec![
            (source("docker-image://a"), vec![]),
            (exec("x"), vec![(0, 0)]),
            (file(&[action(ABSENT, 0)]), vec![(1, 0)]),
            (exec("y"), vec![(0, 0)]),
            (Op::Merge(pb::MergeOp::default()), vec![(3, 0), (2, 0)]),
        ];
        let graph = Graph::parse(&encode(ops), &GraphLimits::default()).unwrap();
        let below = below_image(&graph);
        assert_eq!(below.len(), 4, "the image, its base, y and the file");
    }

    #[test]
    fn a_merge_of_more_layers_than_can_be_counted_is_not_told() {
        let mut ops = vec![(file(&[action(ABSENT, 0)]), vec![])];
        for below in 0..=usize::BITS as usize {
            ops.push((Op::Merge(pb::MergeOp::default()), vec![(below, 0); 2]));
        }
        assert_eq!(ranges(ops, 3).len(), 1);
    }

    #[test]
    fn a_step_of_many_actions_takes_no_time() {
        let last = 100_000;
        let mut actions: Vec<_> = (0..=last).map(|n| action(n, ABSENT)).collect();
        actions[last as usize].output = 0;
        let ops = vec![
            (source("docker-image://a"), vec![]),
            (file(&actions), vec![(0, 0)]),
        ];
        assert_eq!(ranges(ops, 2), [0..1, 0..2]);
    }

    #[test]
    fn what_may_be_two_layers_or_none_is_not_told() {
        let committed = file(&[action(0, 1), action(1, 0)]);
        let ops = vec![
            (source("docker-image://a"), vec![]),
            (exec("x"), vec![(0, 0)]),
            (committed, vec![(1, 0)]),
        ];
        assert_eq!(ranges(ops, 5).len(), 1);
        let Op::Exec(mut mounted) = exec("y") else {
            panic!("an execution")
        };
        mounted.mounts[0].output = ABSENT;
        mounted.mounts.push(pb::Mount {
            input: 1,
            dest: "/m".into(),
            readonly: true,
            output: 0,
            ..Default::default()
        });
        let ops = vec![
            (source("docker-image://a"), vec![]),
            (exec("x"), vec![(0, 0)]),
            (Op::Exec(mounted), vec![(0, 0), (1, 0)]),
        ];
        assert_eq!(ranges(ops, 3).len(), 1);
    }

    #[test]
    fn too_few_layers_tell_nothing() {
        let ops = vec![
            (file(&[action(ABSENT, 0)]), vec![]),
            (exec("x"), vec![(0, 0)]),
        ];
        assert_eq!(ranges(ops.clone(), 2), [0..1, 0..2]);
        assert_eq!(ranges(ops, 1), [0..0; 0]);
    }
}
