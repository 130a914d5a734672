//! What else a daemon has built leaves no trace in an image's cache.

use std::collections::BTreeSet;

use inlay::cache::image::config::{DEFAULT_LIMIT, strip};

use crate::support::{Project, Stand, assert_one, inline_records};

/// The `build` stage makes `/out.txt`, of which the final stage has a copy.
fn with_stage(build: &str) -> String {
    format!(
        "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
{build}

FROM base
RUN echo fixed >/fixed.txt
COPY --from=build /out.txt /app/
RUN cat /app/out.txt >/all.txt
"
    )
}

/// Builds v1, four variants of it with the same outputs, and v1 again; `write` makes the project a
/// variant, 0 being v1.
fn v1_variants_v1(what: &str, write: impl Fn(&Project, usize)) {
    v1_many_v1(what, 4, write);
}

fn v1_many_v1(what: &str, variants: usize, write: impl Fn(&Project, usize)) {
    let stand = Stand::start();
    let project = Project::new().base();
    let build = stand.build(&project);
    write(&project, 0);
    let first = stand.push(&build, "demo:v1", "");
    for variant in 1..=variants {
        write(&project, variant);
        stand.push(&build, "demo:variant", "");
    }
    write(&project, 0);
    let again = stand.push(&build, "demo:v1", "");
    assert_one(what, &[first, again]);
}

/// Many of them, as on a daemon that has built this for long.
#[test]
fn twelve_variants_of_a_copied_source() {
    v1_many_v1("copied", 12, |project, variant| {
        project.write(
            "Dockerfile",
            with_stage("COPY source.txt /src/\nRUN wc -l </src/source.txt >/out.txt"),
        );
        project.write("source.txt", format!("text {variant}\n"));
    });
}

#[test]
fn variants_of_a_copied_source_through_two_stages() {
    v1_variants_v1("copied through two stages", |project, variant| {
        project.write("Dockerfile", with_stage("COPY source.txt /src/\nRUN wc -l </src/source.txt >/count.txt\n\
            FROM base AS second\nCOPY --from=build /count.txt /\nCOPY other.txt /src/\nRUN cat /count.txt >/out.txt").replace("--from=build /out", "--from=second /out"));
        project.write("source.txt", format!("text {variant}\n"));
        project.write("other.txt", format!("other {}\n", variant / 2));
    });
}

#[test]
fn variants_of_a_mounted_source() {
    v1_variants_v1("mounted", |project, variant| {
        project.write(
            "Dockerfile",
            with_stage("RUN --mount=type=bind,target=/src wc -l </src/source.txt >/out.txt"),
        );
        project.write("source.txt", format!("text {variant}\n"));
    });
}

#[test]
fn variants_of_a_mounted_file() {
    v1_variants_v1("mounted file", |project, variant| {
        project.write("Dockerfile", with_stage("RUN --mount=type=bind,source=source.txt,target=/source.txt wc -l </source.txt >/out.txt"));
        project.write("source.txt", format!("text {variant}\n"));
    });
}

#[test]
fn variants_of_a_stage_that_is_mounted_whole() {
    v1_variants_v1("mounted stage", |project, variant| {
        let build = "COPY source.txt /src/\nRUN wc -l </src/source.txt >/count.txt\n\
            FROM base AS second\n\
            RUN --mount=type=bind,from=build,target=/build cat /build/count.txt >/out.txt";
        let dockerfile = with_stage(build).replace("--from=build", "--from=second");
        project.write("Dockerfile", dockerfile);
        project.write("source.txt", format!("text {variant}\n"));
    });
}

#[test]
fn variants_of_sources_by_wildcard_beside_ignored_files() {
    v1_variants_v1("wildcard", |project, variant| {
        project.write(
            "Dockerfile",
            with_stage("COPY *.txt /src/\nRUN cat /src/*.txt | wc -l >/out.txt"),
        );
        project.write(".dockerignore", "*.log\nignored.txt\n");
        project.write("a.txt", format!("text {variant}\n"));
        project.write("b.txt", format!("text {}\n", variant / 3));
        project.write("ignored.txt", format!("ignored {variant}\n"));
        project.write("build.log", format!("log {variant}\n"));
    });
}

#[test]
fn variants_of_a_command_in_another_stage() {
    v1_variants_v1("command", |project, variant| {
        project.write(
            "Dockerfile",
            with_stage(&format!(
                "COPY source.txt /src/\nRUN : {variant}; wc -l </src/source.txt >/out.txt"
            )),
        );
        project.write("source.txt", "text\n");
    });
}

#[test]
fn v1_v2_v1_with_other_outputs() {
    for (case, build) in [
        (
            "copied",
            "COPY source.txt /src/\nRUN tr a-z A-Z </src/source.txt >/out.txt",
        ),
        (
            "mounted",
            "RUN --mount=type=bind,target=/src tr a-z A-Z </src/source.txt >/out.txt",
        ),
    ] {
        let stand = Stand::start();
        let project = Project::new().base().dockerfile(&with_stage(build));
        let pushed = ["one\n", "two\n", "one\n"].map(|source| {
            project.write("source.txt", source);
            stand.push(&stand.build(&project), "demo:v", "")
        });
        let [first, other, again] = pushed;
        assert_ne!(first, other);
        assert_one(&format!("v1, v2, v1 {case}"), &[first, again]);
    }
}

/// Builds v1, runs its steps once more without export, all of them or those of one stage, and
/// builds v1 again.
///
/// Which of the results v1 then is made of is the daemon's choice, so the image itself may differ.
#[test]
fn newer_results_of_the_same_steps_leave_no_record_without_one() {
    let below = "\
FROM scratch AS below
ADD rootfs.tar /
RUN date +%N >/a.txt

FROM below AS middle
RUN date +%N >/b.txt

FROM middle
RUN cat /a.txt /b.txt >/c.txt
RUN cat /c.txt >/d.txt
";
    let copied = with_stage("COPY source.txt /src/\nRUN date +%N >/out.txt");
    let linked = copied.replace("COPY --from", "COPY --link --from");
    let whole: &[&str] = &["--no-cache"];
    for (case, dockerfile, args) in [
        ("one chain", below, whole),
        (
            "one chain, its base",
            below,
            &["--no-cache", "--opt=target=below"],
        ),
        (
            "stages, their base",
            &copied,
            &["--no-cache", "--opt=target=base"],
        ),
        (
            "stages, the other one",
            &copied,
            &["--no-cache", "--opt=target=build"],
        ),
        ("linked", &linked, whole),
        (
            "linked, their base",
            &linked,
            &["--no-cache", "--opt=target=base"],
        ),
    ] {
        let stand = Stand::start();
        let project = Project::new()
            .base()
            .dockerfile(dockerfile)
            .file("source.txt", "text\n");
        let build = stand.build(&project);
        let first = stand.push(&build, "demo:v1", "");
        let without_cache = |stand: &Stand| {
            strip(&stand.registry.config("demo:v1", None), DEFAULT_LIMIT).expect("a config")
        };
        let image = without_cache(&stand);
        build.clone().args(args.iter().copied()).run_ok();
        let again = stand.push(&build, "demo:v1", "");
        assert_eq!(
            (again.records, again.results),
            (first.records, first.results),
            "{case}: {again:?} after {first:?}"
        );
        if without_cache(&stand) == image {
            assert_one(case, &[first, again]);
        }
    }
}

/// A stage that gives other content each time it runs. BuildKit's own inline cache then says that
/// the earlier content leads to the later layer.
#[test]
fn content_of_an_earlier_run_does_not_lead_to_a_later_layer() {
    let stand = Stand::start();
    let project = Project::new()
        .base()
        .dockerfile(&with_stage("RUN head -c 16 /dev/urandom >/out.txt"));
    let roots = |args: &[&str]| -> BTreeSet<String> {
        let build = stand.build(&project).args(args.iter().copied());
        stand.push(&build, "demo:again", "");
        let records = inline_records(&stand.registry.config("demo:again", None));
        let roots = records
            .iter()
            .filter(|record| record.get("inputs").is_none());
        roots.map(|root| root["digest"].to_string()).collect()
    };
    let first = roots(&[]);
    let again = roots(&["--no-cache"]);
    let base = first.intersection(&again).count();
    assert_eq!((first.len(), base), (2, 1), "{first:#?} then {again:#?}");
}
