//! The commands of README and `docs/`, as they stand there, on real daemons.
//!
//! The line above a block of a page names the tests that run it. A test replaces the addresses, the registry
//! and the folder of the page by its own, and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{
    BuildOutput, Buildkitd, Daemon, Inlay, Peers, Project, Registry, SOON, STAGES,
};

/// The commands of the project, each of which an empty daemon runs.
const COMMANDS: usize = 3;

/// A machine as the pages have it: a daemon, a registry, the clients, and a project in the working folder.
struct Machine {
    // Before the daemon that it is in front of.
    inlay: Option<Daemon>,
    buildkitd: Buildkitd,
    registry: Registry,
    project: Project,
    dir: TempDir,
}

// === impl Machine ===

impl Machine {
    /// Starts it, without inlay.
    fn start() -> Self {
        let project = Project::new()
            .base()
            .dockerfile(STAGES)
            .file("source.txt", "some text\n");
        let machine = Self {
            inlay: None,
            buildkitd: Buildkitd::start(),
            registry: Registry::start(),
            project,
            dir: tempfile::tempdir().unwrap(),
        };
        for folder in ["bin", "images"] {
            fs::create_dir(machine.dir.path().join(folder)).unwrap();
        }
        let inlay = Inlay::command();
        let inlay = Path::new(inlay.get_program()).display();
        machine.program("inlay", &format!("exec {inlay} \"$@\""));
        // Its plugin, without Docker.
        machine.program(
            "docker",
            "[ \"$1\" = buildx ] && shift && exec buildx \"$@\"",
        );
        machine
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.dir.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A block of a page as a command.
    fn command(&self, block: &str) -> Command {
        let dir = self.dir.path().display();
        let buildkitd = self.buildkitd.addr();
        let block = block
            .replace("/run/inlay/inlay.sock", &format!("{dir}/inlay.sock"))
            .replace("unix:///run/buildkit/buildkitd.sock", &buildkitd)
            .replace("registry.example", self.registry.host())
            .replace("/images", &format!("{dir}/images"));
        let mut command = Command::new("bash");
        command
            .args(["-e", "-c", &block])
            .current_dir(self.project.path())
            .env("PATH", format!("{dir}/bin:{}", Peers::locate().path()))
            .env("HOME", self.dir.path())
            .env("BUILDX_CONFIG", self.dir.path().join("buildx"));
        for name in ["BUILDKIT_HOST", "BUILDX_BUILDER", "DOCKER_HOST"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a block that starts inlay.
    fn serve(&mut self, block: &str) {
        let command = self.command(&format!("exec {}", block.trim_end_matches(" &")));
        let log = self.dir.path().join("inlay.log");
        let mut inlay = Daemon::spawn("inlay", command, &log);
        let socket = self.dir.path().join("inlay.sock");
        inlay.wait_until(SOON, |_| UnixStream::connect(&socket).ok());
        self.inlay = Some(inlay);
    }

    /// Runs a block of builds, which have to end well and without a warning of inlay's.
    fn run(&self, block: &str) -> String {
        let BuildOutput { status, stderr, .. } = BuildOutput::of(&mut self.command(block));
        assert!(status.success(), "{block}\n{stderr}");
        for warning in ["built without inline cache", "no cache is imported"] {
            assert!(!stderr.contains(warning), "{block}\n{stderr}");
        }
        stderr
    }

    /// Runs a block of a build that has to import.
    fn run_importing(&self, block: &str) -> String {
        let said = self.run(block);
        assert!(
            said.contains("inlay: importing inline cache from"),
            "{said}"
        );
        said
    }

    /// Runs a block that builds, on an empty daemon and then on another one that imports what the first
    /// pushed; gives the digest that both pushed.
    fn run_twice(&mut self, block: &str) -> String {
        self.buildkitd.wipe();
        self.run(block);
        let ran = self.buildkitd.executed().len();
        let digest = self.registry.digest("app");
        self.buildkitd.wipe();
        let again = self.run(block);
        assert_eq!(self.registry.digest("app"), digest, "{block}");
        let imports = block.contains("--import-cache") || block.contains("--cache-from");
        let reran = self.buildkitd.executed().len() - ran;
        assert_eq!(reran == 0, imports, "{again}");
        digest
    }
}

/// The blocks of a page that a test runs, in their order.
fn blocks<const N: usize>(page: &str, test: &str) -> [String; N] {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(page).unwrap();
    let name = format!("tests/e2e/pages.rs::{test}");
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mark = line.strip_prefix("<!-- run by: ");
        let mark = mark.and_then(|rest| rest.strip_suffix(" -->"));
        if mark.is_some_and(|names| names.split(", ").any(|of| of == name)) {
            assert!(lines.next().is_some_and(|fence| fence.starts_with("```")));
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push(block.join("\n"));
        }
    }
    found
        .try_into()
        .unwrap_or_else(|found| panic!("{test}: {found:#?}"))
}

#[test]
fn the_first_build_of_readme() {
    let mut machine = Machine::start();
    let [serve, build] = blocks("README.md", "the_first_build_of_readme");
    machine.serve(&serve);
    // The first of all has nothing to import yet, and BuildKit says so.
    machine.run(&build);
    machine.run_twice(&build);
}

#[test]
fn a_build_by_buildctl() {
    let mut machine = Machine::start();
    let [serve, build] = blocks("docs/use.md", "a_build_by_buildctl");
    machine.serve(&serve);
    machine.run(&build);
    assert_eq!(machine.buildkitd.executed().len(), COMMANDS);
    machine.buildkitd.wipe();
    machine.run_importing(&build);
}

#[test]
fn a_build_by_buildx() {
    let mut machine = Machine::start();
    let [serve, create, build] = blocks("docs/use.md", "a_build_by_buildx");
    machine.serve(&serve);
    machine.run(&create);
    machine.run(&build);
    machine.buildkitd.wipe();
    machine.run_importing(&build);
}

#[test]
fn a_reproducible_build_by_buildx() {
    let mut machine = Machine::start();
    let [serve, create, build] = blocks("docs/use.md", "a_reproducible_build_by_buildx");
    machine.serve(&serve);
    machine.run(&create);
    let cold = machine.run_twice(&build);
    machine.run(&build);
    assert_eq!(machine.registry.digest("app"), cold, "on a warm daemon");
}

#[test]
fn bake_and_compose() {
    let mut machine = Machine::start();
    let [serve, create, bake, compose] = blocks("docs/use.md", "bake_and_compose");
    machine.serve(&serve);
    machine.run(&create);
    for (name, file) in [("docker-bake.hcl", bake), ("compose.yaml", compose)] {
        let file = file.replace("registry.example", machine.registry.host());
        machine.project.write(name, file);
        let build = format!("docker buildx bake --builder inlay --push --file {name}");
        machine.run(&build);
        machine.buildkitd.wipe();
        machine.run_importing(&build);
    }
}

#[test]
fn imports_of_local_images() {
    let mut machine = Machine::start();
    let [serve, create, write, import] = blocks("docs/import.md", "imports_of_local_images");
    machine.serve(&serve);
    machine.run(&create);
    machine.run(&write);
    machine.buildkitd.wipe();
    let ran = machine.buildkitd.executed().len();
    let imported = machine.run(&import);
    for of in ["oci:", "oci-archive:", "docker-archive:"] {
        let step = format!("inlay: importing inline cache from {of}");
        assert!(imported.contains(&step), "{imported}");
    }
    assert_eq!(machine.buildkitd.executed().len(), ran, "{imported}");
}

/// What `docs/operate.md` says to try on a new service.
#[test]
fn the_check_of_a_new_service() {
    let mut machine = Machine::start();
    let [check, build, prune] = blocks("docs/operate.md", "the_check_of_a_new_service");
    let [serve, _] = blocks("docs/use.md", "a_build_by_buildctl");
    machine.serve(&serve);
    machine.run(&check);
    machine.run(&build);
    let ran = machine.buildkitd.executed().len();
    machine.run(&prune);
    let again = machine.run_importing(&build);
    assert_eq!(machine.buildkitd.executed().len(), ran, "{again}");
}
