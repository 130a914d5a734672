use proptest::prelude::*;

use serde_json::json;

use super::*;
use crate::cache::llb::digest::{self, Dialect, edge_digest, input_keys, manifest_root};
use crate::cache::llb::graph::tests::{encode, exec, source};
use crate::cache::llb::graph::{Edge, Graph, GraphLimits, Vertex};
use crate::cache::record::{self, Digest, Link, RecordSet};
use crate::protocol::proto::pb::{self, op::Op};

/// Records under construction.
#[derive(Debug, Clone, Default)]
struct Set(Vec<(Digest, Inputs)>);

type Inputs = Vec<Vec<(String, usize)>>;

impl Set {
    fn add(&mut self, digest: &Digest, inputs: &[&[(&str, usize)]]) -> usize {
        let links =
            |links: &&[(&str, usize)]| links.iter().map(|&(s, r)| (s.to_owned(), r)).collect();
        self.0
            .push((digest.clone(), inputs.iter().map(links).collect()));
        self.0.len() - 1
    }

    fn read(&self) -> RecordSet {
        let link =
            |(selector, record): &(String, usize)| json!({"selector": selector, "link": record});
        let records = self.0.iter().map(|(digest, inputs)| {
            let inputs = inputs.iter().map(|links| links.iter().map(link).collect());
            json!({"digest": digest.as_str(), "inputs": inputs.collect::<Vec<Vec<_>>>()})
        });
        let config = json!({"records": records.collect::<Vec<_>>()}).to_string();
        RecordSet::parse(config.as_bytes(), &record::Limits::default()).unwrap()
    }

    /// Whether `from` is made of `to`, or is it.
    fn is_made_of(&self, from: usize, to: usize) -> bool {
        let mut sources = self.0[from].1.iter().flatten();
        from == to || sources.any(|(_, source)| self.is_made_of(*source, to))
    }
}

fn copy(src: &str, dest: &str) -> Op {
    Op::File(pb::FileOp {
        actions: vec![pb::FileAction {
            input: 0,
            secondary_input: 1,
            output: 0,
            action: Some(pb::file_action::Action::Copy(pb::FileActionCopy {
                src: src.into(),
                dest: dest.into(),
                ..Default::default()
            })),
        }],
    })
}

fn named(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn content_root(content: &str) -> Digest {
    digest::content_root(&named(content))
}

const IMAGE: &str = "docker-image://docker.io/library/a@\
    sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn graph(ops: Vec<(Op, Vec<(usize, i64)>)>) -> Graph {
    Graph::parse(&encode(ops), &GraphLimits::default()).unwrap()
}

fn find(graph: &Graph, op: &Op) -> usize {
    let is = |vertex: &Vertex| vertex.op.op.as_ref() == Some(op);
    graph.vertices().iter().position(is).unwrap()
}

fn digest_of(graph: &Graph, op: &Op) -> Digest {
    let vertex = find(graph, op);
    edge_digest(graph, Edge { vertex, output: 0 }, None, Dialect::Current).unwrap()
}

fn selector(graph: &Graph, op: &Op, input: usize) -> String {
    let keys = input_keys(&graph.vertices()[find(graph, op)]).unwrap();
    keys[input].selector.clone()
}

fn trace(graph: &Graph, set: &Set, evidence: &Evidence) -> Lineage {
    Lineage::trace(graph, &set.read(), evidence, &Assumptions::default()).unwrap()
}

fn dropped(lineage: &Lineage) -> Vec<(usize, usize, usize)> {
    let dropped = lineage.dropped.iter();
    let links = dropped.flat_map(|(at, links)| links.iter().map(move |link| (at, link)));
    links.map(|((r, i), link)| (*r, *i, link.record)).collect()
}

/// A stage of a copied directory and a command, of which the result is copied.
struct Stage {
    graph: Graph,
    set: Set,
    from_directory: usize,
    contents: [usize; 2],
    copies: [usize; 2],
    runs: [usize; 2],
    other: usize,
    last: usize,
}

fn stage() -> Stage {
    let ops = [copy("src", "/src"), exec("make"), copy("out", "/out")];
    let graph = graph(vec![
        (source("local://context"), vec![]),
        (source(IMAGE), vec![]),
        (ops[0].clone(), vec![(1, 0), (0, 0)]),
        (ops[1].clone(), vec![(2, 0)]),
        (ops[2].clone(), vec![(1, 0), (3, 0)]),
    ]);
    let mut set = Set::default();
    let [copied, made, last] = [0, 1, 2].map(|op| digest_of(&graph, &ops[op]));
    let whole = selector(&graph, &ops[1], 0);
    let out = selector(&graph, &ops[2], 1);
    let vertex = find(&graph, &source(IMAGE));
    let image = set.add(
        &manifest_root(&graph.vertices()[vertex], None).unwrap(),
        &[],
    );
    let contents = ["1", "2"].map(|content| set.add(&content_root(content), &[]));
    let copies = contents.map(|content| set.add(&copied, &[&[("", image)], &[("", content)]]));
    let runs = copies.map(|copy| set.add(&made, &[&[(&whole, copy)]]));
    let other = set.add(&named("other"), &[&[(&whole, copies[0])]]);
    let content = set.add(&content_root("out"), &[]);
    let sources = [
        (&*out, runs[0]),
        (&*out, runs[1]),
        (&*out, other),
        ("", content),
    ];
    let last = set.add(&last, &[&[("", image)], &sources]);
    let from_directory = find(&graph, &ops[0]);
    Stage {
        graph,
        set,
        from_directory,
        contents,
        copies,
        runs,
        other,
        last,
    }
}

#[test]
fn another_operation_goes_and_another_content_is_asked_for() {
    let stage = stage();
    let lineage = trace(&stage.graph, &stage.set, &Evidence::default());
    assert_eq!(dropped(&lineage), [(stage.last, 1, stage.other)]);
    let [question] = lineage.questions() else {
        panic!("{:?}", lineage.questions());
    };
    assert_eq!((question.vertex, question.input), (stage.from_directory, 1));
    assert_eq!(
        question.candidates,
        stage.contents.map(|c| stage.set.0[c].0.clone()).into()
    );
    let vertices: Vec<_> = lineage.vertices(stage.copies[1]).collect();
    assert_eq!(vertices, [stage.from_directory]);
}

#[test]
fn what_comes_from_another_content_goes() {
    let stage = stage();
    let mut evidence = Evidence::default();
    evidence.content(stage.from_directory, 1, [content_root("2")]);
    let lineage = trace(&stage.graph, &stage.set, &evidence);
    let gone = [stage.runs[0], stage.other].map(|record| (stage.last, 1, record));
    assert_eq!(dropped(&lineage), gone);
    assert_eq!(lineage.questions(), []);
    assert!(!lineage.contradicted());
}

#[test]
fn all_stays_where_the_evidence_fits_nothing() {
    let mut stage = stage();
    // Without the content of the result, only the refuted stages are left.
    stage.set.0[stage.last].1[1].pop();
    let mut evidence = Evidence::default();
    evidence.content(stage.from_directory, 1, [content_root("3")]);
    let lineage = trace(&stage.graph, &stage.set, &evidence);
    assert!(lineage.contradicted());
    assert_eq!(dropped(&lineage), []);
}

#[test]
fn digests_that_do_not_occur_conclude_nothing_of_their_kind() {
    let mut stage = stage();
    for run in stage.runs {
        stage.set.0[run].0 = named("derived in another way");
    }
    let lineage = trace(&stage.graph, &stage.set, &Evidence::default());
    assert_eq!(dropped(&lineage), []);
    // Where it comes from still counts.
    let mut evidence = Evidence::default();
    evidence.content(stage.from_directory, 1, [content_root("2")]);
    let lineage = trace(&stage.graph, &stage.set, &evidence);
    let gone = [stage.runs[0], stage.other].map(|record| (stage.last, 1, record));
    assert_eq!(dropped(&lineage), gone);
}

#[test]
fn a_record_of_two_vertices_keeps_what_either_keeps() {
    // Two stages with one result, copied by one operation each, merged.
    let ops = [exec("one"), exec("two"), copy("out", "/out")];
    let merge = Op::Merge(pb::MergeOp {
        inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
    });
    let graph = graph(vec![
        (source(IMAGE), vec![]),
        (ops[0].clone(), vec![(0, 0)]),
        (ops[1].clone(), vec![(0, 0)]),
        (ops[2].clone(), vec![(0, 0), (1, 0)]),
        (ops[2].clone(), vec![(0, 0), (2, 0)]),
        (merge.clone(), vec![(3, 0), (4, 0)]),
    ]);
    let mut set = Set::default();
    let image = set.add(&named("image"), &[]);
    let whole = selector(&graph, &ops[0], 0);
    let runs = [0, 1].map(|op| set.add(&digest_of(&graph, &ops[op]), &[&[(&whole, image)]]));
    let past = set.add(&named("past"), &[&[(&whole, image)]]);
    let out = selector(&graph, &ops[2], 1);
    let sources = [(&*out, runs[0]), (&*out, runs[1]), (&*out, past)];
    let both = set.add(&digest_of(&graph, &ops[2]), &[&[("", image)], &sources]);
    set.add(&digest_of(&graph, &merge), &[&[("", both)], &[("", both)]]);
    let lineage = trace(&graph, &set, &Evidence::default());
    assert_eq!(dropped(&lineage), [(both, 1, past)]);
    assert_eq!(lineage.vertices(both).count(), 2);
}

/// A stage is mounted whole, and once had other content of which only the content is left to
/// tell.
#[test]
fn content_that_no_record_of_the_build_has_is_of_another_build() {
    let ops = [exec("make"), copy("all", "/all")];
    let mut mount = pb::ExecOp::default();
    if let Op::Exec(exec) = exec("cat") {
        mount = exec;
    }
    mount.mounts.push(pb::Mount {
        input: 1,
        dest: "/made".into(),
        output: -1,
        readonly: true,
        ..Default::default()
    });
    let mounted = Op::Exec(mount);
    let graph = graph(vec![
        (source(IMAGE), vec![]),
        (ops[0].clone(), vec![(0, 0)]),
        (mounted.clone(), vec![(0, 0), (1, 0)]),
        (ops[1].clone(), vec![(0, 0), (2, 0)]),
    ]);
    let mut set = Set::default();
    let vertex = find(&graph, &source(IMAGE));
    let image = manifest_root(&graph.vertices()[vertex], None).unwrap();
    let image = set.add(&image, &[]);
    let contents = ["now", "past"].map(|content| set.add(&content_root(content), &[]));
    let selectors = [(&ops[0], 0), (&mounted, 0), (&mounted, 1), (&ops[1], 1)]
        .map(|(op, input)| selector(&graph, op, input));
    let made = set.add(&digest_of(&graph, &ops[0]), &[&[(&selectors[0], image)]]);
    let cat = digest_of(&graph, &mounted);
    let base = (&*selectors[1], image);
    let now = set.add(
        &cat,
        &[&[base], &[("", contents[0]), (&selectors[2], made)]],
    );
    let past = set.add(&cat, &[&[base], &[("", contents[1])]]);
    let sources = [(&*selectors[3], now), (&*selectors[3], past)];
    let last = set.add(&digest_of(&graph, &ops[1]), &[&[("", image)], &sources]);
    let lineage = trace(&graph, &set, &Evidence::default());
    assert_eq!(dropped(&lineage), [(last, 1, past)]);

    // Where the definition has no content beside it, there is nothing to compare with.
    set.0[now].1[1].remove(0);
    let lineage = trace(&graph, &set, &Evidence::default());
    assert_eq!(dropped(&lineage), []);
}

#[test]
fn a_record_that_something_unknown_may_need_stays_whole() {
    let run = exec("make");
    let pass = Op::Passthrough(pb::PassthroughOp {
        id: "id".into(),
        outputs: vec![0],
    });
    let merge = Op::Merge(pb::MergeOp {
        inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
    });
    let graph = graph(vec![
        (source(IMAGE), vec![]),
        (run.clone(), vec![(0, 0)]),
        (pass, vec![(1, 0)]),
        (merge.clone(), vec![(1, 0), (2, 0)]),
    ]);
    let mut set = Set::default();
    let roots = ["a", "b"].map(|root| set.add(&named(root), &[]));
    let whole = selector(&graph, &run, 0);
    let run = digest_of(&graph, &run);
    let made = set.add(&run, &[&[(&whole, roots[0]), ("another", roots[1])]]);
    let passed = set.add(&named("passed"), &[&[("", made)]]);
    set.add(
        &digest_of(&graph, &merge),
        &[&[("", made)], &[("", passed)]],
    );
    let lineage = trace(&graph, &set, &Evidence::default());
    assert_eq!(dropped(&lineage), []);
    // The operation alone would keep its own selector only.
    set.0[passed].1.clear();
    let lineage = trace(&graph, &set, &Evidence::default());
    assert_eq!(dropped(&lineage), [(made, 0, roots[1])]);
}

#[test]
fn of_an_image_the_roots_known_to_be_past_go() {
    let run = exec("make");
    let graph = graph(vec![(source(IMAGE), vec![]), (run.clone(), vec![(0, 0)])]);
    let mut set = Set::default();
    let manifest = manifest_root(&graph.vertices()[0], None).unwrap();
    let roots = [&manifest, &named("config or past")].map(|root| set.add(root, &[]));
    let whole = selector(&graph, &run, 0);
    let links = roots.map(|root| (&*whole, root));
    let last = set.add(&digest_of(&graph, &run), &[&links]);
    // A daemon may have another key for it, unless it is known to have none.
    let mut evidence = Evidence::default();
    let assumptions = Assumptions {
        images_by_manifest: false,
        ..Assumptions::default()
    };
    let trace = |evidence: &Evidence, assumptions: &Assumptions| {
        Lineage::trace(&graph, &set.read(), evidence, assumptions).unwrap()
    };
    let usual = Assumptions::default();
    assert_eq!(dropped(&trace(&evidence, &assumptions)), []);
    let only = [(last, 0, roots[1])];
    assert_eq!(dropped(&trace(&evidence, &usual)), only);
    evidence.source(0, [manifest.clone()]);
    assert_eq!(dropped(&trace(&evidence, &assumptions)), only);
}

/// Three stages in a row copy from one another, and one that is built on them gave the same
/// output before: what is past of the first makes all of the past go.
#[test]
fn what_is_past_of_one_stage_is_past_of_all_that_are_made_of_it() {
    let ops = [
        copy("f", "/f"),
        copy("/f", "/g"),
        copy("/g", "/h"),
        exec("run"),
        copy("/out", "/out"),
    ];
    let graph = graph(vec![
        (source("local://context"), vec![]),
        (source(IMAGE), vec![]),
        (ops[0].clone(), vec![(1, 0), (0, 0)]),
        (ops[1].clone(), vec![(1, 0), (2, 0)]),
        (ops[2].clone(), vec![(1, 0), (3, 0)]),
        (ops[3].clone(), vec![(4, 0)]),
        (ops[4].clone(), vec![(1, 0), (5, 0)]),
    ]);
    let mut set = Set::default();
    let digests: Vec<_> = ops.iter().map(|op| digest_of(&graph, op)).collect();
    let image = find(&graph, &source(IMAGE));
    let image = manifest_root(&graph.vertices()[image], None).unwrap();
    let image = set.add(&image, &[]);
    let selectors = [(1, 1), (2, 1), (3, 0), (4, 1)]
        .map(|(op, input): (usize, usize)| selector(&graph, &ops[op], input));
    let runs = ["now", "past"].map(|version| {
        let [local, first, second] = ["local", "first", "second"]
            .map(|content| set.add(&content_root(&format!("{content} {version}")), &[]));
        let a = set.add(&digests[0], &[&[("", image)], &[("", local)]]);
        let b = &[(&*selectors[0], a), ("", first)];
        let b = set.add(&digests[1], &[&[("", image)], b]);
        let c = &[(&*selectors[1], b), ("", second)];
        let c = set.add(&digests[2], &[&[("", image)], c]);
        set.add(&digests[3], &[&[(&selectors[2], c)]])
    });
    let out = set.add(&content_root("out"), &[]);
    let copied = runs.map(|run| (&*selectors[3], run));
    let copied = &[copied[0], copied[1], ("", out)];
    let last = set.add(&digests[4], &[&[("", image)], copied]);
    let mut evidence = Evidence::default();
    let local = content_root("local now");
    evidence.content(find(&graph, &ops[0]), 1, [local]);
    let lineage = trace(&graph, &set, &evidence);
    assert!(dropped(&lineage).contains(&(last, 1, runs[1])));
    assert!(lineage.questions().is_empty(), "{:?}", lineage.questions());
}

const OTHER_IMAGE: &str = "docker-image://docker.io/library/b@\
    sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// One copy on two images, the second one of what is made of the first, and a daemon that exports the
/// second one alone: it found what is between by its content.
#[test]
fn the_key_of_an_image_is_not_that_of_another_below_an_equal_step() {
    let (equal, between) = (copy("f", "/f"), copy("/f", "/g"));
    let graph = graph(vec![
        (source("local://context"), vec![]),
        (source(IMAGE), vec![]),
        (source(OTHER_IMAGE), vec![]),
        (equal.clone(), vec![(1, 0), (0, 0)]),
        (between.clone(), vec![(2, 0), (3, 0)]),
        (equal.clone(), vec![(2, 0), (4, 0)]),
    ]);
    let root = |image: &str| {
        let vertex = find(&graph, &source(image));
        let root = manifest_root(&graph.vertices()[vertex], None).unwrap();
        (vertex, root)
    };
    let (image, other) = (root(IMAGE), root(OTHER_IMAGE));
    let mut set = Set::default();
    let base = set.add(&other.1, &[]);
    let content = set.add(&content_root("f"), &[]);
    let read = set.add(
        &digest_of(&graph, &between),
        &[&[("", base)], &[("", content)]],
    );
    let selector = selector(&graph, &equal, 1);
    let links = &[("", content), (&*selector, read)];
    set.add(&digest_of(&graph, &equal), &[&[("", base)], links]);
    let given = Evidence::default();
    let told = trace(&graph, &set, &given).evidence(&graph, None, &given);
    let told = told.unwrap();
    assert_eq!(told.keys_of_source(image.0), Some(&[image.1].into()));
    assert_eq!(told.keys_of_source(other.0), Some(&[other.1].into()));
}

/// A copy from an image on a command, copied again, and once more onto the image: the daemon drops the
/// link that would make a circle, and exports what is below.
#[test]
fn a_record_that_no_link_leads_to_is_told_by_its_definition() {
    let (run, equal, between) = (exec("run"), copy("/f", "/f"), copy("/f", "/g"));
    let graph = graph(vec![
        (source(IMAGE), vec![]),
        (run.clone(), vec![(0, 0)]),
        (equal.clone(), vec![(1, 0), (0, 0)]),
        (between.clone(), vec![(0, 0), (2, 0)]),
        (equal.clone(), vec![(0, 0), (3, 0)]),
    ]);
    let root = manifest_root(&graph.vertices()[0], None).unwrap();
    let digests = [&run, &equal, &between].map(|op| digest_of(&graph, op));
    let whole = selector(&graph, &run, 0);
    let out = selector(&graph, &equal, 1);
    let mut set = Set::default();
    let base = set.add(&root, &[]);
    let content = set.add(&content_root("f"), &[]);
    let read = set.add(&digests[2], &[&[("", base)], &[("", content)]]);
    let links = &[("", content), (&*out, read)];
    set.add(&digests[1], &[&[("", base)], links]);
    let ran = set.add(&digests[0], &[&[(&*whole, base)]]);
    let links = &[(&*out, base), ("", content)];
    let below = set.add(&digests[1], &[&[("", ran)], links]);
    // It is the end of no build, and no source of one.
    let given = Evidence::default();
    let ends = |set: &Set| trace(&graph, set, &given).ends().to_vec();
    assert!(!ends(&set).contains(&below));
    let content_of = |set: &Set| {
        let told = trace(&graph, set, &given).evidence(&graph, None, &given);
        told.unwrap().content_of(2, 1).cloned()
    };
    assert_eq!(content_of(&set), Some([content_root("f")].into()));
    // On another command it is another's.
    set.0[ran].0 = named("another command");
    assert_eq!(content_of(&set), None);
}

#[test]
fn what_is_below_content_may_be_earlier() {
    let stage = stage();
    let asked = |links: &[usize], imports: bool| {
        let all = stage.set.0[stage.last].1[1].clone();
        let kept = links.iter().map(|link| all[*link].clone());
        let mut set = stage.set.clone();
        set.0[stage.last].1[1] = kept.collect();
        let given = Evidence::default();
        let assumptions = Assumptions {
            imports,
            ..Assumptions::default()
        };
        let lineage = Lineage::trace(&stage.graph, &set.read(), &given, &assumptions).unwrap();
        lineage.unknown_content(&stage.graph, &given).count()
    };
    // The first command, the second, another operation, and content.
    for imports in [false, true] {
        assert_eq!(asked(&[0], imports), 0);
        assert_eq!(asked(&[0, 1], imports), 1);
        assert_eq!(asked(&[3], imports), 1);
    }
    // Without an import a daemon adds the keys of this build.
    assert_eq!(asked(&[0, 3], false), 0);
    assert_eq!(asked(&[0, 3], true), 1);
}

#[test]
fn too_much_work_is_refused() {
    let stage = stage();
    let assumptions = Assumptions {
        steps: 3,
        ..Assumptions::default()
    };
    let evidence = Evidence::default();
    assert_eq!(
        Lineage::trace(&stage.graph, &stage.set.read(), &evidence, &assumptions),
        Err(LineageError::TooLarge { limit: 3 })
    );
}

/// What a daemon would export for a random build, with random alternatives added.
#[derive(Debug, Clone)]
struct World {
    /// For each operation: whether it is a command, and what it reads.
    ops: Vec<(bool, prop::sample::Index, prop::sample::Index)>,
    /// A past record: the true record whose operation or shape it has, whether its digest is
    /// another, and what it links to.
    past: Vec<(prop::sample::Index, bool, [prop::sample::Index; 2])>,
    /// A link to the past, or to another true record: from, input, to, with the own selector.
    links: Vec<(prop::sample::Index, bool, prop::sample::Index, bool)>,
    /// Which contents are known.
    known: u32,
}

fn world() -> impl Strategy<Value = World> {
    use prop::sample::Index;
    let index = any::<Index>;
    (
        prop::collection::vec((any::<bool>(), index(), index()), 1..8),
        prop::collection::vec((index(), any::<bool>(), [index(), index()]), 0..8),
        prop::collection::vec((index(), any::<bool>(), index(), any::<bool>()), 0..24),
        any::<u32>(),
    )
        .prop_map(|(ops, past, links, known)| World {
            ops,
            past,
            links,
            known,
        })
}

proptest! {
    /// Whatever the past has left, no link of the build itself is dropped, and no record
    /// that stays loses all links of an input.
    #[test]
    fn nothing_of_the_build_itself_is_dropped(world in world()) {
        // The build: a directory, an image, and operations on what is before them. A command
        // reads one result; a copy puts a file of a result, or of the directory, on another.
        let mut ops = vec![(source("local://context"), vec![]), (source(IMAGE), vec![])];
        for (number, (command, a, b)) in world.ops.iter().enumerate() {
            let first = 1 + a.index(ops.len() - 1);
            let op = if *command {
                (exec(&format!("run {}", number % 3)), vec![(first, 0)])
            } else {
                let path = format!("dir{}/file", number % 2);
                (copy(&path, "/"), vec![(first, 0), (b.index(ops.len()), 0)])
            };
            ops.push(op);
        }
        let graph = graph(ops);
        prop_assume!(graph.vertices().len() > 1);

        // What the daemon would export.
        let mut set = Set::default();
        let mut evidence = Evidence::default();
        let mut truth = Vec::new();
        let mut record_of = vec![None; graph.vertices().len()];
        for (vertex, op) in graph.vertices().iter().enumerate() {
            if op.is_local() {
                continue;
            }
            if let Some(root) = manifest_root(op, None) {
                record_of[vertex] = Some(set.add(&root, &[]));
                if world.known & 1 == 1 {
                    evidence.source(vertex, [root]);
                }
                continue;
            }
            let keys = input_keys(op).unwrap();
            let mut inputs = Inputs::new();
            for (input, (key, edge)) in keys.iter().zip(&op.inputs).enumerate() {
                let mut links = Vec::new();
                if let Some(source) = record_of[edge.vertex] {
                    links.push((key.selector.clone(), source));
                }
                if key.content {
                    // What has one content here and there has one root.
                    let root = content_root(&format!("{} {}", edge.vertex % 3, key.selector));
                    let have = set.0.iter().position(|record| record.0 == root);
                    let content = have.unwrap_or_else(|| set.add(&root, &[]));
                    links.push((String::new(), content));
                    if world.known >> (1 + (vertex + input) % 31) & 1 == 1 {
                        evidence.content(vertex, input, [root]);
                    }
                }
                inputs.push(links);
            }
            let digest = edge_digest(&graph, Edge { vertex, output: 0 }, None, Dialect::Current).unwrap();
            // Vertices with one key have one record.
            let have = (set.0.iter()).position(|(d, i)| *d == digest && *i == inputs);
            let record = have.unwrap_or_else(|| {
                set.0.push((digest, inputs.clone()));
                set.0.len() - 1
            });
            for (input, links) in inputs.into_iter().enumerate() {
                truth.extend(links.into_iter().map(|link| (record, input, link)));
            }
            record_of[vertex] = Some(record);
        }
        let last = record_of[graph.terminal().vertex].unwrap();
        prop_assume!(!set.0[last].1.is_empty());

        // The past.
        for (like, other, to) in &world.past {
            let (digest, mut inputs) = set.0[like.index(set.0.len())].clone();
            for (links, to) in inputs.iter_mut().zip(to) {
                let to = to.index(set.0.len());
                for link in links.iter_mut().filter(|_| to != last) {
                    link.1 = to;
                }
            }
            let digest = if *other { named(&format!("other than {digest}")) } else { digest };
            set.0.push((digest, inputs));
        }
        for (from, second, to, own) in &world.links {
            let to = to.index(set.0.len());
            let from = from.index(set.0.len());
            // A loop is no export.
            if to == last || set.is_made_of(to, from) {
                continue;
            }
            let input = usize::from(*second);
            if let Some(links) = set.0[from].1.get_mut(input) {
                let own = links.first().map(|link| link.0.clone()).filter(|_| *own);
                links.push((own.unwrap_or_default(), to));
            }
        }

        let lineage = trace(&graph, &set, &evidence);
        for (record, input, (selector, source)) in truth {
            let link = Link { selector: selector.into(), record: source };
            prop_assert!(lineage.keeps(record, input, &link), "{record} {input} {link:?}");
        }
        for (record, (_, inputs)) in set.0.iter().enumerate() {
            for (input, links) in inputs.iter().enumerate() {
                let kept = links.iter().any(|(selector, to)| {
                    lineage.keeps(record, input, &Link { selector: selector.as_str().into(), record: *to })
                });
                prop_assert!(kept || links.is_empty(), "{record} {input}");
            }
        }
    }
}
