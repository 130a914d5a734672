//! The cache in an image is smaller than the one that BuildKit would embed there on an empty
//! daemon, and does not grow with what a daemon has built before.
//!
//! The judge is the same build past inlay, with BuildKit's own inline cache.

use serde_json::Value;

use crate::support::{Buildctl, INLINE_CACHE_KEY, Project, STAGES, Stand};

/// At most this many bytes to 100 of BuildKit's.
const PERCENT: usize = 92;

/// A build to compare: its name, a Dockerfile, an option of `buildctl` and attributes of the exporter.
type Example = (&'static str, String, &'static str, &'static str);

fn stages(build: &str, end: &str) -> String {
    format!(
        "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
{build}

FROM base
{end}
"
    )
}

/// What a stage may read, and how.
fn reading() -> Vec<Example> {
    let single = "\
FROM scratch
ADD rootfs.tar /
COPY source.txt /src/
RUN tr a-z A-Z </src/source.txt >/out.txt
RUN cat /out.txt /src/source.txt
";
    let count = "COPY source.txt /src/\nRUN wc -l </src/source.txt >/out.txt";
    let second = "COPY source.txt /src/\nRUN wc -l </src/source.txt >/count.txt\n\
        FROM base AS second\nCOPY --from=build /count.txt /\nCOPY other.txt /src/\n\
        RUN cat /count.txt /src/other.txt >/out.txt";
    let mounted = "RUN --mount=type=bind,target=/src wc -l </src/source.txt >/out.txt";
    let mounted_file =
        "RUN --mount=type=bind,source=source.txt,target=/source.txt wc -l </source.txt >/out.txt";
    let mounted_stage = "COPY source.txt /src/\nRUN wc -l </src/source.txt >/count.txt\n\
        FROM base AS second\n\
        RUN --mount=type=bind,from=build,target=/build cat /build/count.txt >/out.txt";
    let wildcard = "COPY *.txt /src/\nRUN cat /src/*.txt | wc -l >/out.txt";
    let copied =
        "RUN echo fixed >/fixed.txt\nCOPY --from=build /out.txt /app/\nRUN cat /app/* >/all.txt";
    let from_second = copied.replace("--from=build", "--from=second");
    vec![
        ("single", single.into(), "", ""),
        ("copied", stages(count, copied), "", ""),
        ("two stages", stages(second, &from_second), "", ""),
        ("mounted", stages(mounted, copied), "", ""),
        ("mounted file", stages(mounted_file, copied), "", ""),
        ("mounted stage", stages(mounted_stage, &from_second), "", ""),
        ("wildcard", stages(wildcard, copied), "", ""),
    ]
}

/// What an image may be made of, and how it is written.
fn writing() -> Vec<Example> {
    let platforms = "\
FROM --platform=$BUILDPLATFORM scratch AS build
ADD rootfs.tar /
ARG TARGETARCH
COPY source.txt /src/
RUN (echo $TARGETARCH; cat /src/source.txt) >/out.txt

FROM scratch
COPY source.txt /app/
COPY --from=build /out.txt /app/
";
    let upper = "COPY source.txt /src/\nRUN tr a-z A-Z </src/source.txt >/out.txt";
    let linked = "COPY --link --from=build /out.txt /app/\nCOPY --link --from=build /src /app/\n\
        RUN cat /app/* >/all.txt\nCOPY --link source.txt /own/";
    let five = |line: &str| {
        let lines = (0..5).map(|n| line.replace("{n}", &n.to_string()));
        stages(upper, &lines.collect::<Vec<_>>().join("\n"))
    };
    let one_place = five("COPY --from=build /out.txt /app/");
    let five_places = five("COPY --from=build /out.txt /app{n}/");
    let five_linked = five("COPY --link --from=build /out.txt /app{n}/");
    let config =
        "LABEL b=<&> a=\"it's\"\nENV X=\u{e9}\nCOPY --from=build /out.txt /app/\nCMD [\"/bin/sh\"]";
    let provenance = "attest:provenance=mode=max";
    let both = "platform=linux/amd64,linux/arm64";
    vec![
        ("stages", STAGES.into(), "", ""),
        ("stages, zstd", STAGES.into(), "", "compression=zstd"),
        ("stages, provenance", STAGES.into(), provenance, ""),
        ("linked", stages(upper, linked), "", ""),
        ("five copies to one place", one_place, "", ""),
        ("five copies", five_places, "", ""),
        ("five linked copies", five_linked, "", ""),
        ("config", stages(upper, config), "", ""),
        ("two platforms", platforms.into(), both, ""),
    ]
}

/// The caches of an image, as they stand in the configs of its platforms.
fn caches(stand: &Stand, image: &str) -> Vec<String> {
    let platforms = stand.registry.image_digests(image).into_keys();
    let caches = platforms.map(|platform| {
        let platform = (!platform.is_empty()).then_some(&*platform);
        let config: Value =
            serde_json::from_slice(&stand.registry.config(image, platform)).unwrap();
        config[INLINE_CACHE_KEY].as_str().unwrap().to_owned()
    });
    caches.collect()
}

fn bytes(caches: &[String]) -> usize {
    caches.iter().map(String::len).sum()
}

#[test]
fn a_cache_is_smaller_than_buildkits_whatever_stages_read() {
    compare(reading());
}

#[test]
fn a_cache_is_smaller_than_buildkits_whatever_makes_the_image() {
    compare(writing());
}

/// Compares each with the cache of BuildKit, and after a past with the one of an empty daemon.
fn compare(examples: Vec<Example>) {
    let mut stand = Stand::start();
    println!(
        "{:<26}{:>9}{:>9}{:>7}",
        "encoded cache, bytes", "BuildKit", "inlay", "ratio"
    );
    let mut too_large = Vec::new();
    for (example, dockerfile, option, attributes) in examples {
        let project = Project::new()
            .base()
            .dockerfile(&dockerfile)
            .file("other.txt", "other\n");
        let built = |stand: &Stand, build: Buildctl, source: usize| {
            project.write("source.txt", format!("version {source}\n"));
            let build = match option {
                "" => build,
                option => build.opt(option),
            };
            let image = stand.registry.image("demo:size");
            build
                .push_with(&image, attributes)
                .export_cache("type=inline")
                .run_ok();
            caches(stand, "demo:size")
        };

        stand.buildkitd.wipe();
        let theirs = built(&stand, stand.build_plain(&project), 0);
        // That build is a past, and so are those of other sources.
        for source in 1..3 {
            built(&stand, stand.build_plain(&project), source);
        }
        let after_a_past = built(&stand, stand.build(&project), 0);
        stand.buildkitd.wipe();
        let cold = built(&stand, stand.build(&project), 0);

        assert_eq!(after_a_past, cold, "{example}");
        let (theirs, ours) = (bytes(&theirs), bytes(&cold));
        let ratio = ours as f64 / theirs as f64;
        println!("{example:<26}{theirs:>9}{ours:>9}{ratio:>7.3}");
        if 100 * ours > PERCENT * theirs {
            too_large.push(example);
        }
    }
    assert_eq!(too_large, [""; 0], "above {PERCENT} % of BuildKit's");
}
