//! An HTTP server that answers as a test says: for what no real one does when it is asked to.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// It runs until the test ends.
#[derive(Debug)]
pub struct Scripted {
    host: String,
    requests: Arc<Mutex<Vec<Asked>>>,
}

/// What it was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// As in `GET /v2/?a=b`.
    pub line: String,
    /// By their names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
}

// === impl Scripted ===

impl Scripted {
    /// Starts one. An answer is its status line, headers and body, as on the wire after `HTTP/1.1 `.
    pub fn start(answer: impl Fn(&Asked) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener
            .local_addr()
            .expect("it has an address")
            .to_string();
        let requests = Arc::<Mutex<Vec<Asked>>>::default();
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let Some(asked) = read(&stream) else { continue };
                log.lock().expect("no panic in it").push(asked.clone());
                let answer = format!("HTTP/1.1 {}", answer(&asked));
                let _ = stream.write_all(answer.as_bytes()); // who asked may have gone
            }
        });
        Self { host, requests }
    }

    /// Host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// All that it was asked so far.
    pub fn requests(&self) -> Vec<Asked> {
        self.requests.lock().expect("no panic in it").clone()
    }
}

/// An answer of these headers, each with the end of its line, and a body.
pub fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("{status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

/// Reads a request.
pub(super) fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(Some(0), |length| length.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    Some(Asked {
        line,
        headers,
        body,
    })
}
