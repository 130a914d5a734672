//! Which records may be the end of the build, by the key of the definition's last operation.

use std::collections::HashSet;

use crate::cache::llb::digest::{Dialect, edge_digest, input_keys};
use crate::cache::llb::graph::{Edge, Graph};
use crate::cache::record::{Digest, RecordSet};
use crate::protocol::proto::pb;

/// The records with the digest of the definition's last operation, and with as many inputs.
///
/// `None` where the key says nothing: the definition does not give the digest of the last vertex, or no
/// record has the digest of an operation, so the daemon derives digests in another way.
pub fn by_key(
    graph: &Graph,
    set: &RecordSet,
    platform: Option<&pb::Platform>,
) -> Option<Vec<usize>> {
    let terminal = graph.terminal();
    let inputs = input_keys(&graph.vertices()[terminal.vertex])?.len();
    let digests = Dialect::ALL.map(|dialect| edge_digest(graph, terminal, platform, dialect));
    let is_end = |&record: &usize| {
        let record = &set.records()[record];
        record.inputs.len() == inputs && digests.iter().flatten().any(|of| *of == record.digest)
    };
    let ends: Vec<_> = (0..set.records().len()).filter(is_end).collect();
    (!ends.is_empty() || knows_operations(graph, set, platform)).then_some(ends)
}

/// Drops the root records that have the digest of an operation with inputs, and records that need them. A
/// daemon that broke a loop has dropped the links of their inputs.
pub fn drop_cut(graph: &Graph, set: &mut RecordSet, platform: Option<&pb::Platform>) {
    let digests: HashSet<_> = digests(graph, platform).collect();
    set.keep_alive(|record| !record.is_root() || !digests.contains(&record.digest));
}

fn knows_operations(graph: &Graph, set: &RecordSet, platform: Option<&pb::Platform>) -> bool {
    let present: HashSet<_> = set.records().iter().map(|record| &record.digest).collect();
    digests(graph, platform).any(|digest| present.contains(&digest))
}

/// The digests of all operations with inputs, in all dialects.
fn digests<'a>(
    graph: &'a Graph,
    platform: Option<&'a pb::Platform>,
) -> impl Iterator<Item = Digest> + 'a {
    let has_inputs = |edge: &Edge| !graph.vertices()[edge.vertex].inputs.is_empty();
    let edges = graph.edges().into_iter().filter(has_inputs);
    edges.flat_map(move |edge| {
        let digest = move |dialect| edge_digest(graph, edge, platform, dialect);
        Dialect::ALL.into_iter().filter_map(digest)
    })
}
