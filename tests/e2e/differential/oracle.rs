//! BuildKit's own packages, asked line by line: `tests/clients/oracle`.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde::{Deserialize, Serialize};

/// A running oracle; it ends with its standard input.
pub struct Oracle {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

#[derive(Serialize)]
struct Question<'a> {
    op: &'static str,
    text: String,
    layers: &'a [String],
    builds: &'a [Build],
}

/// A build as the solver looks it up: steps, each after those that its inputs come from.
pub type Build = Vec<Step>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Step {
    pub digest: String,
    pub inputs: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    pub selector: String,
    /// An earlier step, or record.
    pub node: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    pub error: String,
    pub merges: Merges,
    pub records: Vec<Read>,
    text: String,
    pub found: Vec<Vec<Found>>,
}

/// The different results of a step, sorted; layers by the first place of their blob.
pub type Found = Vec<Vec<usize>>;

/// A record as it is read, before any are merged. Sources are earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Read {
    pub digest: String,
    pub inputs: Vec<Vec<Source>>,
    pub results: Vec<Vec<usize>>,
}

/// What BuildKit makes one record of: see the oracle.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub struct Merges {
    pub exact: bool,
    pub inexact: bool,
    pub lossy: bool,
}

// === impl Oracle ===

impl Oracle {
    pub fn start(program: &std::path::Path) -> Self {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            questions: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// How BuildKit reads a cache config; an `error` where it refuses.
    pub fn parse(&mut self, config: &[u8]) -> Answer {
        self.ask("parse", config, &[], &[])
    }

    /// What BuildKit's inline exporter embeds of a cache config in an image with these layers.
    pub fn inline(&mut self, config: &[u8], layers: &[String]) -> Result<Vec<u8>, String> {
        let answer = self.ask("inline", config, layers, &[]);
        match answer.error.as_str() {
            "" => Ok(from_base64(&answer.text)),
            error => Err(error.to_owned()),
        }
    }

    /// What a daemon finds of `builds` that imports an image with these records and layers.
    pub fn lookup(&mut self, records: &[u8], layers: &[String], builds: &[Build]) -> Answer {
        self.ask("lookup", records, layers, builds)
    }

    fn ask(
        &mut self,
        op: &'static str,
        text: &[u8],
        layers: &[String],
        builds: &[Build],
    ) -> Answer {
        let text = to_base64(text);
        let mut line = serde_json::to_vec(&Question {
            op,
            text,
            layers,
            builds,
        })
        .unwrap();
        line.push(b'\n');
        let mut answer = String::new();
        let told = self.questions.as_mut().unwrap().write_all(&line);
        if told.is_err() || self.answers.read_line(&mut answer).unwrap() == 0 {
            panic!("the oracle ended: {}", self.child.wait().unwrap());
        }
        serde_json::from_str(&answer).unwrap()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.questions.take());
        let _ = self.child.wait();
    }
}

fn to_base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

fn from_base64(text: &str) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(text).unwrap()
}
