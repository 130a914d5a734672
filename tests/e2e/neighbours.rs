//! Builds beside the ones of `cases.rs`: what else in BuildKit v0.34.2 gives one key to two steps, a
//! record no result, or a build the keys of another one. Each names its place in BuildKit.
//!
//! As in `cases.rs`, each is told on plain BuildKit and through inlay, and [`Columns`] asserts what has
//! to hold of all of them.

use crate::support::{Columns, Project};

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

/// A Dockerfile on two bases, `$B` and `$C`, of which the daemons of the columns have no layer.
fn on_bases(columns: &Columns, dockerfile: &str) -> String {
    let base = columns.base("base:1", "");
    let other = columns.base("other:1", "RUN echo other >/other");
    dockerfile.replace("$B", &base).replace("$C", &other)
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
FROM $B AS a
COPY f /f
RUN echo 1 >/made
FROM $C
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
FROM $B AS a
RUN --mount=type=bind,source=f,target=/in cat /in >/out
FROM $B
RUN --mount=type=bind,from=a,source=/out,target=/in cat /in >/out
";

    /// Equal copies in several stages that all lead to the image.
    equal_copies_in_several_stages: "\
FROM $B AS a
COPY f /f
RUN cat /f >/a
FROM $B AS b
COPY f /f
RUN cat /f /f >/b
FROM $B
COPY f /f
COPY --from=a /a /
COPY --from=b /b /
";

    /// An input that is read and written is one input of the operation, and has no key by content
    /// (`solver/llbsolver/ops/file.go:179`).
    a_copy_from_what_it_lies_on: "\
FROM $B AS a
RUN echo x >/m
FROM a
COPY --from=a /m /n
";

    /// The same of a command that mounts what it runs on (`solver/llbsolver/ops/exec.go:296`).
    a_command_that_mounts_what_it_runs_on: "\
FROM $B AS a
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
FROM $B AS deps
RUN echo x >/m
FROM $B AS one
COPY --from=deps /m /m
FROM $B AS two
COPY --from=one /m /m
FROM $B
COPY --from=two /m /m
";

    equal_hops_with_a_command_between: "\
FROM $B AS deps
RUN echo x >/m
FROM $B AS prod
COPY --from=deps /m /m
RUN echo y >/n
FROM $B
COPY --from=prod /m /m
";

    equal_hops_of_linked_copies: "\
FROM $B AS deps
RUN echo x >/m
FROM $B AS prod
COPY --link --from=deps /m /m
FROM $B
COPY --link --from=prod /m /m
";

    equal_hops_over_nothing: "\
FROM $B AS deps
RUN echo x >/m
FROM scratch AS prod
COPY --from=deps /m /m
FROM scratch
COPY --from=prod /m /m
";

    /// One stage that two others copy alike, and a last one that copies from both.
    a_hop_over_two_stages: "\
FROM $B AS deps
RUN echo x >/m
FROM $B AS one
COPY --from=deps /m /m
RUN echo 1 >/1
FROM $B AS two
COPY --from=deps /m /m
RUN echo 2 >/2
FROM $B
COPY --from=one /m /m
COPY --from=two /2 /
COPY --from=one /1 /
";

    /// The last step is equal to one of another base.
    equal_hops_on_two_bases: "\
FROM $B AS deps
RUN echo x >/m
FROM $B AS prod
COPY --from=deps /m /m
FROM $C
COPY --from=prod /m /m
";
}

// === several sources, mounts, wildcards ===

told! {
    /// Several copies are one operation, and their paths are one selector
    /// (`solver/llbsolver/ops/file.go:183`).
    a_copy_of_several_sources: "\
FROM $B AS a
RUN echo 1 >/1 && echo 2 >/2
FROM $B
COPY f g d/one.txt /d/
COPY --from=a /1 /2 /d/
RUN cat /d/* >/all
";

    /// Copies of wildcards and folders.
    copies_of_wildcards: "\
FROM $B AS a
COPY d/*.txt /d/
RUN mkdir /o && cat /d/* >/o/all.txt
FROM $B
COPY d /e
COPY --from=a /o/*.txt /
COPY --from=a /d/ /d/
";

    /// Named users are read from the base, which is written (`solver/llbsolver/ops/file.go:303`).
    copies_with_owners_and_modes: "\
FROM $B AS a
RUN echo x >/m
FROM $B
COPY --chown=nobody:nogroup f /f
COPY --chmod=700 --from=a /m /m
COPY --link --chown=1:1 g /g
";

    /// A part of a stage, a whole stage, an image, each mounted.
    mounts_from_stages_and_images: "\
FROM $B AS a
RUN mkdir /o && echo x >/o/m
FROM $B
RUN --mount=type=bind,from=a,source=/o,target=/o cat /o/m >/1
RUN --mount=type=bind,from=a,target=/a cat /a/o/m >/2
RUN --mount=type=bind,from=$C,target=/c cat /c/other >/3
";

    /// A part that may be written has a key by content only where it is no output
    /// (`solver/llbsolver/ops/exec.go:330`).
    mounts_that_are_written: "\
FROM $B AS a
RUN mkdir /o && echo x >/o/m
FROM $B
RUN --mount=type=bind,from=a,source=/o,target=/o,rw echo y >>/o/m && cat /o/m >/1
RUN --mount=type=tmpfs,target=/t echo 1 >/t/1 && cat /t/1 >/2
RUN --mount=type=cache,target=/k,id=k echo 1 >/k/1 && cat /k/1 >/3
";

    /// A cache that begins with a stage's content.
    a_cache_mount_from_a_stage: "\
FROM $B AS a
RUN mkdir /o && echo x >/o/m
FROM $B
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
FROM $B
COPY --link f /f
COPY --link g /g
";

    /// The base is not lazy any more when the last copy is made.
    a_linked_copy_on_a_command: "\
FROM $B
COPY --link f /f
RUN cat /f >/h
COPY --link g /g
";

    a_linked_copy_on_a_stage_of_one: "\
FROM $B AS a
COPY --link f /f
FROM a
COPY --link --from=a /f /g
";

    /// `WORKDIR` makes a directory, and needs the base for that.
    a_directory_on_a_lazy_base: "\
FROM $B
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
FROM $B
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
FROM $B
COPY --from=a /x /y
";

    /// Its layer is empty.
    a_step_without_effect: "\
FROM $B
RUN true
COPY f /f
RUN true
";
}

/// Linked copies with one key, of which one is the last step's.
#[test]
#[ignore = "warm, the first copy has a result that it has not cold: two digests, no wrong record"]
fn equal_linked_copies() {
    let mut columns = Columns::start();
    let dockerfile = on_bases(
        &columns,
        "\
FROM $B AS a
COPY --link f /f
RUN cat /f >/g
FROM $C
COPY --link --from=a /f /f
",
    );
    let project = project(&dockerfile);
    let build = columns.build(&project);
    columns.tell("equal_linked_copies", &build);
}
