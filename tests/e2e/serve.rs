//! `inlay serve`: where it listens, what it refuses, how it stops.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Buildctl, Buildkitd, Daemon, Inlay, Project, Registry, SOON, wait_for};

/// `inlay serve` without what the environment says of daemons.
fn serve(args: &[String]) -> Command {
    let mut command = Inlay::command();
    command
        .arg("serve")
        .args(args)
        .env_remove("BUILDKIT_HOST")
        .env_remove("XDG_RUNTIME_DIR");
    command
}

/// What it says when it does not start.
fn refusal(args: &[String]) -> String {
    let Output { status, stderr, .. } = serve(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("inlay: "), "{stderr}");
    last
}

/// A running `inlay serve` with these arguments, in front of a daemon; ready when all of its
/// sockets are.
fn start(dir: &TempDir, buildkitd: &str, args: &[String]) -> Daemon {
    let mut command = serve(args);
    command.arg(format!("--buildkitd={buildkitd}"));
    let log = dir.path().join("log");
    // One that ran there before has told of its sockets in the same log.
    let before = fs::read_to_string(&log).unwrap_or_default();
    let mut daemon = Daemon::spawn("inlay", command, &log);
    let sockets = args.iter().filter(|arg| arg.starts_with("--addr=")).count();
    daemon.wait_until(SOON, |daemon| {
        let listening = daemon.log()[before.len()..].matches("listening").count();
        (listening >= sockets).then_some(())
    });
    daemon
}

fn info(addr: &str) -> Output {
    Buildctl::command(addr, &["debug", "info"])
}

fn assert_takes_no_connection(inlay: &Inlay) {
    let refused = wait_for(SOON, || {
        (!info(&inlay.addr()).status.success()).then_some(())
    });
    assert!(refused.is_some(), "no new connections");
}

fn small() -> Project {
    Project::new()
        .dockerfile("FROM scratch\nCOPY file /\n")
        .file("file", "x")
}

#[test]
fn it_listens_on_all_of_its_addresses() {
    let buildkitd = Buildkitd::start();
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let first = format!("unix://{}/below/first.sock", dir.path().display());
    let addrs = [
        first.clone(),
        format!("unix://{}/second.sock", dir.path().display()),
        format!("tcp://127.0.0.1:{port}"),
    ];
    let args = addrs.each_ref().map(|addr| format!("--addr={addr}"));
    let mut inlay = start(&dir, &buildkitd.addr(), &args);
    for addr in &addrs {
        Buildctl::new(addr).project(&small()).run_ok();
    }
    let socket = dir.path().join("below/first.sock");
    let metadata = fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    assert_eq!(inlay.terminate().code(), Some(0));
    assert!(!socket.exists(), "its sockets go with it");
}

/// A name in a folder that others may write to is not to be trusted.
#[test]
fn the_lock_file_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, lock) = (dir.path().join("i.sock"), dir.path().join("i.sock.lock"));
    let args = [
        format!("--addr=unix://{}", socket.display()),
        "--buildkitd=unix:///nowhere".to_owned(),
    ];

    let precious = dir.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, &lock).unwrap();
    let said = refusal(&args);
    assert!(said.contains("its lock file"), "{said}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    fs::remove_file(&lock).unwrap();

    fs::hard_link(&precious, &lock).unwrap();
    assert!(refusal(&args).contains("it is no file of its own"));
    fs::remove_file(&lock).unwrap();

    let made = Command::new("mkfifo").arg(&lock).status().unwrap();
    assert!(made.success());
    let started = Instant::now();
    assert!(refusal(&args).contains("it is no file of its own"));
    assert!(started.elapsed() < SOON);
}

#[test]
fn what_it_makes_has_its_mode_under_any_umask() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("below");
    let socket = below.join("i.sock");
    let inlay = Inlay::command();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$@\"", "sh"]);
    command.arg(inlay.get_program()).arg("serve");
    command.arg(format!("--addr=unix://{}", socket.display()));
    command.arg("--buildkitd=unix:///nowhere");
    let log = dir.path().join("log");
    let mut inlay = Daemon::spawn("inlay", command, &log);
    inlay.wait_until(SOON, |_| socket.exists().then_some(()));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&below), 0o755);
    assert_eq!(mode(&socket), 0o660);
    assert_eq!(mode(&below.join("i.sock.lock")), 0o600);

    // A folder that a killed inlay left in the making is replaced, whatever its number was.
    inlay.kill();
    let mut left = fs::read_dir(&below).unwrap();
    assert!(left.all(|entry| !entry.unwrap().file_type().unwrap().is_dir()));
}

#[test]
fn it_is_not_its_own_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let socket = |name: &str| format!("unix://{}/{name}.sock", dir.path().display());
    let args = |listen: &str, daemon: String| {
        let addr = format!("--addr={}", socket(listen));
        [addr, format!("--buildkitd={daemon}")]
    };
    let said = refusal(&args("a", socket("a")));
    assert!(said.contains("inlay would be its own daemon"), "{said}");
    let round = format!("unix://{0}/../{1}/a.sock", dir.path().display(), {
        dir.path().file_name().unwrap().display()
    });
    let said = refusal(&args("a", round));
    assert!(said.contains("inlay would be its own daemon"), "{said}");

    // Two in a ring: a call ends, and says why.
    let one = TempDir::new().unwrap();
    let two = TempDir::new().unwrap();
    let listens = |name: &str| [format!("--addr={}", socket(name))];
    let mut a = start(&one, &socket("b"), &listens("a"));
    let mut b = start(&two, &socket("a"), &listens("b"));
    let output = info(&socket("a"));
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("has passed 4 servers of inlay"), "{said}");
    assert!(a.terminate().success() && b.terminate().success());
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else() {
    let buildkitd = Buildkitd::start();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("inlay.sock");
    let args = [format!("--addr=unix://{}", socket.display())];
    let with_daemon = [args[0].clone(), format!("--buildkitd={}", buildkitd.addr())];

    drop(UnixListener::bind(&socket).unwrap());
    assert!(
        UnixStream::connect(&socket).is_err() && socket.exists(),
        "stale"
    );
    let mut inlay = start(&dir, &buildkitd.addr(), &args);
    assert!(info(&args[0]["--addr=".len()..]).status.success());

    // Live: it goes on living.
    let said = refusal(&with_daemon);
    assert!(
        said.contains("inlay.sock: another server is live there"),
        "{said}"
    );
    assert!(info(&args[0]["--addr=".len()..]).status.success());

    // Killed, it leaves a stale one, and the next replaces it.
    inlay.kill();
    assert!(socket.exists());
    let mut inlay = start(&dir, &buildkitd.addr(), &args);
    assert!(info(&args[0]["--addr=".len()..]).status.success());
    inlay.terminate();

    fs::write(&socket, "precious").unwrap();
    let said = refusal(&with_daemon);
    assert!(
        said.contains("inlay.sock: a file that is no socket is there"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn without_tls_it_listens_on_loopback_only() {
    for addr in ["tcp://0.0.0.0:0", "tcp://[::]:0"] {
        let said = refusal(&[
            format!("--addr={addr}"),
            "--buildkitd=unix:///nowhere".to_owned(),
        ]);
        assert!(
            said.contains(addr) && said.contains("only loopback addresses are allowed"),
            "{said}"
        );
    }
}

#[test]
fn without_a_daemon_it_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let args = [format!("--addr=unix://{}/inlay.sock", dir.path().display())];
    // A machine may have a buildkitd at its usual place: look where there is none.
    let Output { status, stderr, .. } = {
        let mut command = Command::new("unshare");
        let inner = serve(&args);
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                "mount -t tmpfs tmpfs /run && exec \"$@\"",
                "sh",
            ])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_remove("BUILDKIT_HOST")
            .env_remove("XDG_RUNTIME_DIR");
        command.output().unwrap()
    };
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{said}");
    for part in [
        "no buildkitd found",
        "--buildkitd",
        "BUILDKIT_HOST",
        "https://github.com/moby/buildkit/releases",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("privileged"), "it advises nothing unsafe");
}

#[test]
fn the_environment_names_the_daemon() {
    let buildkitd = Buildkitd::start();
    let dir = tempfile::tempdir().unwrap();
    let addr = format!("unix://{}/inlay.sock", dir.path().display());
    let mut command = serve(&[format!("--addr={addr}")]);
    command.env("BUILDKIT_HOST", buildkitd.addr());
    let mut inlay = Daemon::spawn("inlay", command, &dir.path().join("log"));
    inlay.wait_until(SOON, |_| info(&addr).status.success().then_some(()));
    inlay.terminate();

    // As for buildctl, an empty variable is none.
    let mut command = serve(&[
        format!("--addr={addr}"),
        "--buildkitd".to_owned(),
        buildkitd.addr(),
    ]);
    command.env("BUILDKIT_HOST", "");
    let mut inlay = Daemon::spawn("inlay", command, &dir.path().join("log"));
    inlay.wait_until(SOON, |_| info(&addr).status.success().then_some(()));
    inlay.terminate();
    let mut command = serve(&[format!("--addr={addr}")]);
    let output = command
        .env("BUILDKIT_HOST", "")
        .env("XDG_RUNTIME_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no buildkitd found"), "{said}");

    let mut command = serve(&[format!("--addr={addr}")]);
    let output = command
        .env("BUILDKIT_HOST", "docker-container://x")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("$BUILDKIT_HOST: ") && said.contains("no known scheme"),
        "{said}"
    );
}

/// A build through inlay that takes a while, in the middle of its step.
fn in_a_step(
    inlay: &Inlay,
    buildkitd: &Buildkitd,
    registry: &Registry,
    seconds: u32,
) -> crate::support::Running {
    let project = Project::new().base().dockerfile(&format!(
        "FROM scratch\nADD rootfs.tar /\nRUN sleep {seconds}; date >/out\n"
    ));
    let build = Buildctl::new(inlay.addr())
        .project(&project)
        .push(&registry.image("demo:slow"))
        .export_cache("type=inline")
        .spawn();
    let sleep = format!("sleep {seconds}");
    let begins = wait_for(3 * SOON, || {
        buildkitd
            .processes()
            .iter()
            .any(|line| line.contains(&sleep))
            .then_some(())
    });
    assert!(begins.is_some(), "{}", build.kill());
    build
}

#[test]
fn a_build_that_runs_may_end_after_sigterm() {
    let registry = Registry::start();
    let buildkitd = Buildkitd::start();
    let mut inlay = Inlay::start(&buildkitd, &[]);
    let build = in_a_step(&inlay, &buildkitd, &registry, 3);
    inlay.daemon().signal(Signal::TERM);
    assert_takes_no_connection(&inlay);
    assert!(inlay.daemon().ended().is_none());
    let built = build.wait();
    assert!(built.status.success(), "{built}");
    assert_eq!(built.warnings, [""; 0]);
    let records = crate::support::inline_records(&registry.config("demo:slow", None));
    assert!(!records.is_empty());
    assert!(
        records
            .iter()
            .all(|record| !record.to_string().contains("createdAt"))
    );
    let status = wait_for(SOON, || inlay.daemon().ended());
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}

#[test]
fn a_build_longer_than_the_grace_does_not_keep_it() {
    let registry = Registry::start();
    let buildkitd = Buildkitd::start();
    let mut inlay = Inlay::start(&buildkitd, &["--grace=1"]);
    let build = in_a_step(&inlay, &buildkitd, &registry, 300);
    let begun = Instant::now();
    inlay.daemon().signal(Signal::TERM);
    let status = wait_for(SOON, || inlay.daemon().ended());
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "not before the grace is over"
    );
    assert_eq!(build.wait().status.code(), Some(1));
    let idle = wait_for(SOON, || buildkitd.processes().is_empty().then_some(()));
    assert!(idle.is_some(), "{:?}", buildkitd.processes());
}

#[test]
fn a_second_signal_ends_builds_at_once() {
    let registry = Registry::start();
    let buildkitd = Buildkitd::start();
    let mut inlay = Inlay::start(&buildkitd, &[]);
    let build = in_a_step(&inlay, &buildkitd, &registry, 300);
    inlay.daemon().signal(Signal::TERM);
    assert_takes_no_connection(&inlay);
    inlay.daemon().signal(Signal::INT);
    let status = wait_for(SOON, || inlay.daemon().ended());
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    assert_eq!(build.wait().status.code(), Some(1));
}

/// The soft limit of descriptors is for programs that use `select`.
#[test]
fn descriptors_are_limited_by_the_hard_limit_alone() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("inlay.sock");
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -Sn 64 && ulimit -Hn 4000 && exec \"$@\"",
            "sh",
        ])
        .arg(Inlay::command().get_program())
        .arg("serve")
        .arg(format!("--addr=unix://{}", socket.display()))
        .arg("--buildkitd=unix:///nowhere/buildkitd.sock");
    let mut inlay = Daemon::spawn("inlay", command, &dir.path().join("log"));
    inlay.wait_until(SOON, |_| UnixStream::connect(&socket).ok());
    let limits = fs::read_to_string(format!("/proc/{}/limits", inlay.pid())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<_> = files.unwrap().split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["4000", "4000"]);
}
