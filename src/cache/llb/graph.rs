//! The graph of a definition: operations, their inputs and the one that is the result.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use prost::Message;

use crate::cache::record::Digest;
use crate::protocol::proto::pb;

/// The number of an input that is not there, and of an output that nothing reads.
pub(super) const ABSENT: i64 = -1;

/// How large a definition may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphLimits {
    /// Encoded bytes.
    pub bytes: usize,
    /// Operations, the last one (which only names the result) included.
    pub vertices: usize,
    /// Inputs of all operations together.
    pub inputs: usize,
}

impl Default for GraphLimits {
    /// Far above any real build, far below what would hurt.
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            vertices: 50_000,
            inputs: 500_000,
        }
    }
}

/// One output of one vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Index in [`Graph::vertices`].
    pub vertex: usize,
    /// Number of the output.
    pub output: i64,
}

impl Edge {
    /// All outputs that a vertex may have, in order.
    pub fn all_of(vertex: usize) -> RangeInclusive<Self> {
        let edge = |output| Self { vertex, output };
        edge(i64::MIN)..=edge(i64::MAX)
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Vertex {
    /// Digest of the operation's bytes: the vertex's name in status messages.
    pub digest: String,
    /// What it does.
    pub op: pb::Op,
    /// Whether `op` holds all that the bytes said, with no field unknown to inlay.
    pub complete: bool,
    /// What it reads.
    pub inputs: Vec<Edge>,
}

/// The operations that a result needs, each after its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    vertices: Vec<Vertex>,
    terminal: Edge,
}

/// Why a definition is no graph.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
pub enum GraphError {
    /// More than the limits allow.
    #[error("the definition has {got} {what}, more than {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        got: usize,
        /// How much there may be.
        limit: usize,
    },
    /// The definition is no protobuf message of its kind.
    #[error("the definition does not decode")]
    Definition(#[source] prost::DecodeError),
    /// An operation is no protobuf message of its kind.
    #[error("operation {op} does not decode")]
    Op {
        /// Digest of the operation.
        op: String,
        /// What the decoder says.
        #[source]
        source: prost::DecodeError,
    },
    /// There is no operation, or the last one does not name a result.
    #[error("the definition names no result")]
    NoResult,
    /// An operation reads the output of an operation that the definition does not have.
    #[error("input {input} of operation {op} is {missing}, which the definition does not have")]
    MissingInput {
        /// Digest of the operation.
        op: String,
        /// Number of the input.
        input: usize,
        /// Digest of what is missing.
        missing: String,
    },
    /// An operation reads an output with a negative number.
    #[error("input {input} of operation {op} is output {output}")]
    Output {
        /// Digest of the operation.
        op: String,
        /// Number of the input.
        input: usize,
        /// The number.
        output: i64,
    },
    /// An operation needs its own result.
    #[error("operation {op} needs its own result")]
    Loop {
        /// Digest of the operation.
        op: String,
    },
}

// === impl Vertex ===

impl Vertex {
    /// The identifier, if this is a source.
    pub fn source(&self) -> Option<&str> {
        match &self.op.op {
            Some(pb::op::Op::Source(source)) => Some(&source.identifier),
            _ => None,
        }
    }

    /// Whether this is an image that the definition pins by its digest.
    pub fn is_pinned_image(&self) -> bool {
        self.source().is_some_and(|id| {
            let reference = id.strip_prefix("docker-image://");
            let reference = reference.or_else(|| id.strip_prefix("oci-layout://"));
            reference.is_some_and(|reference| reference.contains('@'))
        })
    }

    /// Whether this is a source whose keys a daemon learns when it resolves it, such as an image by its
    /// tag, a URL or a branch. Directories of the client and pinned images are not.
    pub fn is_resolved(&self) -> bool {
        self.source().is_some() && !self.is_local() && !self.is_pinned_image()
    }

    /// Whether this is a directory of the client.
    pub fn is_local(&self) -> bool {
        self.source().is_some_and(|id| id.starts_with("local://"))
    }
}

// === impl Graph ===

impl Graph {
    /// Reads an encoded `pb.Definition`.
    pub fn parse(definition: &[u8], limits: &GraphLimits) -> Result<Self, GraphError> {
        check("bytes", definition.len(), limits.bytes)?;
        let definition = pb::Definition::decode(definition).map_err(GraphError::Definition)?;
        check("operations", definition.def.len(), limits.vertices)?;

        let mut ops = Vec::with_capacity(definition.def.len());
        let mut by_digest = HashMap::with_capacity(definition.def.len());
        let mut inputs = 0_usize;
        for bytes in &definition.def {
            let digest = Digest::of(bytes).to_string();
            let op = pb::Op::decode(bytes.as_slice()).map_err(|source| GraphError::Op {
                op: digest.clone(),
                source,
            })?;
            inputs = inputs.saturating_add(op.inputs.len());
            check("inputs", inputs, limits.inputs)?;
            // Go and prost write the same length for the same known fields (maps with empty
            // values apart, which only sources have), so a difference is a field dropped.
            let complete = op.encoded_len() == bytes.len();
            by_digest.insert(digest.clone(), ops.len());
            ops.push((digest, op, complete));
        }

        // The last operation does nothing: its first input is the result.
        let (digest, op, _) = ops.last().ok_or(GraphError::NoResult)?;
        let result = op.inputs.first().ok_or(GraphError::NoResult)?;
        let terminal = edge(&by_digest, digest, 0, result)?;

        let mut edges = Vec::with_capacity(ops.len());
        for (digest, op, _) in &ops {
            let list: Result<Vec<_>, _> = (op.inputs.iter().enumerate())
                .map(|(number, input)| edge(&by_digest, digest, number, input))
                .collect();
            edges.push(list?);
        }

        let (order, position) = inputs_first(&ops, &edges, terminal.vertex)?;
        let mut ops: Vec<_> = ops.into_iter().map(Some).collect();
        let placed = |edge: &Edge| Edge {
            vertex: position[edge.vertex],
            output: edge.output,
        };
        let vertices = (order.iter())
            .filter_map(|&index| {
                let (digest, op, complete) = ops[index].take()?;
                let inputs = edges[index].iter().map(placed).collect();
                Some(Vertex {
                    digest,
                    op,
                    complete,
                    inputs,
                })
            })
            .collect();
        Ok(Self {
            vertices,
            terminal: placed(&terminal),
        })
    }

    /// The operations that the result needs; inputs have a smaller index than what reads them.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// The result.
    pub fn terminal(&self) -> Edge {
        self.terminal
    }

    /// The outputs that are read, and the result.
    pub fn edges(&self) -> BTreeSet<Edge> {
        let inputs = self.vertices.iter().flat_map(|vertex| &vertex.inputs);
        inputs.copied().chain([self.terminal]).collect()
    }

    /// Whether there is something to cache: the last operation has inputs. A source has none, nor has an
    /// operation on an empty file system.
    pub fn has_cache(&self) -> bool {
        !self.vertices[self.terminal.vertex].inputs.is_empty()
    }
}

fn check(what: &'static str, got: usize, limit: usize) -> Result<(), GraphError> {
    if got > limit {
        return Err(GraphError::TooLarge { what, got, limit });
    }
    Ok(())
}

fn edge(
    by_digest: &HashMap<String, usize>,
    op: &str,
    number: usize,
    input: &pb::Input,
) -> Result<Edge, GraphError> {
    if input.index < 0 {
        return Err(GraphError::Output {
            op: op.to_owned(),
            input: number,
            output: input.index,
        });
    }
    match by_digest.get(&input.digest) {
        Some(&vertex) => Ok(Edge {
            vertex,
            output: input.index,
        }),
        None => Err(GraphError::MissingInput {
            op: op.to_owned(),
            input: number,
            missing: input.digest.clone(),
        }),
    }
}

/// The vertices that `terminal` needs, each after its inputs, and the place of each in that order.
/// Fails on a loop, which would need operations with colliding digests.
fn inputs_first(
    ops: &[(String, pb::Op, bool)],
    edges: &[Vec<Edge>],
    terminal: usize,
) -> Result<(Vec<usize>, Vec<usize>), GraphError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; ops.len()];
    let mut position = vec![0; ops.len()];
    let mut order = Vec::new();
    // Each open vertex with the number of its next input.
    let mut path = vec![(terminal, 0)];
    state[terminal] = State::Open;
    while let Some((vertex, next)) = path.pop() {
        let Some(input) = edges[vertex].get(next) else {
            state[vertex] = State::Done;
            position[vertex] = order.len();
            order.push(vertex);
            continue;
        };
        path.push((vertex, next + 1));
        match state[input.vertex] {
            State::Done => {}
            State::New => {
                state[input.vertex] = State::Open;
                path.push((input.vertex, 0));
            }
            State::Open => {
                return Err(GraphError::Loop {
                    op: ops[input.vertex].0.clone(),
                });
            }
        }
    }
    Ok((order, position))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Encodes ops that name their inputs by place; the result is the last one's output 0.
    pub(crate) fn encode(ops: Vec<(pb::op::Op, Vec<(usize, i64)>)>) -> Vec<u8> {
        let mut def: Vec<Vec<u8>> = Vec::new();
        let last = ops.len() - 1;
        let input = |def: &[Vec<u8>], at: usize, index| pb::Input {
            digest: Digest::of(&def[at]).to_string(),
            index,
        };
        for (op, inputs) in ops {
            let inputs = inputs.iter().map(|&(at, index)| input(&def, at, index));
            let op = pb::Op {
                inputs: inputs.collect(),
                op: Some(op),
                platform: Some(pb::Platform {
                    os: "linux".into(),
                    architecture: "amd64".into(),
                    ..Default::default()
                }),
                constraints: None,
            };
            def.push(op.encode_to_vec());
        }
        let end = pb::Op {
            inputs: vec![input(&def, last, 0)],
            ..Default::default()
        };
        def.push(end.encode_to_vec());
        let metadata = Default::default();
        pb::Definition { def, metadata }.encode_to_vec()
    }

    pub(crate) fn source(identifier: &str) -> pb::op::Op {
        pb::op::Op::Source(pb::SourceOp {
            identifier: identifier.into(),
            ..Default::default()
        })
    }

    pub(crate) fn exec(command: &str) -> pb::op::Op {
        pb::op::Op::Exec(pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec![command.into()],
                ..Default::default()
            }),
            mounts: vec![pb::Mount {
                dest: "/".into(),
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    #[test]
    fn inputs_come_first_and_what_the_result_does_not_need_is_left_out() {
        let bytes = encode(vec![
            (source("local://context"), vec![]),
            (source("local://unused"), vec![]),
            (exec("make"), vec![(0, 0)]),
        ]);
        let graph = Graph::parse(&bytes, &GraphLimits::default()).unwrap();
        assert_eq!(graph.vertices().len(), 2);
        assert!(graph.vertices()[0].is_local());
        assert_eq!(graph.vertices()[1].inputs[0].vertex, 0);
        assert_eq!(graph.terminal().vertex, 1);
        assert!(graph.vertices().iter().all(|vertex| vertex.complete));
    }

    #[test]
    fn an_unknown_field_is_noticed() {
        let mut op = pb::Op {
            op: Some(source("local://context")),
            ..Default::default()
        }
        .encode_to_vec();
        op.extend([0xd2, 0x07, 0x01, b'x']); // field 122, bytes "x"
        let end = pb::Op {
            inputs: vec![pb::Input {
                digest: Digest::of(&op).to_string(),
                index: 0,
            }],
            ..Default::default()
        };
        let definition = pb::Definition {
            def: vec![op, end.encode_to_vec()],
            metadata: Default::default(),
        };
        let graph = Graph::parse(&definition.encode_to_vec(), &GraphLimits::default()).unwrap();
        assert!(!graph.vertices()[0].complete);
    }

    #[test]
    fn broken_definitions_are_refused_by_name() {
        let parse = |def: Vec<Vec<u8>>| {
            let metadata = Default::default();
            let bytes = pb::Definition { def, metadata }.encode_to_vec();
            Graph::parse(&bytes, &GraphLimits::default()).unwrap_err()
        };
        assert_eq!(parse(vec![]), GraphError::NoResult);
        assert_eq!(parse(vec![vec![]]), GraphError::NoResult);
        let error = parse(vec![vec![0xff]]);
        assert!(error.to_string().contains(Digest::of(&[0xff]).as_str()));
        let end = |index| {
            pb::Op {
                inputs: vec![pb::Input {
                    digest: "sha256:none".into(),
                    index,
                }],
                ..Default::default()
            }
            .encode_to_vec()
        };
        assert!(matches!(
            parse(vec![end(0)]),
            GraphError::MissingInput { .. }
        ));
        assert!(matches!(parse(vec![end(-1)]), GraphError::Output { .. }));
    }

    #[test]
    fn limits_hold() {
        let bytes = encode(vec![
            (source("local://context"), vec![]),
            (exec("make"), vec![(0, 0)]),
        ]);
        for (what, limits) in [
            (
                "bytes",
                GraphLimits {
                    bytes: 10,
                    ..GraphLimits::default()
                },
            ),
            (
                "operations",
                GraphLimits {
                    vertices: 2,
                    ..GraphLimits::default()
                },
            ),
            (
                "inputs",
                GraphLimits {
                    inputs: 1,
                    ..GraphLimits::default()
                },
            ),
        ] {
            match Graph::parse(&bytes, &limits) {
                Err(GraphError::TooLarge { what: got, .. }) => assert_eq!(got, what),
                other => panic!("{other:?}"),
            }
        }
    }
}
