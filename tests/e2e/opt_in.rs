//! Nothing is inlay's but the cache that was asked for: the image without it is BuildKit's own.

use inlay::cache::image::config::{DEFAULT_LIMIT, strip};

use crate::support::{Buildctl, Inlay, Project, Stand, inline_records};

const STAGES: &str = "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
COPY source.txt /src/
RUN tr a-z A-Z </src/source.txt >/out.txt

FROM base
LABEL b=<&> a=\"it's\"
ENV X=\u{e9}\u{4e16}
COPY --from=build /out.txt /app/
RUN cat /app/* >/all.txt
CMD [\"/bin/sh\"]
";

const PLATFORMS: &str = "\
FROM scratch
ARG TARGETARCH
LABEL arch=$TARGETARCH
COPY source.txt /app/$TARGETARCH/
";

fn project(dockerfile: &str) -> Project {
    Project::new()
        .base()
        .dockerfile(dockerfile)
        .file("source.txt", "some text\n")
}

fn reproducible(stand: &Stand, build: Buildctl, image: &str) -> Buildctl {
    build
        .epoch(1_700_000_000)
        .push_with(&stand.registry.image(image), "rewrite-timestamp=true")
}

#[test]
fn without_its_cache_the_config_is_the_one_of_a_build_without() {
    let one: &[Option<&str>] = &[None];
    let two: &[Option<&str>] = &[Some("linux/amd64"), Some("linux/arm64")];
    for (dockerfile, platforms) in [(STAGES, one), (PLATFORMS, two)] {
        let mut stand = Stand::start();
        let project = project(dockerfile);
        let names: Vec<_> = platforms.iter().flatten().copied().collect();
        let platform = |build: Buildctl| match &names[..] {
            [] => build,
            names => build.opt(&format!("platform={}", names.join(","))),
        };
        let plain = platform(stand.build_plain(&project));
        reproducible(&stand, plain, "demo:without").run_ok();
        stand.buildkitd.wipe();
        let build = platform(stand.build(&project)).export_cache("type=inline");
        reproducible(&stand, build, "demo:with").run_ok();

        for &platform in platforms {
            let without = stand.registry.config("demo:without", platform);
            let with = stand.registry.config("demo:with", platform);
            assert!(!inline_records(&with).is_empty(), "{platform:?}");
            assert_eq!(
                String::from_utf8_lossy(&strip(&with, DEFAULT_LIMIT).expect("an image config")),
                String::from_utf8_lossy(&without),
                "{platform:?}"
            );
        }
    }
}

#[test]
fn a_build_that_does_not_ask_gives_the_image_of_buildkit() {
    let mut stand = Stand::start();
    let project = project(STAGES);
    reproducible(&stand, stand.build_plain(&project), "demo:plain").run_ok();
    stand.buildkitd.wipe();
    reproducible(&stand, stand.build(&project), "demo:through").run_ok();
    let config = stand.registry.config("demo:through", None);
    assert!(inline_records(&config).is_empty());
    let digest = |image| stand.registry.digest(image);
    assert_eq!(digest("demo:through"), digest("demo:plain"));
}

#[test]
fn a_server_that_never_exports_leaves_the_cache_to_buildkit() {
    let stand = Stand::start();
    let project = project(STAGES);
    let never = Inlay::start(&stand.buildkitd, &["--inline-export=never"]);
    let asks = |build: Buildctl, image| {
        build
            .push(&stand.registry.image(image))
            .export_cache("type=inline")
            .run_ok();
        inline_records(&stand.registry.config(image, None))
    };
    let build = stand.build(&project);
    // Of its results, BuildKit tells when they were made, and inlay does not.
    let dated = |records: &[serde_json::Value]| {
        let results = records
            .iter()
            .flat_map(|record| record["layers"].as_array());
        let mut results = results.flatten().peekable();
        assert!(results.peek().is_some(), "{records:#?}");
        results.all(|result| result["createdAt"].is_string())
    };
    assert!(dated(&asks(build.clone().addr(never.addr()), "demo:never")));
    assert!(dated(&asks(stand.build_plain(&project), "demo:plain")));
    assert!(!dated(&asks(build, "demo:asked")));
}

#[test]
fn the_build_argument_asks_too() {
    let stand = Stand::start();
    let project = project(STAGES);
    let build = stand
        .build(&project)
        .push(&stand.registry.image("demo:argument"));
    build
        .clone()
        .opt("build-arg:BUILDKIT_INLINE_CACHE=1")
        .run_ok();
    let config = stand.registry.config("demo:argument", None);
    assert!(!inline_records(&config).is_empty());
    build.opt("build-arg:BUILDKIT_INLINE_CACHE=0").run_ok();
    let config = stand.registry.config("demo:argument", None);
    assert!(inline_records(&config).is_empty());
}
