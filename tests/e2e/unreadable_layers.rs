//! Imports of images whose layers cannot be read, or are read slowly.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::thread::sleep;
use std::time::Duration;

use crate::support::{Asked, BuildOutput, Columns, Gate, Inlay, Passage, Project, Stand};

const AT_ONCE: Passage = Passage::After(Duration::ZERO);

/// Two steps on an image of the registry, which the daemon has not pulled.
fn project(stand: &Stand) -> Project {
    let base = Project::new()
        .base()
        .dockerfile("FROM scratch\nADD rootfs.tar /\n");
    stand.push(&stand.build_plain(&base), "base:1", "");
    let base = stand.registry.image("base:1");
    Project::new()
        .file("f", "text\n")
        .dockerfile(&format!("FROM {base}\nCOPY f /f\nRUN cat /f >/g\n"))
}

/// Whether a request is for the last layer of app:1.
fn of_last_layer(stand: &Stand) -> impl Fn(&Asked) -> bool + Send + Sync + use<> {
    let last = stand.registry.layers("app:1", None).pop().unwrap();
    move |asked| asked.line.contains(&last)
}

/// That a build ran all steps, and was told once why it has no cache.
fn assert_told(built: &BuildOutput, reference: &str, why: &str) {
    let [warning] = &built.warnings[..] else {
        panic!("one warning: {built}")
    };
    assert!(
        warning.contains(reference) && warning.contains(why),
        "{warning}"
    );
    assert_eq!(built.steps_ran().len(), 2, "{built}");
}

/// A file that leads out of the layout, and what is no file.
#[test]
fn of_a_layout_costs_the_cache_and_no_build() {
    let images = tempfile::tempdir().unwrap();
    let mut stand = Stand::reading(images.path());
    let project = project(&stand);
    let layout = images.path().join("app");
    let build = stand.build(&project).export_cache("type=inline");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    build.clone().output(&output).run_ok();
    stand.push(&build, "app:1", "");
    let last = stand.registry.layers("app:1", None).pop().unwrap();
    let last = layout.join("blobs").join(last.replace(':', "/"));
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::copy(&last, outside.path()).unwrap();
    let reference = format!("oci:{}", layout.display());
    let build = build.import_cache(&format!("type=inline,ref={reference}"));

    fs::remove_file(&last).unwrap();
    symlink(outside.path(), &last).unwrap();
    stand.buildkitd.wipe();
    assert_told(&build.run_ok(), &reference, "sha256:");

    fs::remove_file(&last).unwrap();
    fs::create_dir(&last).unwrap();
    stand.buildkitd.wipe();
    assert_told(&build.run_ok(), &reference, "sha256:");

    fs::remove_dir(&last).unwrap();
    fs::copy(outside.path(), &last).unwrap();
    stand.buildkitd.wipe();
    let built = build.run_ok();
    assert_eq!(built.steps_ran(), [""; 0], "{built}");
}

/// What inlay serves of a registry is asked for first. A registry that is busy is asked again.
#[test]
fn of_a_registry_costs_the_cache_and_no_build() {
    let mut stand = Stand::start();
    stand.inlay = Inlay::start(&stand.buildkitd, &["--registry-imports=inlay"]);
    let project = project(&stand);
    let build = stand.build(&project).export_cache("type=inline");
    stand.push(&build, "app:1", "");
    for (status, why) in [
        ("403 Forbidden", "403 Forbidden"),
        ("429 Too Many Requests", "429 Too Many Requests"),
        ("500 Internal Server Error", "500 Internal Server Error"),
        ("404 Not Found", "does not exist"),
    ] {
        let is_last = of_last_layer(&stand);
        let gate = Gate::start(&stand.registry, move |asked, _| match is_last(asked) {
            true => Passage::Refused(status, "Retry-After: 0\r\n"),
            false => AT_ONCE,
        });
        let reference = gate.image("app:1");
        let build = build
            .clone()
            .import_cache(&format!("type=registry,ref={reference}"));
        stand.buildkitd.wipe();
        assert_told(&build.run_ok(), &reference, why);
    }
    let is_last = of_last_layer(&stand);
    let gate = Gate::start(&stand.registry, move |asked, before| {
        match is_last(asked) && before < 2 {
            true => Passage::Refused("503 Service Unavailable", "Retry-After: 1\r\n"),
            false => AT_ONCE,
        }
    });
    let import = format!("type=registry,ref={}", gate.image("app:1"));
    stand.buildkitd.wipe();
    let built = build.import_cache(&import).run_ok();
    assert_eq!(built.warnings, [""; 0], "{built}");
    assert_eq!(built.steps_ran(), [""; 0], "{built}");
}

/// Of an image that the daemon reads itself, inlay asks for the manifest, and once for the config.
#[test]
fn of_a_slow_registry_are_not_asked_for() {
    let mut columns = Columns::start();
    let steps: String = (0..31).map(|n| format!("COPY f /f{n}\n")).collect();
    let project = Project::new()
        .file("f", "text\n")
        .dockerfile(&format!("FROM scratch\n{steps}"));
    let build = columns.build(&project);
    columns.push(&build, "app:1");
    let slow = Passage::After(Duration::from_millis(300));
    let gate = Gate::start(columns.registry(), move |_, _| slow);
    for more in [2, 1] {
        columns.wipe();
        let asked = RefCell::new(vec![gate.requests().len()]);
        let built = columns.compare("slow", |column, addr| {
            let import = gate.image(&format!("{column}/app:1"));
            let import = format!("type=registry,ref={import}");
            let built = build.clone().addr(addr).import_cache(&import).run_ok();
            asked.borrow_mut().push(gate.requests().len());
            built
        });
        for built in built {
            assert_eq!(built.warnings, [""; 0], "{built}");
            assert_eq!(built.steps_ran(), [""; 0], "{built}");
        }
        let [before, plain, inlay] = asked.into_inner()[..] else {
            panic!("two builds")
        };
        let (plain, inlay) = (plain - before, inlay - plain);
        assert!(
            inlay <= plain + more,
            "{inlay} and {plain}: {:#?}",
            gate.requests()
        );
    }
}

/// A registry that answers nobody costs the cache. One that answers the daemon alone is the daemon's.
#[test]
fn of_a_silent_registry_are_not_waited_for() {
    let mut stand = Stand::start();
    let project = project(&stand);
    let build = stand.build(&project).export_cache("type=inline");
    stand.push(&build, "app:1", "");
    for answers_daemon in [false, true] {
        let gate = Gate::start(&stand.registry, move |asked, _| {
            let agent = asked.headers.get("user-agent");
            let is_daemon = agent.is_some_and(|agent| agent.starts_with("buildkit/"));
            match answers_daemon && is_daemon {
                true => AT_ONCE,
                false => Passage::After(Duration::from_secs(3600)),
            }
        });
        let image = gate.image("app:1");
        stand.buildkitd.wipe();
        let import = format!("type=registry,ref={image}");
        let built = build.clone().import_cache(&import).run_ok();
        if answers_daemon {
            assert_eq!(built.warnings, [""; 0], "{built}");
            assert_eq!(built.steps_ran(), [""; 0], "{built}");
        } else {
            assert_told(&built, &image, "does not answer the daemon either");
        }
    }
}

/// A client goes away while another one's build reads what inlay serves to both.
#[test]
fn of_a_client_that_is_gone_are_read_on() {
    let mut stand = Stand::start();
    stand.inlay = Inlay::start(&stand.buildkitd, &["--registry-imports=inlay"]);
    let project = project(&stand);
    let build = stand.build(&project).export_cache("type=inline");
    stand.push(&build, "app:1", "");
    let slow = Passage::After(Duration::from_millis(150));
    let gate = Gate::start(&stand.registry, move |asked, _| {
        match asked.line.starts_with("GET") && asked.line.contains("/blobs/") {
            true => slow,
            false => AT_ONCE,
        }
    });
    let dockerfile = std::fs::read_to_string(project.path().join("Dockerfile")).unwrap();
    project.write("Dockerfile", format!("{dockerfile}RUN cat /g >/h\n"));
    let import = format!("type=registry,ref={}", gate.image("app:1"));
    let build = build.import_cache(&import);
    let mut broken = 0;
    for round in 0..10 {
        stand.buildkitd.wipe();
        let goes = build.spawn();
        sleep(Duration::from_millis(40 * round));
        let stays = build.spawn();
        sleep(Duration::from_millis(200));
        broken += usize::from(!goes.kill().status.success());
        let built = stays.wait();
        assert!(built.status.success(), "{round}: {built}");
        assert_eq!(built.warnings, [""; 0], "{round}: {built}");
        let ran = built.steps_ran();
        let is_new = |step: &&str| step.contains("RUN cat /g");
        assert!(ran.iter().all(|step| is_new(&&**step)), "{round}: {built}");
    }
    assert!(broken >= 5, "{broken} clients were gone in time");
}
