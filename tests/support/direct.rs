//! A client of our own (`tests/clients/direct`), which solves as BuildKit's tools do not.

use std::ffi::OsString;
use std::process::Command;

use super::{BuildOutput, Peers, Project};

/// One run of it, put together and then run.
#[derive(Clone, Debug)]
pub struct Direct {
    addr: String,
    args: Vec<OsString>,
}

impl Direct {
    /// `Control.Solve` of the Dockerfile frontend on the daemon at `addr`.
    pub fn frontend(addr: impl Into<String>, project: &Project) -> Self {
        Self::new(addr, "frontend").of(project)
    }

    /// `Control.Solve` of a definition of three steps: the base, the project's `file`, a shell
    /// command.
    pub fn definition(addr: impl Into<String>, project: &Project) -> Self {
        Self::new(addr, "definition").of(project)
    }

    /// The same two times, one after the other, in one session; what is told is of the second.
    pub fn twice(addr: impl Into<String>, project: &Project) -> Self {
        Self::new(addr, "twice").of(project)
    }

    /// The same by a gateway call, which alone names the imports.
    pub fn gateway(addr: impl Into<String>, project: &Project) -> Self {
        Self::new(addr, "gateway").of(project)
    }

    /// A gateway client from before refs came with definitions.
    pub fn old_refs(addr: impl Into<String>) -> Self {
        Self::new(addr, "old-refs")
    }

    /// The definition of [`definition`](Self::definition), as `buildctl build` reads it from
    /// standard input.
    pub fn marshal() -> Vec<u8> {
        let mut command = Command::new(Peers::locate().direct());
        let output = command
            .arg("-mode=marshal")
            .output()
            .expect("direct starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// On another daemon.
    pub fn addr(mut self, addr: impl Into<String>) -> Self {
        self.addr = addr.into();
        self
    }

    /// The image exporter, pushed under that full name.
    pub fn push(self, image: &str) -> Self {
        self.arg(format!("-output=type=image,name={image},push=true"))
    }

    /// A cache export.
    pub fn export_cache(self, cache: &str) -> Self {
        self.arg(format!("-export-cache={cache}"))
    }

    /// A cache import.
    pub fn import_cache(self, cache: &str) -> Self {
        self.arg(format!("-import-cache={cache}"))
    }

    /// The frontend by its other name: `gateway.v0` with the source `dockerfile.v0`.
    pub fn behind_the_gateway(self) -> Self {
        self.arg("-gateway").opt("source=dockerfile.v0")
    }

    /// The definition's last step on this image.
    pub fn on(self, image: &str) -> Self {
        self.arg(format!("-image={image}"))
    }

    /// A source policy that the client's session decides: one image in place of another.
    pub fn replacing(self, from: &str, to: &str) -> Self {
        self.arg(format!("-policy=docker-image://{from}=docker-image://{to}"))
    }

    /// An option of the frontend.
    pub fn opt(self, opt: &str) -> Self {
        self.arg(format!("-opt={opt}"))
    }

    /// The shell command of the definition's last step.
    pub fn command(self, command: &str) -> Self {
        self.arg(format!("-command={command}"))
    }

    /// The build's ref, in place of a random one.
    pub fn reference(self, reference: &str) -> Self {
        self.arg(format!("-ref={reference}"))
    }

    /// Runs it to its end.
    pub fn run(&self) -> BuildOutput {
        let mut command = Command::new(Peers::locate().direct());
        command.arg(format!("-addr={}", self.addr)).args(&self.args);
        BuildOutput::new(command.output().expect("direct starts"))
    }

    /// Runs it to its end, which has to be a good one.
    pub fn run_ok(&self) -> BuildOutput {
        self.run().succeeded(&self.args)
    }

    /// Runs it to its end, which has to be a failure.
    pub fn run_err(&self) -> BuildOutput {
        self.run().failed(&self.args)
    }

    fn new(addr: impl Into<String>, mode: &str) -> Self {
        Self {
            addr: addr.into(),
            args: vec![format!("-mode={mode}").into()],
        }
    }

    fn of(self, project: &Project) -> Self {
        self.arg(format!("-context={}", project.path().display()))
    }

    fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }
}
