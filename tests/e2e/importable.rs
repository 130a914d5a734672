//! Plain BuildKit imports what inlay embedded, with no inlay in sight.

use crate::support::{Buildctl, Buildkitd, Project, Stand};

/// All random bytes, so that a step that runs again is found out.
const SINGLE: &str = "\
FROM scratch
ADD rootfs.tar /
COPY source.txt /src/
RUN head -c 16 /dev/urandom | hexdump -C >/random
RUN cat /random /src/source.txt
";

const STAGES: &str = "\
FROM scratch AS base
ADD rootfs.tar /
RUN head -c 16 /dev/urandom | hexdump -C >/base

FROM base AS build
COPY source.txt /src/
RUN head -c 16 /dev/urandom | hexdump -C >/random

FROM base
COPY --from=build /random /
RUN cat /base /random
";

const LINK: &str = "\
FROM scratch AS base
ADD rootfs.tar /
RUN head -c 16 /dev/urandom | hexdump -C >/base

FROM base AS build
RUN head -c 16 /dev/urandom | hexdump -C >/random

FROM base
COPY --link --from=build /random /
COPY --link source.txt /src/
RUN cat /base /random
";

const CASES: [(&str, &str, &str); 4] = [
    ("single", SINGLE, ""),
    ("stages", STAGES, ""),
    ("linked", LINK, ""),
    ("zstd", STAGES, "compression=zstd"),
];

/// With the client's files as a mount of a step.
///
/// It is not among those of which the last step changes: there BuildKit runs the step with the
/// mount again, with its own inline cache as with inlay's.
const MOUNTED: (&str, &str, &str) = (
    "mounted",
    "\
FROM scratch
ADD rootfs.tar /
RUN --mount=type=bind,target=/context head -c 16 /dev/urandom | hexdump -C >/random
RUN --mount=type=bind,source=source.txt,target=/s cat /random /s >/all
RUN cat /all
",
    "",
);

/// An image of inlay as `demo:1`, and what its last step said.
fn built_by_inlay(stand: &Stand, dockerfile: &str, attributes: &str) -> (Project, String) {
    let project = Project::new()
        .base()
        .dockerfile(dockerfile)
        .file("source.txt", "some text\n");
    let build = stand
        .build(&project)
        .push_with(&stand.registry.image("demo:1"), attributes)
        .export_cache("type=inline");
    let built = build.run_ok();
    let said = built.vertex("RUN cat").log.clone();
    assert!(said.contains("00000000"), "{built}");
    (project, said)
}

#[test]
fn every_step_is_cached_and_keeps_its_random_bytes() {
    for (case, dockerfile, attributes) in CASES.into_iter().chain([MOUNTED]) {
        let stand = Stand::start();
        let (project, _) = built_by_inlay(&stand, dockerfile, attributes);
        let plain = Buildkitd::start();
        let built = Buildctl::new(plain.addr())
            .project(&project)
            .import_cache(&stand.import("demo:1"))
            .push_with(&stand.registry.image("demo:2"), attributes)
            .run_ok();
        assert_eq!(built.steps_ran(), [""; 0], "{case}: {built}");
        // Some of these are of other stages.
        assert!(built.steps_cached().len() >= 4, "{case}: {built}");
        assert_eq!(plain.executed(), [""; 0], "{case}");
        let layers = |image| stand.registry.layers(image, None);
        assert_eq!(layers("demo:2"), layers("demo:1"), "{case}");
    }
}

#[test]
fn a_changed_last_step_runs_alone_on_the_right_files() {
    for (case, dockerfile, attributes) in CASES {
        let stand = Stand::start();
        let (project, said) = built_by_inlay(&stand, dockerfile, attributes);
        let (all_but_last, _) = dockerfile.trim_end().rsplit_once('\n').expect("lines");
        let last = dockerfile.trim_end().lines().last().expect("lines");
        project.write("Dockerfile", format!("{all_but_last}\n{last} # again\n"));
        let plain = Buildkitd::start();
        let built = Buildctl::new(plain.addr())
            .project(&project)
            .import_cache(&stand.import("demo:1"))
            .push_with(&stand.registry.image("demo:2"), attributes)
            .run_ok();
        let ran = built.steps_ran();
        assert!(
            ran.len() == 1 && ran[0].ends_with("# again"),
            "{case}: {built}"
        );
        assert_eq!(plain.executed().len(), 1, "{case}: {:?}", plain.executed());
        assert_eq!(built.vertex("# again").log, said, "{case}");
        let below = |image| {
            let mut layers = stand.registry.layers(image, None);
            layers.pop();
            layers
        };
        assert_eq!(below("demo:2"), below("demo:1"), "{case}");
    }
}
