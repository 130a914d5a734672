//! Builds beside the ones of `cases.rs`: what else in BuildKit v0.34.2 gives one key to two steps, a
//! record no result, or a build the keys of another one. Each names its place in BuildKit.
//!
//! As in `cases.rs`, each is told on plain BuildKit and through inlay, and [`Columns`] asserts what has
//! to hold of all of them.

use std::process::Command;

use crate::support::{
    Buildctl, Columns, HttpServer, Llb, Project, Row, State, assert_one, other_platform,
    own_platform,
};

/// A project with what the Dockerfiles below copy.
fn project(dockerfile: &str) -> Project {
    Project::new()
        .base()
        .shell()
        .file("f", "text of f\n")
        .file("g", "text of g\n")
        .file("d/one.txt", "one\n")
        .file("d/two.txt", "two\n")
        .dockerfile(dockerfile)
}

/// A Dockerfile with images in place of `BASE` and `OTHER`, of which the daemons of the columns have no
/// layer.
fn on_bases(columns: &Columns, dockerfile: &str) -> String {
    let mut dockerfile = dockerfile.to_owned();
    for (word, image, line) in [
        ("BASE", "base:1", ""),
        ("OTHER", "other:1", "RUN echo other >/other"),
    ] {
        if dockerfile.contains(word) {
            dockerfile = dockerfile.replace(word, &columns.base(image, line));
        }
    }
    dockerfile
}

/// Tells each Dockerfile as [`Columns::tell`] does.
macro_rules! told {
    ($($(#[$doc:meta])* $name:ident: $dockerfile:expr;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            let mut columns = Columns::start();
            let project = project(&on_bases(&columns, $dockerfile));
            let build = columns.build(&project);
            columns.tell(stringify!($name), &build);
        }
    )*};
}

// === one key in two places ===

told! {
    /// The key of a copy has the base name of its source and not its directory
    /// (`solver/llbsolver/ops/file.go:117`), so that copies from a context and from a stage are one
    /// operation; here on two bases.
    equal_copies_on_two_bases: "\
FROM BASE AS a
COPY f /f
RUN echo 1 >/made
FROM OTHER
COPY --from=a /f /f
";

    /// The same where the sources lie in other directories.
    equal_copies_of_other_directories: "\
FROM scratch AS a
COPY f /x/f
FROM scratch AS b
COPY --from=a /x/f /f
COPY sh /sh
RUN [\"/sh\", \"-c\", \"echo 1 >/made\"]
FROM scratch
COPY --from=b /f /f
";

    /// One record three times in a row, with other steps between: an export of it would be a loop, of
    /// which `CacheChains.Add` drops the link that comes last (`cache/remotecache/v1/chains.go:172`).
    one_copy_three_times_in_a_row: "\
FROM scratch AS a
COPY sh /sh
RUN [\"/sh\", \"-c\", \"echo 1 >/a\"]
FROM scratch AS b
COPY --from=a /sh /sh
RUN [\"/sh\", \"-c\", \"echo 2 >/b\"]
FROM scratch
COPY --from=b /sh /sh
";

    /// The last record is in the middle of the build once more, and on top of itself.
    a_copy_on_top_of_itself: "\
FROM scratch AS a
COPY sh /sh
RUN [\"/sh\", \"-c\", \"echo 1 >/a\"]
FROM a
COPY --from=a /sh /sh
";

    /// The key of a command has no path of its mounts (`solver/llbsolver/ops/exec.go:129`): the second
    /// one reads what the first one wrote, which is what the first one read.
    equal_commands_on_equal_content: "\
FROM BASE AS a
RUN --mount=type=bind,source=f,target=/in cat /in >/out
FROM BASE
RUN --mount=type=bind,from=a,source=/out,target=/in cat /in >/out
";

    /// Linked copies with one key, of which one is the last step's.
    equal_linked_copies: "\
FROM BASE AS a
COPY --link f /f
RUN cat /f >/g
FROM OTHER
COPY --link --from=a /f /f
";

    /// Equal copies in several stages that all lead to the image.
    equal_copies_in_several_stages: "\
FROM BASE AS a
COPY f /f
RUN cat /f >/a
FROM BASE AS b
COPY f /f
RUN cat /f /f >/b
FROM BASE
COPY f /f
COPY --from=a /a /
COPY --from=b /b /
";

    /// An input that is read and written is one input of the operation, and has no key by content
    /// (`solver/llbsolver/ops/file.go:179`).
    a_copy_from_what_it_lies_on: "\
FROM BASE AS a
RUN echo x >/m
FROM a
COPY --from=a /m /n
";

    /// The same of a command that mounts what it runs on (`solver/llbsolver/ops/exec.go:296`).
    a_command_that_mounts_what_it_runs_on: "\
FROM BASE AS a
RUN echo x >/m
FROM a
RUN --mount=type=bind,from=a,target=/a cat /a/m >/n
";
}

// === hops ===

told! {
    /// The content that one copy gives is that which the next one reads
    /// (`solver/edge.go:657` links the key by definition to that by content).
    three_equal_hops: "\
FROM BASE AS deps
RUN echo x >/m
FROM BASE AS one
COPY --from=deps /m /m
FROM BASE AS two
COPY --from=one /m /m
FROM BASE
COPY --from=two /m /m
";

    equal_hops_with_a_command_between: "\
FROM BASE AS deps
RUN echo x >/m
FROM BASE AS prod
COPY --from=deps /m /m
RUN echo y >/n
FROM BASE
COPY --from=prod /m /m
";

    equal_hops_of_linked_copies: "\
FROM BASE AS deps
RUN echo x >/m
FROM BASE AS prod
COPY --link --from=deps /m /m
FROM BASE
COPY --link --from=prod /m /m
";

    equal_hops_over_nothing: "\
FROM BASE AS deps
RUN echo x >/m
FROM scratch AS prod
COPY --from=deps /m /m
FROM scratch
COPY --from=prod /m /m
";

    /// One stage that two others copy alike, and a last one that copies from both.
    a_hop_over_two_stages: "\
FROM BASE AS deps
RUN echo x >/m
FROM BASE AS one
COPY --from=deps /m /m
RUN echo 1 >/1
FROM BASE AS two
COPY --from=deps /m /m
RUN echo 2 >/2
FROM BASE
COPY --from=one /m /m
COPY --from=two /2 /
COPY --from=one /1 /
";

    /// The last step is found by content, so that a cold daemon exports nothing of the merge; a warm one
    /// does, with content that the cold one does not tell (`solver/exporter.go:260`).
    a_hop_over_a_merge: "\
FROM BASE AS deps
RUN echo x >/m
FROM scratch AS prod
COPY --from=OTHER /other /n
COPY --link --from=deps /m /m
FROM scratch
COPY --from=prod /m /m
";

    /// The last step is equal to one of another base.
    equal_hops_on_two_bases: "\
FROM BASE AS deps
RUN echo x >/m
FROM BASE AS prod
COPY --from=deps /m /m
FROM OTHER
COPY --from=prod /m /m
";
}

// === several sources, mounts, wildcards ===

told! {
    /// Several copies are one operation, and their paths are one selector
    /// (`solver/llbsolver/ops/file.go:183`).
    a_copy_of_several_sources: "\
FROM BASE AS a
RUN echo 1 >/1 && echo 2 >/2
FROM BASE
COPY f g d/one.txt /d/
COPY --from=a /1 /2 /d/
RUN cat /d/* >/all
";

    /// Copies of wildcards and folders.
    copies_of_wildcards: "\
FROM BASE AS a
COPY d/*.txt /d/
RUN mkdir /o && cat /d/* >/o/all.txt
FROM BASE
COPY d /e
COPY --from=a /o/*.txt /
COPY --from=a /d/ /d/
";

    /// Named users are read from the base, which is written (`solver/llbsolver/ops/file.go:303`).
    copies_with_owners_and_modes: "\
FROM BASE AS a
RUN echo x >/m
FROM BASE
COPY --chown=nobody:nogroup f /f
COPY --chmod=700 --from=a /m /m
COPY --link --chown=1:1 g /g
";

    /// A part of a stage, a whole stage, an image, each mounted.
    mounts_from_stages_and_images: "\
FROM BASE AS a
RUN mkdir /o && echo x >/o/m
FROM BASE
RUN --mount=type=bind,from=a,source=/o,target=/o cat /o/m >/1
RUN --mount=type=bind,from=a,target=/a cat /a/o/m >/2
RUN --mount=type=bind,from=OTHER,target=/c cat /c/other >/3
";

    /// A part that may be written has a key by content only where it is no output
    /// (`solver/llbsolver/ops/exec.go:330`).
    mounts_that_are_written: "\
FROM BASE AS a
RUN mkdir /o && echo x >/o/m
FROM BASE
RUN --mount=type=bind,from=a,source=/o,target=/o,rw echo y >>/o/m && cat /o/m >/1
RUN --mount=type=tmpfs,target=/t echo 1 >/t/1 && cat /t/1 >/2
RUN --mount=type=cache,target=/k,id=k echo 1 >/k/1 && cat /k/1 >/3
";

    /// A cache that begins with a stage's content.
    a_cache_mount_from_a_stage: "\
FROM BASE AS a
RUN mkdir /o && echo x >/o/m
FROM BASE
RUN --mount=type=cache,from=a,source=/o,target=/o,id=o cat /o/m >/1
";
}

// === the last vertex, and steps without inputs ===

told! {
    /// No step of a merge has nothing below it (`client/llb/merge.go:104` leaves out what is empty).
    linked_copies_on_nothing: "\
FROM scratch
COPY --link f /f
COPY --link g /g
";

    linked_copies_on_a_lazy_base: "\
FROM BASE
COPY --link f /f
COPY --link g /g
";

    /// The base is not lazy any more when the last copy is made.
    a_linked_copy_on_a_command: "\
FROM BASE
COPY --link f /f
RUN cat /f >/h
COPY --link g /g
";

    a_linked_copy_on_a_stage_of_one: "\
FROM BASE AS a
COPY --link f /f
FROM a
COPY --link --from=a /f /g
";

    /// `WORKDIR` makes a directory, and needs the base for that.
    a_directory_on_a_lazy_base: "\
FROM BASE
WORKDIR /w
";

    /// A step without inputs below one that has them.
    a_copy_on_a_step_without_inputs: "\
FROM scratch
WORKDIR /x
COPY f /x/f
";

    /// An inline file is a step without inputs (`dockerfile2llb/convert_copy.go:309`).
    an_inline_file: "\
FROM BASE
COPY <<EOF /x
text
EOF
RUN cat /x >/y
";

    an_inline_file_on_nothing: "\
FROM scratch
COPY <<EOF /x
text
EOF
";

    a_copy_from_a_step_without_inputs: "\
FROM scratch AS a
WORKDIR /x
FROM BASE
COPY --from=a /x /y
";

    /// Its layer is empty.
    a_step_without_effect: "\
FROM BASE
RUN true
COPY f /f
RUN true
";
}

// === definitions that no Dockerfile says ===

/// Tells a definition on a lazy base: `last` puts it together and returns its last state.
fn tell_definition(what: &str, last: impl Fn(&mut Llb, &str) -> State) {
    let mut columns = Columns::start();
    let base = columns.base("base:1", "");
    let project = project("");
    let mut llb = Llb::default();
    let state = last(&mut llb, &base);
    let context = format!("--local=context={}", project.path().display());
    let build = Buildctl::new("")
        .llb(llb.marshal(&state))
        .args([context])
        .epoch(Columns::EPOCH);
    columns.tell(what, &build);
}

/// A source has no result in a cache of mode `min` (`solver/exporter.go:120`).
#[test]
fn the_last_vertex_is_a_source() {
    let columns = Columns::start();
    let project = project(&on_bases(&columns, "FROM BASE\nENV x=y\n"));
    let build = columns.build(&project);
    let rows = ["app:1", "app:2"].map(|image| columns.push(&build, image));
    for Row { plain, inlay } in &rows {
        assert_eq!(plain.pushed.results, 0, "{plain:?}");
        assert_eq!(inlay.pushed.results, 0, "{inlay:?}");
    }
    assert_eq!(rows[0].inlay.pushed, rows[1].inlay.pushed);
}

/// A merge has the layers of what it merges, and the record of none of them.
#[test]
fn the_last_vertex_is_a_merge() {
    tell_definition("a merge", |llb, base| {
        let context = llb.local("context");
        let base = llb.image(base);
        let [f, g] = ["/f", "/g"].map(|path| llb.copy(&context, path, None));
        llb.merge(&[&base, &f, &g])
    });
}

/// Two merges of the same states in another order.
#[test]
fn the_last_vertex_is_a_merge_of_merges() {
    tell_definition("a merge of merges", |llb, base| {
        let context = llb.local("context");
        let base = llb.image(base);
        let [f, g] = ["/f", "/g"].map(|path| llb.copy(&context, path, None));
        let one = llb.merge(&[&base, &f]);
        let other = llb.merge(&[&g, &f]);
        llb.merge(&[&one, &other])
    });
}

/// A diff has the layers that its upper state has more than its lower one
/// (`solver/llbsolver/ops/diff.go:90`).
#[test]
fn the_last_vertex_is_a_diff() {
    tell_definition("a diff", |llb, base| {
        let base = llb.image(base);
        let [run, _] = llb.run(&base, "echo x >/m");
        llb.diff(&base, &run)
    });
}

#[test]
fn the_last_vertex_is_a_merge_of_a_diff() {
    tell_definition("a merge of a diff", |llb, base| {
        let context = llb.local("context");
        let base = llb.image(base);
        let [run, _] = llb.run(&base, "echo x >/m");
        let diff = llb.diff(&base, &run);
        let f = llb.copy(&context, "/f", None);
        llb.merge(&[&f, &diff])
    });
}

/// The number of an output is in its record's digest (`solver/cachemanager.go:492`); the image is the
/// second one.
#[test]
fn the_last_vertex_is_the_second_output_of_a_command() {
    tell_definition("the second output", |llb, base| {
        let base = llb.image(base);
        let [_, second] = llb.run(&base, "echo 1 >/first; echo 2 >/second/file");
        second
    });
}

/// The image is made of both outputs.
#[test]
fn both_outputs_of_a_command_are_used() {
    tell_definition("both outputs", |llb, base| {
        let base = llb.image(base);
        let [first, second] = llb.run(&base, "echo 1 >/first; echo 2 >/second/file");
        llb.copy(&second, "/file", Some(&first))
    });
}

/// One content that two outputs have, and that goes back to the first one.
#[test]
fn equal_copies_of_both_outputs_of_a_command() {
    tell_definition("copies of both outputs", |llb, base| {
        let base = llb.image(base);
        let [first, second] = llb.run(&base, "echo x >/file; echo x >/second/file");
        let one = llb.copy(&second, "/file", None);
        let [run, _] = llb.run(&first, "echo y >/y");
        let other = llb.copy(&run, "/file", None);
        llb.merge(&[&other, &one])
    });
}

// === stories ===

/// Between two builds of a linked copy, another build has the daemon pull its base, and then all that is
/// cached is pruned.
#[test]
fn a_linked_copy_before_and_after_its_base_is_pulled() {
    let columns = Columns::start();
    let project = project(&on_bases(&columns, "FROM BASE\nCOPY --link f /f\n"));
    let build = columns.build(&project);
    let mut rows = vec![columns.push(&build, "app:1")];
    let pulling = Project::new().dockerfile(&on_bases(&columns, "FROM BASE\nRUN echo pulled\n"));
    columns.push(&columns.build(&pulling), "pulling:1");
    rows.push(columns.push(&build, "app:2"));
    for daemon in columns.daemons() {
        let pruned = daemon.buildctl(&["prune", "--all"]);
        assert!(pruned.status.success(), "{pruned:?}");
    }
    rows.push(columns.push(&build, "app:3"));
    rows.push(columns.push(&build, "app:4"));
    let pushed: Vec<_> = rows.into_iter().map(|row| row.inlay.pushed).collect();
    assert_one("before and after", &pushed);
}

/// A base that moves and moves back, with the imports of both builds on it.
#[test]
fn a_base_that_moved_back() {
    let mut columns = Columns::start();
    for content in &Columns::CONTENTS[..3] {
        columns.base(
            &format!("base:{content}"),
            &format!("RUN echo {content} >/base"),
        );
    }
    let move_to = |columns: &Columns, content| {
        let target = format!("base:{content}");
        columns.registry().move_tag("base:1", &target);
    };
    let base = columns.registry().image("base:1");
    let project = project(&format!(
        "\
FROM {base} AS a
COPY f /f
RUN wc -c </f >/n
FROM {base}
COPY --link --from=a /n /n
COPY --link g /g
"
    ));
    let build = columns.build(&project);
    move_to(&columns, "one");
    let mut rows = vec![columns.push(&build, "app:1")];
    move_to(&columns, "two");
    columns.wipe();
    columns.push_importing(&build, &["app:1"], "app:2");
    move_to(&columns, "one");
    columns.wipe();
    rows.push(columns.push_importing(&build, &["app:2", "app:1"], "app:3"));
    rows.push(columns.push_importing(&build, &["app:2"], "app:4"));
    columns.import_aside(&build, "app:3");
    let pushed: Vec<_> = rows.into_iter().map(|row| row.inlay.pushed).collect();
    assert_one("a base that moved back", &pushed);
}

/// No record of an earlier build comes back where a vertex and its source have one digest.
#[test]
fn earlier_contents_below_equal_hops() {
    let mut columns = Columns::start();
    let project = project(&on_bases(
        &columns,
        "\
FROM BASE AS deps
COPY f /f
RUN wc -c </f >/m
FROM BASE AS prod
COPY --from=deps /m /m
FROM BASE
COPY --from=prod /m /m
",
    ));
    let build = columns.build(&project);
    columns.tell_contents("below equal hops", &build, |_, content| {
        project.write("f", content);
    });
}

/// The same of a command that changes, and leaves what it left.
#[test]
fn earlier_commands_below_equal_hops() {
    let mut columns = Columns::start();
    let dockerfile = on_bases(
        &columns,
        "\
FROM BASE AS deps
RUN : $V; echo x >/m
FROM BASE AS prod
COPY --from=deps /m /m
FROM BASE
COPY --from=prod /m /m
",
    );
    let project = project("");
    let build = columns.build(&project);
    columns.tell_contents("below equal hops", &build, |_, content| {
        project.write("Dockerfile", dockerfile.replace("$V", content));
    });
}

/// The last record is an earlier one, and what lies between changes.
#[test]
fn earlier_contents_between_equal_copies() {
    let mut columns = Columns::start();
    let project = project(
        "\
FROM scratch AS a
COPY sh /sh
COPY f /f
RUN [\"/sh\", \"-c\", \"read x </f || echo 1 >/made\"]
FROM scratch
COPY --from=a /sh /sh
",
    );
    let build = columns.build(&project);
    columns.tell_contents("between equal copies", &build, |_, content| {
        project.write("f", content);
    });
}

/// Tells contents of a file by HTTP, which the Dockerfile names by `URL`.
fn earlier_contents_by_http(what: &str, dockerfile: &str) {
    let mut columns = Columns::start();
    let server = HttpServer::start();
    let dockerfile = dockerfile.replace("URL", &server.write("/h", "one"));
    let project = project(&on_bases(&columns, &dockerfile));
    let build = columns.build(&project);
    columns.tell_contents(what, &build, |_, content| {
        server.write("/h", content);
    });
}

/// Several sources of one operation, of which one changes
/// (`dockerfile2llb/convert_copy.go:209`).
#[test]
fn earlier_contents_of_one_of_several_sources() {
    earlier_contents_by_http(
        "one of several sources",
        "\
FROM BASE AS a
ADD f URL /src/
RUN cat /src/* | wc -c >/n
FROM BASE
COPY --from=a /n /n
",
    );
}

/// A file by HTTP whose copy is linked.
#[test]
fn earlier_contents_of_a_linked_file_by_http() {
    earlier_contents_by_http(
        "a linked file",
        "\
FROM BASE AS a
ADD --link URL /h
RUN wc -c </h >/n
FROM BASE
COPY --link --from=a /n /n
",
    );
}

/// An image whose tag moves, which a stage of the Dockerfile reads as `lines` say.
fn earlier_contents_of_an_image(what: &str, lines: &str) {
    let mut columns = Columns::start();
    for content in &Columns::CONTENTS[..3] {
        let lines = format!("RUN mkdir /src && printf {content} >/src/file");
        columns.base(&format!("tool:{content}"), &lines);
    }
    let tool = columns.registry().image("tool:1");
    let dockerfile = format!("{lines}\nFROM BASE\nCOPY --from=a /n /n\n");
    let dockerfile = on_bases(&columns, &dockerfile).replace("TOOL", &tool);
    let project = project(&dockerfile);
    let named = format!("context:named=docker-image://{tool}");
    let build = columns.build(&project).opt(&named);
    columns.tell_contents(what, &build, |columns, content| {
        let target = format!("tool:{content}");
        columns.registry().move_tag("tool:1", &target);
    });
}

#[test]
fn earlier_contents_of_a_mounted_image() {
    let mount = "RUN --mount=type=bind,from=TOOL,source=/src,target=/src wc -c </src/file >/n";
    earlier_contents_of_an_image("a mounted image", &format!("FROM BASE AS a\n{mount}"));
}

/// A named context that is an image is not pinned (`frontend/dockerui/namedcontext.go:134`).
#[test]
fn earlier_contents_of_a_named_context() {
    earlier_contents_of_an_image("a context", "FROM named AS a\nRUN wc -c </src/file >/n");
}

#[test]
fn earlier_contents_of_a_named_context_that_is_copied_from() {
    let lines = "FROM BASE AS a\nCOPY --from=named /src/file /f\nRUN wc -c </f >/n";
    earlier_contents_of_an_image("a copied context", lines);
}

/// An image that no digest pins, in a definition that is solved without a frontend.
#[test]
fn earlier_contents_of_an_image_by_its_tag() {
    let mut columns = Columns::start();
    for content in &Columns::CONTENTS[..3] {
        let lines = format!("RUN mkdir /src && printf {content} >/src/file");
        columns.base(&format!("tool:{content}"), &lines);
    }
    let mut llb = Llb::default();
    let tool = llb.image(&columns.registry().image("tool:1"));
    let [run, _] = llb.run(&tool, "wc -c </src/file >/n");
    // On nothing: of a layer that two images have, BuildKit says in the history which one it was
    // pulled for, and that is either.
    let last = llb.copy(&run, "/n", None);
    let build = Buildctl::new("")
        .llb(llb.marshal(&last))
        .epoch(Columns::EPOCH);
    columns.tell_contents("an image by its tag", &build, |columns, content| {
        let target = format!("tool:{content}");
        columns.registry().move_tag("tool:1", &target);
    });
}

/// A directory of the client beside its context.
#[test]
fn earlier_contents_of_a_named_directory() {
    let mut columns = Columns::start();
    let named = Project::new();
    let dockerfile = "\
FROM BASE AS a
COPY --from=named file /src/
RUN wc -c </src/file >/n
FROM BASE
COPY --from=a /n /n
";
    let project = project(&on_bases(&columns, dockerfile));
    let build = columns
        .build(&project)
        .args([format!("--local=named={}", named.path().display())])
        .opt("context:named=local:named");
    columns.tell_contents("a named directory", &build, |_, content| {
        named.write("file", content);
    });
}

/// An archive by HTTP that is the context (`frontend/dockerui/context.go:222`).
#[test]
fn earlier_contents_of_a_context_by_http() {
    let mut columns = Columns::start();
    let server = HttpServer::start();
    let dockerfile = "\
FROM BASE AS a
COPY file /src/
RUN wc -c </src/file >/n
FROM BASE
COPY --from=a /n /n
";
    let context = Project::new().dockerfile(&on_bases(&columns, dockerfile));
    let serve = |content: &str| {
        context.write("file", content);
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cC"]);
        let tar = tar.arg(context.path()).arg(".").output().expect("tar runs");
        server.write("/context.tar", tar.stdout)
    };
    let url = serve("one");
    let build = columns.build_of(&url);
    columns.tell_contents("a context by HTTP", &build, |_, content| {
        serve(content);
    });
}

/// The base of all stages moves on one daemon, and the image is of nothing but what they make.
#[test]
fn earlier_bases_of_stages() {
    let mut columns = Columns::start();
    for content in &Columns::CONTENTS[..3] {
        columns.base(
            &format!("base:{content}"),
            &format!("RUN echo {content} >/base"),
        );
    }
    let base = columns.registry().image("base:1");
    let project = project(&format!(
        "\
FROM {base} AS mod
RUN echo v >/v
FROM mod AS a
COPY f /f
RUN wc -c </f >/n
FROM scratch
COPY --link --from=a /n /n
COPY --link --from=mod /v /v
COPY --from=a /n /m
"
    ));
    let build = columns.build(&project);
    columns.tell_contents("bases", &build, |columns, content| {
        let target = format!("base:{content}");
        columns.registry().move_tag("base:1", &target);
    });
}

/// Builds, imports that on an empty daemon, and builds there without the import.
fn an_import_and_then_none(what: &str, dockerfile: &str) {
    let mut columns = Columns::start();
    let project = project(&on_bases(&columns, dockerfile));
    let build = columns.build(&project);
    let mut rows = vec![columns.push(&build, "app:1")];
    columns.wipe();
    rows.push(columns.push_importing(&build, &["app:1"], "app:2"));
    rows.push(columns.push(&build, "app:3"));
    columns.import_aside(&build, "app:3");
    let pushed: Vec<_> = rows.into_iter().map(|row| row.inlay.pushed).collect();
    assert_one(what, &pushed);
}

/// Found by its definition, a step reads nothing: there is no key by the content of a mounted stage.
/// Secrets have the number of an output, and are none (`client/llb/exec.go:444`).
#[test]
fn an_import_and_then_none_of_secrets() {
    an_import_and_then_none(
        "secrets",
        "\
FROM BASE
RUN --mount=type=secret,id=s echo x >/m
RUN --mount=type=secret,id=s --mount=type=cache,target=/k echo y >/n
COPY f /f
",
    );
}

#[test]
fn an_import_and_then_none_of_mounts() {
    an_import_and_then_none(
        "mounts",
        "\
FROM BASE AS a
COPY f /f
RUN wc -c </f >/n
FROM BASE
RUN --mount=type=bind,from=a,target=/a cat /a/n >/1
RUN --mount=type=bind,source=g,target=/g cat /g >/2
",
    );
}

#[test]
fn an_import_and_then_none_of_linked_copies() {
    an_import_and_then_none(
        "linked copies",
        "\
FROM BASE AS a
COPY f /f
RUN wc -c </f >/n
FROM OTHER
COPY --link --from=a /n /n
COPY --link g /g
",
    );
}

#[test]
fn an_import_and_then_none_of_equal_hops() {
    an_import_and_then_none(
        "equal hops",
        "\
FROM BASE AS deps
COPY f /f
RUN wc -c </f >/m
FROM BASE AS prod
COPY --from=deps /m /m
FROM BASE
COPY --from=prod /m /m
",
    );
}

#[test]
fn an_import_and_then_none_of_equal_copies() {
    an_import_and_then_none(
        "equal copies",
        "\
FROM scratch AS a
COPY sh /sh
RUN [\"/sh\", \"-c\", \"echo 1 >/made\"]
FROM scratch
COPY --from=a /sh /sh
",
    );
}

/// Two images of two Dockerfiles that share a stage, each imported by the other's build.
#[test]
fn an_import_of_another_image() {
    let mut columns = Columns::start();
    let shared = "\
FROM BASE AS a
COPY f /f
RUN wc -c </f >/n
";
    let one = format!("{shared}FROM BASE\nCOPY --from=a /n /n\n");
    let other = format!("{shared}FROM BASE\nCOPY --from=a /n /n\nRUN cat /n >/m\n");
    for (own, others) in [(&one, &other), (&other, &one)] {
        columns.wipe();
        let [own, others] =
            [own, others].map(|dockerfile| project(&on_bases(&columns, dockerfile)));
        let [own, others] = [&own, &others].map(|project| columns.build(project));
        let first = columns.push(&own, "own:1");
        columns.wipe();
        columns.push(&others, "other:1");
        columns.wipe();
        let second = columns.push_importing(&own, &["other:1"], "own:2");
        let pushed = [first, second].map(|row| row.inlay.pushed);
        assert_one("an image beside another one", &pushed);
    }
}

/// Equal hops and linked copies for two platforms, in one build.
#[test]
fn two_platforms() {
    let mut columns = Columns::start();
    let project = project(&on_bases(
        &columns,
        "\
FROM --platform=$BUILDPLATFORM BASE AS deps
ARG TARGETARCH
RUN echo $TARGETARCH >/m; echo x >/n
FROM scratch AS prod
COPY --from=deps /m /n /
FROM scratch
COPY --link --from=prod /n /n
COPY --from=prod /m /m
COPY --link f /f
",
    ));
    let platforms = format!("platform={},{}", own_platform(), other_platform());
    let build = columns.build(&project).opt(&platforms);
    columns.tell("two platforms", &build);
}
