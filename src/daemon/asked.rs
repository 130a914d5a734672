//! Has the daemon ask a registry for an image.

use prost::Message as _;

use super::{Daemon, new_id};
use crate::cache::record::Digest;
use crate::protocol::proto::control::SolveRequest;
use crate::protocol::proto::pb::{self, op::Op};

// === impl Daemon ===

impl Daemon {
    /// Has the daemon ask a registry for an image, by a solve of inlay's own that reads no layer. Ends
    /// once the registry has answered anything, or cannot be reached. The daemon asks `session` for a
    /// login; it may be empty.
    pub async fn ask_for_image(&self, image: &str, session: &str) {
        let source = pb::Op {
            op: Some(Op::Source(pb::SourceOp {
                identifier: format!("docker-image://{image}"),
                ..Default::default()
            })),
            ..Default::default()
        };
        let source = source.encode_to_vec();
        let result = pb::Op {
            inputs: vec![pb::Input {
                digest: Digest::of(&source).to_string(),
                index: 0,
            }],
            ..Default::default()
        };
        let definition = pb::Definition {
            def: vec![source, result.encode_to_vec()],
            ..Default::default()
        };
        let request = SolveRequest {
            r#ref: new_id(),
            session: session.to_owned(),
            definition: Some(definition.encode_to_vec().into()),
            internal: true,
            ..Default::default()
        };
        // Whether there is such an image does not matter.
        let _ = self.hold_solve().send(request).await;
    }
}
