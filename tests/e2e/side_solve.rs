//! inlay's own solves cost a daemon nothing: no step that the user's build does not run, and no
//! layer that the image does not have, pulled or compressed.
//!
//! The judge is the same build past inlay, with BuildKit's own inline cache.

use std::collections::BTreeSet;

use crate::support::{Buildctl, Direct, Project, Stand, assert_one, inline_records};

const STAGES: &str = "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
COPY source.txt /src/
RUN wc -l </src/source.txt >/count.txt
RUN head -c 16 /dev/urandom >/random.txt

FROM base AS unused
RUN echo unused

FROM base
RUN head -c 16 /dev/urandom >/own.txt
COPY --from=build /count.txt /app/
COPY --from=build /random.txt /app/
RUN cat /app/* /own.txt >/all.txt
";

const MOUNTED: &str = "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
RUN --mount=type=bind,target=/src wc -l </src/source.txt >/count.txt

FROM base
COPY --from=build /count.txt /app/
RUN --mount=type=bind,from=build,target=/build cat /build/count.txt /app/* >/all.txt
";

fn linked() -> String {
    STAGES.replace("COPY --from", "COPY --link --from")
}

fn project(dockerfile: &str) -> Project {
    Project::new()
        .base()
        .dockerfile(dockerfile)
        .file("source.txt", "some text\n")
}

/// What builds made a daemon do.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    /// The commands that ran, sorted.
    executed: Vec<String>,
    /// How many layers are there, pulled or compressed.
    layers: usize,
    /// What results are there.
    results: Vec<String>,
}

/// What the daemon did since `executed`.
fn work(stand: &Stand, executed: usize) -> Work {
    let mut commands = stand.buildkitd.executed().split_off(executed);
    commands.sort();
    let usage = stand.buildkitd.usage();
    let descriptions = usage.iter().map(|record| {
        record["description"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    let mut results: Vec<_> = descriptions.collect();
    results.sort();
    Work {
        executed: commands,
        layers: stand.buildkitd.layer_blobs().len(),
        results,
    }
}

impl Work {
    /// Takes out inlay's probes: small files of its own, each a result with a layer. Gives how many
    /// there were.
    fn take_probes(&mut self) -> usize {
        let before = self.results.len();
        self.results
            .retain(|result| !result.ends_with("mkfile /inlay-probe"));
        let probes = before - self.results.len();
        self.layers -= probes;
        probes
    }

    /// Takes out what inlay said: empty directories with names. Gives how many there were.
    fn take_notices(&mut self) -> usize {
        let before = self.results.len();
        self.results.retain(|result| !result.starts_with("inlay: "));
        before - self.results.len()
    }
}

/// What `scenario` makes a daemon do by builds at the given address, through inlay and past it.
fn through_and_past(scenario: impl Fn(&mut Stand, &str) -> Work) -> (Work, Work) {
    let mut stand = Stand::start();
    let addr = stand.inlay.addr();
    let through = scenario(&mut stand, &addr);
    let mut stand = Stand::start();
    let addr = stand.buildkitd.addr();
    (through, scenario(&mut stand, &addr))
}

/// A build that pushes `image` with its cache.
fn pushing(stand: &Stand, build: Buildctl, image: &str, attributes: &str) -> Buildctl {
    build
        .push_with(&stand.registry.image(image), attributes)
        .export_cache("type=inline")
}

#[test]
fn a_cold_build_runs_each_step_once_and_compresses_the_layers_of_its_image() {
    for (case, dockerfile, attributes) in [
        ("stages", STAGES.to_owned(), ""),
        ("linked", linked(), ""),
        ("mounted", MOUNTED.to_owned(), ""),
        ("zstd", STAGES.to_owned(), "compression=zstd"),
        (
            "zstd, forced",
            STAGES.to_owned(),
            "compression=zstd,force-compression=true",
        ),
        ("rewritten", STAGES.to_owned(), "rewrite-timestamp=true"),
    ] {
        let project = project(&dockerfile);
        let (through, past) = through_and_past(|stand, addr| {
            let build = stand.build(&project).addr(addr).epoch(1_700_000_000);
            pushing(stand, build, "demo:cold", attributes).run_ok();
            if attributes != "rewrite-timestamp=true" {
                let layers: BTreeSet<_> = stand
                    .registry
                    .layers("demo:cold", None)
                    .into_iter()
                    .collect();
                assert_eq!(stand.buildkitd.layer_blobs(), layers, "{case}");
            }
            work(stand, 0)
        });
        let once: BTreeSet<_> = through.executed.iter().collect();
        assert_eq!(once.len(), through.executed.len(), "{case}: {through:#?}");
        assert_eq!(through, past, "{case}");
    }
}

#[test]
fn a_cold_build_for_two_platforms_runs_each_step_once() {
    let project = project(
        "\
FROM scratch AS build
ADD rootfs.tar /
COPY source.txt /src/
ARG TARGETARCH
RUN echo $TARGETARCH >/arch.txt

FROM scratch
COPY --from=build /arch.txt /app/
",
    );
    let (through, past) = through_and_past(|stand, addr| {
        let build = stand.build(&project).addr(addr);
        let build = build.opt("platform=linux/amd64,linux/arm64");
        pushing(stand, build, "demo:two", "").run_ok();
        let mut work = work(stand, 0);
        // A step that both share bears the name of either.
        for result in &mut work.results {
            *result = result
                .replace("linux/amd64 ", "")
                .replace("linux/arm64 ", "");
        }
        work.results.sort();
        work
    });
    assert_eq!(through.executed.len(), 2, "{through:#?}");
    assert_eq!(through, past);
}

#[test]
fn the_judge_sees_a_step_that_runs_again_and_a_layer_of_another_stage() {
    let stand = Stand::start();
    let project = project(STAGES);
    let build = stand.build(&project);
    pushing(&stand, build.clone(), "demo:1", "").run_ok();
    let first = work(&stand, 0);
    pushing(&stand, build.clone(), "demo:1", "").run_ok();
    assert_eq!(work(&stand, 0), first, "all is warm");
    let other = build.clone().opt("target=build");
    pushing(&stand, other, "demo:build", "").run_ok();
    let second = work(&stand, 0);
    assert_eq!(second.executed, first.executed);
    assert!(second.layers > first.layers, "{second:#?}");
    build.args(["--no-cache"]).run_ok();
    let third = work(&stand, 0);
    assert_eq!(third.executed.len(), 2 * first.executed.len(), "{third:#?}");
    assert!(third.results.len() > second.results.len(), "{third:#?}");
}

#[test]
fn a_build_that_an_import_satisfies_runs_and_pulls_nothing() {
    for (case, dockerfile) in [
        ("stages", STAGES.to_owned()),
        ("linked", linked()),
        ("mounted", MOUNTED.to_owned()),
    ] {
        let project = project(&dockerfile);
        // The image is inlay's in both.
        let (mut through, past) = through_and_past(|stand, addr| {
            let build = stand.build(&project);
            pushing(stand, build.clone(), "demo:1", "").run_ok();
            let layers = stand.registry.layers("demo:1", None);
            let executed = stand.buildkitd.executed().len();
            stand.buildkitd.wipe();
            let reads = stand.registry.blob_gets().len();

            let import = build.addr(addr).import_cache(&stand.import("demo:1"));
            let built = pushing(stand, import, "demo:2", "").run_ok();
            assert_eq!(built.steps_ran(), [""; 0], "{case}: {built}");
            let read = stand.registry.blob_gets().split_off(reads);
            assert!(
                !read.iter().any(|blob| layers.contains(blob)),
                "{case}: {read:?}"
            );
            assert_eq!(stand.registry.layers("demo:2", None), layers, "{case}");
            work(stand, executed)
        });
        assert_eq!(through.executed, [""; 0], "{case}");
        assert!(through.take_probes() <= 1, "{case}");
        assert_eq!(through.layers, 0, "{case}");
        assert_eq!(through.take_notices(), 1, "{case}");
        assert_eq!(through, past, "{case}");
    }
}

#[test]
fn an_archive_of_an_imported_image_pulls_its_layers_and_no_others() {
    let project = project(STAGES);
    let out = Project::new();
    let archive = format!("type=oci,dest={}", out.path().join("oci").display());
    let (mut through, past) = through_and_past(|stand, addr| {
        let build = stand.build(&project);
        pushing(stand, build.clone(), "demo:1", "").run_ok();
        // The layers of another stage are in the same repository. (Were that imported too, BuildKit
        // would look at them or not, by chance, with inlay and without.)
        let target = build.clone().opt("target=build");
        pushing(stand, target, "demo:build", "").run_ok();
        let layers = stand.registry.layers("demo:1", None);
        let executed = stand.buildkitd.executed().len();
        stand.buildkitd.wipe();
        build
            .addr(addr)
            .import_cache(&stand.import("demo:1"))
            .output(&archive)
            .export_cache("type=inline")
            .run_ok();
        let blobs = stand.buildkitd.layer_blobs();
        assert!(layers.iter().all(|layer| blobs.contains(layer)));
        let mut work = work(stand, executed);
        assert!(work.take_probes() <= 1);
        assert_eq!(work.layers, layers.len(), "no others");
        work
    });
    assert_eq!(through.executed, [""; 0]);
    assert_eq!(through.take_notices(), 1);
    assert_eq!(through, past);
}

/// Writes versions of the source that give the same outputs, the first one last.
fn each_version(project: &Project, mut build: impl FnMut()) {
    for version in [1, 2, 3, 1] {
        project.write("source.txt", format!("version {version}\n"));
        build();
    }
}

/// Steps that write the same for each version.
const SAME: &str = "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
COPY source.txt /src/
RUN wc -l </src/source.txt >/count.txt
RUN cat /count.txt >/out.txt

FROM base
COPY --from=build /out.txt /app/
RUN cat /app/* >/all.txt
";

#[test]
fn imports_of_several_versions_run_nothing_and_leave_one_image() {
    for (case, dockerfile) in [("copied", SAME), ("mounted", MOUNTED)] {
        let project = project(dockerfile);
        let mut stand = Stand::start();
        let mut version = 0;
        let mut images = Vec::new();
        // Cold, so that each knows of its own version only.
        each_version(&project, || {
            version += 1;
            stand.buildkitd.wipe();
            let image = format!("demo:{version}");
            // An epoch, or the copies of one stage would differ.
            let build = stand.build(&project).epoch(1_700_000_000);
            images.push(stand.push(&build, &image, "rewrite-timestamp=true"));
        });
        assert_one(case, &[images[0].clone(), images[3].clone()]);
        let executed = stand.buildkitd.executed().len();

        stand.buildkitd.wipe();
        let mut build = stand.build(&project).epoch(1_700_000_000);
        for image in ["demo:3", "demo:2", "demo:1"] {
            build = build.import_cache(&stand.import(image));
        }
        let pushed = stand.push(&build, "demo:imported", "rewrite-timestamp=true");
        assert_eq!(stand.buildkitd.executed().len(), executed, "{case}");
        assert_one(case, &[images[0].clone(), pushed]);
    }
}

/// What a daemon does for a build once it has built several versions and has lost results of
/// another stage.
#[test]
fn a_daemon_that_lost_another_stage_runs_what_it_runs_past_inlay() {
    let last: fn(&Project) = |project| {
        let text = format!("{SAME}RUN echo more\n");
        project.write("Dockerfile", text);
    };
    let same: fn(&Project) = |_| {};
    for (case, dockerfile, change) in [
        ("copied", SAME, same),
        ("mounted", MOUNTED, same),
        ("copied, one more step", SAME, last),
    ] {
        let (mut through, past) = through_and_past(|stand, addr| {
            let project = project(dockerfile);
            let build = stand.build(&project).addr(addr);
            let build = pushing(stand, build, "demo:1", "");
            each_version(&project, || drop(build.run_ok()));
            stand.buildkitd.forget(&[
                "/count.txt >/out.txt",
                "/src/source.txt >/count.txt",
                "COPY source.txt",
            ]);
            let executed = stand.buildkitd.executed().len();
            change(&project);
            build.run_ok();
            work(stand, executed)
        });
        assert!(through.take_probes() > 0, "{case}: {through:#?}");
        assert_eq!(through, past, "{case}");
    }
}

/// The client's session decides that an image is taken in place of another. The definitions are the
/// ones from before that, so inlay's own solves have to ask the session, too.
#[test]
fn a_policy_of_the_session_holds_for_inlays_own_solves() {
    let mut stand = Stand::start();
    let base = |name: &str| {
        let dockerfile = format!("FROM scratch\nADD rootfs.tar /\nRUN echo {name} >/name\n");
        let image = stand.registry.image(&format!("{name}:latest"));
        stand
            .build_plain(&project(&dockerfile))
            .push(&image)
            .run_ok();
        image
    };
    let (written, taken) = (base("written"), base("taken"));
    let project = Project::new();
    let (plain, through) = (stand.buildkitd.addr(), stand.inlay.addr());
    let mut solve = |addr: String, image: &str| {
        stand.buildkitd.wipe();
        let executed = stand.buildkitd.executed().len();
        let solve = Direct::definition(addr, &project)
            .on(&written)
            .command("cp /name /copy");
        let solve = solve
            .replacing(&written, &taken)
            .export_cache("type=inline");
        solve.push(&stand.registry.image(image)).run_ok();
        stand.buildkitd.executed().len() - executed
    };
    assert_eq!(solve(plain, "plain:policy"), 1);
    assert_eq!(solve(through, "inlay:policy"), 1);
    // The same keys as BuildKit's own, which are those of the image that was taken.
    let digests = |image: &str| -> BTreeSet<String> {
        let records = inline_records(&stand.registry.config(image, None));
        records
            .iter()
            .map(|record| record["digest"].to_string())
            .collect()
    };
    assert_eq!(digests("inlay:policy"), digests("plain:policy"));
}
