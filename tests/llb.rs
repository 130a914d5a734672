//! What `inlay::cache::llb` computes, against definitions and cache exports recorded from BuildKit v0.34.2
//! and v0.13.2 (`tests/llb/*.json`: the operations of a definition in base64, and the records of
//! the exports made of it, a link as `[selector, record]`).
#![allow(clippy::unwrap_used)] // the helpers of tests may panic

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use inlay::{
    cache::llb::{
        Assumptions, Evidence, Graph, GraphLimits, Lineage,
        derive::derive,
        digest::{self, Dialect},
    },
    cache::record::{self, Digest, Link, RecordSet},
    protocol::proto::pb::{self, op::Op},
};
use prost::Message as _;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Fixture {
    definitions: BTreeMap<String, Vec<String>>,
    records: BTreeMap<String, Vec<Record>>,
    /// Whether the daemon has several keys of an image.
    #[serde(default)]
    is_old: bool,
}

#[derive(Deserialize)]
struct Record {
    digest: String,
    #[serde(default)]
    inputs: Vec<Vec<(String, usize)>>,
    #[serde(default)]
    result: bool,
}

impl Fixture {
    fn read(name: &str) -> Self {
        let path = format!("{}/tests/llb/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let mut fixture: Self = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        fixture.is_old = name.starts_with("v0.13");
        fixture
    }

    fn graph(&self, name: &str) -> Graph {
        let def = self.definitions[name].iter();
        let def = def.map(|op| STANDARD.decode(op).unwrap()).collect();
        let metadata = Default::default();
        let bytes = pb::Definition { def, metadata }.encode_to_vec();
        Graph::parse(&bytes, &GraphLimits::default()).unwrap()
    }

    fn export(&self, name: &str) -> RecordSet {
        let link =
            |(selector, record): &(String, usize)| json!({"selector": selector, "link": record});
        let records = self.records[name].iter().map(|record| {
            let inputs = record.inputs.iter();
            let inputs = inputs.map(|links| links.iter().map(link).collect());
            json!({"digest": record.digest, "inputs": inputs.collect::<Vec<Vec<_>>>()})
        });
        let config = json!({"records": records.collect::<Vec<_>>()}).to_string();
        RecordSet::parse(config.as_bytes(), &record::Limits::default()).unwrap()
    }

    /// The links that a lineage drops: record, input and source.
    fn dropped(&self, name: &str, lineage: &Lineage) -> Vec<(usize, usize, usize)> {
        let mut dropped = Vec::new();
        for (number, record) in self.records[name].iter().enumerate() {
            for (input, links) in record.inputs.iter().enumerate() {
                let mut links = links.clone();
                links.retain(|link| !lineage.keeps(number, input, &to_link(link)));
                dropped.extend(links.into_iter().map(|(_, source)| (number, input, source)));
            }
        }
        dropped
    }

    fn trace(&self, name: &str, evidence: &Evidence) -> Lineage {
        let (graph, export) = (self.graph(name), self.export(name));
        let assumptions = Assumptions {
            images_by_manifest: !self.is_old,
            ..Assumptions::default()
        };
        Lineage::trace(&graph, &export, evidence, &assumptions).unwrap()
    }

    /// What is left of an export, each record as a text that holds all that it comes from.
    fn left(&self, name: &str, lineage: &Lineage) -> Vec<String> {
        let records = &self.records[name];
        let used: Vec<usize> = (records.iter().flat_map(|record| &record.inputs))
            .flatten()
            .map(|(_, source)| *source)
            .collect();
        let mut texts = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            if !used.contains(&index) && !record.inputs.is_empty() {
                text(records, lineage, index, &mut texts);
            }
        }
        let mut left: Vec<_> = texts.into_values().collect();
        left.sort();
        left
    }
}

fn to_link((selector, record): &(String, usize)) -> Link {
    Link {
        selector: selector.as_str().into(),
        record: *record,
    }
}

fn text(
    records: &[Record],
    lineage: &Lineage,
    index: usize,
    texts: &mut BTreeMap<usize, String>,
) -> String {
    if let Some(known) = texts.get(&index) {
        return known.clone();
    }
    let record = &records[index];
    let mut out = format!("{} {}", &record.digest[7..15], record.result);
    for (input, links) in record.inputs.iter().enumerate() {
        let keeps = |link: &&(String, usize)| lineage.keeps(index, input, &to_link(link));
        let mut links: Vec<_> = (links.iter().filter(keeps))
            .map(|(selector, source)| {
                format!("{selector}>{}", text(records, lineage, *source, texts))
            })
            .collect();
        links.sort();
        out += &format!("({})", links.join(","));
    }
    texts.insert(index, out.clone());
    out
}

/// The roots of what each directory was when it was read, as the export of a cold build has them:
/// by vertex and input, as numbers do not depend on the session.
fn contents(fixture: &Fixture, name: &str) -> BTreeMap<(usize, usize), Vec<String>> {
    let graph = fixture.graph(name);
    let lineage = fixture.trace(name, &Evidence::default());
    let mut out: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (index, record) in fixture.records[name].iter().enumerate() {
        for vertex in lineage.vertices(index) {
            for (input, edge) in graph.vertices()[vertex].inputs.iter().enumerate() {
                if graph.vertices()[edge.vertex].is_local() {
                    let roots = (record.inputs[input].iter())
                        .map(|(_, root)| fixture.records[name][*root].digest.clone());
                    out.entry((vertex, input)).or_default().extend(roots);
                }
            }
        }
    }
    out
}

fn evidence(contents: &BTreeMap<(usize, usize), Vec<String>>) -> Evidence {
    let mut evidence = Evidence::default();
    for (&(vertex, input), roots) in contents {
        evidence.content(
            vertex,
            input,
            roots.iter().map(|root| root.parse().unwrap()),
        );
    }
    evidence
}

#[test]
fn every_computed_digest_and_selector_occurs_in_the_export() {
    let mut kinds = BTreeMap::new();
    for (name, dialect) in [
        ("coverage", Dialect::Current),
        ("llb", Dialect::Current),
        ("history", Dialect::Current),
        ("shapes", Dialect::Current),
        ("v0.13-coverage", Dialect::Gogo),
        ("v0.13-llb", Dialect::Gogo),
    ] {
        let fixture = Fixture::read(name);
        let graph = fixture.graph("cold");
        let records = &fixture.records["cold"];
        let has = |digest: &Digest| {
            records
                .iter()
                .any(|record| record.digest == digest.as_str())
        };
        let edges = graph.vertices().iter().flat_map(|vertex| &vertex.inputs);
        let edges: BTreeSet<_> = edges.copied().chain([graph.terminal()]).collect();
        for edge in edges {
            let vertex = &graph.vertices()[edge.vertex];
            let kind = match vertex.op.op.as_ref().unwrap() {
                Op::Exec(_) => "exec",
                Op::File(_) => "file",
                Op::Merge(_) => "merge",
                Op::Diff(_) => "diff",
                Op::Source(_) => {
                    match digest::manifest_root(vertex, None) {
                        Some(root) => assert!(has(&root), "{vertex:#?}"),
                        None => assert!(vertex.is_local(), "{vertex:#?}"),
                    }
                    continue;
                }
                other => panic!("{other:?}"),
            };
            *kinds.entry(kind).or_insert(0) += 1;
            let digest = digest::edge_digest(&graph, edge, None, dialect).unwrap();
            let found: Vec<_> = (records.iter())
                .filter(|record| record.digest == digest.as_str())
                .collect();
            assert!(!found.is_empty(), "{vertex:#?}");
            let keys = digest::input_keys(vertex).unwrap();
            let fits = |record: &&Record| {
                keys.iter().zip(&record.inputs).all(|(key, links)| {
                    links.iter().all(|(selector, source)| {
                        *selector == key.selector
                            || key.content
                                && selector.is_empty()
                                && records[*source].inputs.is_empty()
                    })
                })
            };
            // v0.13.2 counts mounts of secrets as mounts of the first input.
            let secrets = |op: &Op| matches!(op, Op::Exec(e) if e.mounts.iter().any(|m| m.secret_opt.is_some()));
            let skip = dialect == Dialect::Gogo && vertex.op.op.as_ref().is_some_and(secrets);
            assert!(skip || found.iter().any(fits), "{vertex:#?} {keys:?}");
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn nothing_is_dropped_from_a_cold_export() {
    for name in [
        "coverage",
        "llb",
        "history",
        "shapes",
        "v0.13-coverage",
        "v0.13-llb",
    ] {
        let fixture = Fixture::read(name);
        let lineage = fixture.trace("cold", &Evidence::default());
        assert_eq!(fixture.dropped("cold", &lineage), [], "{name}");
        assert_eq!(lineage.questions(), [], "{name}");
        assert!(!lineage.contradicted());
        let known = evidence(&contents(&fixture, "cold"));
        let lineage = fixture.trace("cold", &known);
        assert_eq!(fixture.dropped("cold", &lineage), [], "{name}");
    }
}

#[test]
fn a_build_after_others_is_pruned_to_what_it_was_when_cold() {
    // v1; v2 to v12, each with another directory, another command in `tools`, and equal results
    // of both stages; v1 again.
    let fixture = Fixture::read("history");
    let cold = fixture.left("cold", &Lineage::default());
    let contents = contents(&fixture, "cold");
    assert_eq!(fixture.left("cold-side", &Lineage::default()), cold);
    assert_eq!(cold.len(), 17);
    for warm in ["warm", "warm-side"] {
        assert_eq!(fixture.left(warm, &Lineage::default()).len(), 17 + 11 + 33);

        // The digests of operations tell the 11 other commands; of the 11 other directories stay
        // the root, the COPY and the RUN.
        let blind = fixture.trace(warm, &Evidence::default());
        assert_eq!(fixture.left(warm, &blind).len(), 17 + 33);
        let [question] = blind.questions() else {
            panic!("{:?}", blind.questions());
        };
        assert_eq!(question.candidates.len(), 12);
        let current = &contents[&(question.vertex, question.input)];
        assert!(question.candidates.contains(&current[0].parse().unwrap()));

        let lineage = fixture.trace(warm, &evidence(&contents));
        assert!(!lineage.contradicted());
        assert_eq!(lineage.questions(), []);
        assert_eq!(fixture.left(warm, &lineage), cold);
    }
}

#[test]
fn changes_of_many_kinds_are_told_apart() {
    // Between the two builds: another directory; another path of the same stage copied; a
    // directory taken from a stage instead; another base image of a stage; a stage of heredocs.
    let fixture = Fixture::read("shapes");
    let cold = fixture.left("cold", &Lineage::default());
    let mut known = evidence(&contents(&fixture, "cold"));
    // Of an image that the definition pins the daemon has one key, which the definition tells.
    let lineage = fixture.trace("warm", &known);
    assert_eq!(fixture.left("warm", &lineage), cold);
    assert!(!lineage.contradicted());

    // An older one has another key beside it, and nothing tells which other keys are of the past.
    let assumptions = Assumptions {
        images_by_manifest: false,
        ..Assumptions::default()
    };
    let trace = |evidence: &Evidence| {
        let (graph, export) = (fixture.graph("warm"), fixture.export("warm"));
        Lineage::trace(&graph, &export, evidence, &assumptions).unwrap()
    };
    let more = fixture.left("warm", &trace(&known)).len();
    assert!(cold.len() < more && more < fixture.records["warm"].len());
    for (vertex, op) in fixture.graph("warm").vertices().iter().enumerate() {
        if let Some(root) = digest::manifest_root(op, None) {
            known.source(vertex, [root]);
        }
    }
    assert_eq!(fixture.left("warm", &trace(&known)), cold);
}

/// What the definition and the contents tell is what a daemon exports that builds for the first time.
#[test]
fn the_records_of_a_cold_build_follow_from_its_definition() {
    for name in ["coverage", "llb", "history", "shapes"] {
        let fixture = Fixture::read(name);
        let graph = fixture.graph("cold");
        let lineage = fixture.trace("cold", &Evidence::default());
        let evidence = lineage.evidence(&graph, None, &Evidence::default());
        let derived = derive(&graph, None, &evidence.unwrap()).unwrap();
        let set = fixture
            .export("cold")
            .with_records(derived.records)
            .unwrap();
        let own = |set: &RecordSet| -> Vec<_> {
            let sources = |link: &Link| {
                (
                    link.selector.clone(),
                    set.records()[link.record].digest.clone(),
                )
            };
            let records = set.records().iter().map(|record| {
                let inputs = record.inputs.iter();
                let inputs = inputs.map(|links| links.iter().map(sources).collect::<BTreeSet<_>>());
                (record.digest.clone(), inputs.collect::<Vec<_>>())
            });
            let mut own: Vec<_> = records.collect();
            own.sort();
            own
        };
        assert_eq!(own(&set), own(&fixture.export("cold")), "{name}");
    }
}

#[test]
fn what_an_import_did_not_bring_is_not_made_up() {
    let fixture = Fixture::read("imported");
    let cold = fixture.left("cold", &Lineage::default());
    let left = |name| {
        let lineage = fixture.trace(name, &Evidence::default());
        assert_eq!(fixture.dropped(name, &lineage), []);
        assert!(!lineage.contradicted());
        fixture.left(name, &lineage)
    };
    assert_eq!(left("importing"), cold);
    // Built once more without the import, the daemon knows the three stages' results only by how
    // they are made: the roots of their content were never its own.
    assert_eq!(left("later").len(), cold.len() - 3);
    for record in &fixture.records["later"] {
        let known = |other: &Record| other.digest == record.digest;
        assert!(fixture.records["cold"].iter().any(known));
    }
}

#[test]
fn content_of_a_stage_that_ran_again_is_asked_for() {
    // A command without a reproducible result; again, without its cache; again, from cache. The
    // record of what copies the result has both contents and one layer.
    let fixture = Fixture::read("rerun");
    for name in ["rerun", "cached"] {
        let graph = fixture.graph(name);
        let lineage = fixture.trace(name, &Evidence::default());
        let [question] = lineage.questions() else {
            panic!("{:?}", lineage.questions());
        };
        assert!(!question.local);
        assert_eq!(question.vertex, graph.terminal().vertex);
        assert_eq!(question.candidates.len(), 2);
        assert_eq!(fixture.dropped(name, &lineage), []);

        let before = contents_of(&fixture, "cold", question.vertex, question.input);
        let is_new = |root: &&Digest| before.iter().all(|known| known != root.as_str());
        let now = question.candidates.iter().filter(is_new).cloned();
        let mut evidence = Evidence::default();
        evidence.content(question.vertex, question.input, now);
        let lineage = fixture.trace(name, &evidence);
        assert_eq!(lineage.questions(), []);
        let [(_, _, root)] = fixture.dropped(name, &lineage)[..] else {
            panic!("one link is dropped");
        };
        assert_eq!(fixture.records[name][root].digest, before[0]);
    }
}

/// The roots without selector that the records of a vertex have for an input.
fn contents_of(fixture: &Fixture, name: &str, vertex: usize, input: usize) -> Vec<String> {
    let records = &fixture.records[name];
    let lineage = fixture.trace(name, &Evidence::default());
    let of_vertex =
        (0..records.len()).filter(|&record| lineage.vertices(record).any(|v| v == vertex));
    of_vertex
        .flat_map(|record| &records[record].inputs[input])
        .filter(|(selector, root)| selector.is_empty() && records[*root].inputs.is_empty())
        .map(|(_, root)| records[*root].digest.clone())
        .collect()
}
