//! Builds that give one image without inline cache give one image with it, whatever their daemon
//! has seen.

use crate::support::{Buildctl, Buildx, Project, Pushed, STAGES, Stand, assert_one, own_platform};

const EPOCH: u64 = 1_700_000_000;

const LINK: &str = "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
COPY source.txt /src/
RUN tr a-z A-Z </src/source.txt >/out.txt
RUN wc -c </out.txt >/count.txt

FROM base
COPY --link --from=build /out.txt /app/
COPY --link --from=build /count.txt /app/
RUN cat /app/* >/all.txt
COPY --link source.txt /app/
";

/// Needs nothing of other platforms to run.
const PLATFORMS: &str = "\
FROM --platform=$BUILDPLATFORM scratch AS build
ADD rootfs.tar /
ARG TARGETARCH
COPY source.txt /src/
RUN (echo $TARGETARCH; cat /src/source.txt) >/out.txt

FROM scratch
COPY source.txt /app/
COPY --from=build /out.txt /app/
";

fn project(dockerfile: &str) -> Project {
    Project::new()
        .base()
        .dockerfile(dockerfile)
        .file("source.txt", "some text\n")
}

/// A Dockerfile whose last stage has the line five times, and a stage `build` with `/out.txt`.
fn five(line: impl Fn(usize) -> String) -> String {
    let lines = (0..5).map(line).collect::<Vec<_>>().join("\n");
    format!(
        "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
COPY source.txt /src/
RUN tr a-z A-Z </src/source.txt >/out.txt

FROM base
{lines}
"
    )
}

#[test]
fn six_builds_on_a_warm_daemon_with_five_equal_copies() {
    let stand = Stand::start();
    let cases = [
        (
            "to one place",
            five(|_| "COPY --from=build /out.txt /app/".into()),
        ),
        (
            "to five places",
            five(|n| format!("COPY --from=build /out.txt /app{n}/")),
        ),
        (
            "linked",
            five(|n| format!("COPY --link --from=build /out.txt /app{n}/")),
        ),
    ];
    for (case, dockerfile) in cases {
        let project = project(&dockerfile);
        let build = stand.build(&project);
        let pushed: Vec<_> = (0..6)
            .map(|_| stand.push(&build, "demo:warm", ""))
            .collect();
        assert_one(&format!("five equal copies {case}"), &pushed);
    }
}

/// Pushes what each of three cold daemons builds.
fn three_cold(mut build: impl FnMut(&Stand) -> Pushed) -> Vec<Pushed> {
    let mut stand = Stand::start();
    (0..3)
        .map(|n| {
            if n > 0 {
                stand.buildkitd.wipe();
            }
            build(&stand)
        })
        .collect()
}

fn three_cold_by_buildctl(
    what: &str,
    dockerfile: &str,
    attributes: &str,
    more: impl Fn(Buildctl) -> Buildctl,
) -> Vec<Pushed> {
    let project = project(dockerfile);
    let attributes = format!("rewrite-timestamp=true{attributes}");
    let pushed = three_cold(|stand| {
        let build = more(stand.build(&project).epoch(EPOCH));
        stand.push(&build, "demo:cold", &attributes)
    });
    assert_one(what, &pushed);
    pushed
}

#[test]
fn cold_builds_of_stages() {
    three_cold_by_buildctl("stages", STAGES, "", |build| build);
    three_cold_by_buildctl("linked copies", LINK, "", |build| build);
}

#[test]
fn cold_builds_with_zstd() {
    for force in ["", ",force-compression=true"] {
        let attributes = format!(",compression=zstd{force}");
        three_cold_by_buildctl(&format!("zstd{force}"), STAGES, &attributes, |build| build);
    }
}

#[test]
fn cold_builds_for_two_platforms() {
    let pushed = three_cold_by_buildctl("two platforms", PLATFORMS, "", |build| {
        build.opt("platform=linux/amd64,linux/arm64")
    });
    let platforms: Vec<_> = pushed[0].digests.keys().collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
}

#[test]
fn cold_builds_with_provenance() {
    for mode in ["min", "max"] {
        let pushed = three_cold_by_buildctl(&format!("provenance {mode}"), STAGES, "", |build| {
            build.opt(&format!("attest:provenance=mode={mode}"))
        });
        let platforms: Vec<_> = pushed[0].digests.keys().collect();
        assert_eq!(
            platforms,
            [&own_platform()],
            "an index, with the attestation beside"
        );
    }
}

#[test]
fn cold_builds_by_buildx() {
    let project = project(LINK);
    let pushed = three_cold(|stand| {
        let name = stand.registry.image("demo:buildx");
        // Its own default adds provenance.
        let built = Buildx::remote(&stand.inlay.addr())
            .build(&project)
            .output(&format!("type=registry,name={name},rewrite-timestamp=true"))
            .build_arg(&format!("SOURCE_DATE_EPOCH={EPOCH}"))
            .cache_to("type=inline")
            .run_ok();
        assert_eq!(built.warnings, [""; 0], "{built}");
        stand.pushed("demo:buildx")
    });
    assert_one("buildx", &pushed);
}
