//! The baseline: what BuildKit does without inlay. These are the facts that inlay changes, or
//! relies on; and they prove the harness itself.

use std::collections::BTreeSet;

use crate::support::{
    Buildctl, Buildkitd, Buildx, DockerEngine, ImageStore, Layout, Project, Registry, STAGES,
    inline_records,
};

/// Steps that write other bytes each time they run.
const RANDOM: &str = "\
FROM scratch
ADD rootfs.tar /
RUN head -c 16 /dev/urandom | hexdump -C >/random
RUN cat /random
";

fn stages() -> Project {
    Project::new()
        .base()
        .dockerfile(STAGES)
        .file("source.txt", "some text\n")
}

#[test]
fn cold_builds_are_reproducible_until_the_inline_cache_is_embedded() {
    let registry = Registry::start();
    let mut buildkitd = Buildkitd::start();
    let project = stages();
    let mut without = BTreeSet::new();
    let mut with = BTreeSet::new();
    for _ in 0..3 {
        let build = Buildctl::new(buildkitd.addr())
            .project(&project)
            .epoch(1_700_000_000)
            .push_with(&registry.image("demo:cold"), "rewrite-timestamp=true");
        let built = build.run_ok();
        assert_eq!(built.steps_ran().len(), 6, "{built}");
        assert!(inline_records(&registry.config("demo:cold", None)).is_empty());
        without.insert(registry.digest("demo:cold"));

        buildkitd.wipe();
        let built = build.export_cache("type=inline").run_ok();
        assert_eq!(built.steps_ran().len(), 6, "{built}");
        assert!(!inline_records(&registry.config("demo:cold", None)).is_empty());
        with.insert(registry.digest("demo:cold"));
        buildkitd.wipe();
    }
    assert_eq!(without.len(), 1, "without inline cache");
    assert_eq!(
        with.len(),
        3,
        "with inline cache: its records carry the time of the build"
    );
    assert_eq!(
        buildkitd.executed().len(),
        6 * 3,
        "three RUN steps in each of six builds"
    );
}

#[test]
fn an_inline_cache_satisfies_every_step_of_an_empty_daemon() {
    let registry = Registry::start();
    let mut buildkitd = Buildkitd::start();
    let project = Project::new().base().dockerfile(RANDOM);
    let image = registry.image("demo:random");
    let build = Buildctl::new(buildkitd.addr())
        .project(&project)
        .push(&image)
        .export_cache("type=inline");

    let first = build.run_ok();
    assert_eq!(first.steps_ran().len(), 3, "{first}");
    let random = first.vertex("RUN cat").log.clone();
    assert!(!random.is_empty(), "{first}");
    let layers = registry.layers("demo:random", None);
    assert_eq!(buildkitd.executed().len(), 2);

    buildkitd.wipe();
    let reads = registry.blob_gets().len();
    let second = build
        .import_cache(&format!("type=registry,ref={image}"))
        .run_ok();
    assert_eq!(second.steps_ran(), [""; 0], "{second}");
    assert_eq!(second.steps_cached().len(), 3, "{second}");
    assert_eq!(registry.layers("demo:random", None), layers);
    assert!(
        buildkitd
            .blobs()
            .is_disjoint(&layers.iter().cloned().collect()),
        "nor compressed"
    );
    assert_eq!(buildkitd.executed().len(), 2, "nothing ran again");
    let read = &registry.blob_gets()[reads..];
    assert!(
        read.iter().all(|digest| !layers.contains(digest)),
        "layers that the target has are not downloaded: {read:?}"
    );
}

#[test]
fn a_changed_last_step_runs_alone_on_an_imported_base() {
    let registry = Registry::start();
    let mut buildkitd = Buildkitd::start();
    let project = Project::new().base().dockerfile(RANDOM);
    let image = registry.image("demo:random");
    let build = Buildctl::new(buildkitd.addr())
        .project(&project)
        .push(&image)
        .export_cache("type=inline");
    let random = build.run_ok().vertex("RUN cat").log.clone();

    buildkitd.wipe();
    project.write("Dockerfile", format!("{RANDOM}RUN cat /random # again\n"));
    let built = build
        .import_cache(&format!("type=registry,ref={image}"))
        .run_ok();
    assert_eq!(
        built.steps_ran(),
        ["[4/4] RUN cat /random # again"],
        "{built}"
    );
    assert_eq!(
        built.vertex("# again").log,
        random,
        "its base has the files of the first build"
    );
}

#[test]
fn a_failing_step_tells_its_error_and_output() {
    let buildkitd = Buildkitd::start();
    let project = Project::new()
        .base()
        .dockerfile("FROM scratch\nADD rootfs.tar /\nRUN echo before; exit 7\n");
    let failed = Buildctl::new(buildkitd.addr()).project(&project).run_err();
    assert!(failed.message().contains("exit code: 7"), "{failed}");
    let step = failed.vertex("RUN echo");
    assert_eq!(step.log, "before\n");
    assert!(step.error.is_some(), "{failed}");
}

#[test]
fn archives_carry_the_inline_cache_too() {
    let buildkitd = Buildkitd::start();
    let project = Project::new().base().dockerfile(RANDOM);
    let out = Project::new();
    for kind in ["oci", "docker"] {
        let archive = out.path().join(kind);
        Buildctl::new(buildkitd.addr())
            .project(&project)
            .output(&format!("type={kind},dest={}", archive.display()))
            .export_cache("type=inline")
            .run_ok();
        assert!(
            !inline_records(&Layout::from_tar(&archive).config()).is_empty(),
            "{kind}"
        );
    }
    let steps = |what| {
        buildkitd
            .usage()
            .iter()
            .filter(|record| record["description"].to_string().contains(what))
            .count()
    };
    assert_eq!(steps("urandom"), 1, "{:#?}", buildkitd.usage());
}

#[test]
fn several_platforms_give_an_index_with_records_in_each_config() {
    let registry = Registry::start();
    let buildkitd = Buildkitd::start();
    let project = Project::new().dockerfile("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n");
    project.write("amd64", "a");
    project.write("arm64", "b");
    Buildctl::new(buildkitd.addr())
        .project(&project)
        .opt("platform=linux/amd64,linux/arm64")
        .push(&registry.image("demo:two"))
        .export_cache("type=inline")
        .run_ok();
    for platform in ["linux/amd64", "linux/arm64"] {
        let config = registry.config("demo:two", Some(platform));
        assert!(!inline_records(&config).is_empty(), "{platform}");
    }
}

#[test]
fn a_killed_daemon_comes_back_with_what_it_had() {
    let mut buildkitd = Buildkitd::start();
    let project = Project::new()
        .base()
        .dockerfile("FROM scratch\nADD rootfs.tar /\nRUN sleep 30\n");
    let mut build = Buildctl::new(buildkitd.addr()).project(&project).spawn();
    let begun = crate::support::wait_for(std::time::Duration::from_secs(20), || {
        (!buildkitd.executed().is_empty()).then_some(())
    });
    assert!(begun.is_some() && build.is_running());
    buildkitd.kill();
    assert!(!build.wait().status.success());
    buildkitd.restart();
    project.write("Dockerfile", "FROM scratch\nADD rootfs.tar /\nRUN true\n");
    Buildctl::new(buildkitd.addr()).project(&project).run_ok();
}

#[test]
fn buildx_drives_buildkitd_by_its_remote_driver() {
    let registry = Registry::start();
    let buildkitd = Buildkitd::start();
    let buildx = Buildx::remote(&buildkitd.addr());
    let built = buildx
        .build(&stages())
        .output(&format!(
            "type=registry,name={}",
            registry.image("demo:buildx")
        ))
        .cache_to("type=inline")
        .run_ok();
    assert_eq!(built.steps_ran().len(), 6, "{built}");
    assert!(!inline_records(&registry.config("demo:buildx", None)).is_empty());
}

#[test]
fn docker_engine_has_a_local_cache_exporter_only_with_the_containerd_image_store() {
    let project = Project::new().base().dockerfile(RANDOM);
    let cache = Project::new();
    let cache_to = format!("type=local,dest={}", cache.path().display());
    let build = |store| {
        let engine = DockerEngine::start(store);
        let buildx = Buildx::docker(&engine.addr());
        let built = buildx
            .build(&project)
            .args(["--network=host", "--load", "--tag=demo"])
            .cache_to("type=inline")
            .run_ok();
        assert_eq!(built.steps_ran().len(), 3, "{built}");
        assert!(
            engine
                .docker(&["image", "inspect", "demo"])
                .status
                .success()
        );
        buildx
            .build(&project)
            .args(["--network=host"])
            .cache_to(&cache_to)
            .run()
    };
    let classic = build(ImageStore::Classic);
    assert!(!classic.status.success());
    assert!(
        classic.message().contains("Cache export is not supported"),
        "{classic}"
    );
    let containerd = build(ImageStore::Containerd);
    assert!(containerd.status.success(), "{containerd}");
}
