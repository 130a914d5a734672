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
use std::path::PathBuf;
use std::process::Command;

use super::case::{Case, Source};
use crate::support::{Buildctl, Buildkitd, GitServer, HttpServer, Project, Registry};

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

/// A registry with base images, and a server of files: for all cases of a run.
#[derive(Debug)]
pub struct Sources {
    pub registry: Registry,
    web: HttpServer,
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
    /// The URL of `{web}`.
    web: String,
    /// Where something reads it.
    git: Option<Git>,
}

/// A git repository.
#[derive(Debug)]
struct Git {
    server: GitServer,
    /// Its commits by content.
    commits: BTreeMap<String, String>,
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
            web: HttpServer::start(),
        }
    }

    /// The sources of a case as they are at first. `id` is another for each telling.
    pub fn scene(&self, id: String, case: &Case) -> Scene<'_> {
        let mut context = Project::new().shell();
        for (path, content) in FILES {
            context = context.file(path, format!("{content}\n"));
        }
        context = context.file("archived.txt", "archived\n");
        run(Command::new("tar").current_dir(context.path()).args([
            "--mtime=@0",
            "--remove-files",
            "-cf",
            "ar.tar",
            "archived.txt",
        ]));
        let first = CONTENTS[0];
        let sources = [Source::Base, Source::Tool, Source::Web];
        let reads_git = case.dockerfile.to_string().contains("{git}");
        let reads_git = reads_git || case.builds().any(|build| build.git);
        let mut scene = Scene {
            sources: self,
            id,
            context,
            extra: Project::new().file("e.txt", "one\n"),
            dockerfile: case.dockerfile.to_string(),
            contents: BTreeMap::new(),
            web: String::new(),
            git: None,
        };
        for source in sources {
            scene.change(&source, first);
        }
        let server = reads_git.then(GitServer::start);
        let url = server.as_ref().map_or_else(String::new, GitServer::url);
        scene.context.write("Dockerfile", scene.dockerfile(&url));
        scene.git = server.map(|server| {
            let commit = server.commit_all(scene.context.path());
            let commits = BTreeMap::from([(first.to_owned(), commit)]);
            Git { server, commits }
        });
        scene
    }
}

// === impl Scene ===

impl Scene<'_> {
    /// The Dockerfile with all names filled in.
    fn dockerfile(&self, git: &str) -> String {
        let registry = &self.sources.registry;
        let pinned = registry.digest(&format!("base:{}", CONTENTS[0]));
        self.dockerfile
            .replace("{base}", &self.base())
            .replace("{pinned}", &registry.image(&format!("base@{pinned}")))
            .replace("{tool}", &registry.image(&format!("tool:{}", self.id)))
            .replace("{web}", &self.web)
            .replace("{git}", git)
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

    /// The URL of the git repository; empty where nothing reads it.
    pub fn git(&self) -> String {
        self.git
            .as_ref()
            .map_or_else(String::new, |git| git.server.url())
    }

    /// The name of a build's image in the registry, without its host.
    pub fn image(&self, column: &str, number: usize) -> String {
        format!("{column}:{}-{number}", self.id)
    }

    /// Gives a source another content.
    pub fn change(&mut self, source: &Source, content: &str) {
        let line = format!("{content}\n");
        match source {
            Source::File(path) => self.context.write(path, line),
            Source::Web => {
                let path = format!("/{}/w.txt", self.id);
                self.web = self.sources.web.write(&path, line);
            }
            Source::Git => {
                if let Some(git) = &mut self.git {
                    git.change(content, &line);
                }
            }
            Source::Base => self.tag("base", content),
            Source::Tool => self.tag("tool", content),
        }
        self.contents.insert(source.clone(), content.to_owned());
    }

    /// The contents of all sources that the Dockerfile may read, those of files where they are not what
    /// they were at first.
    pub fn state(&self) -> String {
        let reads = |mark: &str| self.dockerfile.contains(mark);
        let at_first = |path: &str| FILES.iter().find(|(file, _)| *file == path);
        let matters = |source: &Source, content: &str| match source {
            Source::File(path) => {
                let top = path.split('/').next().unwrap();
                let is_read = reads(top) || reads(" . /") || reads("target=/src");
                is_read && at_first(path).is_none_or(|(_, first)| *first != content)
            }
            Source::Base => reads("{base}") || reads("image"),
            Source::Tool => reads("{tool}"),
            Source::Web => reads("{web}"),
            Source::Git => self.git.is_some(),
        };
        let state = self.contents.iter();
        let state = state.filter(|(source, content)| matters(source, content));
        format!("{:?}", state.collect::<Vec<_>>())
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
}

// === impl Git ===

impl Git {
    /// Has the branch at the commit with a content in `a.txt`.
    fn change(&mut self, content: &str, line: &str) {
        match self.commits.get(content) {
            Some(commit) => self.server.reset(commit),
            None => {
                let commit = self.server.commit("a.txt", line);
                self.commits.insert(content.to_owned(), commit);
            }
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
