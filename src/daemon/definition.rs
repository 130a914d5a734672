//! Definitions of inlay's own that have one operation.

use prost::Message as _;

use crate::cache::record::Digest;
use crate::protocol::proto::pb::{self, op::Op};

/// The definition of an operation without inputs, and the digest of its vertex.
pub(super) fn of_one(op: Op) -> (pb::Definition, String) {
    let op = pb::Op {
        op: Some(op),
        ..Default::default()
    };
    let op = op.encode_to_vec();
    let vertex = Digest::of(&op).to_string();
    let result = pb::Op {
        inputs: vec![pb::Input {
            digest: vertex.clone(),
            index: 0,
        }],
        ..Default::default()
    };
    let definition = pb::Definition {
        def: vec![op, result.encode_to_vec()],
        ..Default::default()
    };
    (definition, vertex)
}
