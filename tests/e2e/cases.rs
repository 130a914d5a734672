//! Builds as people write them, which once had a wrong cache or none: each is told on plain BuildKit
//! and through inlay.
//!
//! What has to hold of all of them, [`Columns`] asserts with each build: inlay has what plain
//! BuildKit has from its cache, warns of nothing that it does not warn of, and gives the same image
//! but for its cache; and a build that cannot have its cache fails.

use std::collections::BTreeMap;

use crate::support::{
    Buildx, Built, Columns, DockerEngine, GitServer, HttpServer, ImageStore, Inlay, Project,
    Pushed, Row, assert_one,
};
use serde_json::{Value, json};

/// What inlay left by each of some builds.
fn through_inlay<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Pushed> {
    let pushed = rows.into_iter().map(|row| row.inlay.pushed.clone());
    pushed.collect()
}

/// BuildKit has one record for the first step and the last one: both copy `sh` to one place of
/// nothing.
#[test]
fn the_last_step_is_the_record_of_an_earlier_one() {
    let mut columns = Columns::start();
    let project = Project::new().shell().dockerfile(
        "\
FROM scratch AS a
COPY sh /sh
RUN [\"/sh\", \"-c\", \"echo 1 >/made\"]
FROM scratch
COPY --from=a /sh /sh
",
    );
    columns.tell("the last step and the first one", &columns.build(&project));
}

/// The same with a base below the earlier one, of which the daemon has no layer: an image of one
/// layer gets a cache of two.
#[test]
fn the_last_step_is_the_record_of_an_earlier_one_on_a_lazy_base() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let project = Project::new().shell().dockerfile(&format!(
        "\
FROM {base} AS a
COPY --link sh /sh
FROM scratch
COPY --from=a /sh /sh
"
    ));
    columns.tell("the last step and a linked one", &columns.build(&project));
}

/// Both copies are one record: the daemon keys them by the operation and the content.
#[test]
fn equal_copies_in_a_row_of_stages() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let project = Project::new().dockerfile(&format!(
        "\
FROM {base} AS deps
RUN echo x >/m
FROM {base} AS prod
COPY --from=deps /m /m
FROM {base}
COPY --from=prod /m /m
"
    ));
    columns.tell("equal hops", &columns.build(&project));
}

/// The Dockerfile of every static binary.
#[test]
fn a_linked_copy_on_a_lazy_base() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let project = Project::new()
        .shell()
        .dockerfile(&format!("FROM {base}\nCOPY --link sh /sh\n"));
    columns.tell("a linked copy", &columns.build(&project));
}

/// Imports what a build on the earlier base left. BuildKit embeds the cache of both bases, and the
/// next build imports all of it.
#[test]
fn a_linked_copy_on_a_base_that_moved() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "RUN echo one >/base");
    let project = Project::new()
        .shell()
        .dockerfile(&format!("FROM {base}\nCOPY --link sh /sh\n"));
    let build = columns.build(&project);
    columns.push(&build, "app:1");
    columns.base("base:1", "RUN echo two >/base");
    columns.wipe();
    let mut rows = vec![columns.push_importing(&build, &["app:1"], "app:2")];
    columns.wipe();
    rows.push(columns.push_importing(&build, &["app:2"], "app:3"));
    columns.wipe();
    rows.push(columns.push(&build, "app:4"));
    columns.import_aside(&build, "app:2");
    assert_one("a base that moved", &through_inlay(&rows));
}

/// A step that has no input has no key that could be exported.
#[test]
fn a_step_without_inputs() {
    let columns = Columns::start();
    let project = Project::new().dockerfile("FROM scratch\nWORKDIR /x\n");
    let build = columns.build(&project);
    let rows = [columns.push(&build, "app:1"), columns.push(&build, "app:2")];
    for Row { plain, inlay } in &rows {
        assert_eq!((plain.pushed.records, inlay.pushed.records), (0, 0));
    }
    assert_eq!(rows[0].inlay.pushed, rows[1].inlay.pushed);
}

/// BuildKit takes several requests for inline cache as one, and buildx makes two of its argument and
/// its flag.
#[test]
fn an_inline_cache_that_is_asked_for_twice() {
    let columns = Columns::start();
    let project = Project::new()
        .file("file", "text")
        .dockerfile("FROM scratch\nCOPY file /\n");
    let once = columns.build(&project);
    let first = columns.push(&once, "app:1");
    let twice = once.export_cache("type=inline");
    let second = columns.push(&twice, "app:2");
    let third = columns.run("app:3", |_, addr, name| {
        Buildx::remote(addr)
            .build(&project)
            .build_arg("BUILDKIT_INLINE_CACHE=1")
            .build_arg(&format!("SOURCE_DATE_EPOCH={}", Columns::EPOCH))
            .cache_to("type=inline")
            .args(["--provenance=false"])
            .output(&format!(
                "type=image,name={name},push=true,rewrite-timestamp=true"
            ))
            .run()
    });
    assert_one("asked for twice", &through_inlay([&first, &second, &third]));
}

/// A stage that reads `/src/file` of what `line` adds, and gives the same for contents of one
/// length: for all of those that [`Columns::tell_contents`] has.
fn counting(base: &str, line: &str) -> String {
    format!(
        "\
FROM {base} AS build
{line}
RUN wc -c </src/file >/count
FROM {base}
COPY --from=build /count /count
"
    )
}

#[test]
fn earlier_contents_of_a_file_by_http() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let server = HttpServer::start();
    let url = server.write("/file", "one");
    let project = Project::new().dockerfile(&counting(&base, &format!("ADD {url} /src/")));
    let build = columns.build(&project);
    columns.tell_contents("by HTTP", &build, |_, content| {
        server.write("/file", content);
    });
}

#[test]
fn earlier_commits_of_a_git_repository() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let server = GitServer::start();
    let first = server.commit("other", "");
    let url = server.url();
    let project = Project::new().dockerfile(&counting(&base, &format!("ADD {url} /src/")));
    let build = columns.build(&project);
    columns.tell_contents("by git", &build, |_, content| {
        server.reset(&first);
        server.commit("file", content);
    });
}

#[test]
fn earlier_commits_of_a_git_context() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let server = GitServer::start();
    let first = server.commit("Dockerfile", counting(&base, "COPY file /src/"));
    let build = columns.build_of(&server.url());
    columns.tell_contents("a git context", &build, |_, content| {
        server.reset(&first);
        server.commit("file", content);
    });
}

/// Pushes busybox with each content as `/src/file`, as `tool:` and the content.
fn push_tools(columns: &Columns) -> String {
    for content in ["one", "two", "six"] {
        let lines = format!("RUN mkdir /src && printf {content} >/src/file");
        columns.base(&format!("tool:{content}"), &lines);
    }
    columns.registry().image("tool:1")
}

/// Has `tool:1` be the image with that content.
fn move_tool(columns: &Columns, content: &str) {
    columns
        .registry()
        .move_tag("tool:1", &format!("tool:{content}"));
}

#[test]
fn earlier_contents_of_an_image_of_a_stage() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let tool = push_tools(&columns);
    let dockerfile = counting(&base, "").replacen(&base, &tool, 1);
    let project = Project::new().dockerfile(&dockerfile);
    let build = columns.build(&project);
    columns.tell_contents("a stage's image", &build, move_tool);
}

#[test]
fn earlier_contents_of_an_image_that_is_copied_from() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let tool = push_tools(&columns);
    let line = format!("COPY --from={tool} /src/file /src/");
    let project = Project::new().dockerfile(&counting(&base, &line));
    let build = columns.build(&project);
    columns.tell_contents("a copied image", &build, move_tool);
}

/// A final stage that copies what another one makes of the project's `file`.
fn two_stages(base: &str) -> String {
    format!(
        "\
FROM {base} AS build
COPY file /src/
RUN wc -c </src/file >/count
RUN cat /count >/out
FROM {base}
COPY --from=build /out /app/
RUN cat /app/out >/all
"
    )
}

/// A daemon that has the image by an import, and is not told of the import again, and then another
/// one that has the result of that. Where the import left a stage out, nobody has computed the keys of
/// its content.
#[test]
fn an_import_and_then_none() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let project = Project::new()
        .file("file", "one")
        .dockerfile(&two_stages(&base));
    let build = columns.build(&project);
    let mut rows = vec![columns.push(&build, "app:1")];
    columns.wipe();
    rows.push(columns.push_importing(&build, &["app:1"], "app:2"));
    rows.push(columns.push(&build, "app:3"));
    columns.wipe();
    rows.push(columns.push_importing(&build, &["app:3"], "app:4"));
    columns.import_aside(&build, "app:3");
    assert_one("an import, and then none", &through_inlay(&rows));
}

/// The same by an inlay that has not seen the build with the import. The content of the stage is in
/// neither the definition nor the daemon, so the record of that is missing; all results are there.
#[test]
fn an_import_and_then_none_after_a_restart() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let project = Project::new()
        .file("file", "one")
        .dockerfile(&two_stages(&base));
    let build = columns.build(&project);
    let first = columns.push(&build, "app:1");
    columns.wipe();
    columns.push_importing(&build, &["app:1"], "app:2");
    columns.replace_inlay();
    let third = columns.push(&build, "app:3");
    columns.restart();
    let fourth = columns.push(&build, "app:4");
    columns.wipe();
    let imported = columns.push_importing(&build, &["app:3"], "app:5");
    assert_eq!(imported.inlay.output.steps_ran(), [""; 0]);
    columns.import_aside(&build, "app:3");
    // The daemon's restart has it forget the keys that hid the content.
    let (first, fourth) = (first.inlay.pushed, fourth.inlay.pushed);
    assert_one("after the daemon's restart", &[first.clone(), fourth]);
    let third = third.inlay.pushed;
    assert_eq!(third.results, first.results);
    assert_eq!(
        first.records - third.records,
        1,
        "{third:?} after {first:?}"
    );
    assert_one("after inlay's restart", &[third, imported.inlay.pushed]);
}

/// The build without the import reads another file, and its stage writes the same: the layers are
/// equal, and the content is not.
#[test]
fn an_import_and_then_none_of_another_content_with_equal_layers() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let project = Project::new()
        .file("file", "one")
        .dockerfile(&two_stages(&base));
    let build = columns.build(&project);
    let first = columns.push(&build, "app:1");
    columns.wipe();
    columns.push_importing(&build, &["app:1"], "app:1");
    project.write("file", "two");
    let mut rows = vec![columns.push(&build, "app:2")];
    columns.wipe();
    rows.push(columns.push_importing(&build, &["app:1"], "app:3"));
    columns.wipe();
    rows.push(columns.push(&build, "app:4"));
    columns.import_aside(&build, "app:2");
    assert_one("another content", &through_inlay(&rows));
    let first = &first.inlay.pushed;
    assert_ne!(first.digests, rows[0].inlay.pushed.digests);
    assert_eq!(first.records, rows[0].inlay.pushed.records);
}

/// The same in Docker Engine. Its exporter refuses to rewrite times, and no step runs twice here.
#[test]
fn an_import_and_then_none_in_docker_engine() {
    let columns = Columns::start();
    let registry = columns.registry();
    let base = columns.base("base:1", "");
    let project = Project::new()
        .file("file", "one")
        .dockerfile(&two_stages(&base));
    let engines = ["plain", "inlay"].map(|_| DockerEngine::start(ImageStore::Containerd));
    let inlay = Inlay::in_front_of(&engines[1].buildkitd_addr(), &[]);
    let columns = [
        ("plain", Buildx::docker(&engines[0].addr())),
        ("inlay", Buildx::remote(&inlay.addr())),
    ];
    let push = |image: &str, import: Option<&str>| {
        let [plain, inlay] = columns.each_ref().map(|(column, buildx)| {
            let name = |image| registry.image(&format!("{column}/{image}"));
            let mut build = buildx
                .build(&project)
                .args(["--network=host", "--provenance=false"])
                .build_arg(&format!("SOURCE_DATE_EPOCH={}", Columns::EPOCH))
                .output(&format!("type=image,name={},push=true", name(image)))
                .cache_to("type=inline");
            if let Some(import) = import {
                build = build.cache_from(&format!("type=registry,ref={}", name(import)));
            }
            Built::new(registry, &format!("{column}/{image}"), build.run())
        });
        Row::new(image, plain, inlay)
    };
    let mut rows = vec![push("app:1", None)];
    for engine in &engines {
        let pruned = engine.docker(&["builder", "prune", "--all", "--force"]);
        assert!(pruned.status.success(), "{pruned:?}");
    }
    rows.push(push("app:2", Some("app:1")));
    rows.push(push("app:3", None));
    assert_one("in Docker Engine", &through_inlay(&rows));
}

/// Linked copies onto a base whose tag moved, with the import of what was built on the earlier one:
/// `stages` is the base of the stages that are copied from, where that is not the one that moves.
fn linked_copies_on_a_new_base(stages: Option<&str>, from: &str, directory: &str) {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "RUN echo one >/base");
    let stages = match stages {
        Some(image) => columns.base(image, ""),
        None => base.clone(),
    };
    let project = Project::new()
        .file("file", "one")
        .file("mod", "two")
        .dockerfile(&format!(
            "\
FROM {stages} AS mod
COPY mod /mod
RUN cat /mod >/v
FROM mod AS build
COPY file /src/
RUN mkdir /out && wc -c </src/file >/out/a && cp /src/file /out/b
FROM scratch AS bins
COPY --from=build /out /
FROM {base}
COPY --link --from={from} {directory}/a /bin/a
COPY --link --from={from} {directory}/b /bin/b
COPY --from=mod /v /l
"
        ));
    let build = columns.build(&project);
    columns.push(&build, "app:1");
    columns.base("base:1", "RUN echo two >/base");
    columns.wipe();
    let mut rows = vec![columns.push_importing(&build, &["app:1"], "app:2")];
    rows.push(columns.push_importing(&build, &["app:1"], "app:3"));
    columns.wipe();
    rows.push(columns.push(&build, "app:4"));
    columns.wipe();
    rows.push(columns.push_importing(&build, &["app:2"], "app:5"));
    columns.import_aside(&build, "app:2");
    assert_one("linked copies on a new base", &through_inlay(&rows));
}

#[test]
fn linked_copies_where_all_stages_have_a_new_base() {
    linked_copies_on_a_new_base(None, "build", "/out");
}

#[test]
fn linked_copies_of_a_copy_where_all_stages_have_a_new_base() {
    linked_copies_on_a_new_base(None, "bins", "");
}

#[test]
fn linked_copies_where_the_last_stage_has_a_new_base() {
    linked_copies_on_a_new_base(Some("stages:1"), "build", "/out");
}

/// Three targets of one context that share a stage, and one on top of another.
const TARGETS: [&str; 4] = ["t-a", "t-b", "t-all", "t-top"];

fn targets(base: &str) -> Project {
    let project = Project::new().dockerfile(&format!(
        "\
FROM {base} AS core
COPY core /core
RUN wc -c </core >/core.out
FROM core AS build-a
COPY a /a
RUN cat /core.out /a >/a.out
FROM core AS build-b
COPY b /b
RUN cat /core.out /b >/b.out
FROM {base} AS final
RUN echo final >/final
FROM final AS a
COPY --from=build-a /a.out /
FROM final AS b
COPY --from=build-b /b.out /
FROM final AS all
COPY --from=build-a /a.out /
COPY --from=build-b /b.out /
"
    ));
    let project = project.file(
        "top.Dockerfile",
        "FROM below AS top\nCOPY core /top\nRUN cat /a.out >/top.out\n",
    );
    project.file("core", "core").file("a", "a").file("b", "b")
}

/// A file that has buildx build these targets at once.
type File = fn(images: &BTreeMap<&str, String>, imports: bool) -> Value;

fn bake_file(images: &BTreeMap<&str, String>, imports: bool) -> Value {
    let target = |(target, image): (&&str, &String)| {
        let mut members = json!({
            "context": ".",
            "args": {"SOURCE_DATE_EPOCH": Columns::EPOCH.to_string()},
            "attest": ["type=provenance,disabled=true"],
            "output": [format!("type=image,name={image},push=true,rewrite-timestamp=true")],
            "cache-to": ["type=inline,ignore-error=false"],
        });
        if imports {
            members["cache-from"] = json!([format!("type=registry,ref={image}")]);
        }
        if *target == "t-top" {
            members["dockerfile"] = json!("top.Dockerfile");
            members["contexts"] = json!({"below": "target:t-a"});
        } else {
            members["target"] = json!(target.trim_start_matches("t-"));
        }
        ((*target).to_owned(), members)
    };
    let targets: serde_json::Map<_, _> = images.iter().map(target).collect();
    json!({"group": {"default": {"targets": TARGETS}}, "target": targets})
}

fn compose_file(images: &BTreeMap<&str, String>, imports: bool) -> Value {
    let service = |(target, image): (&&str, &String)| {
        let mut build = json!({
            "context": ".",
            "args": {"SOURCE_DATE_EPOCH": Columns::EPOCH.to_string()},
            "provenance": false,
            "cache_to": ["type=inline,ignore-error=false"],
            "x-bake": {
                "output": [format!("type=image,name={image},push=true,rewrite-timestamp=true")],
            },
        });
        if imports {
            build["cache_from"] = json!([format!("type=registry,ref={image}")]);
        }
        if *target == "t-top" {
            build["dockerfile"] = json!("top.Dockerfile");
            build["additional_contexts"] = json!({"below": "service:t-a"});
        } else {
            build["target"] = json!(target.trim_start_matches("t-"));
        }
        ((*target).to_owned(), json!({"build": build}))
    };
    let services: serde_json::Map<_, _> = images.iter().map(service).collect();
    json!({"services": services})
}

/// Builds all targets at once, on empty daemons and on ones that have it all, with the imports of the
/// images before; then a change, at once and one by one.
fn targets_at_once(name: &str, file: File, runs: usize) {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let project = targets(&base);
    // Of steps that several targets share, buildx tells one or another thing; the daemons tell what
    // ran.
    let bake = |columns: &Columns, imports: bool, args: &[&str]| -> Vec<String> {
        let told = columns.compare_commands(name, |column, addr| {
            let registry = columns.registry();
            let image = |target| registry.image(&format!("{column}/{target}:1"));
            let images = TARGETS.map(|target| (target, image(target)));
            let written = file(&BTreeMap::from(images), imports);
            project.write(name, written.to_string());
            Buildx::remote(addr).bake(&project, name, args)
        });
        let [_, (_, mut ran)] = told;
        ran.sort();
        ran
    };
    let mut pushed: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for run in 0..runs {
        if run % 3 == 0 {
            columns.wipe();
        }
        bake(&columns, run > 0, &[]);
        for target in TARGETS {
            columns.assert_same_image(&format!("{target}:1"));
            let image = Pushed::under(columns.registry(), &format!("inlay/{target}:1"));
            pushed.entry(target).or_default().push(image);
        }
    }
    for (target, pushed) in &pushed {
        assert_one(target, pushed);
    }
    // A changed source: the targets at once run what they run one by one.
    project.write("a", "another");
    columns.wipe();
    let mut one_by_one = Vec::new();
    for target in TARGETS {
        let only = format!("{target}.output=type=cacheonly");
        one_by_one.extend(bake(&columns, true, &[target, "--set", &only]));
    }
    one_by_one.sort();
    columns.wipe();
    let at_once = bake(&columns, true, &["--set", "*.output=type=cacheonly"]);
    assert_eq!(at_once, one_by_one, "{name}");
}

#[test]
fn targets_of_bake() {
    targets_at_once("docker-bake.json", bake_file, 10);
}

#[test]
fn targets_of_compose() {
    targets_at_once("compose.yaml", compose_file, 4);
}

/// A target that begins when another one has ended, and finds that one's steps: both have one session
/// for their context, and so the steps have keys of that session's.
#[test]
fn targets_of_bake_one_after_the_other() {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let project = Project::new().file("core", "core").dockerfile(&format!(
        "\
FROM {base} AS core
COPY core /core
RUN wc -c </core >/core.out
FROM core AS first
RUN cat /core.out >/first
FROM {base} AS wait
RUN sleep 3 && echo waited >/waited
FROM core AS second
COPY --from=context-of-wait /waited /
RUN cat /core.out /waited >/second
"
    ));
    let targets = ["first", "wait", "second"];
    let bake = |columns: &Columns, args: &[&str]| {
        columns.compare_commands("one after the other", |column, addr| {
            let image = |target| columns.registry().image(&format!("{column}/{target}:1"));
            let images = targets.map(|target| (target, image(target)));
            let target = |(target, image): (&str, String)| {
                let output = format!("type=image,name={image},push=true,rewrite-timestamp=true");
                let mut members = json!({
                    "context": ".",
                    "target": target,
                    "args": {"SOURCE_DATE_EPOCH": Columns::EPOCH.to_string()},
                    "attest": ["type=provenance,disabled=true"],
                    "output": [output],
                    "cache-to": ["type=inline,ignore-error=false"],
                });
                if target == "second" {
                    members["contexts"] = json!({"context-of-wait": "target:wait"});
                }
                (target.to_owned(), members)
            };
            let file: serde_json::Map<_, _> = images.into_iter().map(target).collect();
            let file = json!({"group": {"default": {"targets": targets}}, "target": file});
            project.write("docker-bake.json", file.to_string());
            Buildx::remote(addr).bake(&project, "docker-bake.json", args)
        });
        targets.map(|target| Pushed::under(columns.registry(), &format!("inlay/{target}:1")))
    };
    let together = bake(&columns, &[]);
    columns.wipe();
    for (together, target) in together.into_iter().zip(targets) {
        bake(&columns, &[target]);
        let alone = Pushed::under(columns.registry(), &format!("inlay/{target}:1"));
        assert_one(target, &[alone, together]);
    }
}
