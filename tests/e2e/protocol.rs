//! The definitions in `proto/` against the protocols that the real peers are built from: their
//! modules' own descriptors, as `tests/clients/descriptors` writes them.

use std::collections::HashMap;
use std::process::Command;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::support::Peers;

/// What `build.rs` compiled.
const OURS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// All definitions of a set, by full name.
#[derive(Default)]
struct Definitions {
    messages: HashMap<String, DescriptorProto>,
    enums: HashMap<String, EnumDescriptorProto>,
    /// Input, output, and whether each is a stream.
    methods: HashMap<String, (String, String, bool, bool)>,
}

impl Definitions {
    fn read(encoded: &[u8]) -> Self {
        let mut all = Self::default();
        for file in FileDescriptorSet::decode(encoded)
            .expect("descriptors")
            .file
        {
            let package = file.package().to_owned();
            for message in file.message_type {
                all.message(&package, message);
            }
            for one in file.enum_type {
                all.enums.insert(format!("{package}.{}", one.name()), one);
            }
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{package}.{}/{}", service.name(), method.name());
                    let streams = (method.client_streaming(), method.server_streaming());
                    let types = (
                        method.input_type().to_owned(),
                        method.output_type().to_owned(),
                    );
                    all.methods
                        .insert(name, (types.0, types.1, streams.0, streams.1));
                }
            }
        }
        all
    }

    fn message(&mut self, scope: &str, message: DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            self.message(&name, nested.clone());
        }
        self.messages.insert(name, message);
    }
}

fn upstream() -> Definitions {
    let program = Peers::locate().descriptors();
    let output = Command::new(&program)
        .output()
        .expect("descriptors of the peers");
    assert!(
        output.status.success(),
        "{program:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Definitions::read(&output.stdout)
}

/// Why a field of ours is not upstream's, if it is not.
fn difference(ours: &FieldDescriptorProto, theirs: &FieldDescriptorProto) -> Option<String> {
    // proto/ spells all names in one style; on the wire there are none.
    let name = |field: &FieldDescriptorProto| field.name().replace('_', "").to_lowercase();
    let repeated = |field: &FieldDescriptorProto| field.label() == Label::Repeated;
    // A message that is only forwarded is bytes here, and so is text that need not be UTF-8: the
    // same on the wire.
    let opaque =
        ours.r#type() == Type::Bytes && matches!(theirs.r#type(), Type::Message | Type::String);
    if name(ours) != name(theirs) {
        Some(format!("is called {} upstream", theirs.name()))
    } else if repeated(ours) != repeated(theirs) {
        Some("differs in being repeated".to_owned())
    } else if ours.r#type() != theirs.r#type() && !opaque {
        Some(format!(
            "is {:?}, and upstream {:?}",
            ours.r#type(),
            theirs.r#type()
        ))
    } else if ours.type_name() != theirs.type_name() && !opaque {
        Some(format!(
            "is {}, and upstream {}",
            ours.type_name(),
            theirs.type_name()
        ))
    } else {
        None
    }
}

#[test]
fn every_field_and_method_is_that_of_the_real_peers() {
    let (ours, theirs) = (Definitions::read(OURS), upstream());
    let mut differences = Vec::new();
    let mut compared = 0;
    for (name, message) in &ours.messages {
        // google.protobuf.Empty has no fields, and so has ours.
        if name == "containerd.services.content.v1.Empty" {
            assert!(message.field.is_empty());
            continue;
        }
        let Some(upstream) = theirs.messages.get(name) else {
            differences.push(format!("message {name} is not upstream"));
            continue;
        };
        for field in &message.field {
            let found = upstream
                .field
                .iter()
                .find(|other| other.number() == field.number());
            let difference = match found {
                None => Some("is not upstream".to_owned()),
                Some(found) => difference(field, found),
            };
            let number = field.number();
            differences.extend(difference.map(|text| format!("{name} field {number} {text}")));
            compared += 1;
        }
    }
    for (name, one) in &ours.enums {
        let values = |one: &EnumDescriptorProto| -> Vec<(String, i32)> {
            one.value
                .iter()
                .map(|value| (value.name().to_owned(), value.number()))
                .collect()
        };
        if theirs.enums.get(name).map(values) != Some(values(one)) {
            differences.push(format!("enum {name} has other values upstream"));
        }
    }
    for (name, method) in &ours.methods {
        let mut method = method.clone();
        for kind in [&mut method.0, &mut method.1] {
            if kind == ".containerd.services.content.v1.Empty" {
                *kind = ".google.protobuf.Empty".to_owned();
            }
        }
        if theirs.methods.get(name) != Some(&method) {
            differences.push(format!("method {name} is another upstream"));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(compared > 200, "only {compared} fields were compared");
    assert!(
        ours.methods.len() > 10,
        "only {} methods were compared",
        ours.methods.len()
    );
}
