//! Has the daemon ask a registry for an image.

use prost::Message as _;

use super::definition::of_one;
use super::{Daemon, new_id};
use crate::protocol::proto::control::SolveRequest;
use crate::protocol::proto::pb::{self, op::Op};

// === impl Daemon ===

impl Daemon {
    /// Has the daemon ask a registry for an image, by a solve of inlay's own that reads no layer. Ends
    /// once the registry has answered anything, or cannot be reached. The daemon asks `session` for a
    /// login; it may be empty.
    pub async fn ask_for_image(&self, image: &str, session: &str) {
        let (definition, _) = of_one(Op::Source(pb::SourceOp {
            identifier: format!("docker-image://{image}"),
            ..Default::default()
        }));
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
