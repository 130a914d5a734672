//! The probe: one operation of inlay's own that tells which content some inputs of a build have
//! now, and which keys some sources have. It must not know how an operation is solved, or how its cache is exported.
//!
//! BuildKit keys an operation that copies by the content of what is copied, and exports that key.
//! So a file operation with the same copies of the same source has, among its exported records, the
//! root of the content as this build sees it, whatever else the daemon remembers. And it need not
//! copy: an action whose output nothing reads is looked at for the key, and is never executed. What
//! is executed is one small file, which makes the operation have a result to export, and, by its
//! content, a key that the daemon has not met.
//!
//! A source that is fetched whole, of HTTP or of Git, is asked for its keys by an action in it that is
//! never executed either. An image is not asked: a daemon pulls what a file operation has as an input.
//!
//! The definition holds the sources in question and the probe; there is no step of the build that
//! it could run.

use std::collections::HashMap;

use prost::Message as _;

use super::graph::{ABSENT, Edge, Graph, Vertex};
use super::lineage::Evidence;
use crate::cache::record::{Digest, RecordSet};
use crate::protocol::proto::pb::{self, MountType, file_action::Action, op::Op};

/// The mode that leaves a copied file's as it is, and the timestamp that leaves its time.
const UNCHANGED: i32 = -1;

/// A probe, ready to be solved.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    definition: Vec<u8>,
    /// What each of the probe's inputs asks about.
    asked: Vec<Asked>,
}

/// What an input of a probe asks about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    /// The content of an input of a vertex.
    Content(usize, usize),
    /// The keys of a source.
    Source(usize),
}

// === impl Probe ===

impl Probe {
    /// Makes a probe that asks about the graph of an encoded definition: about the `content` of inputs
    /// that are a directory of the client (vertex and input), and about the keys of `fetched` sources.
    /// `None` if it can ask about none. The nonce is to differ from probe to probe, and then so do
    /// their keys.
    pub fn new(
        graph: &Graph,
        definition: &[u8],
        content: impl Iterator<Item = (usize, usize)>,
        fetched: impl Iterator<Item = usize>,
        nonce: &str,
    ) -> Option<Self> {
        let definition = pb::Definition::decode(definition).ok()?;
        let sources: HashMap<String, &Vec<u8>> = (definition
            .def
            .iter()
            .map(|op| (Digest::of(op).to_string(), op)))
        .collect();
        let mut probe = pb::Definition::default();
        let (mut inputs, mut actions, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        let vertices = graph.vertices();
        // To ask about the content of any other source, its result would have to be made: steps of
        // the build would run.
        let content = content.filter_map(|(number, input)| {
            let vertex = vertices.get(number)?;
            let edge = *vertex.inputs.get(input)?;
            Some((Asked::Content(number, input), edge, copies(vertex, input)?))
        });
        let fetched = fetched.map(|vertex| {
            let edge = Edge { vertex, output: 0 };
            (Asked::Source(vertex), edge, Vec::new())
        });
        for (question, edge, copies) in content.chain(fetched) {
            let source = &vertices.get(edge.vertex)?.digest;
            let Some(op) = sources.get(source) else {
                continue;
            };
            if !probe.def.contains(op) {
                probe.def.push((*op).clone());
                let metadata = definition.metadata.get(source).cloned();
                probe
                    .metadata
                    .insert(source.clone(), metadata.unwrap_or_default());
            }
            let number = i64::try_from(inputs.len()).ok()?;
            if copies.is_empty() {
                // What is made in an input has the input's own keys, and none by content.
                actions.push(pb::FileAction {
                    input: number,
                    secondary_input: ABSENT,
                    output: ABSENT,
                    action: Some(Action::Mkdir(pb::FileActionMkDir {
                        path: "/inlay-probe".to_owned(),
                        timestamp: UNCHANGED.into(),
                        ..Default::default()
                    })),
                });
            }
            actions.extend(copies.into_iter().map(|copy| pb::FileAction {
                input: ABSENT,
                secondary_input: number,
                output: ABSENT,
                action: Some(Action::Copy(copy)),
            }));
            inputs.push(pb::Input {
                digest: source.clone(),
                index: edge.output,
            });
            asked.push(question);
        }
        if asked.is_empty() {
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
        let op = pb::Op {
            inputs,
            op: Some(Op::File(pb::FileOp { actions })),
            ..Default::default()
        };
        let op = op.encode_to_vec();
        let result = pb::Input {
            digest: Digest::of(&op).to_string(),
            index: 0,
        };
        probe.def.push(op);
        probe.def.push(
            pb::Op {
                inputs: vec![result],
                ..Default::default()
            }
            .encode_to_vec(),
        );
        Some(Self {
            definition: probe.encode_to_vec(),
            asked,
        })
    }

    /// The encoded definition to solve.
    pub fn definition(&self) -> &[u8] {
        &self.definition
    }

    /// Adds what the probe's record among exported records tells. Of content that is anything but one
    /// root nothing is concluded.
    pub fn read(&self, answer: &RecordSet, record: usize, evidence: &mut Evidence) {
        let records = answer.records();
        let inputs = &records[record].inputs;
        if inputs.len() != self.asked.len() {
            return;
        }
        for (asked, links) in self.asked.iter().zip(inputs) {
            let roots = links.iter().map(|link| &records[link.record]);
            let roots = roots.filter(|record| record.is_root());
            let mut roots = roots.map(|root| root.digest.clone());
            match asked {
                Asked::Content(vertex, input) => {
                    if let (Some(root), None) = (roots.next(), roots.next()) {
                        evidence.content(*vertex, *input, [root]);
                    }
                }
                Asked::Source(vertex) => {
                    let roots: Vec<_> = roots.collect();
                    if !roots.is_empty() {
                        evidence.source(*vertex, roots);
                    }
                }
            }
        }
    }
}

/// Copies with which a file operation looks at an input exactly as the vertex does; `None` if there
/// are none.
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
