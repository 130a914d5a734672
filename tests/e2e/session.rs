//! What a client's session carries still comes and goes, though inlay ends it on both sides: files
//! both ways, secrets, agents, the client's registry credentials; and nothing is left when a side
//! goes away.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use inlay::cache::record::Digest;
use serde_json::Value;

use crate::support::{Buildctl, Buildkitd, Inlay, Project, Registry, SOON, Stand, wait_for};

/// A file of random bytes.
fn fill(path: &Path, size: u64) {
    let mut random = File::open("/dev/urandom").unwrap().take(size);
    io::copy(&mut random, &mut File::create(path).unwrap()).unwrap();
}

/// The digest of a file, as hexadecimal digits.
fn digest(path: &Path) -> String {
    let digest = Digest::of(&fs::read(path).unwrap()).to_string();
    digest.strip_prefix("sha256:").unwrap().to_owned()
}

#[test]
fn files_come_and_go_unchanged() {
    let stand = Stand::start();
    let project = Project::new()
        .dockerfile("FROM scratch\nCOPY . /in/\n")
        .file("empty", "")
        .file("deep/er/file", "text\n");
    let large = project.path().join("large");
    fill(&large, 64 << 20);
    let results = tempfile::tempdir().unwrap();
    let at = |name: &str| results.path().join(name);
    let built = stand
        .build(&project)
        .output(&format!("type=local,dest={}", at("local").display()))
        .output(&format!("type=tar,dest={}", at("tar").display()))
        .output(&format!("type=oci,dest={}", at("oci").display()))
        .run_ok();
    assert_eq!(built.steps_ran().len(), 1, "{built}");
    assert_eq!(digest(&at("local/in/large")), digest(&large));
    let text = fs::read_to_string(at("local/in/deep/er/file")).unwrap();
    assert_eq!(text, "text\n");
    let unpacked = Project::new();
    let extract = |archive: &Path, into: &Path| {
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(archive).arg("-C").arg(into);
        assert!(tar.status().unwrap().success());
    };
    extract(&at("tar"), unpacked.path());
    assert_eq!(digest(&unpacked.path().join("in/large")), digest(&large));
    // An image whose layer has the digest that it is named by.
    let image = Project::new();
    extract(&at("oci"), image.path());
    let mut blobs = 0;
    for blob in fs::read_dir(image.path().join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        assert_eq!(digest(&blob.path()), blob.file_name().to_str().unwrap());
        blobs += 1;
    }
    assert!(blobs >= 3, "{blobs}");

    // A second build sends what changed.
    project.write("deep/er/file", "other text\n");
    stand
        .build(&project)
        .output(&format!("type=local,dest={}", at("local").display()))
        .run_ok();
    let text = fs::read_to_string(at("local/in/deep/er/file")).unwrap();
    assert_eq!(text, "other text\n");
}

/// Its layer does not pass: the side solve leaves that with the daemon.
#[test]
fn a_large_context_passes_in_little_memory() {
    const SIZE: u64 = 128 << 20;
    let stand = Stand::start();
    let project = Project::new().dockerfile("FROM scratch\nCOPY large /\n");
    // Sparse here, but every byte of it is sent; with something in each block of 1 MiB.
    let large = File::create(project.path().join("large")).unwrap();
    large.set_len(SIZE).unwrap();
    for at in (0..SIZE).step_by(1 << 20) {
        let bytes = Digest::of(&at.to_le_bytes()).to_string();
        large.write_all_at(bytes.as_bytes(), at).unwrap();
    }
    let built = stand
        .build(&project)
        .output("type=image,name=large")
        .export_cache("type=inline")
        .run_ok();
    assert_eq!(built.steps_ran().len(), 1, "{built}");
    assert_eq!(built.warnings, [""; 0], "{built}");
    let size = |record: &Value| record["size"].as_u64().unwrap_or_default();
    assert!(
        stand
            .buildkitd
            .usage()
            .iter()
            .any(|record| size(record) >= SIZE)
    );
    let peak = stand.inlay.peak_rss();
    println!("peak memory of inlay: {} KiB", peak >> 10);
    assert!(peak < SIZE / 2, "{} KiB", peak >> 10);
}

/// An `ssh-agent` with one key.
struct Agent {
    process: Child,
    socket: PathBuf,
    fingerprint: String,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("agent.sock");
        let process = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("needs ssh-agent, of Debian's openssh-client");
        wait_for(SOON, || socket.exists().then_some(())).expect("an agent");
        let key = dir.join("key");
        let run = |command: &mut Command| {
            let output = command.env("SSH_AUTH_SOCK", &socket).output().unwrap();
            assert!(output.status.success(), "{command:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(&key));
        run(Command::new("ssh-add").arg(&key));
        let fingerprint = run(Command::new("ssh-add").arg("-l"));
        Self {
            process,
            socket,
            fingerprint,
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}

/// Puts a program of this machine into a project, with the libraries that it is linked to.
fn add_program(project: &Project, path: &str) {
    let ldd = Command::new("ldd").arg(path).output().unwrap();
    let libraries = String::from_utf8(ldd.stdout).unwrap();
    let libraries = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries.chain([path]) {
        let copy = project.path().join("host").join(&file[1..]);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
}

#[test]
fn a_step_speaks_to_the_users_own_agent() {
    let stand = Stand::start();
    let project = Project::new().base().dockerfile(
        "FROM scratch\nADD rootfs.tar /\nCOPY host/ /\n\
         RUN --mount=type=ssh,required=true ssh-add -l\n",
    );
    add_program(&project, "/usr/bin/ssh-add");
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path());
    let built = stand
        .build(&project)
        .args([format!("--ssh=default={}", agent.socket.display())])
        .run_ok();
    assert_eq!(built.vertex("type=ssh").log, agent.fingerprint);
    let failed = stand.build(&project).args(["--no-cache"]).run_err();
    assert!(failed.message().contains("no SSH key"), "{failed}");
}

#[test]
fn a_large_secret_reaches_a_step_whole() {
    let stand = Stand::start();
    let project = Project::new().base().dockerfile(
        "FROM scratch\nADD rootfs.tar /\n\
         RUN --mount=type=secret,id=s,required=true sha256sum </run/secrets/s\n",
    );
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fill(&secret, 400 << 10); // BuildKit takes no more than 500 KiB
    let built = stand
        .build(&project)
        .args([format!("--secret=id=s,src={}", secret.display())])
        .run_ok();
    let log = &built.vertex("type=secret").log;
    assert_eq!(
        log.split_whitespace().next(),
        Some(&*digest(&secret)),
        "{built}"
    );
    let failed = stand.build(&project).args(["--no-cache"]).run_err();
    assert!(failed.message().contains("not found"), "{failed}");
}

#[test]
fn only_the_client_has_the_registrys_password() {
    let registry = Registry::start();
    let door = registry.with_password();
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = Project::new()
        .dockerfile("FROM scratch\nCOPY file /\n")
        .file("file", "text\n");
    let config = Project::new().file("config.json", door.docker_config());
    let build = Buildctl::new(inlay.addr())
        .project(&project)
        .push(&door.image("demo:locked"));
    let nobody = Project::new();
    let config_of = |of: &Project| of.path().to_str().unwrap().to_owned();
    let refused = build
        .clone()
        .env("DOCKER_CONFIG", &config_of(&nobody))
        .run_err();
    assert!(refused.message().contains("401 Unauthorized"), "{refused}");
    build.env("DOCKER_CONFIG", &config_of(&config)).run_ok();
    assert!(registry.digest("demo:locked").starts_with("sha256:"));
}

/// A build whose context is on its way.
fn in_the_context(stand: &Stand, project: &Project) -> crate::support::Running {
    let begun = stand.buildkitd.log().matches("session started").count();
    let build = stand.build(project).spawn();
    let begins = wait_for(3 * SOON, || {
        let log = stand.buildkitd.log();
        (log.matches("session started").count() > begun).then_some(())
    });
    assert!(begins.is_some(), "{}", build.kill());
    // Some of it, and far from all.
    std::thread::sleep(Duration::from_millis(300));
    build
}

/// Nothing is left of a session.
fn assert_idle(stand: &Stand, sockets: usize) {
    let idle = wait_for(SOON, || {
        let idle = stand.buildkitd.sessions() == 0 && stand.inlay.sockets() == sockets;
        idle.then_some(())
    });
    assert!(
        idle.is_some(),
        "{} sessions, {} sockets of inlay instead of {sockets}",
        stand.buildkitd.sessions(),
        stand.inlay.sockets(),
    );
}

#[test]
fn a_client_killed_in_the_middle_of_its_context_leaves_nothing() {
    let stand = Stand::start();
    let project = Project::new().dockerfile("FROM scratch\nCOPY large /\n");
    let sparse = File::create(project.path().join("large")).unwrap();
    sparse.set_len(4 << 30).unwrap();
    let small = Project::new()
        .dockerfile("FROM scratch\nCOPY file /\n")
        .file("file", "text\n");
    stand.build(&small).run_ok();
    let sockets = stand.inlay.idle_sockets();
    let mut build = in_the_context(&stand, &project);
    assert!(build.is_running());
    build.kill();
    assert_idle(&stand, sockets);
    small.write("file", "other\n");
    stand.build(&small).run_ok();
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_context_is_told_as_its_end() {
    let mut stand = Stand::start();
    let project = Project::new().dockerfile("FROM scratch\nCOPY large /\n");
    let sparse = File::create(project.path().join("large")).unwrap();
    sparse.set_len(4 << 30).unwrap();
    let mut build = in_the_context(&stand, &project);
    assert!(build.is_running());
    stand.buildkitd.kill();
    let ended = build.wait();
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    let message = ended.message();
    assert!(message.contains("Unavailable"), "{message}");
    stand.buildkitd.restart();
    project.write("large", "small now\n");
    stand.build(&project).run_ok();
}

/// A build that fails before its session is of use. What BuildKit's client reads after its own end of
/// the session is garbage to its HTTP/2, which says so on the terminal; an end in order is not read.
#[test]
fn a_session_that_ends_at_once_says_nothing_of_http2() {
    let stand = Stand::start();
    let project = Project::new()
        .dockerfile("FROM scratch\nCOPY file /\n")
        .file("file", "x");
    let build = stand.build(&project).plain().output("type=nosuch");
    for _ in 0..5 {
        let said = build.run_err().to_string();
        assert!(said.contains("could not be found"), "{said}");
        assert!(!said.contains("http2"), "{said}");
    }
}
