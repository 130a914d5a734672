//! What goes wrong: steps, clients, daemons, and the cache itself. The user sees what they would
//! see without inlay, nothing is left running, and the next build works.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use crate::support::{
    Buildctl, Buildkitd, Buildx, Direct, DockerEngine, ImageStore, Inlay, Listening, Project,
    Registry, Running, SOON, failing, inline_records, wait_for,
};

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

/// A registry, a buildkitd, and inlay in front of it.
struct Setup {
    // Before the daemon: its end is not the end of its daemon.
    inlay: Inlay,
    buildkitd: Buildkitd,
    registry: Registry,
}

impl Setup {
    fn start() -> Self {
        let buildkitd = Buildkitd::start();
        Self {
            inlay: Inlay::start(&buildkitd, &[]),
            registry: Registry::start(),
            buildkitd,
        }
    }

    /// A build through inlay of a pushed image with inline cache.
    fn build(&self, project: &Project) -> Buildctl {
        Buildctl::new(self.inlay.addr())
            .project(project)
            .push(&self.registry.image("demo:failures"))
            .export_cache("type=inline")
    }

    /// Begins a build whose side solve takes long, and returns in the middle of that: the layer is a
    /// file with nothing in it, made at once, and read whole to be compressed.
    fn in_the_side_solve(&self, project: &Project) -> Running {
        project.write(
            "Dockerfile",
            "FROM scratch\nADD rootfs.tar /\nRUN truncate -s 16G /large\n",
        );
        let begun = self.inlay.log().matches("side solve").count();
        let mut build = self.build(project).spawn();
        let begins = wait_for(6 * SOON, || {
            let asked = self.inlay.log().matches("side solve").count() > begun;
            let begins = asked && self.buildkitd.writes() > 0;
            (begins || !build.is_running()).then_some(begins)
        });
        assert_eq!(begins, Some(true), "{}", build.kill());
        build
    }

    /// Whether the daemon runs this in a step.
    fn runs(&self, command: &str) -> bool {
        let processes = self.buildkitd.processes();
        processes.iter().any(|line| line.contains(command))
    }

    /// Nothing of earlier builds is left: no process, no session, no connection.
    fn assert_idle(&self, sockets: usize) {
        let idle = wait_for(SOON, || {
            let idle = self.buildkitd.processes().is_empty()
                && self.buildkitd.sessions() == 0
                && self.inlay.sockets() == sockets;
            idle.then_some(())
        });
        assert!(
            idle.is_some(),
            "processes {:?}, {} sessions, {} sockets of inlay instead of {sockets}",
            self.buildkitd.processes(),
            self.buildkitd.sessions(),
            self.inlay.sockets(),
        );
    }

    /// The next build is as good as any.
    fn assert_works(&self, project: &Project) {
        project.write("Dockerfile", DOCKERFILE);
        let built = self.build(project).run_ok();
        assert_eq!(built.warnings, [""; 0], "{built}");
        assert!(!inline_records(&self.registry.config("demo:failures", None)).is_empty());
    }
}

#[test]
fn a_failing_step_is_told_as_without_inlay_and_runs_once() {
    let mut setup = Setup::start();
    let project = project();
    // The error carries the whole Dockerfile.
    for (builds, lines) in [(1, 0), (3, 500), (5, 100_000)] {
        project.write("Dockerfile", failing(lines));
        let through = setup.build(&project).run_err();
        let executed = setup.buildkitd.executed();
        assert_eq!(executed.len(), builds, "{executed:?}");
        setup.buildkitd.wipe();
        let plain = setup.build(&project).addr(setup.buildkitd.addr()).run_err();
        setup.buildkitd.wipe();
        assert!(plain.message().contains("exit code: 7"), "{plain}");
        assert_eq!(through.message(), plain.message());
        assert_eq!(through.status.code(), plain.status.code());
        assert_eq!(through.steps_failed(), plain.steps_failed());
        assert_eq!(plain.steps_failed().len(), 1, "{plain}");
        assert_eq!(through.warnings, plain.warnings);
        // A command line may have the values of build arguments.
        let log = setup.inlay.log();
        assert!(
            log.contains("the build failed") && !log.contains("exit 7"),
            "{log}"
        );
    }
    setup.assert_works(&project);
}

#[test]
fn a_client_killed_in_a_step_leaves_nothing_behind() {
    let setup = Setup::start();
    let project = project();
    setup.assert_works(&project);
    let sockets = setup.inlay.idle_sockets();
    let executed = setup.buildkitd.executed().len();
    project.write(
        "Dockerfile",
        "FROM scratch\nADD rootfs.tar /\nRUN sleep 300\n",
    );
    let build = setup.build(&project).spawn();
    let begins = wait_for(3 * SOON, || setup.runs("sleep 300").then_some(()));
    assert!(begins.is_some(), "{}", build.kill());
    build.kill();
    setup.assert_idle(sockets);
    let released = wait_for(SOON, || {
        let usage = setup.buildkitd.usage();
        usage
            .iter()
            .all(|record| record["inUse"] != true)
            .then_some(())
    });
    assert!(released.is_some(), "{:#?}", setup.buildkitd.usage());
    assert_eq!(setup.buildkitd.executed().len(), executed + 1);
    setup.assert_works(&project);
}

#[test]
fn a_client_killed_in_the_side_solve_leaves_nothing_behind() {
    let setup = Setup::start();
    let project = project();
    setup.assert_works(&project);
    let sockets = setup.inlay.idle_sockets();
    let canceled = |setup: &Setup| {
        let log = setup.buildkitd.log();
        log.lines()
            .filter(|line| {
                line.contains("Control/Solve returned error: ") && line.contains("code = Canceled")
            })
            .count()
    };
    setup.in_the_side_solve(&project).kill();
    // Both the client's solve and inlay's own. (What BuildKit does not do by itself is not asked
    // for here: v0.34.2 keeps a snapshot in use whose compression for a cache export was canceled,
    // with and without inlay.)
    let both = wait_for(SOON, || (canceled(&setup) >= 2).then_some(()));
    assert!(both.is_some(), "{} solves were canceled", canceled(&setup));
    setup.assert_idle(sockets);
    setup.assert_works(&project);
}

#[test]
fn a_daemon_killed_in_the_side_solve_is_an_error_and_the_next_build_works() {
    let mut setup = Setup::start();
    let project = project();
    // What a client says when its daemon is killed, without inlay.
    project.write(
        "Dockerfile",
        "FROM scratch\nADD rootfs.tar /\nRUN sleep 300\n",
    );
    let build = setup.build(&project).addr(setup.buildkitd.addr()).spawn();
    let begins = wait_for(3 * SOON, || setup.runs("sleep 300").then_some(()));
    assert!(begins.is_some(), "{}", build.kill());
    setup.buildkitd.kill();
    let plain = build.wait();
    assert_eq!(plain.status.code(), Some(1), "{plain}");
    setup.buildkitd.restart();

    let build = setup.in_the_side_solve(&project);
    setup.buildkitd.kill();
    let through = build.wait();
    assert_eq!(through.status.code(), plain.status.code(), "{through}");
    // Which of its calls the client speaks of is chance, and so is whether a socket that is gone
    // says "EOF" or "reset"; that its connection broke is not.
    for output in [&plain, &through] {
        let message = output.message();
        let broke =
            message.contains("Unavailable") && message.contains("error reading from server: ");
        assert!(broke, "{message}");
    }

    setup.buildkitd.restart();
    setup.assert_works(&project);
}

#[test]
fn a_daemon_that_is_not_there_is_named_and_served_when_it_comes() {
    let mut setup = Setup::start();
    let project = project();
    setup.buildkitd.kill();
    let failed = setup.build(&project).run_err();
    let socket = setup.buildkitd.addr();
    assert!(failed.message().contains(&socket), "{}", failed.message());
    assert_eq!(failed.status.code(), Some(1));
    setup.buildkitd.restart();
    setup.assert_works(&project);
}

/// Another server at the daemon's address, or one that wants TLS: the client is told, and the next call
/// tries again.
#[test]
fn a_server_that_is_no_daemon_is_named() {
    let alert = &b"\x15\x03\x03\x00\x02\x02\x46"[..];
    for said in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], alert, b""] {
        let other = Listening::start(move |mut stream| {
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(said).unwrap();
        });
        let address = format!("tcp://{}", other.addr());
        let inlay = Inlay::in_front_of(&address, &[]);
        for _ in 0..2 {
            let told = Buildctl::command(&inlay.addr(), &["debug", "info"]);
            let told = String::from_utf8_lossy(&told.stderr).into_owned();
            assert!(told.contains(&address), "{said:?}: {told}");
            assert!(told.contains("HTTP/2"), "{said:?}: {told}");
        }
    }
}

/// One that begins in order and leaves at once is a daemon that stops, and no other server.
#[test]
fn a_daemon_that_leaves_at_once_is_no_other_server() {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let leaves = Listening::start(move |mut stream| {
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream
            .write_all(&[&settings[..], &goaway].concat())
            .unwrap();
    });
    let inlay = Inlay::in_front_of(&format!("tcp://{}", leaves.addr()), &[]);
    let told = Buildctl::command(&inlay.addr(), &["debug", "info"]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("navailable"), "{told}");
    assert!(!told.contains("HTTP/2"), "{told}");
}

#[test]
fn without_a_local_cache_exporter_the_cache_is_left_to_the_daemon() {
    let engine = DockerEngine::start(ImageStore::Classic);
    let inlay = Inlay::in_front_of(&engine.buildkitd_addr(), &[]);
    let project = project();
    let build = Buildctl::new(inlay.addr())
        .project(&project)
        .args(["--allow=network.host", "--opt=force-network-mode=host"])
        .output("type=moby,name=through")
        .export_cache("type=inline");
    let warning = "inlay: inline cache is left to the daemon";
    let through = build.run_ok();
    assert_eq!(through.steps_ran().len(), 3, "{through}");
    let warned = |text: &String| text.starts_with(warning);
    assert_eq!(
        through.warnings.iter().filter(|text| warned(text)).count(),
        1,
        "{through}"
    );
    // And where people look, whatever the client.
    let seen = build.plain().run_ok();
    assert!(seen.stderr.contains(warning), "{}", seen.stderr);
    let seen = Buildx::remote(&inlay.addr())
        .build(&project)
        .args(["--network=host", "--output=type=moby,name=buildx"])
        .cache_to("type=inline")
        .plain()
        .run_ok();
    assert!(seen.stderr.contains(warning), "{}", seen.stderr);
    // buildx has the warnings once more at its end.
    assert!(
        seen.stderr.contains(&format!(" - {warning}")),
        "{}",
        seen.stderr
    );

    Buildx::docker(&engine.addr())
        .build(&project)
        .args(["--network=host", "--load", "--tag=plain"])
        .cache_to("type=inline")
        .run_ok();
    let inspected = ["through", "plain"].map(|image| {
        let format = "{{json .RootFS}} {{json .Config}}";
        let output = engine.docker(&["image", "inspect", "--format", format, image]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    assert!(inspected[0].contains("sha256:"), "{inspected:?}");
    assert_eq!(inspected[0], inspected[1]);
    let mut records = ["through", "plain"].map(|image| inline_records(&engine.config(image)).len());
    assert_ne!(records[0], 0);
    records.sort_unstable();
    assert_eq!(records[0], records[1], "the daemon's own records");
}

#[test]
fn docker_engine_with_the_containerd_image_store_gets_its_cache_from_inlay() {
    let registry = Registry::start();
    let engine = DockerEngine::start(ImageStore::Containerd);
    let inlay = Inlay::in_front_of(&engine.buildkitd_addr(), &[]);
    let project = project();
    let builds = ["FROM scratch\nADD rootfs.tar /\nCOPY file /src/\nRUN cat /src/file >/out\n"];
    for dockerfile in builds {
        project.write("Dockerfile", dockerfile);
        let build = Buildctl::new(inlay.addr())
            .project(&project)
            .epoch(1_700_000_000)
            .args(["--allow=network.host", "--opt=force-network-mode=host"])
            .push_with(&registry.image("demo:engine"), "rewrite-timestamp=true")
            .export_cache("type=inline");
        let mut digests = Vec::new();
        for _ in 0..2 {
            let built = build.run_ok();
            assert_eq!(built.steps_ran().len(), 3, "cold: {built}");
            assert_eq!(built.warnings, [""; 0], "{built}");
            let records = inline_records(&registry.config("demo:engine", None));
            assert!(!records.is_empty());
            assert!(
                records
                    .iter()
                    .all(|record| !record.to_string().contains("createdAt")),
                "{records:#?}"
            );
            digests.push(registry.digest("demo:engine"));
            let pruned = engine.docker(&["builder", "prune", "--all", "--force"]);
            assert!(
                pruned.status.success(),
                "{}",
                String::from_utf8_lossy(&pruned.stderr)
            );
        }
        assert_eq!(digests[0], digests[1]);
        let imported = build
            .import_cache(&format!(
                "type=registry,ref={}",
                registry.image("demo:engine")
            ))
            .run_ok();
        assert_eq!(imported.steps_cached().len(), 3, "{imported}");
        assert_eq!(registry.digest("demo:engine"), digests[0]);
    }
}

#[test]
fn a_client_from_before_definitions_is_built_for_and_told() {
    let setup = Setup::start();
    let solve = Direct::old_refs(setup.inlay.addr()).push(&setup.registry.image("demo:old"));
    let built = solve.clone().export_cache("type=inline").run_ok();
    let warning = "inlay: built without inline cache: the build's client is too old";
    assert!(
        built.warnings.iter().any(|text| text.starts_with(warning)),
        "{built}"
    );
    assert!(inline_records(&setup.registry.config("demo:old", None)).is_empty());
    let failed = solve
        .export_cache("type=inline,ignore-error=false")
        .run_err();
    assert!(
        failed
            .message()
            .contains("inlay: inline cache: the build's client is too old"),
        "{failed}"
    );
}

/// The second build of a session finds its steps by the session's own keys, and BuildKit exports
/// none of those, to its own inline cache either. The records follow from the definition.
#[test]
fn a_build_that_a_session_hides_the_keys_of_has_its_cache() {
    let project = Project::new().base().file("file", "text\n");
    let [once, twice] = [Direct::definition, Direct::twice].map(|solve| {
        let setup = Setup::start();
        let built = solve(setup.inlay.addr(), &project)
            .push(&setup.registry.image("demo:hidden"))
            .export_cache("type=inline,ignore-error=false")
            .run_ok();
        assert_eq!(built.warnings, [""; 0], "{built}");
        let records = inline_records(&setup.registry.config("demo:hidden", None));
        (built.steps_cached().len(), records)
    });
    assert_eq!((once.0, twice.0), (0, 3));
    assert!(!once.1.is_empty());
    assert_eq!(once.1, twice.1);
}

#[test]
fn an_image_of_no_steps_needs_no_cache_and_no_warning() {
    let setup = Setup::start();
    setup.assert_works(&project());
    let base = setup.registry.image("demo:failures");
    let project = Project::new().dockerfile(&format!("FROM {base}\nLABEL a=b\n"));
    let build = Buildctl::new(setup.inlay.addr()).project(&project);
    let build = build.push(&setup.registry.image("demo:labelled"));
    let built = build
        .export_cache("type=inline,ignore-error=false")
        .run_ok();
    assert_eq!(built.warnings, [""; 0], "{built}");
    assert!(inline_records(&setup.registry.config("demo:labelled", None)).is_empty());
}

/// BuildKit reads text that is no UTF-8. Such a build was left to the daemon without a word.
#[test]
fn an_argument_that_is_no_utf_8_costs_no_cache() {
    let setup = Setup::start();
    let mut argument = OsString::from("build-arg:UNUSED=");
    argument.push(OsStr::from_bytes(b"\xff"));
    let project = project();
    let build = setup.build(&project);
    let built = build.args([OsString::from("--opt"), argument]).run_ok();
    assert_eq!(built.warnings, [""; 0], "{built}");
    let log = setup.inlay.log();
    assert!(log.contains("inline cache comes from inlay"), "{log}");
    assert!(!inline_records(&setup.registry.config("demo:failures", None)).is_empty());
}

/// Go reads half of a surrogate pair as a replacement. Such an import passed unread.
#[test]
fn an_import_that_cannot_be_read_is_told() {
    let setup = Setup::start();
    let imports = format!(
        r#"cache-imports=[{{"Type":"registry","Attrs":{{"ref":"{}","more":"\ud800"}}}}]"#,
        setup.registry.image("demo:none")
    );
    let project = project();
    let built = setup.build(&project).opt(&imports).run_ok();
    let told = built
        .warnings
        .iter()
        .filter(|of| of.contains("cannot be read"));
    assert_eq!(told.count(), 1, "{built}");
    assert_eq!(setup.inlay.log().matches("cannot be read").count(), 1);
}
