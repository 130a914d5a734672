//! The probe: a definition of inlay's own that asks which content some inputs of a build have now, and which
//! keys some sources have. The caller solves it and exports its cache, which has the answer.
//!
//! BuildKit keys an operation that copies by the content of what is copied, and exports that key.
//! So the exported records of a file operation with the same copies from the same source have the root of
//! the content as this build sees it, whatever else the daemon remembers. Nothing is copied: BuildKit keys an
//! action whose output nothing reads, and never runs it. The operation only writes one small file. The file
//! is its result, and has content that gives the operation a new key.
//!
//! A source that a daemon resolves, such as an image by its tag, is merged with that file. A merge has the
//! keys of what it merges, and neither mounts nor pulls it. The source is the same vertex as in the build, so
//! the daemon resolves it once for both while the build is open.
//!
//! The definition has only these sources and the probe, so it runs no step of the build.

use std::collections::HashMap;

use prost::Message as _;

use super::graph::{ABSENT, Graph, Vertex};
use super::lineage::Evidence;
use crate::cache::record::{Digest, Link, RecordSet};
use crate::protocol::proto::pb::{self, MountType, file_action::Action, op::Op};

/// The mode and the timestamp by which a copied file keeps its own.
const UNCHANGED: i32 = -1;

/// A probe, ready to be solved.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    definition: Vec<u8>,
    /// The inputs of whose content it asks, by vertex and input, in the order of its file operation.
    contents: Vec<(usize, usize)>,
    /// The sources of whose keys it asks, in the order of its merge.
    resolved: Vec<usize>,
}

// === impl Probe ===

impl Probe {
    /// Makes a probe that asks about the graph of an encoded definition: about the `contents` of inputs
    /// that are a directory of the client (vertex and input), and about the keys of `resolved` sources.
    /// `None` if it can ask about none. The nonce is to differ from probe to probe, and then so do
    /// their keys.
    pub fn new(
        graph: &Graph,
        definition: &[u8],
        contents: impl Iterator<Item = (usize, usize)>,
        resolved: impl Iterator<Item = usize>,
        nonce: &str,
    ) -> Option<Self> {
        let definition = pb::Definition::decode(definition).ok()?;
        let mut probe = Making::new(&definition);
        let vertices = graph.vertices();
        let (mut inputs, mut actions, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        for (number, input) in contents {
            // To ask about the content of any other source, its result would have to be made: steps of
            // the build would run.
            let vertex = vertices.get(number)?;
            let (Some(edge), Some(copies)) = (vertex.inputs.get(input), copies(vertex, input))
            else {
                continue;
            };
            let Some(source) = probe.source(vertices.get(edge.vertex)?, edge.output) else {
                continue;
            };
            let secondary_input = i64::try_from(inputs.len()).ok()?;
            actions.extend(copies.into_iter().map(|copy| pb::FileAction {
                input: ABSENT,
                secondary_input,
                output: ABSENT,
                action: Some(Action::Copy(copy)),
            }));
            inputs.push(source);
            asked.push((number, input));
        }
        let (mut merged, mut merged_sources) = (Vec::new(), Vec::new());
        for number in resolved {
            if let Some(source) = probe.source(vertices.get(number)?, 0) {
                merged.push(source);
                merged_sources.push(number);
            }
        }
        if asked.is_empty() && merged_sources.is_empty() {
            return None;
        }
        actions.push(pb::FileAction {
            input: ABSENT,
            secondary_input: ABSENT,
            output: 0,
            action: Some(Action::Mkfile(pb::FileActionMkFile {
                path: "/inlay-probe".to_owned(),
                mode: 0o644,
                data: nonce.as_bytes().to_vec(),
                owner: None,
                timestamp: UNCHANGED.into(),
            })),
        });
        let mut result = probe.add(inputs, Op::File(pb::FileOp { actions }));
        if !merged.is_empty() {
            merged.insert(0, result);
            let inputs = (0..)
                .zip(&merged)
                .map(|(input, _)| pb::MergeInput { input });
            let inputs = inputs.collect();
            result = probe.add(merged, Op::Merge(pb::MergeOp { inputs }));
        }
        Some(Self {
            definition: probe.finish(result),
            contents: asked,
            resolved: merged_sources,
        })
    }

    /// The encoded definition to solve.
    pub fn definition(&self) -> &[u8] {
        &self.definition
    }

    /// Adds what the probe's `record` tells to `evidence`. Content that is not exactly one root is left
    /// out.
    pub fn read(&self, answer: &RecordSet, record: usize, evidence: &mut Evidence) {
        let records = answer.records();
        let mut file = &records[record];
        if !self.resolved.is_empty() {
            let Some((first, sources)) = file.inputs.split_first() else {
                return;
            };
            let [first] = &first[..] else {
                return;
            };
            if sources.len() != self.resolved.len() {
                return;
            }
            for (source, links) in self.resolved.iter().zip(sources) {
                let roots: Vec<_> = roots(answer, links).collect();
                if !roots.is_empty() {
                    evidence.source(*source, roots);
                }
            }
            file = &records[first.record];
        }
        if file.inputs.len() != self.contents.len() {
            return;
        }
        for ((vertex, input), links) in self.contents.iter().zip(&file.inputs) {
            let mut roots = roots(answer, links);
            if let (Some(root), None) = (roots.next(), roots.next()) {
                evidence.content(*vertex, *input, [root]);
            }
        }
    }
}

/// The digests of the roots that links lead to.
fn roots(answer: &RecordSet, links: &[Link]) -> impl Iterator<Item = Digest> {
    let linked = links.iter().map(|link| &answer.records()[link.record]);
    let roots = linked.filter(|record| record.is_root());
    roots.map(|root| root.digest.clone())
}

/// The definition of a probe in the making.
struct Making<'a> {
    /// The definition of the build.
    build: &'a pb::Definition,
    /// Its operations, by digest.
    ops: HashMap<String, &'a Vec<u8>>,
    probe: pb::Definition,
}

// === impl Making ===

impl<'a> Making<'a> {
    fn new(build: &'a pb::Definition) -> Self {
        let ops = build.def.iter();
        Self {
            build,
            ops: ops.map(|op| (Digest::of(op).to_string(), op)).collect(),
            probe: pb::Definition::default(),
        }
    }

    /// Adds a source of the build unchanged. `None` if the build has none with its digest.
    fn source(&mut self, source: &Vertex, output: i64) -> Option<pb::Input> {
        let digest = source.digest.clone();
        let op = *self.ops.get(&digest)?;
        if !self.probe.def.contains(op) {
            self.probe.def.push(op.clone());
            let metadata = self.build.metadata.get(&digest).cloned();
            let metadata = metadata.unwrap_or_default();
            self.probe.metadata.insert(digest.clone(), metadata);
        }
        Some(pb::Input {
            digest,
            index: output,
        })
    }

    /// Adds an operation of the probe.
    fn add(&mut self, inputs: Vec<pb::Input>, op: Op) -> pb::Input {
        let op = pb::Op {
            inputs,
            op: Some(op),
            ..Default::default()
        };
        let op = op.encode_to_vec();
        let digest = Digest::of(&op).to_string();
        self.probe.def.push(op);
        pb::Input { digest, index: 0 }
    }

    /// The encoded definition of a result.
    fn finish(mut self, result: pb::Input) -> Vec<u8> {
        let result = pb::Op {
            inputs: vec![result],
            ..Default::default()
        };
        self.probe.def.push(result.encode_to_vec());
        self.probe.encode_to_vec()
    }
}

/// The copies for which BuildKit keys an input exactly as it does for the vertex. `None` if there are none.
fn copies(vertex: &Vertex, input: usize) -> Option<Vec<pb::FileActionCopy>> {
    if !vertex.complete {
        return None;
    }
    let input = i64::try_from(input).ok()?;
    match vertex.op.op.as_ref()? {
        Op::File(file) => copies_of_file(file, input),
        Op::Exec(exec) => copies_of_mounts(exec, input),
        _ => None,
    }
}

fn copies_of_file(file: &pb::FileOp, input: i64) -> Option<Vec<pb::FileActionCopy>> {
    let mut copies = Vec::new();
    for action in &file.actions {
        let Action::Copy(copy) = action.action.as_ref()? else {
            continue;
        };
        if action.secondary_input == input {
            copies.push(pb::FileActionCopy {
                owner: None,
                dest: "/".to_owned(),
                mode: UNCHANGED,
                timestamp: UNCHANGED.into(),
                ..copy.clone()
            });
        }
    }
    (!copies.is_empty()).then_some(copies)
}

fn copies_of_mounts(exec: &pb::ExecOp, input: i64) -> Option<Vec<pb::FileActionCopy>> {
    let is_mount = |mount: &&pb::Mount| {
        let kind = MountType::try_from(mount.mount_type);
        mount.input == input && matches!(kind, Ok(MountType::Bind | MountType::Cache))
    };
    let copy = |src: &str, follow_symlink| pb::FileActionCopy {
        src: src.to_owned(),
        dest: "/".to_owned(),
        mode: UNCHANGED,
        follow_symlink,
        timestamp: UNCHANGED.into(),
        ..Default::default()
    };
    let mounts: Vec<_> = exec.mounts.iter().filter(is_mount).collect();
    if mounts
        .iter()
        .any(|mount| mount.selector.trim_matches('/').is_empty())
    {
        return Some(vec![copy("/", false)]);
    }
    let copies = mounts
        .iter()
        .map(|mount| copy(&mount.selector, true))
        .collect::<Vec<_>>();
    (!copies.is_empty()).then_some(copies)
}
