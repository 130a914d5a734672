//! Clients that solve a frontend or a definition by themselves, and plain LLB without an image
//! config: as with BuildKit's own inline cache, but for the cache itself.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{
    BuildOutput, Buildctl, Buildkitd, Direct, INLINE_CACHE_KEY, Inlay, Project, Registry, failing,
    inline_records,
};

/// Three layers.
const DOCKERFILE: &str = "\
FROM scratch
ADD rootfs.tar /
COPY file /src/
RUN tr a-z A-Z </src/file >/out
";

fn project() -> Project {
    Project::new()
        .base()
        .dockerfile(DOCKERFILE)
        .file("file", "some text\n")
}

/// An image config as an object, without its cache and without the times of its steps.
fn plain_config(config: &[u8]) -> Value {
    let mut config: Value = serde_json::from_slice(config).unwrap();
    let members = config.as_object_mut().unwrap();
    members.remove(INLINE_CACHE_KEY);
    members.remove("created");
    for step in members["history"].as_array_mut().unwrap() {
        step.as_object_mut().unwrap().remove("created");
    }
    config
}

/// One kind of client: how it builds on a daemon, into an image, with what cache imports.
struct Case {
    name: &'static str,
    build: fn(addr: &str, project: &Project, image: &str, imports: Option<&str>) -> BuildOutput,
}

const CASES: [Case; 3] = [
    Case {
        name: "frontend",
        build: |addr, project, image, imports| {
            let solve = Direct::frontend(addr, project)
                .push(image)
                .export_cache("type=inline");
            match imports {
                Some(from) => solve.import_cache(from).run_ok(),
                None => solve.run_ok(),
            }
        },
    },
    Case {
        name: "definition",
        build: |addr, project, image, imports| {
            let solve = Direct::definition(addr, project)
                .push(image)
                .export_cache("type=inline");
            match imports {
                Some(from) => solve.import_cache(from).run_ok(),
                None => solve.run_ok(),
            }
        },
    },
    Case {
        name: "llb",
        build: |addr, project, image, imports| {
            let build = Buildctl::new(addr)
                .llb(Direct::marshal())
                .args([format!("--local=context={}", project.path().display())])
                .push(image)
                .export_cache("type=inline");
            match imports {
                Some(from) => build.import_cache(from).run_ok(),
                None => build.run_ok(),
            }
        },
    },
];

#[test]
fn an_image_is_the_one_of_plain_buildkit_but_for_the_cache() {
    let registry = Registry::start();
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    for Case { name, build } in CASES {
        let image = |tag: &str| registry.image(&format!("{name}:{tag}"));
        let config = |tag: &str| registry.config(&format!("{name}:{tag}"), None);

        // On one daemon, so that the layers are the same ones.
        let executed = buildkitd.executed().len();
        let plain = build(&buildkitd.addr(), &project, &image("plain"), None);
        let through = build(&inlay.addr(), &project, &image("inlay"), None);
        assert_eq!(plain.steps_ran().len(), 3, "{name}: {plain}");
        assert_eq!(through.steps_cached().len(), 3, "{name}: {through}");
        assert_eq!(
            plain_config(&config("plain")),
            plain_config(&config("inlay")),
            "{name}"
        );
        assert_eq!(
            registry.layers(&format!("{name}:plain"), None),
            registry.layers(&format!("{name}:inlay"), None),
            "{name}"
        );
        assert_eq!(
            buildkitd.executed().len(),
            executed + 1,
            "{name}: nothing ran again"
        );

        // inlay's own records, with a result for each layer.
        let records = inline_records(&config("inlay"));
        let layers: BTreeSet<u64> = records
            .iter()
            .flat_map(|record| record["layers"].as_array().cloned().unwrap_or_default())
            .map(|result| result["layer"].as_u64().unwrap_or_default())
            .collect();
        assert_eq!(layers, BTreeSet::from([0, 1, 2]), "{name}: {records:#?}");
        assert!(
            records
                .iter()
                .all(|record| !record.to_string().contains("createdAt")),
            "{name}: {records:#?}"
        );

        // The same again is the same image.
        build(&inlay.addr(), &project, &image("again"), None);
        assert_eq!(config("inlay"), config("again"), "{name}");
        assert_eq!(
            registry.digest(&format!("{name}:inlay")),
            registry.digest(&format!("{name}:again")),
            "{name}"
        );

        // Plain BuildKit takes it, and so does a build through inlay, which gives the same image.
        let from = format!("type=registry,ref={}", image("inlay"));
        for addr in [buildkitd.addr(), inlay.addr()] {
            buildkitd.wipe();
            let imported = build(&addr, &project, &image("imported"), Some(&from));
            assert_eq!(imported.steps_ran(), [""; 0], "{name}: {imported}");
            assert_eq!(imported.steps_cached().len(), 3, "{name}: {imported}");
        }
        assert_eq!(
            registry.layers(&format!("{name}:inlay"), None),
            registry.layers(&format!("{name}:imported"), None),
            "{name}"
        );
        assert_eq!(
            inline_records(&config("inlay")),
            inline_records(&config("imported")),
            "{name}: the records do not decay"
        );
        buildkitd.wipe();
    }
}

#[test]
fn cold_direct_solves_give_one_image() {
    let registry = Registry::start();
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    let image = registry.image("direct:cold");
    let digests: BTreeSet<String> = (0..3)
        .map(|_| {
            buildkitd.wipe();
            Direct::frontend(inlay.addr(), &project)
                .opt("build-arg:SOURCE_DATE_EPOCH=1700000000")
                .push(&format!("{image},rewrite-timestamp=true"))
                .export_cache("type=inline")
                .run_ok();
            assert!(!inline_records(&registry.config("direct:cold", None)).is_empty());
            registry.digest("direct:cold")
        })
        .collect();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn a_failing_step_fails_in_the_same_words() {
    let registry = Registry::start();
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    // The error carries all of it.
    project.write("Dockerfile", failing(500));
    let solves = [
        Direct::frontend("", &project),
        Direct::definition("", &project).command("echo before; exit 7"),
    ];
    for solve in solves {
        let solve = solve
            .push(&registry.image("direct:failing"))
            .export_cache("type=inline");
        let executed = buildkitd.executed().len();
        let plain = solve.clone().addr(buildkitd.addr()).run_err();
        buildkitd.wipe();
        let through = solve.addr(inlay.addr()).run_err();
        assert!(plain.message().contains("exit code: 7"), "{plain}");
        // The line that failed is in the error's details.
        assert!(plain.message().contains(">>> "), "{plain}");
        assert_eq!(plain.message(), through.message());
        assert_eq!(plain.status, through.status);
        assert_eq!(plain.steps_failed(), through.steps_failed());
        assert_eq!(buildkitd.executed().len(), executed + 2, "each ran it once");
    }
}

#[test]
fn a_ref_that_no_header_can_hold_is_a_ref_all_the_same() {
    let registry = Registry::start();
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    for (addr, reference) in [(buildkitd.addr(), "plain\n"), (inlay.addr(), "inlay\n")] {
        Direct::frontend(addr, &project)
            .reference(reference)
            .push(&registry.image("direct:ref"))
            .export_cache("type=inline")
            .run_ok();
        assert!(!inline_records(&registry.config("direct:ref", None)).is_empty());
    }
}

/// Two names of the frontend that is built in.
#[test]
fn a_direct_solve_finds_the_built_in_frontend_behind_the_gateway() {
    let registry = Registry::start();
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    let solve = Direct::frontend(inlay.addr(), &project).export_cache("type=inline");
    let first = solve.clone().push(&registry.image("name:one")).run_ok();
    assert_eq!(first.steps_ran().len(), 3, "{first}");
    let second = solve.behind_the_gateway().push(&registry.image("name:two"));
    let second = second.run_ok();
    assert_eq!(second.steps_cached().len(), 3, "{second}");
    assert_eq!(registry.digest("name:one"), registry.digest("name:two"));
}
