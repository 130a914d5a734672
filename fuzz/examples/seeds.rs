//! Writes the seeds of the target `image_cache`: definitions and exports that were recorded from
//! BuildKit v0.34.2 and v0.13.2 (`tests/llb/*.json`), as worlds.
//!
//! ```text
//! cargo run --manifest-path fuzz/Cargo.toml --example seeds
//! ```
//!
//! The recordings say which records have a result and not which layers it has, so here each has a
//! layer of its own, on that of its first source.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs;
use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use inlay::cache::llb::digest::{Dialect, edge_digest, input_keys, manifest_root};
use inlay::cache::llb::{Edge, Graph, GraphLimits};
use inlay::protocol::proto::pb;
use prost::Message as _;
use serde::Deserialize;
use targets::world::{Key, Layer, Record, Selector, World, hash, platform};

#[derive(Deserialize)]
struct Recording {
    definitions: BTreeMap<String, Vec<String>>,
    records: BTreeMap<String, Vec<Recorded>>,
}

#[derive(Deserialize)]
struct Recorded {
    digest: String,
    #[serde(default)]
    inputs: Vec<Vec<(String, usize)>>,
    #[serde(default)]
    result: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seeds = root.join("corpus-seed/image_cache");
    fs::create_dir_all(&seeds)?;
    for (file, export) in [
        ("coverage", "cold"),
        ("llb", "cold"),
        ("rerun", "rerun"),
        ("imported", "later"),
        ("shapes", "warm"),
        ("history", "warm"),
        ("v0.13-coverage", "cold"),
        ("v0.13-llb", "cold"),
    ] {
        let path = root.join(format!("../tests/llb/{file}.json"));
        let recording: Recording = serde_json::from_slice(&fs::read(path)?)?;
        let ops = recording.definitions[export].iter();
        let ops: Vec<_> = ops
            .map(|op| STANDARD.decode(op))
            .collect::<Result<_, _>>()?;
        let world = world(&ops, &recording.records[export])?;
        let bytes = world.write();
        assert_eq!(World::read(&bytes), world);
        fs::write(seeds.join(format!("{file}-{export}")), bytes)?;
    }
    Ok(())
}

fn world(ops: &[Vec<u8>], recorded: &[Recorded]) -> Result<World, Box<dyn Error>> {
    let (last, ops) = ops.split_last().ok_or("no operation")?;
    let places: HashMap<_, _> = ops
        .iter()
        .enumerate()
        .map(|(n, op)| (hash(op), n))
        .collect();
    let mut named = Vec::new();
    for op in ops {
        let mut op = pb::Op::decode(&op[..])?;
        for input in &mut op.inputs {
            input.digest = places[&input.digest].to_string();
        }
        named.push(op.encode_to_vec());
    }
    // The result is the last one's.
    let result = pb::Op::decode(&last[..])?.inputs.remove(0).digest;
    assert_eq!(places[&result], ops.len() - 1);

    let definition = pb::Definition {
        def: [ops, &[last.clone()]].concat(),
        ..Default::default()
    };
    let graph = Graph::parse(&definition.encode_to_vec(), &GraphLimits::default())?;
    let keys = keys(&graph, &places);
    let mut world = World {
        ops: named,
        ..Default::default()
    };
    let mut others = HashMap::new();
    let mut number = |text: &str| {
        let next = others.len() as u8 + 2;
        *others.entry(text.to_owned()).or_insert(next)
    };
    for record in recorded {
        let (key, vertex) = match keys.get(&record.digest) {
            Some((key, vertex)) => (*key, Some(*vertex)),
            None if record.inputs.is_empty() => (Key::Content(number(&record.digest)), None),
            None => (Key::Other(number(&record.digest)), None),
        };
        let own = vertex.and_then(|vertex| input_keys(&graph.vertices()[vertex]));
        let inputs = record.inputs.iter().enumerate().map(|(input, links)| {
            let own = own.as_ref().and_then(|keys| keys.get(input));
            let links = links.iter().map(|(selector, source)| {
                let selector = match &**selector {
                    "" => Selector::Empty,
                    text if own.is_some_and(|key| key.selector == text) => Selector::Own,
                    text => Selector::Other(number(text)),
                };
                (selector, *source as u8)
            });
            links.collect()
        });
        world.records.push(Record {
            key,
            result: Vec::new(),
            inputs: inputs.collect(),
        });
    }
    for record in 0..recorded.len() {
        layer(&mut world, recorded, record);
    }
    Ok(world)
}

/// The keys of the definition, with the vertex of each.
fn keys(graph: &Graph, places: &HashMap<String, usize>) -> HashMap<String, (Key, usize)> {
    let mut keys = HashMap::new();
    for (vertex, op) in graph.vertices().iter().enumerate() {
        let place = places[&op.digest] as u8;
        if let Some(root) = manifest_root(op, Some(&platform())) {
            keys.insert(root.to_string(), (Key::Manifest(place), vertex));
        }
        for (dialect, output) in Dialect::ALL.into_iter().flat_map(|d| [(d, 0), (d, 1)]) {
            let edge = Edge { vertex, output };
            let digest = edge_digest(graph, edge, Some(&platform()), dialect);
            let key = Key::Edge(place, output as u8, dialect == Dialect::Gogo);
            keys.extend(digest.map(|digest| (digest.to_string(), (key, vertex))));
        }
    }
    keys
}

/// Gives a record that has a result its layer, after those of its sources.
fn layer(world: &mut World, recorded: &[Recorded], record: usize) -> Option<u8> {
    if let [layer] = world.records[record].result[..] {
        return Some(layer);
    }
    let links = recorded[record].inputs.iter().flatten();
    let below: Vec<_> = links
        .map(|(_, source)| layer(world, recorded, *source))
        .collect();
    let below = below.into_iter().flatten().next();
    if !recorded[record].result {
        return below;
    }
    let number = world.layers.len() as u8;
    world.layers.push(Layer {
        blob: number,
        parent: below.unwrap_or(u8::MAX),
        diff_id: number + 1,
    });
    world.records[record].result.push(number);
    Some(number)
}
