//! A client and a daemon that do as they are told, and inlay between them.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use inlay::build::{Policy, RegistryImports, Router, Shared};
use inlay::daemon::address::{DaemonAddress, ListenAddress};
use inlay::proxy::Server;
use inlay::source::{Access, Settings};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long anything may take that has nothing to wait for.
pub const SOON: Duration = Duration::from_secs(20);
/// The header that inlay adds to calls.
const HOPS: &str = "inlay-hops";

/// The headers of a call.
pub const GRPC: &[(&str, &[u8])] = &[("content-type", b"application/grpc")];

/// What a side of a call does next.
#[derive(Debug, Clone)]
pub enum Do {
    /// Sends headers: the request's or the response's; `true` ends its side.
    Headers(&'static [(&'static str, &'static [u8])], bool),
    /// Sends that many bytes; `true` ends its side.
    Data(usize, bool),
    /// Sends these bytes.
    Bytes(&'static [u8]),
    /// Ends its side with trailers.
    Trailers(&'static [(&'static str, &'static [u8])]),
    /// Resets the call.
    Reset(Reason),
    /// Drops the call without a word.
    Drop,
    /// Reads that many bytes.
    Read(usize),
    /// Reads to the end, and takes note of it.
    ReadAll,
    /// Waits for the response's headers, and takes note of them.
    Answer,
    /// Tells the other side that this point is reached, and waits until it tells the same.
    Meet,
    /// Waits (ms).
    Sleep(u64),
    /// Waits until the other side resets the call, and takes note of the code.
    Told,
    /// Keeps what the daemon writes on its connections from now on.
    Cork,
    /// Writes all that was kept, at once.
    Uncork,
}

/// Where the two sides of a call meet.
#[derive(Debug, Clone)]
struct Meeting {
    mine: Arc<watch::Sender<usize>>,
    theirs: watch::Receiver<usize>,
}

/// What both sides of one call saw.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub struct Seen {
    pub client: Vec<String>,
    pub daemon: Vec<String>,
}

type Log = Arc<Mutex<Vec<String>>>;
/// What the daemon does by the path of a call.
type Scripts = Arc<Mutex<BTreeMap<String, (Vec<Do>, Meeting, Log)>>>;

/// Both scripts of a call.
#[derive(Debug, Clone)]
pub struct Script {
    pub client: Vec<Do>,
    pub daemon: Vec<Do>,
}

/// One side of a call.
struct Side {
    log: Log,
    meeting: Meeting,
    met: usize,
    cork: Cork,
    sending: Option<SendStream<Bytes>>,
    receiving: Option<RecvStream>,
}

/// Whether what is written is kept, and who waits to write it.
#[derive(Debug, Clone, Default)]
struct Cork(Arc<Mutex<(bool, Option<Waker>)>>);

/// A connection with a cork.
struct Corked {
    stream: UnixStream,
    kept: Vec<u8>,
    cork: Cork,
    written: Arc<AtomicUsize>,
}

// === impl Cork ===

impl Cork {
    fn set(&self, is_in: bool) {
        let mut state = self.0.lock().unwrap();
        state.0 = is_in;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn is_in(&self, context: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap();
        state.1 = Some(context.waker().clone());
        state.0
    }
}

// === impl Corked ===

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.kept.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cork.is_in(context) {
            return Poll::Ready(Ok(()));
        }
        while !this.kept.is_empty() {
            let written = ready!(Pin::new(&mut this.stream).poll_write(context, &this.kept))?;
            this.kept.drain(..written);
            this.written.fetch_add(written, Ordering::SeqCst);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

// === impl Meeting ===

impl Meeting {
    fn pair() -> (Self, Self) {
        let (first, second) = (watch::channel(0), watch::channel(0));
        let one = Self {
            mine: Arc::new(first.0),
            theirs: second.1,
        };
        let other = Self {
            mine: Arc::new(second.0),
            theirs: first.1,
        };
        (one, other)
    }

    async fn reach(&mut self, point: usize) {
        self.mine.send_replace(point);
        let met = self.theirs.wait_for(|theirs| *theirs >= point);
        timeout(SOON, met)
            .await
            .expect("the other side comes")
            .unwrap();
    }
}

/// Headers as they are compared: the values of each name in their order.
pub fn headers(headers: &HeaderMap) -> String {
    let mut all = BTreeMap::<&str, Vec<String>>::new();
    for (name, value) in headers {
        if name != HOPS {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            all.entry(name.as_str()).or_default().push(value);
        }
    }
    format!("{all:?}")
}

/// How a call ended, as far as its own side can tell.
pub fn fault(err: &h2::Error) -> String {
    match err.reason() {
        Some(reason) if err.is_reset() => format!("reset {reason:?}"),
        Some(reason) if err.is_go_away() => format!("goaway {reason:?}"),
        _ => "broken".to_owned(),
    }
}

fn map(pairs: &[(&'static str, &'static [u8])]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        let value = HeaderValue::from_bytes(value).unwrap();
        (HeaderName::from_static(name), value)
    });
    pairs.collect()
}

// === impl Side ===

impl Side {
    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    fn told(&self, reset: Result<Reason, h2::Error>) {
        match reset {
            Ok(reason) => self.note(format!("reset {reason:?}")),
            Err(err) => self.note(fault(&err)),
        }
    }

    async fn send(&mut self, mut data: Bytes, end: bool) {
        let Some(stream) = &mut self.sending else {
            return;
        };
        if data.is_empty() && end {
            let _ = stream.send_data(data, true);
            return;
        }
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let room = poll_fn(|context| stream.poll_capacity(context));
            let room = match timeout(SOON, room).await.expect("there is room") {
                Some(Ok(room)) => room.min(data.len()),
                // The other side wants no more; it says so.
                _ => return,
            };
            let piece = data.split_to(room);
            if stream.send_data(piece, end && data.is_empty()).is_err() {
                return;
            }
        }
    }

    /// Takes some data; `false` at the end, of which it takes note.
    async fn take(&mut self) -> Option<usize> {
        let stream = self.receiving.as_mut()?;
        match timeout(SOON, stream.data()).await.expect("data or an end") {
            Some(Ok(data)) => {
                let _ = stream.flow_control().release_capacity(data.len());
                Some(data.len())
            }
            Some(Err(err)) => {
                self.note(fault(&err));
                None
            }
            None => {
                match timeout(SOON, stream.trailers()).await.expect("an end") {
                    Ok(Some(trailers)) => self.note(format!("trailers {}", headers(&trailers))),
                    Ok(None) => self.note("end"),
                    Err(err) => self.note(fault(&err)),
                }
                None
            }
        }
    }

    async fn step(&mut self, step: Do) {
        match step {
            Do::Data(length, end) => self.send(vec![7; length].into(), end).await,
            Do::Bytes(bytes) => self.send(Bytes::from_static(bytes), false).await,
            Do::Trailers(trailers) => {
                if let Some(stream) = &mut self.sending {
                    let _ = stream.send_trailers(map(trailers));
                }
            }
            Do::Reset(reason) => {
                if let Some(stream) = &mut self.sending {
                    stream.send_reset(reason);
                }
            }
            Do::Drop => (self.sending, self.receiving) = (None, None),
            Do::Read(length) => {
                let mut read = 0;
                while read < length
                    && let Some(more) = self.take().await
                {
                    read += more;
                }
                self.note(format!("read {}", read.min(length)));
            }
            Do::ReadAll => {
                let mut read = 0;
                let before = self.log.lock().unwrap().len();
                while let Some(more) = self.take().await {
                    read += more;
                }
                self.log
                    .lock()
                    .unwrap()
                    .insert(before, format!("data {read}"));
            }
            Do::Meet => {
                self.met += 1;
                self.meeting.reach(self.met).await;
            }
            Do::Sleep(time) => sleep(Duration::from_millis(time)).await,
            Do::Told => {
                if let Some(stream) = &mut self.sending {
                    let reset = poll_fn(|context| stream.poll_reset(context));
                    let reset = timeout(SOON, reset).await.expect("a reset");
                    self.told(reset);
                }
            }
            Do::Cork => self.cork.set(true),
            Do::Uncork => self.cork.set(false),
            Do::Headers(..) | Do::Answer => unreachable!("of the side itself"),
        }
    }
}

/// A request for a script's call.
pub fn request(path: &str) -> Request<()> {
    let uri = format!("http://localhost{path}");
    let mut request = Request::post(uri).body(()).unwrap();
    *request.version_mut() = http::Version::HTTP_2;
    request
}

/// The client's side of a call.
async fn run_client(
    mut requests: h2::client::SendRequest<Bytes>,
    path: String,
    steps: Vec<Do>,
    mut side: Side,
) {
    let mut answer: Option<ResponseFuture> = None;
    for step in steps {
        match step {
            Do::Headers(pairs, end) => {
                let mut request = request(&path);
                *request.headers_mut() = map(pairs);
                let ready = poll_fn(|context| requests.poll_ready(context)).await;
                let sent = ready.and_then(|()| requests.send_request(request, end));
                match sent {
                    Ok((response, stream)) => {
                        (answer, side.sending) = (Some(response), Some(stream));
                    }
                    Err(err) => side.note(format!("not sent: {}", fault(&err))),
                }
            }
            Do::Answer => {
                let Some(answer) = answer.take() else {
                    continue;
                };
                match timeout(SOON, answer).await.expect("an answer") {
                    Ok(response) => {
                        let (head, stream) = response.into_parts();
                        let end = if stream.is_end_stream() { " end" } else { "" };
                        side.note(format!("{} {}{end}", head.status, headers(&head.headers)));
                        side.receiving = Some(stream);
                    }
                    Err(err) => side.note(fault(&err)),
                }
            }
            Do::Drop => {
                answer = None;
                side.step(Do::Drop).await;
            }
            step => side.step(step).await,
        }
    }
}

/// The daemon's side of a call.
async fn run_daemon(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    steps: Vec<Do>,
    mut side: Side,
) {
    let (head, stream) = request.into_parts();
    side.note(format!(
        "{} {} {}",
        head.method,
        head.uri,
        headers(&head.headers)
    ));
    side.receiving = Some(stream);
    let mut is_answered = false;
    for step in steps {
        match step {
            Do::Headers(pairs, end) => {
                let mut response = Response::new(());
                *response.headers_mut() = map(pairs);
                side.sending = respond.send_response(response, end).ok();
                is_answered = true;
            }
            Do::Reset(reason) if !is_answered => respond.send_reset(reason),
            Do::Told if !is_answered => {
                let reset = poll_fn(|context| respond.poll_reset(context));
                let reset = timeout(SOON, reset).await.expect("a reset");
                side.told(reset);
            }
            step => side.step(step).await,
        }
    }
}

/// A daemon, what its calls do, and what was seen of them.
pub struct Daemon {
    socket: PathBuf,
    scripts: Scripts,
    tasks: JoinSet<()>,
    /// Ends connections: in order, or for this reason, or at once.
    pub ends: watch::Sender<End>,
    /// How much went out to clients (bytes).
    pub written: Arc<AtomicUsize>,
    _dir: Arc<TempDir>,
}

/// How a daemon ends its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Not,
    InOrder,
    For(Reason),
    AtOnce,
}

// === impl Daemon ===

impl Daemon {
    /// Waits until this much more has gone out to clients (bytes), and nothing after it.
    pub async fn has_written(&self, more: usize) {
        let before = self.written.load(Ordering::SeqCst);
        let quiet = async {
            let mut last = before;
            loop {
                sleep(Duration::from_millis(100)).await;
                let now = self.written.load(Ordering::SeqCst);
                if now == last && now - before >= more {
                    return;
                }
                last = now;
            }
        };
        timeout(SOON, quiet).await.expect("all goes out");
    }

    pub fn start(dir: &Arc<TempDir>) -> Self {
        let socket = dir.path().join("daemon.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let scripts: Scripts = Arc::default();
        let (ends, end) = watch::channel(End::Not);
        let mut tasks = JoinSet::new();
        let known = Arc::clone(&scripts);
        let written = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&written);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = Corked {
                    stream,
                    kept: Vec::new(),
                    cork: Cork::default(),
                    written: Arc::clone(&counter),
                };
                connections.spawn(Self::serve(stream, Arc::clone(&known), end.clone()));
            }
        });
        Self {
            socket,
            scripts,
            tasks,
            ends,
            written,
            _dir: Arc::clone(dir),
        }
    }

    async fn serve(stream: Corked, scripts: Scripts, mut end: watch::Receiver<End>) {
        let cork = stream.cork.clone();
        let mut server = h2::server::Builder::new();
        server
            .initial_window_size(1 << 20)
            .initial_connection_window_size(64 << 20)
            .max_header_list_size(16 << 20);
        let Ok(mut connection) = server.handshake::<_, Bytes>(stream).await else {
            return;
        };
        let mut calls = JoinSet::new();
        let mut is_ending = false;
        loop {
            let ended = async {
                let ended = end.wait_for(|end| *end != End::Not).await;
                ended.map(|end| *end).expect("the daemon is there")
            };
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                how = ended, if !is_ending => {
                    is_ending = true;
                    match how {
                        End::Not | End::InOrder => connection.graceful_shutdown(),
                        End::For(reason) => connection.abrupt_shutdown(reason),
                        End::AtOnce => return,
                    }
                    continue;
                }
            };
            let Some(Ok((request, respond))) = accepted else {
                break;
            };
            let path = request.uri().path().to_owned();
            let Some((steps, meeting, log)) = scripts.lock().unwrap().get(&path).cloned() else {
                continue;
            };
            let side = Side {
                log,
                meeting,
                met: 0,
                cork: cork.clone(),
                sending: None,
                receiving: None,
            };
            calls.spawn(run_daemon(request, respond, steps, side));
        }
        // Calls that ended with the connection take note of it.
        while calls.join_next().await.is_some() {}
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

/// A daemon, and the way to it: its own socket, or inlay's.
pub struct Way {
    // First, so that it ends before what it stands in front of.
    _inlay: Option<Inlay>,
    pub daemon: Daemon,
    pub socket: PathBuf,
}

/// An inlay on a thread of its own.
pub struct Inlay {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

// === impl Inlay ===

impl Inlay {
    /// Starts it in front of the daemon at a socket. Gives its own socket too.
    pub async fn start(daemon: &Path) -> (Self, PathBuf) {
        let socket = daemon.with_file_name("inlay.sock");
        let address: ListenAddress = format!("unix://{}", socket.display()).parse().unwrap();
        let to: DaemonAddress = format!("unix://{}", daemon.display()).parse().unwrap();
        let stop = CancellationToken::new();
        let (listening, listens) = tokio::sync::oneshot::channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let policy = Policy {
                    exports: true,
                    export_timeout: SOON,
                    registry_imports: RegistryImports::Checked,
                    access: Access::new(Settings::default()).unwrap(),
                };
                let server = Server::bind(&[address]).await.unwrap();
                listening.send(()).unwrap();
                let router = Router::new(Shared::new(policy));
                let now = stopped.clone();
                let grace = Duration::ZERO;
                server.run(router, Arc::new(to), stopped, grace, now).await;
            });
        });
        listens.await.unwrap();
        let thread = Some(thread);
        (Self { stop, thread }, socket)
    }
}

impl Drop for Inlay {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

// === impl Way ===

impl Way {
    /// The daemon's own socket.
    pub fn direct() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let daemon = Daemon::start(&dir);
        Self {
            socket: daemon.socket.clone(),
            daemon,
            _inlay: None,
        }
    }

    /// The socket of an inlay.
    pub async fn through_inlay() -> Self {
        let mut way = Self::direct();
        let (inlay, socket) = Inlay::start(&way.socket).await;
        (way._inlay, way.socket) = (Some(inlay), socket);
        way
    }

    /// A client's connection.
    pub async fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let mut client = h2::client::Builder::new();
        client
            .initial_window_size(1 << 20)
            .initial_connection_window_size(64 << 20)
            .max_header_list_size(16 << 20);
        let (requests, connection) = client.handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        Client {
            requests,
            connection,
        }
    }

    /// Makes a call by a script.
    pub fn call(&self, client: &Client, path: &str, script: Script) -> Call {
        let (near, far) = Meeting::pair();
        let (client_log, daemon_log) = (Log::default(), Log::default());
        let entry = (script.daemon, far, Arc::clone(&daemon_log));
        self.daemon
            .scripts
            .lock()
            .unwrap()
            .insert(path.to_owned(), entry);
        let side = Side {
            log: Arc::clone(&client_log),
            meeting: near,
            met: 0,
            cork: Cork::default(),
            sending: None,
            receiving: None,
        };
        let requests = client.requests.clone();
        let run = run_client(requests, path.to_owned(), script.client, side);
        Call {
            client: tokio::spawn(run),
            client_log,
            daemon_log,
        }
    }
}

/// A client's connection.
pub struct Client {
    pub requests: h2::client::SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

// === impl Client ===

impl Client {
    /// How the connection ends, with nobody using it any more.
    pub async fn end(self) -> String {
        drop(self.requests);
        match timeout(SOON, self.connection)
            .await
            .expect("an end")
            .unwrap()
        {
            Ok(()) => "in order".to_owned(),
            Err(err) => fault(&err),
        }
    }
}

/// A call that runs.
pub struct Call {
    client: tokio::task::JoinHandle<()>,
    client_log: Log,
    daemon_log: Log,
}

// === impl Call ===

impl Call {
    /// Whether the daemon has the call.
    pub fn has_arrived(&self) -> bool {
        !self.daemon_log.lock().unwrap().is_empty()
    }

    /// What both sides saw, once the client is done and the daemon has seen as much as it will.
    pub async fn seen(self, of_daemon: usize) -> Seen {
        timeout(2 * SOON, self.client)
            .await
            .expect("it ends")
            .unwrap();
        let log = &self.daemon_log;
        let complete = async {
            while log.lock().unwrap().len() < of_daemon {
                sleep(Duration::from_millis(2)).await;
            }
        };
        // If it never is, what is compared says what is missing.
        let _ = timeout(Duration::from_secs(5), complete).await;
        Seen {
            client: self.client_log.lock().unwrap().clone(),
            daemon: log.lock().unwrap().clone(),
        }
    }
}
