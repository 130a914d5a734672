//! A notice: an operation of inlay's own whose name is a message to the user.
//!
//! The progress of a build shows each of its operations by name, in any form of output. This one
//! makes an empty directory, on nothing, and nothing depends on it.

use prost::Message as _;

use super::definition::of_one;
use crate::cache::record::Digest;
use crate::protocol::proto::pb::{self, file_action::Action, op::Op};

/// The description of a vertex that clients show.
const CUSTOM_NAME: &str = "llb.customname";

/// An operation that says something.
#[derive(Debug)]
pub struct Notice {
    /// Its definition, encoded.
    pub definition: Vec<u8>,
    /// The digest of its vertex.
    pub vertex: String,
}

/// An operation with this text as its name. Another text makes another operation, since the daemon shows
/// one name for equal operations of several builds. The same text makes the same operation. To say it
/// again leaves nothing more in the daemon.
pub fn notice(text: &str) -> Notice {
    const NONE: i64 = -1;
    let directory = pb::FileActionMkDir {
        path: format!(
            "/inlay-{}",
            Digest::of(text.as_bytes()).as_str().replace(':', "-")
        ),
        mode: 0o755,
        timestamp: NONE,
        ..Default::default()
    };
    let (mut definition, vertex) = of_one(Op::File(pb::FileOp {
        actions: vec![pb::FileAction {
            input: NONE,
            secondary_input: NONE,
            output: 0,
            action: Some(Action::Mkdir(directory)),
        }],
    }));
    let name = pb::OpMetadata {
        description: [(CUSTOM_NAME.to_owned(), text.to_owned())].into(),
        ..Default::default()
    };
    definition.metadata.insert(vertex.clone(), name);
    Notice {
        definition: definition.encode_to_vec(),
        vertex,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::llb::{Graph, GraphLimits};

    #[test]
    fn a_notice_is_one_operation_with_its_name() {
        let notice_of_text = notice("text").definition;
        let graph = Graph::parse(&notice_of_text, &GraphLimits::default()).unwrap();
        let [vertex] = graph.vertices() else {
            panic!("{graph:?}")
        };
        let definition = pb::Definition::decode(&*notice_of_text).unwrap();
        let description = &definition.metadata[&vertex.digest].description;
        assert_eq!(description[CUSTOM_NAME], "text");
        let other = Graph::parse(&notice("other").definition, &GraphLimits::default()).unwrap();
        assert_ne!(vertex.digest, other.vertices()[0].digest);
    }
}
