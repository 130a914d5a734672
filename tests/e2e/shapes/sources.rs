//! What builds are made of: base images in a registry, a context, files behind HTTP, git.
//!
//! A Dockerfile names them in braces:
//!
//! | name | what it is |
//! | --- | --- |
//! | `{base}` | a tag of a busybox image for two platforms, with its content in `/base`; it can move |
//! | `{pinned}` | what that tag names at first, by its digest |
//! | `{tool}` | a tag of another one, for one platform, with its content in `/tool`; it can move |
//! | `{web}` | a URL of a file |
//! | `{git}` | a git repository with the files that a context has at first, and its content in `a.txt` |
//!
//! `extra` is a named context, a folder with `e.txt`, and `image` one that is the base image.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use super::case::{Case, Source};
use crate::support::{Buildctl, Buildkitd, Peers, Project, Registry};

/// The contents that sources can have. The last one is longer than the others.
pub const CONTENTS: [&str; 3] = ["one", "two", "three"];

/// An image with the layers of the first content, and another config.
pub const RELABELLED: &str = "relabelled";

/// The files of a context at first, beside a shell `sh` and an archive `ar.tar`.
pub const FILES: [(&str, &str); 5] = [
    ("a.txt", "one"),
    ("b.txt", "one"),
    ("dir/c.txt", "one"),
    ("dir/d.txt", "two"),
    ("dir/sub/e.md", "one"),
];

/// A registry with base images, and servers of files and of git: for all cases of a run.
#[derive(Debug)]
pub struct Sources {
    pub registry: Registry,
    web: Web,
    git: Git,
}

/// The sources of one telling of a case.
#[derive(Debug)]
pub struct Scene<'a> {
    sources: &'a Sources,
    /// Tells it from all others.
    id: String,
    pub context: Project,
    pub extra: Project,
    dockerfile: String,
    contents: BTreeMap<Source, String>,
    /// Whether anything reads the git repository.
    has_git: bool,
}

/// A web server of files by path.
#[derive(Debug)]
struct Web {
    host: String,
    files: Arc<Mutex<BTreeMap<String, String>>>,
}

/// A git server.
#[derive(Debug)]
struct Git {
    host: String,
    dir: TempDir,
}

// === impl Sources ===

impl Sources {
    /// Starts them.
    pub fn start() -> Self {
        let registry = Registry::start();
        let mut buildkitd = Buildkitd::start();
        for (repository, path, platforms) in [
            ("base", "/base", "linux/amd64,linux/arm64"),
            ("tool", "/tool", "linux/amd64"),
        ] {
            for name in CONTENTS.into_iter().chain([RELABELLED]) {
                let content = if name == RELABELLED {
                    CONTENTS[0]
                } else {
                    name
                };
                let dockerfile = format!(
                    "FROM scratch\nADD rootfs.tar /\nCOPY content {path}\nENV CONTENT={name}\n"
                );
                let project = Project::new().base().dockerfile(&dockerfile);
                let project = project.file("content", format!("{content}\n"));
                Buildctl::new(buildkitd.addr())
                    .project(&project)
                    .opt(&format!("platform={platforms}"))
                    .push(&registry.image(&format!("{repository}:{name}")))
                    .run_ok();
            }
        }
        buildkitd.kill();
        Self {
            registry,
            web: Web::start(),
            git: Git::start(),
        }
    }

    /// The sources of a case as they are at first. `id` is another for each telling.
    pub fn scene(&self, id: String, case: &Case) -> Scene<'_> {
        let mut context = Project::new();
        for (path, content) in FILES {
            context = context.file(path, format!("{content}\n"));
        }
        // Static, and a shell by its name.
        extract(&["-xf", "rootfs.tar", "./bin/busybox"], context.path());
        let sh = context.path().join("sh");
        fs::rename(context.path().join("bin/busybox"), sh).unwrap();
        fs::remove_dir(context.path().join("bin")).unwrap();
        let first = CONTENTS[0];
        let sources = [Source::Base, Source::Tool, Source::Web, Source::Git];
        let scene = Scene {
            sources: self,
            id,
            context,
            extra: Project::new().file("e.txt", "one\n"),
            dockerfile: case.dockerfile.to_string(),
            contents: sources.map(|source| (source, first.to_owned())).into(),
            has_git: case.dockerfile.to_string().contains("{git}")
                || case.builds().any(|build| build.git),
        };
        let archived = scene.context.path().join("archived.txt");
        fs::write(&archived, "archived\n").unwrap();
        extract(
            &["--mtime=@0", "-cf", "ar.tar", "archived.txt"],
            scene.context.path(),
        );
        fs::remove_file(archived).unwrap();
        scene.context.write("Dockerfile", scene.dockerfile());
        for source in scene.contents.keys() {
            scene.put(source, first);
        }
        scene
    }
}

// === impl Scene ===

impl Scene<'_> {
    /// The Dockerfile with all names filled in.
    pub fn dockerfile(&self) -> String {
        let registry = &self.sources.registry;
        let pinned = registry.digest(&format!("base:{}", CONTENTS[0]));
        self.dockerfile
            .replace("{base}", &self.base())
            .replace("{pinned}", &registry.image(&format!("base@{pinned}")))
            .replace("{tool}", &registry.image(&format!("tool:{}", self.id)))
            .replace("{web}", &self.web())
            .replace("{git}", &self.git())
    }

    /// The full name of the base image.
    pub fn base(&self) -> String {
        self.sources.registry.image(&format!("base:{}", self.id))
    }

    /// The registry with all images.
    pub fn registry(&self) -> &Registry {
        &self.sources.registry
    }

    /// The named contexts that the Dockerfile uses: a folder, or an image.
    pub fn named_contexts(&self) -> Vec<(String, String)> {
        let extra = self.extra.path().display().to_string();
        let image = format!("docker-image://{}", self.base());
        let contexts = [("extra", extra), ("image", image)].into_iter();
        let used = contexts.filter(|(name, _)| self.dockerfile.contains(name));
        used.map(|(name, place)| (name.to_owned(), place)).collect()
    }

    /// Whether a step asks for the secret.
    pub fn has_secret(&self) -> bool {
        self.dockerfile.contains("type=secret")
    }

    /// A file with the secret.
    pub fn secret(&self) -> PathBuf {
        self.extra.path().join("e.txt")
    }

    /// The URL of the git repository.
    pub fn git(&self) -> String {
        format!("git://{}/{}.git#main", self.sources.git.host, self.id)
    }

    fn web(&self) -> String {
        format!("http://{}/{}/w.txt", self.sources.web.host, self.id)
    }

    /// The name of a build's image in the registry, without its host.
    pub fn image(&self, column: &str, number: usize) -> String {
        format!("{column}:{}-{number}", self.id)
    }

    /// Gives a source another content.
    pub fn change(&mut self, source: &Source, content: &str) {
        self.put(source, content);
        self.contents.insert(source.clone(), content.to_owned());
    }

    /// The contents of all sources that the Dockerfile may read.
    pub fn state(&self) -> String {
        let mentioned = self.contents.iter().filter(|(source, _)| match source {
            Source::File(path) => {
                let top = path.split('/').next().unwrap();
                self.dockerfile.contains(top) || self.dockerfile.contains("target=/src")
            }
            Source::Base => self.dockerfile.contains("{base}") || self.dockerfile.contains("image"),
            Source::Tool => self.dockerfile.contains("{tool}"),
            Source::Web => self.dockerfile.contains("{web}"),
            Source::Git => self.has_git,
        });
        format!("{:?}", mentioned.collect::<Vec<_>>())
    }

    fn put(&self, source: &Source, content: &str) {
        let line = format!("{content}\n");
        match source {
            Source::File(path) => self.context.write(path, line),
            Source::Web => {
                let path = format!("/{}/w.txt", self.id);
                self.sources.web.files.lock().unwrap().insert(path, line);
            }
            Source::Git => {
                if self.has_git {
                    self.commit(&line);
                }
            }
            Source::Base => self.tag("base", content),
            Source::Tool => self.tag("tool", content),
        }
    }

    fn tag(&self, repository: &str, content: &str) {
        let registry = &self.sources.registry;
        let image = registry.stored(&registry.digest(&format!("{repository}:{content}")));
        let name = format!("{repository}:{}", self.id);
        let is_index = repository == "base";
        assert!(match is_index {
            true => registry.tag_index(&name, &image),
            false => registry.tag(&name, &image),
        });
    }

    /// Commits a content, the same commit for the same content: each one is a root.
    fn commit(&self, line: &str) {
        let work = TempDir::new().unwrap();
        let bare = self.sources.git.dir.path().join(format!("{}.git", self.id));
        run(Command::new("cp")
            .arg("-a")
            .arg(format!("{}/.", self.context.path().display()))
            .arg(work.path()));
        for (path, content) in FILES {
            fs::write(work.path().join(path), format!("{content}\n")).unwrap();
        }
        fs::write(work.path().join("a.txt"), line).unwrap();
        run(git(work.path()).args(["init", "--quiet", "--initial-branch=main"]));
        run(git(work.path()).args(["add", "."]));
        run(git(work.path()).args(["commit", "--quiet", "--message=content"]));
        if !bare.exists() {
            run(git(work.path())
                .args(["init", "--quiet", "--bare", "--initial-branch=main"])
                .arg(&bare));
        }
        run(git(work.path())
            .args(["push", "--quiet", "--force"])
            .arg(&bare)
            .arg("main"));
    }
}

// === impl Web ===

impl Web {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let files = Arc::<Mutex<BTreeMap<String, String>>>::default();
        let served = files.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let files = served.clone();
                thread::spawn(move || answer(&stream.unwrap(), &files));
            }
        });
        Self { host, files }
    }
}

/// Answers one request, and closes the connection.
fn answer(mut stream: &TcpStream, files: &Mutex<BTreeMap<String, String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let mut words = request.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let file = files.lock().unwrap().get(path).cloned();
    let answer = match file {
        None => {
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
        Some(body) => {
            let tag = format!("\"{}\"", body.trim());
            let known = head.iter().any(|line| {
                line.to_ascii_lowercase().starts_with("if-none-match:") && line.contains(&tag)
            });
            let status = if known { "304 Not Modified" } else { "200 OK" };
            let length = body.len();
            let body = if known || method == "HEAD" { "" } else { &body };
            format!(
                "HTTP/1.1 {status}\r\netag: {tag}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
        }
    };
    // A client may have gone away.
    let _ = stream.write_all(answer.as_bytes());
}

// === impl Git ===

impl Git {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let path = dir.path().to_owned();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, path) = (stream.unwrap(), path.clone());
                thread::spawn(move || serve_git(stream, &path));
            }
        });
        Self { host, dir }
    }
}

/// Has git answer one connection.
fn serve_git(stream: TcpStream, dir: &Path) {
    let out = stream.try_clone().unwrap();
    let mut command = git(dir);
    command
        .args(["daemon", "--inetd", "--export-all"])
        .arg(format!("--base-path={}", dir.display()))
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(stream)))
        .stdout(Stdio::from(std::os::fd::OwnedFd::from(out)))
        .stderr(Stdio::null());
    // A client that goes away makes it fail.
    let _ = command.status();
}

/// git in a directory, the same whoever runs it and whenever.
fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", dir);
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), "shapes")
            .env(format!("GIT_{role}_EMAIL"), "shapes@localhost")
            .env(format!("GIT_{role}_DATE"), "1700000000 +0000");
    }
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Runs tar in a directory; `rootfs.tar` is that of the peers.
fn extract(args: &[&str], dir: &Path) {
    let rootfs: PathBuf = Peers::locate().rootfs_tar();
    let mut command = Command::new("tar");
    command.current_dir(dir);
    for arg in args {
        match *arg {
            "rootfs.tar" => command.arg(&rootfs),
            arg => command.arg(arg),
        };
    }
    run(&mut command);
}
