//! A build and the export of its cache, in symbols.
//!
//! A definition names operations by the hash of their bytes, and an export names records by hashes
//! of hashes: change one byte and nothing fits any more. So the input of the fuzz target `image_cache`
//! has symbols for them, and the hashes are computed when it is read. Any bytes are a world, and
//! what is real can be written as one (`examples/seeds.rs`).

use std::collections::HashMap;

use inlay::cache::export::Exported;
use inlay::cache::llb::digest::{Dialect, content_root, edge_digest, input_keys, manifest_root};
use inlay::cache::llb::{Edge, Graph, GraphLimits, Vertex};
use inlay::cache::record;
use inlay::protocol::proto::pb;
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What stands between two parts, each an operation, a layer, a record or the answer. It does not
/// occur by chance, and what is put in or taken out in one part leaves the others as they are.
const BETWEEN: [u8; 3] = [0xfe, 0xff, 0xfe];

/// A build and its export.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    /// Encoded operations; each input's digest is the number of an operation before, as text.
    pub ops: Vec<Vec<u8>>,
    /// The layers of results.
    pub layers: Vec<Layer>,
    /// The records of the export.
    pub records: Vec<Record>,
    /// What is answered to a probe: the record that is the root, for each input.
    pub answer: Vec<u8>,
}

/// A layer of the export.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// Its blob.
    pub blob: u8,
    /// The layer below; if there is no such layer, none.
    pub parent: u8,
    /// Its diff ID; none if it is 0.
    pub diff_id: u8,
}

/// A record of the export.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What its digest is made of.
    pub key: Key,
    /// Its result: a topmost layer, or layers one by one.
    pub result: Vec<u8>,
    /// Its inputs: for each source the selector and the record.
    pub inputs: Vec<Vec<(Selector, u8)>>,
}

/// What the digest of a record is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Key {
    /// An operation and the number of its output, as one or the other version of BuildKit has it.
    Edge(u8, u8, bool),
    /// Content.
    Content(u8),
    /// The manifest of the image that an operation names.
    Manifest(u8),
    /// Something else.
    Other(u8),
    /// What has no place in a cache.
    Random(u8),
}

/// The selector of a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Selector {
    /// None.
    Empty,
    /// That which the operation has for the input.
    Own,
    /// Another.
    Other(u8),
}

// === reading and writing ===

/// Bytes to come; beyond the last there are zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }
}

impl World {
    /// Reads a world; any bytes are one.
    pub fn read(mut bytes: &[u8]) -> Self {
        let mut world = Self::default();
        while !bytes.is_empty() {
            let end = bytes.windows(BETWEEN.len()).position(|w| w == BETWEEN);
            let part = &bytes[..end.unwrap_or(bytes.len())];
            bytes = end.map_or(&[], |end| &bytes[end + BETWEEN.len()..]);
            let Some((kind, part)) = part.split_first() else {
                continue;
            };
            let mut part = Bytes(part);
            match kind {
                b'o' => world.ops.push(part.0.to_vec()),
                b'l' => world.layers.push(Layer {
                    blob: part.next(),
                    parent: part.next(),
                    diff_id: part.next(),
                }),
                b'r' => world.records.push(Record::read(&mut part)),
                b'a' => world.answer = part.0.to_vec(),
                _ => {}
            }
        }
        // A number has one byte.
        world.records.truncate(256);
        world.layers.truncate(256);
        world
    }

    /// Writes it so that reading gives it back.
    pub fn write(&self) -> Vec<u8> {
        let ops = self.ops.iter().map(|op| [b"o", &op[..]].concat());
        let layers = self.layers.iter();
        let layers = layers.map(|layer| vec![b'l', layer.blob, layer.parent, layer.diff_id]);
        let records = self.records.iter().map(Record::write);
        let answer = [b"a", &self.answer[..]].concat();
        let parts: Vec<_> = ops.chain(layers).chain(records).chain([answer]).collect();
        parts.join(&BETWEEN[..])
    }
}

impl Record {
    fn read(bytes: &mut Bytes<'_>) -> Self {
        let key = match bytes.next() % 6 {
            kind @ 0..=1 => Key::Edge(bytes.next(), bytes.next(), kind == 1),
            2 => Key::Content(bytes.next()),
            3 => Key::Manifest(bytes.next()),
            4 => Key::Other(bytes.next()),
            _ => Key::Random(bytes.next()),
        };
        let result = (0..bytes.next() % 16).map(|_| bytes.next()).collect();
        let inputs = 0..bytes.next() % 16;
        let inputs = inputs.map(|_| {
            let links = 0..bytes.next() % 32;
            let links = links.map(|_| {
                let selector = match bytes.next() {
                    0 => Selector::Empty,
                    1 => Selector::Own,
                    other => Selector::Other(other),
                };
                (selector, bytes.next())
            });
            links.collect()
        });
        Self {
            key,
            result,
            inputs: inputs.collect(),
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut out = vec![b'r'];
        match self.key {
            Key::Edge(op, output, gogo) => out.extend([gogo.into(), op, output]),
            Key::Content(n) => out.extend([2, n]),
            Key::Manifest(op) => out.extend([3, op]),
            Key::Other(n) => out.extend([4, n]),
            Key::Random(n) => out.extend([5, n]),
        }
        out.push(self.result.len() as u8);
        out.extend(&self.result);
        out.push(self.inputs.len() as u8);
        for links in &self.inputs {
            out.push(links.len() as u8);
            for (selector, record) in links {
                let selector = match selector {
                    Selector::Empty => 0,
                    Selector::Own => 1,
                    Selector::Other(n) => *n,
                };
                out.extend([selector, *record]);
            }
        }
        out
    }
}

// === what it stands for ===

/// The platform of the daemon.
pub fn platform() -> pb::Platform {
    pb::Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        ..Default::default()
    }
}

/// The digest of bytes.
pub fn hash(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    format!("sha256:{hex}")
}

/// A digest that nothing has but what has the same name.
fn name(kind: &str, n: u8) -> String {
    content_root(&record::Digest::of(format!("{kind} {n}").as_bytes())).to_string()
}

/// The records and layers to which others lead by number, in another order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they are written.
    Given,
    /// From the last to the first.
    Reversed,
}

impl Order {
    fn place(self, n: usize, count: usize) -> usize {
        match self {
            Self::Given => n,
            Self::Reversed => count - 1 - n,
        }
    }

    fn of(self, mut values: Vec<Value>) -> Vec<Value> {
        if self == Self::Reversed {
            values.reverse();
        }
        values
    }
}

impl World {
    /// The encoded definition; its result is the last operation's.
    pub fn definition(&self, order: Order) -> Vec<u8> {
        let mut def: Vec<Vec<u8>> = Vec::new();
        let mut digests: Vec<String> = Vec::new();
        for bytes in &self.ops {
            let mut op = pb::Op::decode(&bytes[..]).unwrap_or_default();
            op.inputs.retain_mut(|input| {
                let source = input.digest.parse::<usize>().unwrap_or_default();
                let source = digests.get(source % digests.len().max(1));
                source
                    .map(|source| input.digest.clone_from(source))
                    .is_some()
            });
            let bytes = op.encode_to_vec();
            digests.push(hash(&bytes));
            def.push(bytes);
        }
        let result = digests.pop().map(|digest| pb::Input { digest, index: 0 });
        if order == Order::Reversed {
            def.reverse();
        }
        def.push(
            pb::Op {
                inputs: result.into_iter().collect(),
                ..Default::default()
            }
            .encode_to_vec(),
        );
        pb::Definition {
            def,
            ..Default::default()
        }
        .encode_to_vec()
    }

    /// Computes what the symbols stand for.
    pub fn laid_out(&self) -> Export<'_> {
        let definition = self.definition(Order::Given);
        let graph = Graph::parse(&definition, &GraphLimits::default()).ok();
        let vertices = graph.as_ref().map(Graph::vertices).unwrap_or_default();
        let numbers = vertices.iter().enumerate();
        let numbers: HashMap<_, _> = numbers.map(|(n, v)| (&*v.digest, n)).collect();
        let definition = pb::Definition::decode(&definition[..]).unwrap_or_default();
        let ops = definition.def.iter();
        let vertices = ops.map(|op| numbers.get(&*hash(op)).copied()).collect();
        let mut export = Export {
            world: self,
            graph,
            vertices,
            digests: Vec::new(),
        };
        export.digests = self.records.iter().map(|r| export.digest(r.key)).collect();
        export
    }
}

/// The export of a world's cache.
pub struct Export<'a> {
    world: &'a World,
    graph: Option<Graph>,
    /// The vertex of each operation that the result needs.
    vertices: Vec<Option<usize>>,
    /// The digest of each record.
    digests: Vec<String>,
}

impl Export<'_> {
    fn vertex(&self, op: u8) -> Option<&Vertex> {
        let vertex = (*self.vertices.get(usize::from(op))?)?;
        self.graph.as_ref()?.vertices().get(vertex)
    }

    fn digest(&self, key: Key) -> String {
        let known = match key {
            Key::Edge(op, output, gogo) => self.vertices.get(usize::from(op)).and_then(|vertex| {
                let edge = Edge {
                    vertex: (*vertex)?,
                    output: output.into(),
                };
                let dialect = if gogo {
                    Dialect::Gogo
                } else {
                    Dialect::Current
                };
                let digest = edge_digest(self.graph.as_ref()?, edge, Some(&platform()), dialect)?;
                Some(digest.to_string())
            }),
            Key::Manifest(op) => {
                let vertex = self.vertex(op);
                let root = vertex.and_then(|vertex| manifest_root(vertex, Some(&platform())));
                root.map(|root| root.to_string())
            }
            Key::Random(n) => Some(name("random", n).replace("sha256:", "random:")),
            Key::Content(_) | Key::Other(_) => None,
        };
        known.unwrap_or_else(|| match key {
            Key::Content(n) => name("content", n),
            Key::Edge(n, ..) | Key::Manifest(n) | Key::Other(n) | Key::Random(n) => {
                name("other", n)
            }
        })
    }

    /// What the daemon writes.
    pub fn exported(&self, order: Order) -> Exported {
        let World {
            layers, records, ..
        } = self.world;
        let place = |n: u8, count: usize| match count {
            0 => 0,
            count => order.place(usize::from(n) % count, count),
        };
        let record_json = |(record, digest): (&Record, &String)| {
            let keys = match record.key {
                Key::Edge(op, ..) => self.vertex(op).and_then(input_keys),
                _ => None,
            };
            let keys = keys.unwrap_or_default();
            let inputs = record.inputs.iter().enumerate().map(|(input, links)| {
                let link = |(selector, source): &(Selector, u8)| {
                    let selector = match selector {
                        Selector::Empty => String::new(),
                        Selector::Own => keys.get(input).map_or("", |key| &key.selector).to_owned(),
                        Selector::Other(n) => name("selector", *n),
                    };
                    json!({"selector": selector, "link": place(*source, records.len())})
                };
                order.of(links.iter().map(link).collect())
            });
            let inputs: Vec<_> = inputs.collect();
            let mut value = json!({"digest": digest, "inputs": inputs});
            let chain = record.result.iter().map(|n| place(*n, layers.len()));
            match &chain.collect::<Vec<_>>()[..] {
                [] => {}
                [top] => value["layers"] = json!([{"layer": top}]),
                chain => value["chains"] = json!([{"layers": chain}]),
            }
            value
        };
        let layer_json = |layer: &Layer| {
            let parent = usize::from(layer.parent);
            let parent = (parent < layers.len()).then(|| place(layer.parent, layers.len()) as i64);
            json!({"blob": name("blob", layer.blob), "parent": parent.unwrap_or(-1)})
        };
        let config = json!({
            "layers": order.of(layers.iter().map(layer_json).collect()),
            "records": order.of(records.iter().zip(&self.digests).map(record_json).collect()),
        });
        let parse = |digest: String| digest.parse::<record::Digest>().expect("a digest");
        let known = layers.iter().filter(|layer| layer.diff_id != 0);
        let diff_ids = known.map(|layer| {
            let diff_id = name("diff", layer.diff_id);
            (parse(name("blob", layer.blob)), parse(diff_id))
        });
        Exported {
            config: config.to_string().into(),
            diff_ids: diff_ids.collect(),
        }
    }

    /// What the daemon writes for a probe of so many contents and, merged with them, sources.
    pub fn answer(&self, contents: usize, resolved: Option<usize>) -> Exported {
        let mut records = Vec::new();
        let mut numbers = 0..;
        let mut links_to_roots = |records: &mut Vec<_>, count| {
            let root = |n: usize| {
                let record = self.world.answer.get(n).copied().unwrap_or_default();
                // Nothing was exported, and the daemon may be asked all the same.
                let number = usize::from(record).checked_rem(self.digests.len());
                let digest = number.map_or_else(|| name("root", 0), |n| self.digests[n].clone());
                records.push(json!({"digest": digest}));
                json!([{"link": records.len() - 1}])
            };
            numbers.by_ref().take(count).map(root).collect::<Vec<_>>()
        };
        let links = links_to_roots(&mut records, contents);
        records.push(json!({"digest": name("probe", 0), "inputs": links}));
        if let Some(resolved) = resolved {
            let file = records.len() - 1;
            let mut links = links_to_roots(&mut records, resolved);
            links.insert(0, json!([{"link": file}]));
            records.push(json!({"digest": name("merge", 0), "inputs": links}));
        }
        Exported {
            config: json!({"records": records}).to_string().into(),
            diff_ids: HashMap::new(),
        }
    }
}
