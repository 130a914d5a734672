//! What a build said.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// A finished build: how it ended, and what it told on the way.
#[derive(Debug)]
pub struct BuildOutput {
    /// Of the client.
    pub status: ExitStatus,
    /// As the client wrote it: progress as JSON lines unless another kind was asked for, errors in
    /// the open.
    pub stderr: String,
    /// All vertices in the order in which they were first told of; empty for other progress than
    /// JSON.
    pub vertices: Vec<Vertex>,
    /// The short text of each warning.
    pub warnings: Vec<String>,
}

/// One vertex of a build.
#[derive(Clone, Debug, Default)]
pub struct Vertex {
    /// Such as `[stage 2/3] RUN make` or `exporting to image`.
    pub name: String,
    /// It was begun. One that is not even begun was not needed.
    pub started: bool,
    /// It came to an end, with an error or not.
    pub completed: bool,
    /// It was taken from a cache.
    pub cached: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// What it wrote.
    pub log: String,
}

impl Vertex {
    /// Whether it is an instruction of the user's Dockerfile that makes files: no `FROM`, no
    /// loading of contexts, no export.
    pub fn is_step(&self) -> bool {
        self.name.starts_with('[')
            && !self.name.starts_with("[internal]")
            && !self.name.starts_with("[auth]")
            && !self.name.starts_with("[context ")
            && !self.name.contains("] FROM ")
    }
}

impl BuildOutput {
    /// Runs a client of the test's own making to its end.
    pub fn of(command: &mut Command) -> Self {
        Self::new(command.output().expect("a client starts"))
    }

    /// Whether the client was killed because it took [too long](super::limited).
    pub fn is_killed(&self) -> bool {
        // As a shell says it: 128 and SIGKILL. `timeout` kills itself as well.
        self.status.code() == Some(137) || self.status.signal() == Some(9)
    }

    pub(super) fn new(output: std::process::Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut vertices: Vec<Vertex> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut warnings = Vec::new();
        // SolveStatus messages: each has lists of changed vertices, of log pieces, of warnings.
        for status in stderr
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            for update in list(&status["vertexes"]) {
                let digest = text(&update["digest"]);
                let place = *places.entry(digest).or_insert_with(|| {
                    vertices.push(Vertex::default());
                    vertices.len() - 1
                });
                let vertex = &mut vertices[place];
                vertex.name = text(&update["name"]);
                vertex.started |= !update["started"].is_null();
                vertex.completed |= !update["completed"].is_null();
                vertex.cached |= update["cached"] == true;
                if update["error"].is_string() {
                    vertex.error = Some(text(&update["error"]));
                }
            }
            for piece in list(&status["logs"]) {
                if let Some(place) = places.get(&text(&piece["vertex"])) {
                    vertices[*place].log.push_str(&bytes(&piece["data"]));
                }
            }
            warnings.extend(
                list(&status["warnings"])
                    .iter()
                    .map(|warning| bytes(&warning["short"])),
            );
        }
        Self {
            status: output.status,
            stderr,
            vertices,
            warnings,
        }
    }

    /// Itself, if the build with these arguments succeeded, as it has to.
    pub fn succeeded(self, args: &[OsString]) -> Self {
        assert!(
            self.status.success(),
            "this build has to succeed: {args:?}\n{self}"
        );
        self
    }

    /// Itself, if the build with these arguments failed, as it has to.
    pub fn failed(self, args: &[OsString]) -> Self {
        assert!(
            !self.status.success(),
            "this build has to fail: {args:?}\n{self}"
        );
        self
    }

    /// The names of the steps that were executed.
    pub fn steps_ran(&self) -> Vec<&str> {
        self.steps(|vertex| vertex.started && vertex.completed && !vertex.cached)
    }

    /// The names of the steps that came from a cache.
    pub fn steps_cached(&self) -> Vec<&str> {
        self.steps(|vertex| vertex.cached)
    }

    /// Of each step that failed: its name, its error and its output.
    pub fn steps_failed(&self) -> Vec<(&str, &str, &str)> {
        let steps = self.vertices.iter().filter_map(|vertex| {
            let error = vertex.error.as_deref()?;
            Some((&*vertex.name, error, &*vertex.log))
        });
        steps.collect()
    }

    /// The vertex whose name contains `part`; panics unless there is exactly one.
    pub fn vertex(&self, part: &str) -> &Vertex {
        let found: Vec<_> = self
            .vertices
            .iter()
            .filter(|vertex| vertex.name.contains(part))
            .collect();
        let [vertex] = found[..] else {
            panic!(
                "{} vertices have {part:?} in their name:\n{self}",
                found.len()
            )
        };
        vertex
    }

    /// What the client wrote to standard error beside the progress: its own error message.
    pub fn message(&self) -> String {
        let lines = self
            .stderr
            .lines()
            .filter(|line| serde_json::from_str::<Value>(line).is_err());
        lines.collect::<Vec<_>>().join("\n")
    }

    fn steps(&self, which: impl Fn(&Vertex) -> bool) -> Vec<&str> {
        let steps = self
            .vertices
            .iter()
            .filter(|vertex| vertex.is_step() && which(vertex));
        steps.map(|vertex| vertex.name.as_str()).collect()
    }
}

/// For a person who reads why a test failed.
impl fmt::Display for BuildOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for vertex in &self.vertices {
            let state = match vertex {
                Vertex { error: Some(_), .. } => "ERROR ",
                Vertex { cached: true, .. } => "CACHED",
                Vertex {
                    completed: true, ..
                } => "ran   ",
                Vertex { started: true, .. } => "begun ",
                _ => "-     ",
            };
            writeln!(f, "  {state} {}", vertex.name)?;
            for line in vertex.log.lines().chain(vertex.error.as_deref()) {
                writeln!(f, "           {line}")?;
            }
        }
        for warning in &self.warnings {
            writeln!(f, "  WARNING {warning}")?;
        }
        writeln!(f, "  {}\n{}", self.status, self.message())
    }
}

/// The instruction in the name of a vertex of a Dockerfile: `RUN make` in `[build 2/3] RUN make`. `None` of
/// what makes no files: sources, the frontend's own, what is told of imports and exports.
pub fn instruction(name: &str) -> Option<&str> {
    let (_, instruction) = name.strip_prefix('[')?.split_once("] ")?;
    let known = ["ADD ", "COPY ", "LINK ", "RUN ", "WORKDIR "];
    let is_known = known.iter().any(|known| instruction.starts_with(known));
    is_known.then_some(instruction)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Go writes bytes as base64.
fn bytes(value: &Value) -> String {
    let decoded = BASE64_STANDARD
        .decode(value.as_str().unwrap_or_default())
        .unwrap_or_default();
    String::from_utf8_lossy(&decoded).into_owned()
}
