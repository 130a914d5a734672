//! The sessions of clients. inlay terminates the HTTP/2 connection of a session on both sides. It
//! answers the daemon's calls to a store that it offers, and proxies all others to the client.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::io::join;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tower::Service as _;
use tracing::debug;

use super::byte_stream::{End, Reader, Writer, messages};
use super::content::{Content, READ_METHODS, SERVICE, STORE_HEADER, Store};
use crate::protocol::proto::content::content_server::ContentServer;
use crate::transport::HeldPings;
use crate::transport::http2::{
    self, Body, BodyError, CallError, Incoming, Requests, canceled, to_body,
};

/// The path of the call that carries a session.
pub const PATH: &str = "/moby.buildkit.v1.Control/Session";
/// The header with the session's id.
pub(super) const ID_HEADER: &str = "x-docker-expose-session-uuid";
/// The header with a method that the session has, once for each method.
pub(super) const METHOD_HEADER: &str = "x-docker-expose-session-grpc-method";
/// The timeout for a client to open its session, which it does at the same time as its solve.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The timeout for the connection to the client within the session to end in order.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// The open sessions of clients, by their ids.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    open: Mutex<HashMap<String, Arc<ClientSession>>>,
    opened: Notify,
}

/// A client's session, as long as it is open.
#[derive(Debug)]
pub struct ClientSession {
    id: String,
    /// The client's methods, in lower case, as the daemon compares them.
    methods: HashSet<String>,
    offers: Offers,
    requests: Requests,
    /// The connection to the client broke.
    broken: CancellationToken,
}

/// Keeps a session known until it is dropped.
#[derive(Debug)]
struct Registration {
    sessions: Sessions,
    session: Arc<ClientSession>,
}

type Offers = Arc<Mutex<HashMap<String, Arc<dyn Store>>>>;

/// Keeps a store offered until it is dropped.
pub struct Offer {
    offers: Offers,
    name: String,
    store: Arc<dyn Store>,
}

/// Calls of inlay's own to the client's services.
#[derive(Debug, Clone)]
pub struct Calls(Requests);

/// A call of `Control.Session` whose answer is still to come.
#[derive(Debug)]
pub struct Opening {
    sessions: Sessions,
    id: String,
    methods: HashSet<String>,
    from_client: Body,
    to_daemon: Writer,
}

// === impl Sessions ===

impl Sessions {
    /// A session by its id. Waits some seconds for one that is not open yet, as buildkitd does. `None`
    /// for the empty id, which a build without a session has.
    pub async fn get(&self, id: &str) -> Option<Arc<ClientSession>> {
        if id.is_empty() {
            return None;
        }
        let found = async {
            loop {
                let opened = self.0.opened.notified();
                if let Some(session) = lock(&self.0.open).get(id) {
                    return Arc::clone(session);
                }
                opened.await;
            }
        };
        timeout(TIMEOUT, found).await.ok()
    }

    /// Takes a client's call of `Control.Session`. Returns the call to forward to the daemon, and what
    /// begins the session with the daemon's answer.
    pub fn open(&self, call: Request<Body>) -> (Request<Body>, Opening) {
        let (mut head, from_client) = call.into_parts();
        let id = head.headers.get(ID_HEADER).map(HeaderValue::as_bytes);
        let id = String::from_utf8_lossy(id.unwrap_or_default()).into_owned();
        let methods = advertised(&head.headers);
        for method in READ_METHODS {
            if !methods.contains(&method.to_lowercase()) {
                let method = HeaderValue::from_static(method);
                head.headers.append(METHOD_HEADER, method);
            }
        }
        let (to_daemon, body) = messages();
        let opening = Opening {
            sessions: self.clone(),
            id,
            methods,
            from_client,
            to_daemon,
        };
        (Request::from_parts(head, body.boxed_unsync()), opening)
    }

    /// Registers a session. It replaces an earlier one with its id, as at the daemon.
    fn register(&self, session: ClientSession) -> Registration {
        let session = Arc::new(session);
        lock(&self.0.open).insert(session.id.clone(), Arc::clone(&session));
        self.0.opened.notify_waiters();
        Registration {
            sessions: self.clone(),
            session,
        }
    }
}

/// Whether a call with these headers may have compressed messages, which the byte stream of a session
/// does not read.
pub fn is_compressed(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all("grpc-encoding");
    encodings.iter().any(|encoding| encoding != "identity")
}

/// The methods that a session's headers name.
fn advertised(headers: &HeaderMap) -> HashSet<String> {
    let methods = headers.get_all(METHOD_HEADER).iter();
    methods
        .filter_map(|method| Some(method.to_str().ok()?.to_lowercase()))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change of a map is one call, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Registration ===

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = lock(&self.sessions.0.open);
        let known = open.get(&self.session.id);
        if known.is_some_and(|known| Arc::ptr_eq(known, &self.session)) {
            open.remove(&self.session.id);
        }
    }
}

// === impl ClientSession ===

impl ClientSession {
    /// Offers a store under a name, until the offer is dropped. It replaces an earlier offer of that
    /// name, and hides a store of the client's own.
    pub fn offer(&self, name: &str, store: Arc<dyn Store>) -> Offer {
        lock(&self.offers).insert(name.to_owned(), Arc::clone(&store));
        Offer {
            offers: Arc::clone(&self.offers),
            name: name.to_owned(),
            store,
        }
    }

    /// A handle for calls to the client's own services.
    pub fn call(&self) -> Calls {
        Calls(self.requests.clone())
    }

    /// Whether the client has a method, such as `/moby.filesync.v1.Auth/Credentials`.
    pub fn advertises(&self, method: &str) -> bool {
        self.methods.contains(&method.to_lowercase())
    }

    /// The offered store that a call asks for.
    fn offered(&self, call: &Request<Body>) -> Option<Arc<dyn Store>> {
        if !call.uri().path().starts_with(SERVICE) {
            return None;
        }
        let name = call.headers().get(STORE_HEADER)?.to_str().ok()?;
        lock(&self.offers).get(name).cloned()
    }

    /// Answers a call of the daemon's.
    async fn answer(&self, call: Request<Body>) -> Result<Response<Body>, CallError> {
        let Some(store) = self.offered(&call) else {
            return self.requests.forward(call, &self.broken).await;
        };
        let mut service = ContentServer::new(Content::of_store(store));
        let Ok(response) = service.call(call).await;
        Ok(response.map(to_body))
    }
}

// === impl Offer ===

impl Drop for Offer {
    fn drop(&mut self) {
        let mut offers = lock(&self.offers);
        let offered = offers.get(&self.name);
        if offered.is_some_and(|offered| Arc::ptr_eq(offered, &self.store)) {
            offers.remove(&self.name);
        }
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Offer").field(&self.name).finish()
    }
}

// === impl Calls ===

impl tower::Service<Request<tonic::body::Body>> for Calls {
    type Response = Response<Incoming>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, CallError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Request<tonic::body::Body>) -> Self::Future {
        let (mut head, body) = call.into_parts();
        // Calls in HTTP/2 have a scheme and an authority. BuildKit's have these.
        let path = head.uri.path_and_query().cloned();
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::from_static("localhost"));
        uri.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
        if let Ok(uri) = Uri::from_parts(uri) {
            head.uri = uri;
        }
        let (requests, call) = (self.0.clone(), Request::from_parts(head, to_body(body)));
        Box::pin(async move { requests.call(call).await })
    }
}

// === impl Opening ===

impl Opening {
    /// Begins the session with the daemon's answer. Returns the answer for the client.
    pub fn answered(self, answer: Response<Body>) -> Response<Body> {
        // The daemon refuses: there is no session.
        if answer.body().is_end_stream() {
            return answer;
        }
        let (head, from_daemon) = answer.into_parts();
        let (to_client, body) = messages();
        tokio::spawn(async move {
            let (taken, to_daemon) = (to_client.clone(), self.to_daemon.clone());
            tokio::select! {
                () = self.proxy(Reader::new(from_daemon), to_client) => to_daemon.finish(Ok(None)),
                // The client is gone: its stream was reset, and so is the daemon's.
                () = taken.closed() => to_daemon.finish(Err(canceled("the client is gone"))),
            }
        });
        Response::from_parts(head, body.boxed_unsync())
    }

    /// Proxies the session's calls until one side ends it, and then ends it on the other side.
    async fn proxy(self, from_daemon: Reader, to_client: Writer) {
        let Self {
            sessions,
            id,
            methods,
            from_client,
            to_daemon,
        } = self;
        let from_client = Reader::new(from_client);
        let with_client = join(from_client.clone(), to_client.clone());
        let with_daemon = join(HeldPings::accepted(from_daemon.clone()), to_daemon.clone());
        let client = http2::connect(with_client).await;
        let ended_by_client = match client {
            Err(err) => Err(err),
            Ok((requests, connection)) => {
                let known = sessions.register(ClientSession {
                    id,
                    methods,
                    offers: Offers::default(),
                    requests,
                    broken: CancellationToken::new(),
                });
                let session = Arc::clone(&known.session);
                let broken = session.broken.clone();
                let daemon = http2::serve(with_daemon, CancellationToken::new(), move |call| {
                    let session = Arc::clone(&session);
                    async move { session.answer(call).await }
                });
                // It is a task of its own: the sockets of both sides wake it often.
                let mut connection = AbortOnDropHandle::new(tokio::spawn(connection));
                tokio::select! {
                    // It does not panic.
                    result = &mut connection => result.unwrap_or(Ok(())),
                    () = broken.cancelled() => Ok(()),
                    result = daemon => {
                        // It says goodbye (GOAWAY), as the daemon does, once nobody can call the client.
                        drop(known);
                        let _ = timeout(GOODBYE_TIMEOUT, connection).await;
                        let end = from_daemon.take_end();
                        to_client.finish(last_words("the daemon", end, result));
                        return;
                    }
                }
            }
        };
        match from_client.take_end() {
            Some(End::Broken(err)) => to_daemon.finish(Err(err)),
            Some(End::Clean(_)) => to_daemon.finish(Ok(None)),
            end => {
                to_client.finish(last_words("the client", end, ended_by_client));
                return;
            }
        }
        // The daemon's trailers end the stream, and no data goes before them: after its own end, BuildKit's
        // client reads in whole buffers of 32 KiB. It reads the rest of a buffer as frames, and shows its
        // user the HTTP/2 error that comes of that.
        let end = from_daemon.drain().await;
        to_client.finish_now(last_words("the daemon", Some(end), Ok(())));
    }
}

/// What ends the client's stream: the daemon's trailers or error, or else an error with the reason.
fn last_words(
    who: &str,
    end: Option<End>,
    result: Result<(), h2::Error>,
) -> Result<Option<HeaderMap>, BodyError> {
    let reason = match (end, result) {
        (Some(End::Clean(trailers)), _) => return Ok(trailers),
        (Some(End::Broken(err)), _) => return Err(err),
        (Some(End::Framing(err)), _) => err.to_string(),
        (None, Err(err)) => err.to_string(),
        (None, Ok(())) => "it ended the connection".to_owned(),
    };
    debug!("a session ended by {who}: {reason}");
    let mut trailers = HeaderMap::new();
    let status = Status::internal(format!("inlay: session: {who}: {reason}"));
    if status.add_header(&mut trailers).is_err() {
        // Its message is percent-encoded: it always fits a header.
        debug!("no trailers for {status}");
    }
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests;
