//! Which layers of an image are the result of which operation, told by the definition alone.
//! It must not know what the layers hold.
//!
//! An execution and a file operation put one layer on the result they start from, and a merge puts
//! the layers of its inputs one after the other. So from the last layer of the image down, each
//! layer has its operation, until a source begins, or something else of which the definition does
//! not tell the layers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::graph::{Edge, Graph, Vertex};
use crate::proto::pb::op::Op;

/// The index of what is no input, and no output.
const EMPTY: i64 = -1;

/// What the result of an edge is put on.
enum Base {
    /// Nothing.
    Scratch,
    /// One layer on another result.
    On(Edge),
    /// No layer of its own: these results in order.
    Merged,
    /// The definition does not tell.
    Unknown,
}

/// The layers of each vertex on the way to an image of `layers` layers, by the vertex's index.
///
/// A vertex that is in several places is named with one of them. One with several outputs in use is
/// left out. The map is empty where the definition and the number of layers contradict each other.
pub fn of_image(graph: &Graph, layers: usize) -> BTreeMap<usize, Range<usize>> {
    let edges = edges(graph);
    let mut placed = place(graph, &edges, layers).unwrap_or_default();
    let mut outputs: HashMap<usize, usize> = HashMap::new();
    for edge in &edges {
        *outputs.entry(edge.vertex).or_default() += 1;
    }
    placed.retain(|vertex, _| outputs.get(vertex) == Some(&1));
    placed
}

fn place(
    graph: &Graph,
    edges: &BTreeSet<Edge>,
    layers: usize,
) -> Option<BTreeMap<usize, Range<usize>>> {
    let sizes = sizes(graph, edges);
    let mut placed = BTreeMap::new();
    let mut rest = vec![(graph.terminal(), 0..layers)];
    while let Some((edge, range)) = rest.pop() {
        let vertex = &graph.vertices()[edge.vertex];
        let Entry::Vacant(place) = placed.entry(edge.vertex) else {
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
    let mut sizes = HashMap::new();
    // In the order of the vertices, so that what an edge is put on comes before it.
    for &edge in edges {
        let vertex = &graph.vertices()[edge.vertex];
        let size = match base(vertex, edge.output) {
            Base::Scratch => Some(1),
            Base::On(below) => sizes.get(&below).map(|size| size + 1),
            Base::Merged => vertex.inputs.iter().map(|input| sizes.get(input)).sum(),
            Base::Unknown => None,
        };
        if let Some(size) = size {
            sizes.insert(edge, size);
        }
    }
    sizes
}

fn edges(graph: &Graph) -> BTreeSet<Edge> {
    let inputs = graph.vertices().iter().flat_map(|vertex| &vertex.inputs);
    inputs.copied().chain([graph.terminal()]).collect()
}

fn base(vertex: &Vertex, output: i64) -> Base {
    let input = |number: i64| match usize::try_from(number) {
        Ok(number) => vertex
            .inputs
            .get(number)
            .map_or(Base::Unknown, |edge| Base::On(*edge)),
        Err(_) if number == EMPTY => Base::Scratch,
        Err(_) => Base::Unknown,
    };
    match &vertex.op.op {
        Some(Op::Exec(exec)) => {
            let mut written = exec.mounts.iter().filter(|mount| mount.output == output);
            match (written.next(), written.next()) {
                (Some(mount), None) => input(mount.input),
                _ => Base::Unknown,
            }
        }
        Some(Op::File(file)) => {
            let mut last = file.actions.iter().filter(|action| action.output == output);
            let (Some(mut action), None) = (last.next(), last.next()) else {
                return Base::Unknown;
            };
            // Each action is put on an input, or on an earlier action: their numbers follow the
            // inputs'.
            for _ in &file.actions {
                let inputs = vertex.inputs.len();
                let earlier = usize::try_from(action.input)
                    .ok()
                    .and_then(|n| n.checked_sub(inputs));
                match earlier.map(|n| file.actions.get(n)) {
                    None => return input(action.input),
                    Some(Some(below)) => action = below,
                    Some(None) => return Base::Unknown,
                }
            }
            Base::Unknown
        }
        Some(Op::Merge(_)) => Base::Merged,
        Some(Op::Source(_) | Op::Diff(_) | Op::Build(_) | Op::Passthrough(_)) | None => {
            Base::Unknown
        }
    }
}
