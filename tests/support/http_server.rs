//! Files over HTTP, for `ADD http://…`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use super::listening::Listening;

/// A server on a free loopback port. It names no version of its files: a client reads them each
/// time.
#[derive(Debug)]
pub struct HttpServer {
    files: Arc<Mutex<Files>>,
    listening: Listening,
}

/// By path, such as `/file`.
type Files = BTreeMap<String, Vec<u8>>;

// === impl HttpServer ===

impl HttpServer {
    /// Starts one without files.
    pub fn start() -> Self {
        let files = Arc::new(Mutex::new(Files::new()));
        let served = Arc::clone(&files);
        let listening = Listening::start(move |stream| serve(&stream, &served.lock().unwrap()));
        Self { files, listening }
    }

    /// Serves these bytes from now on, and returns their URL.
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> String {
        let mut files = self.files.lock().unwrap();
        files.insert(path.to_owned(), contents.as_ref().to_owned());
        format!("http://{}{path}", self.addr())
    }

    fn addr(&self) -> SocketAddr {
        self.listening.addr()
    }
}

/// Answers one request.
fn serve(mut stream: &TcpStream, files: &Files) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else {
        return; // it was closed without one
    };
    lines.by_ref().take_while(|line| !line.is_empty()).count();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match files.get(path) {
        Some(file) => ("200 OK", &file[..]),
        None => ("404 Not Found", &b""[..]),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let body = if request.starts_with("HEAD ") {
        b""
    } else {
        body
    };
    // A client that goes away early tells so by itself.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
}
