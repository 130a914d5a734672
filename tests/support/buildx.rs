//! Docker's client of BuildKit.

use std::ffi::OsString;
use std::process::Command;

use tempfile::TempDir;

use super::{BuildOutput, Peers, Project};

/// A `docker buildx` set up for one daemon.
#[derive(Debug)]
pub struct Buildx {
    /// Its configuration and home.
    home: TempDir,
    envs: Vec<(String, String)>,
    builder: &'static str,
}

/// One `docker buildx build`, put together and then run.
#[derive(Debug)]
pub struct BuildxBuild<'a> {
    buildx: &'a Buildx,
    args: Vec<OsString>,
    progress: &'static str,
    context: OsString,
}

impl Buildx {
    /// For a daemon that speaks BuildKit's API: buildx's remote driver.
    pub fn remote(addr: &str) -> Self {
        let buildx = Self::new("remote", Vec::new());
        let created = buildx
            .command()
            .args(["create", "--driver=remote", "--name=remote", addr])
            .output();
        let created = created.expect("buildx starts");
        assert!(
            created.status.success(),
            "buildx create: {}",
            String::from_utf8_lossy(&created.stderr)
        );
        buildx
    }

    /// For Docker Engine at `addr`: buildx's docker driver.
    pub fn docker(addr: &str) -> Self {
        Self::new("default", vec![("DOCKER_HOST".to_owned(), addr.to_owned())])
    }

    /// A build.
    pub fn build(&self, project: &Project) -> BuildxBuild<'_> {
        let context = project.path().as_os_str().to_owned();
        BuildxBuild {
            buildx: self,
            args: Vec::new(),
            progress: "rawjson",
            context,
        }
    }

    /// `docker buildx bake` of a file in the project, bake's own or of Compose, with more arguments.
    pub fn bake(&self, project: &Project, file: &str, args: &[&str]) -> BuildOutput {
        let mut command = self.command();
        command
            .current_dir(project.path())
            .arg("bake")
            .arg(format!("--builder={}", self.builder))
            .args(["--progress=rawjson", "--file", file])
            .args(args);
        BuildOutput::new(command.output().expect("buildx starts"))
    }

    /// `docker buildx` in its own environment, for other subcommands.
    pub fn command(&self) -> Command {
        let mut command = Command::new(Peers::locate().buildx());
        command
            .env("HOME", self.home.path())
            .env_remove("DOCKER_HOST")
            .env_remove("BUILDX_BUILDER");
        command.env("BUILDX_CONFIG", self.home.path().join("buildx"));
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
    }

    fn new(builder: &'static str, envs: Vec<(String, String)>) -> Self {
        let home = tempfile::Builder::new()
            .prefix("inlay-buildx-")
            .tempdir()
            .expect("a temporary directory");
        Self {
            home,
            envs,
            builder,
        }
    }
}

impl BuildxBuild<'_> {
    /// `--output`.
    pub fn output(self, output: &str) -> Self {
        self.args(["--output", output])
    }

    /// `--cache-to`.
    pub fn cache_to(self, cache: &str) -> Self {
        self.args(["--cache-to", cache])
    }

    /// `--cache-from`.
    pub fn cache_from(self, cache: &str) -> Self {
        self.args(["--cache-from", cache])
    }

    /// `--build-arg NAME=VALUE`.
    pub fn build_arg(self, arg: &str) -> Self {
        self.args(["--build-arg", arg])
    }

    /// More arguments of `buildx build`. Provenance is buildx's default unless set here.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Progress as a person sees it. The output then has no vertices.
    pub fn plain(mut self) -> Self {
        self.progress = "plain";
        self
    }

    /// Runs it to its end.
    pub fn run(&self) -> BuildOutput {
        let mut command = self.buildx.command();
        command
            .arg("build")
            .arg(format!("--builder={}", self.buildx.builder));
        command
            .arg(format!("--progress={}", self.progress))
            .args(&self.args)
            .arg(&self.context);
        BuildOutput::new(command.output().expect("buildx starts"))
    }

    /// Runs it to its end, which has to be a good one.
    pub fn run_ok(&self) -> BuildOutput {
        self.run().succeeded(&self.args)
    }
}
