//! A cache that is imported and exported again, and again, stays what it was.

use crate::support::{Buildctl, Inlay, Project, Pushed, Stand, assert_one};

/// Steps that write other bytes each time they run.
const SINGLE: &str = "\
FROM scratch
ADD rootfs.tar /
COPY source.txt /src/
RUN head -c 16 /dev/urandom >/random
RUN cat /random /src/source.txt >/all
";

const STAGES: &str = "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
COPY source.txt /src/
RUN head -c 16 /dev/urandom >/random
RUN cat /random /src/source.txt >/out

FROM base
RUN head -c 16 /dev/urandom >/own
COPY --from=build /random /out /app/
RUN cat /app/* /own >/all
";

const LINK: &str = "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
COPY source.txt /src/
RUN head -c 16 /dev/urandom >/random
RUN cat /random /src/source.txt >/out

FROM base
RUN head -c 16 /dev/urandom >/own
COPY --link --from=build /random /app/
COPY --link --from=build /out /app/
RUN cat /app/* /own >/all
COPY --link source.txt /app/
";

/// Builds and exports; imports that and exports, twice, on an empty daemon; imports that and
/// exports on another.
fn through_generations(what: &str, dockerfile: &str, epoch: Option<u64>, attributes: &str) {
    let mut stand = Stand::start();
    let project = Project::new()
        .base()
        .dockerfile(dockerfile)
        .file("source.txt", "some text\n");
    let mut build = stand.build(&project);
    if let Some(epoch) = epoch {
        build = build.epoch(epoch);
    }
    let mut generations = vec![stand.push(&build, "demo:1", attributes)];
    let runs = stand.buildkitd.executed().len();

    stand.buildkitd.wipe();
    let import = build.clone().import_cache(&stand.import("demo:1"));
    generations.push(stand.push(&import, "demo:2", attributes));
    // Without the import, BuildKit itself runs steps again here: what it imported it forgets with
    // the build.
    generations.push(stand.push(&import, "demo:3", attributes));

    stand.buildkitd.wipe();
    let import = build.import_cache(&stand.import("demo:3"));
    generations.push(stand.push(&import, "demo:4", attributes));

    assert_one(what, &generations);
    assert_eq!(
        stand.buildkitd.executed().len(),
        runs,
        "{what}: nothing runs again"
    );
}

#[test]
fn of_a_single_stage() {
    through_generations("single", SINGLE, None, "");
    through_generations("single, epoch", SINGLE, Some(1_700_000_000), "");
    through_generations(
        "single, rewritten",
        SINGLE,
        Some(1_700_000_000),
        "rewrite-timestamp=true",
    );
}

#[test]
fn of_stages() {
    through_generations("stages", STAGES, None, "");
    through_generations("stages, epoch", STAGES, Some(1_700_000_000), "");
    through_generations(
        "stages, rewritten",
        STAGES,
        Some(1_700_000_000),
        "rewrite-timestamp=true",
    );
}

#[test]
fn of_linked_copies() {
    through_generations("linked", LINK, None, "");
    through_generations("linked, epoch", LINK, Some(1_700_000_000), "");
    through_generations(
        "linked, rewritten",
        LINK,
        Some(1_700_000_000),
        "rewrite-timestamp=true",
    );
}

#[test]
fn of_zstd() {
    through_generations("zstd", STAGES, None, "compression=zstd");
}

/// Steps that write the same each time, since BuildKit may run them again without the import.
fn without_random_bytes() -> [(&'static str, String); 3] {
    [("single", SINGLE), ("stages", STAGES), ("linked", LINK)].map(|(case, dockerfile)| {
        (
            case,
            dockerfile.replace("head -c 16 /dev/urandom", "echo fixed"),
        )
    })
}

fn push(stand: &Stand, build: &Buildctl, image: &str) -> Pushed {
    stand.push(build, image, "rewrite-timestamp=true")
}

/// Exports once more without the import, from a daemon that has the image by import. Where the
/// import left another stage out, the daemon has never seen what that stage writes; inlay has.
#[test]
fn without_the_import() {
    for (case, dockerfile) in without_random_bytes() {
        let mut stand = Stand::start();
        let project = Project::new()
            .base()
            .dockerfile(&dockerfile)
            .file("source.txt", "some text\n");
        let build = stand.build(&project).epoch(1_700_000_000);
        let first = push(&stand, &build, "demo:1");
        stand.buildkitd.wipe();
        let import = build.clone().import_cache(&stand.import("demo:1"));
        let second = push(&stand, &import, "demo:2");
        let third = push(&stand, &build, "demo:3");
        stand.buildkitd.wipe();
        let import = build.import_cache(&stand.import("demo:3"));
        let fourth = push(&stand, &import, "demo:4");
        assert_one(case, &[first, second, third, fourth]);
    }
}

/// The same where inlay has not seen it either. The records of that content go, and all results
/// stay, which is where BuildKit's own inline cache loses some.
#[test]
fn without_the_import_and_without_memory() {
    for (case, dockerfile) in without_random_bytes() {
        let mut stand = Stand::start();
        let project = Project::new()
            .base()
            .dockerfile(&dockerfile)
            .file("source.txt", "some text\n");
        let build = |stand: &Stand| stand.build(&project).epoch(1_700_000_000);
        let first = push(&stand, &build(&stand), "demo:1");
        stand.buildkitd.wipe();
        push(
            &stand,
            &build(&stand).import_cache(&stand.import("demo:1")),
            "demo:2",
        );
        stand.inlay = Inlay::start(&stand.buildkitd, &[]);
        let third = push(&stand, &build(&stand), "demo:3");
        stand.buildkitd.wipe();
        let import = build(&stand).import_cache(&stand.import("demo:3"));
        let fourth = push(&stand, &import, "demo:4");
        assert_one(case, &[third.clone(), fourth]);
        assert_eq!(third.results, first.results, "{case}");
        let layers = |image| stand.registry.layers(image, None);
        assert_eq!(layers("demo:3"), layers("demo:1"), "{case}");
        assert_eq!(third.records < first.records, case != "single", "{case}");
    }
}
