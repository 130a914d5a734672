//! A registry behind a gate: it refuses requests or holds them up, as a test says. For reading only.

use std::io::{Write as _, copy};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use super::listening::Listening;
use super::scripted::{Asked, read};
use super::{Registry, answer};

/// It is open until it is dropped.
#[derive(Debug)]
pub struct Gate {
    listening: Listening,
    requests: Arc<Mutex<Vec<Asked>>>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub enum Passage {
    /// It passes after this time.
    After(Duration),
    /// It is answered with this status and these headers, each with the end of its line.
    Refused(&'static str, &'static str),
}

// === impl Gate ===

impl Gate {
    /// Puts one in front of a registry. `passage` gets each request, and how many with its line there were
    /// before.
    pub fn start(
        registry: &Registry,
        passage: impl Fn(&Asked, usize) -> Passage + Send + Sync + 'static,
    ) -> Self {
        let requests = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, behind) = (Arc::clone(&requests), registry.host().to_owned());
        let passage = Arc::new(passage);
        let listening = Listening::start(move |stream| {
            let (log, behind) = (Arc::clone(&log), behind.clone());
            let passage = Arc::clone(&passage);
            // Requests pass beside each other.
            spawn(move || {
                let Some(asked) = read(&stream) else { return };
                let before = {
                    let mut log = log.lock().expect("no panic in it");
                    let before = log.iter().filter(|of| of.line == asked.line).count();
                    log.push(asked.clone());
                    before
                };
                // Who asked may have gone.
                let _ = match passage(&asked, before) {
                    Passage::After(time) => {
                        sleep(time);
                        pass(&asked, &behind, stream)
                    }
                    Passage::Refused(status, headers) => {
                        let answer = format!("HTTP/1.1 {}", answer(status, headers, ""));
                        (&stream).write_all(answer.as_bytes())
                    }
                };
            });
        });
        Self {
            listening,
            requests,
        }
    }

    /// The name of an image of the registry, through the gate.
    pub fn image(&self, image: &str) -> String {
        format!("{}/{image}", self.listening.addr())
    }

    /// All that it was asked so far.
    pub fn requests(&self) -> Vec<Asked> {
        self.requests.lock().expect("no panic in it").clone()
    }
}

/// Passes a request on, and its answer back.
fn pass(asked: &Asked, behind: &str, mut client: TcpStream) -> std::io::Result<()> {
    let mut registry = TcpStream::connect(behind)?;
    write!(
        registry,
        "{} HTTP/1.1\r\nHost: {behind}\r\nConnection: close\r\n",
        asked.line
    )?;
    for name in ["accept", "range", "user-agent"] {
        if let Some(value) = asked.headers.get(name) {
            write!(registry, "{name}: {value}\r\n")?;
        }
    }
    registry.write_all(b"\r\n")?;
    copy(&mut registry, &mut client).map(drop)
}
