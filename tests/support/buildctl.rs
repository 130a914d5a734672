//! BuildKit's own client.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::{BuildOutput, Peers, Project};

/// One `buildctl build`, put together and then run. It can be run several times.
#[derive(Clone, Debug)]
pub struct Buildctl {
    addr: String,
    args: Vec<OsString>,
    progress: &'static str,
    envs: Vec<(String, String)>,
    stdin: Vec<u8>,
    limit: Option<Duration>,
}

/// A build that runs in the background.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Buildctl {
    /// Runs `buildctl` on the daemon at `addr`, for subcommands other than `build`.
    pub fn command(addr: &str, args: &[&str]) -> Output {
        let mut command = Command::new(Peers::locate().buildctl());
        command.arg(format!("--addr={addr}")).args(args);
        command.output().expect("buildctl runs")
    }

    /// A build on the daemon at `addr`.
    pub fn new(addr: impl Into<String>) -> Self {
        Self {
            addr: addr.into(),
            args: Vec::new(),
            progress: "rawjson",
            envs: Vec::new(),
            stdin: Vec::new(),
            limit: None,
        }
    }

    /// Killed when it takes so long; [`BuildOutput::is_killed`] tells.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// On another daemon.
    pub fn addr(mut self, addr: impl Into<String>) -> Self {
        self.addr = addr.into();
        self
    }

    /// Of this project, by the Dockerfile frontend.
    pub fn project(self, project: &Project) -> Self {
        let path = project.path().display();
        self.args(["--frontend=dockerfile.v0"]).args([
            format!("--local=context={path}"),
            format!("--local=dockerfile={path}"),
        ])
    }

    /// Of a marshalled LLB definition on standard input, with no frontend.
    pub fn llb(mut self, definition: Vec<u8>) -> Self {
        self.stdin = definition;
        self
    }

    /// `--output`, as often as there are exporters.
    pub fn output(self, output: &str) -> Self {
        self.args(["--output", output])
    }

    /// The image exporter, pushed under that full name.
    pub fn push(self, image: &str) -> Self {
        self.push_with(image, "")
    }

    /// The same with more attributes, such as `rewrite-timestamp=true`.
    pub fn push_with(self, image: &str, attributes: &str) -> Self {
        let comma = if attributes.is_empty() { "" } else { "," };
        self.output(&format!(
            "type=image,name={image},push=true{comma}{attributes}"
        ))
    }

    /// `--export-cache`.
    pub fn export_cache(self, cache: &str) -> Self {
        self.args(["--export-cache", cache])
    }

    /// `--import-cache`.
    pub fn import_cache(self, cache: &str) -> Self {
        self.args(["--import-cache", cache])
    }

    /// `--opt`, such as `build-arg:NAME=VALUE`, `target=…`, `platform=…`.
    pub fn opt(self, opt: &str) -> Self {
        self.args(["--opt", opt])
    }

    /// `SOURCE_DATE_EPOCH` as the build argument that BuildKit takes it from.
    pub fn epoch(self, seconds: u64) -> Self {
        self.opt(&format!("build-arg:SOURCE_DATE_EPOCH={seconds}"))
    }

    /// More arguments of `buildctl build`.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable of the client's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Progress as a person sees it. The output then has no vertices.
    pub fn plain(mut self) -> Self {
        self.progress = "plain";
        self
    }

    /// Runs it in the background.
    pub fn spawn(&self) -> Running {
        let mut command = Command::new(Peers::locate().buildctl());
        command
            .arg(format!("--addr={}", self.addr))
            .arg("build")
            .arg(format!("--progress={}", self.progress));
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)));
        let mut command = match self.limit {
            Some(limit) => limited(&command, limit),
            None => command,
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("buildctl starts");
        let mut stdin = child.stdin.take().expect("standard input is piped");
        // A build that ends early closes its end: that is for its output to tell.
        let _ = stdin.write_all(&self.stdin);
        Running { child }
    }

    /// Runs it to its end.
    pub fn run(&self) -> BuildOutput {
        self.spawn().wait()
    }

    /// Runs it to its end, which has to be a good one.
    pub fn run_ok(&self) -> BuildOutput {
        self.run().succeeded(&self.args)
    }

    /// Runs it to its end, which has to be a failure.
    pub fn run_err(&self) -> BuildOutput {
        self.run().failed(&self.args)
    }
}

/// A command that is killed when it takes so long.
pub fn limited(command: &Command, limit: Duration) -> Command {
    let mut limited = Command::new("timeout");
    limited
        .args(["--signal=KILL", &limit.as_secs().to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

impl Running {
    /// Waits for its end.
    pub fn wait(self) -> BuildOutput {
        BuildOutput::new(
            self.child
                .wait_with_output()
                .expect("a child can be waited for"),
        )
    }

    /// Kills the client, and gives what it had said until then.
    pub fn kill(mut self) -> BuildOutput {
        let _ = self.child.kill(); // it may have ended
        self.wait()
    }

    /// Whether the client still runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }
}
