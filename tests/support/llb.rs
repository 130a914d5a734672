//! LLB definitions, for what no Dockerfile says.

use std::collections::BTreeMap;

use inlay::cache::record::Digest;
use inlay::protocol::proto::pb::{
    self, DiffOp, ExecOp, FileAction, FileActionCopy, FileOp, Input, LowerDiffInput, MergeInput,
    MergeOp, Meta, Mount, Op, OpMetadata, Platform, SourceOp, UpperDiffInput, file_action, op,
};
use prost::Message as _;

use super::platform::own_architecture;

/// No input, or no output.
const NONE: i64 = -1;

/// A definition in the making.
#[derive(Debug, Default)]
pub struct Llb {
    definition: pb::Definition,
}

/// One output of an operation.
#[derive(Clone, Debug)]
pub struct State {
    digest: String,
    index: i64,
}

// === impl Llb ===

impl Llb {
    /// An image of a registry.
    pub fn image(&mut self, name: &str) -> State {
        self.source(&format!("docker-image://{name}"))
    }

    /// The client's directory of that name.
    pub fn local(&mut self, name: &str) -> State {
        self.source(&format!("local://{name}"))
    }

    /// A copy of a path to the root of another state, or of nothing.
    pub fn copy(&mut self, from: &State, path: &str, onto: Option<&State>) -> State {
        let mut inputs: Vec<_> = onto.into_iter().collect();
        let input = onto.map_or(NONE, |_| 0);
        // An operation names an input once.
        let same = onto.is_some_and(|onto| onto.digest == from.digest && onto.index == from.index);
        if !same {
            inputs.push(from);
        }
        let copy = FileActionCopy {
            src: path.to_owned(),
            dest: "/".to_owned(),
            mode: -1,
            timestamp: -1,
            create_dest_path: true,
            ..Default::default()
        };
        let action = FileAction {
            input,
            secondary_input: inputs.len() as i64 - 1,
            output: 0,
            action: Some(file_action::Action::Copy(copy)),
        };
        let actions = vec![action];
        let name = format!("[llb] copy {path}");
        self.add(&inputs, op::Op::File(FileOp { actions }), &name)
    }

    /// The layers of several states in a row.
    pub fn merge(&mut self, states: &[&State]) -> State {
        let inputs = (0..states.len() as i64).map(|input| MergeInput { input });
        let inputs = inputs.collect();
        self.add(states, op::Op::Merge(MergeOp { inputs }), "[llb] merge")
    }

    /// What a state has more than another one.
    pub fn diff(&mut self, lower: &State, upper: &State) -> State {
        let diff = DiffOp {
            lower: Some(LowerDiffInput { input: 0 }),
            upper: Some(UpperDiffInput { input: 1 }),
        };
        self.add(&[lower, upper], op::Op::Diff(diff), "[llb] diff")
    }

    /// A shell command on a state that leaves its root and the directory `/second`; the two outputs.
    pub fn run(&mut self, root: &State, command: &str) -> [State; 2] {
        let mount = |input, dest: &str, output| Mount {
            input,
            dest: dest.to_owned(),
            output,
            ..Default::default()
        };
        let exec = ExecOp {
            meta: Some(Meta {
                args: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
                cwd: "/".to_owned(),
                ..Default::default()
            }),
            mounts: vec![mount(0, "/", 0), mount(NONE, "/second", 1)],
            ..Default::default()
        };
        let name = format!("[llb] run {command}");
        let first = self.add(&[root], op::Op::Exec(exec), &name);
        let second = State {
            index: 1,
            ..first.clone()
        };
        [first, second]
    }

    /// The marshalled definition of a state, as `buildctl build` reads it from standard input.
    pub fn marshal(mut self, state: &State) -> Vec<u8> {
        let last = Op {
            inputs: vec![state.input()],
            ..Default::default()
        };
        self.definition.def.push(last.encode_to_vec());
        self.definition.encode_to_vec()
    }

    fn source(&mut self, identifier: &str) -> State {
        let source = SourceOp {
            identifier: identifier.to_owned(),
            ..Default::default()
        };
        self.add(&[], op::Op::Source(source), identifier)
    }

    fn add(&mut self, inputs: &[&State], op: op::Op, name: &str) -> State {
        let op = Op {
            inputs: inputs.iter().map(|state| state.input()).collect(),
            platform: Some(Platform {
                os: "linux".to_owned(),
                architecture: own_architecture().to_owned(),
                ..Default::default()
            }),
            op: Some(op),
            ..Default::default()
        };
        let encoded = op.encode_to_vec();
        let digest = Digest::of(&encoded).to_string();
        if !self.definition.def.contains(&encoded) {
            self.definition.def.push(encoded);
        }
        let description = BTreeMap::from([("llb.customname".to_owned(), name.to_owned())]);
        let metadata = OpMetadata {
            description,
            ..Default::default()
        };
        self.definition.metadata.insert(digest.clone(), metadata);
        State { digest, index: 0 }
    }
}

// === impl State ===

impl State {
    fn input(&self) -> Input {
        Input {
            digest: self.digest.clone(),
            index: self.index,
        }
    }
}
