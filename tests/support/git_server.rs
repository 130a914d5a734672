//! A git repository that others may fetch, for `ADD git://…` and git contexts.

use std::fs;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::listening::Listening;

/// A repository with a branch `main`, served on a free loopback port. Its commits have the same
/// names each time.
#[derive(Debug)]
pub struct GitServer {
    listening: Listening,
    dir: TempDir,
}

// === impl GitServer ===

impl GitServer {
    /// Starts one without commits.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("inlay-git-")
            .tempdir()
            .expect("a temporary directory");
        git(
            dir.path(),
            &["init", "--quiet", "--initial-branch=main", "repository"],
        );
        let base = format!("--base-path={}", dir.path().display());
        let listening = Listening::start(move |stream: TcpStream| {
            let socket = |stream: &TcpStream| OwnedFd::from(stream.try_clone().expect("a clone"));
            let daemon = command()
                .args(["daemon", "--inetd", "--export-all", &base])
                .stdin(Stdio::from(socket(&stream)))
                .stdout(Stdio::from(socket(&stream)))
                .status();
            daemon.expect("git runs");
        });
        Self { listening, dir }
    }

    /// Commits a file to `main`; returns the name of the commit.
    pub fn commit(&self, path: &str, contents: impl AsRef<[u8]>) -> String {
        let repository = self.repository();
        fs::write(repository.join(path), contents).expect("the file is written");
        git(&repository, &["add", path]);
        git(&repository, &["commit", "--quiet", "--message", path]);
        git(&repository, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Commits all files of a directory to `main`; returns the name of the commit.
    pub fn commit_all(&self, directory: &Path) -> String {
        let repository = self.repository();
        let copied = Command::new("cp")
            .args(["-a", "--"])
            .arg(directory.join("."))
            .arg(&repository)
            .status();
        assert!(copied.expect("cp runs").success());
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "--quiet", "--message=all"]);
        git(&repository, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Has `main` point to this commit.
    pub fn reset(&self, commit: &str) {
        git(&self.repository(), &["reset", "--quiet", "--hard", commit]);
    }

    /// The URL of `main`, as `ADD` takes it.
    pub fn url(&self) -> String {
        format!("git://{}/repository#main", self.listening.addr())
    }

    fn repository(&self) -> std::path::PathBuf {
        self.dir.path().join("repository")
    }
}

/// Runs git in a directory; returns what it wrote.
fn git(directory: &Path, args: &[&str]) -> String {
    let output = command().current_dir(directory).args(args).output();
    let output = output.expect("git runs");
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// git with nobody's configuration, and with one person and one time for all commits.
fn command() -> Command {
    let mut command = Command::new("git");
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "test")
            .env(format!("GIT_{who}_EMAIL"), "test@localhost")
            .env(format!("GIT_{who}_DATE"), "1700000000 +0000");
    }
    command
}
