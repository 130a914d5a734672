//! A registry on a loopback address, from which a daemon imports what inlay serves.
//!
//! A daemon that imports from a registry reads a layer only when a step needs its files, and speaks
//! plain HTTP to a loopback address by itself (`util/resolver/resolver.go`, v0.34.2). From a content
//! store on a session it reads all that it finds at once (`remotecache/local/local.go`). A daemon in
//! another network, such as one in a container, cannot reach the registry; it is asked once.
//!
//! Each cache has a repository of its own with a random name that nothing lists. Only a user who knows
//! the name can read it.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::daemon::{Daemon, new_id};
use crate::session::{ReadError, Store};

/// The tag of each cache.
const TAG: &str = "cache";
/// The most connections at a time.
const MAX_CONNECTIONS: usize = 512;
/// The timeout for the headers of a request.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout for a daemon to reach the registry.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// The registry. It starts when the first cache is offered.
#[derive(Debug, Default)]
pub struct Loopback {
    server: OnceCell<Option<Server>>,
    /// Which workers reach it, by their ids.
    reached: tokio::sync::Mutex<HashMap<String, bool>>,
    /// The builds in flight.
    builds: Builds,
}

type Builds = Arc<Mutex<Vec<Weak<InFlight>>>>;

/// A build in flight. It may read what was offered to another build, if they share steps.
#[derive(Debug)]
pub struct InFlight(());

/// A cache that is offered. When this is dropped, the cache stays until all builds have ended that are
/// in flight at that time.
#[derive(Debug)]
pub struct Offered {
    /// Its name, as an import's `ref` has it.
    pub name: String,
    repository: String,
    repositories: Arc<Repositories>,
    builds: Builds,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    repositories: Arc<Repositories>,
}

#[derive(Debug, Default)]
struct Repositories(Mutex<HashMap<String, Repository>>);

#[derive(Debug)]
enum Repository {
    /// Set once it is asked for.
    Probe(Arc<AtomicBool>),
    Cache {
        store: Arc<dyn Store>,
        root: Root,
        /// The builds that may still read it, once it is withdrawn.
        withdrawn: Option<Vec<Weak<InFlight>>>,
    },
}

/// The document by which a cache is imported.
#[derive(Debug, Clone)]
pub struct Root {
    /// Its digest.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
}

// === impl Loopback ===

impl Loopback {
    /// Counts a build as in flight, as long as what is returned lives.
    pub fn enter(&self) -> Arc<InFlight> {
        let build = Arc::new(InFlight(()));
        let mut builds = lock(&self.builds);
        builds.retain(|build| build.strong_count() > 0);
        builds.push(Arc::downgrade(&build));
        build
    }

    /// Offers a cache to a daemon; `None` where the daemon cannot reach the registry.
    pub async fn offer(
        &self,
        daemon: &Daemon,
        store: Arc<dyn Store>,
        root: Root,
    ) -> Option<Offered> {
        let server = self.server.get_or_init(Server::start).await.as_ref()?;
        if !self.is_reached(daemon, server).await {
            return None;
        }
        let repository = server.repositories.add(Repository::Cache {
            store,
            root,
            withdrawn: None,
        });
        Some(Offered {
            name: format!("{}/{repository}:{TAG}", server.address),
            repository,
            repositories: Arc::clone(&server.repositories),
            builds: Arc::clone(&self.builds),
        })
    }

    async fn is_reached(&self, daemon: &Daemon, server: &Server) -> bool {
        let Ok(worker) = daemon.worker().await else {
            return false;
        };
        // Held while a daemon is asked: the others want to know the same.
        let mut reached = self.reached.lock().await;
        if let Some(&reached) = reached.get(&worker.id) {
            return reached;
        }
        let Some(is_reached) = server.is_reached(daemon).await else {
            return false;
        };
        if !is_reached {
            info!(
                "the daemon does not reach {}: caches are served by sessions",
                server.address
            );
        }
        reached.insert(worker.id, is_reached);
        is_reached
    }
}

// === impl Offered ===

impl Drop for Offered {
    fn drop(&mut self) {
        let mut repositories = lock(&self.repositories.0);
        if let Some(Repository::Cache { withdrawn, .. }) = repositories.get_mut(&self.repository) {
            *withdrawn = Some(lock(&self.builds).clone());
        }
        repositories.retain(|_, repository| repository.is_open());
    }
}

// === impl Server ===

impl Server {
    /// Starts it; `None` where it cannot listen.
    async fn start() -> Option<Self> {
        match Self::listen().await {
            Ok(server) => Some(server),
            Err(err) => {
                warn!("cannot listen on a loopback address: {err}");
                None
            }
        }
    }

    async fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let server = Self {
            address: listener.local_addr()?,
            repositories: Arc::default(),
        };
        debug!(address = %server.address, "a registry for imports");
        tokio::spawn(serve(listener, Arc::clone(&server.repositories)));
        Ok(server)
    }

    /// Has a daemon ask for an image that does not exist, and returns whether the request came here.
    /// `None` where the daemon, which may be busy, has not asked in time.
    async fn is_reached(&self, daemon: &Daemon) -> Option<bool> {
        let reached = Arc::new(AtomicBool::new(false));
        let probe = Repository::Probe(Arc::clone(&reached));
        let repository = self.repositories.add(probe);
        let image = format!("{}/{repository}:{TAG}", self.address);
        let asked = timeout(REACH_TIMEOUT, daemon.ask_for_image(&image, "")).await;
        lock(&self.repositories.0).remove(&repository);
        let reached = reached.load(Ordering::Relaxed);
        (reached || asked.is_ok()).then_some(reached)
    }
}

async fn serve(listener: TcpListener, repositories: Arc<Repositories>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(err) => {
                debug!("a connection to the registry for imports: {err}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let repositories = Arc::clone(&repositories);
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let repositories = Arc::clone(&repositories);
                async move { repositories.answer(request).await }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(err) = served {
                debug!("a connection to the registry for imports: {err}");
            }
            drop(permit);
        });
    }
}

// === impl Repositories ===

impl Repositories {
    /// The name of the new repository.
    fn add(&self, repository: Repository) -> String {
        let name = format!("inlay/{}", new_id());
        lock(&self.0).insert(name.clone(), repository);
        name
    }

    /// The store and the root of a repository.
    fn cache(&self, name: &str) -> Option<(Arc<dyn Store>, Root)> {
        match lock(&self.0).get(name)? {
            Repository::Probe(reached) => {
                reached.store(true, Ordering::Relaxed);
                None
            }
            repository @ Repository::Cache { store, root, .. } => {
                (repository.is_open()).then(|| (Arc::clone(store), root.clone()))
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> http::Result<Response<Body>> {
        let path = request.uri().path();
        if path.trim_end_matches('/') == "/v2" {
            return Response::builder().body(empty());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let found = Asked::of(path).and_then(|asked| Some((self.cache(asked.repository)?, asked)));
        let Some(((store, root), asked)) = found else {
            return status(StatusCode::NOT_FOUND);
        };
        let digest = match asked.reference {
            TAG if asked.is_manifest => root.digest.as_str(),
            digest => digest,
        };
        let size = match store.info(digest).await {
            Ok(Some(size)) => size,
            Ok(None) => return status(StatusCode::NOT_FOUND),
            Err(err) => return failed(&err),
        };
        let range = request.headers().get(RANGE);
        let range = range.and_then(|range| part(range.to_str().ok()?, size));
        let read = range.clone().unwrap_or(0..size);
        let media_type = match digest == root.digest {
            true => root.media_type.as_str(),
            false => "application/octet-stream",
        };
        let mut answer = Response::builder()
            .header(CONTENT_TYPE, media_type)
            .header(CONTENT_LENGTH, read.end - read.start)
            .header(ACCEPT_RANGES, "bytes")
            .header("docker-content-digest", digest);
        if let Some(Range { start, end }) = range {
            let last = end.saturating_sub(1);
            answer = answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, format!("bytes {start}-{last}/{size}"));
        }
        if request.method() == Method::HEAD {
            return answer.body(empty());
        }
        match store.read(digest, read).await {
            Ok(chunks) => {
                let frames = chunks.map_ok(Frame::data).map_err(Into::into);
                answer.body(StreamBody::new(frames).boxed_unsync())
            }
            Err(err) => failed(&err),
        }
    }
}

// === impl Repository ===

impl Repository {
    /// Whether some build may still read it.
    fn is_open(&self) -> bool {
        match self {
            Self::Cache {
                withdrawn: Some(builds),
                ..
            } => builds.iter().any(|build| build.strong_count() > 0),
            Self::Cache { .. } | Self::Probe(_) => true,
        }
    }
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    repository: &'a str,
    is_manifest: bool,
    /// A tag or a digest.
    reference: &'a str,
}

impl<'a> Asked<'a> {
    /// `None` for what is no path of a manifest or a blob.
    fn of(path: &'a str) -> Option<Self> {
        let (path, reference) = path.strip_prefix("/v2/")?.rsplit_once('/')?;
        let (repository, kind) = path.rsplit_once('/')?;
        Some(Self {
            repository,
            is_manifest: match kind {
                "manifests" => true,
                "blobs" => false,
                _ => return None,
            },
            reference,
        })
    }
}

/// The part of a blob that a header `Range` asks for. `None` for a header of another form, which is
/// answered with the whole blob.
fn part(range: &str, size: u64) -> Option<Range<u64>> {
    let (start, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let start: u64 = start.parse().ok()?;
    let end = match last {
        "" => size,
        last => last.parse::<u64>().ok()?.checked_add(1)?.min(size),
    };
    (start < end).then_some(start..end)
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn status(status: StatusCode) -> http::Result<Response<Body>> {
    Response::builder().status(status).body(empty())
}

fn failed(err: &ReadError) -> http::Result<Response<Body>> {
    debug!("a blob of an import: {err}");
    match err {
        ReadError::NotFound(_) => status(StatusCode::NOT_FOUND),
        _ => status(StatusCode::BAD_GATEWAY),
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole, so a panic elsewhere leaves it sound.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::import::store::ImportStore;

    #[test]
    fn paths_name_a_manifest_or_a_blob() {
        let asked = Asked::of("/v2/inlay/a/manifests/cache").unwrap();
        assert_eq!((asked.repository, asked.reference), ("inlay/a", "cache"));
        assert!(asked.is_manifest);
        assert!(!Asked::of("/v2/inlay/a/blobs/sha256:1").unwrap().is_manifest);
        for path in [
            "/",
            "/v2/",
            "/v2/inlay/a/tags/list",
            "/v2/_catalog",
            "/x/manifests/y",
        ] {
            assert_eq!(Asked::of(path), None, "{path}");
        }
    }

    #[test]
    fn ranges_are_within_the_blob() {
        for (range, expected) in [
            ("bytes=0-", Some(0..9)),
            ("bytes=4-", Some(4..9)),
            ("bytes=4-5", Some(4..6)),
            ("bytes=4-100", Some(4..9)),
            ("bytes=9-", None),
            ("bytes=5-4", None),
            ("bytes=-3", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes=0-18446744073709551615", None),
        ] {
            assert_eq!(part(range, 9), expected, "{range}");
        }
    }

    #[tokio::test]
    async fn a_cache_is_there_as_long_as_a_build_may_read_it() {
        let loopback = Loopback::default();
        let server = Server::listen().await.unwrap();
        let (own, other) = (loopback.enter(), loopback.enter());
        let store: Arc<dyn Store> = Arc::new(ImportStore::new(HashMap::new(), []));
        let root = Root {
            digest: String::new(),
            media_type: String::new(),
        };
        let repository = server.repositories.add(Repository::Cache {
            store,
            root,
            withdrawn: None,
        });
        let offered = Offered {
            name: String::new(),
            repository: repository.clone(),
            repositories: Arc::clone(&server.repositories),
            builds: Arc::clone(&loopback.builds),
        };
        let is_there = || server.repositories.cache(&repository).is_some();
        assert!(is_there());
        let beside = loopback.enter();
        drop(offered);
        drop(own);
        let later = loopback.enter();
        assert!(is_there());
        drop(other);
        assert!(is_there(), "it began before the cache was withdrawn");
        drop(beside);
        assert!(!is_there());
        drop(later);
    }
}
