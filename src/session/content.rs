//! The content service of a session. The daemon reads blobs of a [`Store`] from it, and writes small
//! blobs to it.
//!
//! A read is streamed, in the pieces that the store gives. Layers are never written: the daemon is
//! told that they exist, and sends none of their bytes.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use thiserror::Error;
use tonic::{Request, Response, Status, Streaming};

use crate::cache::record::Digest;
use crate::protocol::proto::content as api;
use crate::protocol::proto::content::WriteAction;
use crate::protocol::proto::content::content_server::Content as Service;

/// The prefix of the paths of the service's methods.
pub const SERVICE: &str = "/containerd.services.content.v1.Content/";
/// The methods that read a store.
pub const READ_METHODS: [&str; 2] = [
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Read",
];
/// The methods that write to one.
pub const WRITE_METHODS: [&str; 3] = [
    "/containerd.services.content.v1.Content/Status",
    "/containerd.services.content.v1.Content/Write",
    "/containerd.services.content.v1.Content/Abort",
];
/// The header by which a caller names one of a session's stores.
pub const STORE_HEADER: &str = "buildkit-attachable-store-id";
/// The prefix of the ref of a layer's write. The ref for a manifest or config is its bare digest.
const LAYER_REF: &str = "layer-";
/// The most that one message of a read carries (bytes).
const READ_CHUNK: usize = 1 << 20;

/// Pieces of a blob, in order.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, ReadError>> + Send>>;

/// A store of blobs, for reading.
#[tonic::async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The size of a blob; `None` where the store does not have it.
    ///
    /// # Errors
    /// Where the store cannot tell.
    async fn info(&self, digest: &str) -> Result<Option<u64>, ReadError>;

    /// Reads a range of a blob, within its size. The caller verifies what it reads.
    ///
    /// # Errors
    /// Where it cannot be read. The stream can also end with an error.
    async fn read(&self, digest: &str, range: Range<u64>) -> Result<Chunks, ReadError>;
}

/// Why a blob cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The store does not have it.
    #[error("no blob {0}")]
    NotFound(String),
    /// The range is not within it.
    #[error("blob {digest} has {size} bytes")]
    OutOfRange {
        /// The blob.
        digest: String,
        /// Its size.
        size: u64,
    },
    /// It ended before its range did.
    #[error("blob {digest} ends {missing} bytes early")]
    Truncated {
        /// The blob.
        digest: String,
        /// The bytes that did not come.
        missing: u64,
    },
    /// Its source broke off.
    #[error("blob {digest}: {source}")]
    Broken {
        /// The blob.
        digest: String,
        /// What broke.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a write is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// It is larger than allowed.
    #[error("blob {reference} is larger than {limit} bytes")]
    TooLarge {
        /// The write's ref.
        reference: String,
        /// What is allowed (bytes).
        limit: usize,
    },
    /// There are more blobs than allowed.
    #[error("store {store} has {limit} blobs, no more are taken")]
    TooMany {
        /// The store.
        store: String,
        /// What is allowed.
        limit: usize,
    },
    /// A write does not continue where it stopped.
    #[error("blob {reference} is at {at}, not at {offset}")]
    Offset {
        /// The write's ref.
        reference: String,
        /// Where it stopped.
        at: usize,
        /// Where the write continues.
        offset: i64,
    },
    /// It does not match its digest.
    #[error("blob {reference} has digest {found}, not {expected}")]
    Digest {
        /// The write's ref.
        reference: String,
        /// The digest that was announced.
        expected: String,
        /// The digest of what came.
        found: String,
    },
}

/// Blobs in memory, by store and digest. Their number and size are bounded.
#[derive(Debug, Clone)]
pub struct Blobs {
    max_size: usize,
    max_count: usize,
    stores: Arc<Mutex<HashMap<String, HashMap<String, Bytes>>>>,
}

/// One store of [`Blobs`].
#[derive(Debug)]
struct Named {
    blobs: Blobs,
    name: String,
}

/// The gRPC service.
#[derive(Debug)]
pub struct Content {
    stores: Stores,
}

/// The stores of a service.
#[derive(Debug)]
enum Stores {
    /// Those of inlay's own session, by name. The daemon writes to them.
    Blobs(Blobs),
    /// One store. The name in a call does not matter.
    One(Arc<dyn Store>),
}

/// A blob that is being written.
#[derive(Debug, Default)]
struct Ingest {
    reference: String,
    expected: String,
    data: BytesMut,
}

// === impl Blobs ===

impl Blobs {
    /// No blobs yet. Each store takes at most `max_count` blobs of at most `max_size` bytes.
    pub fn new(max_size: usize, max_count: usize) -> Self {
        Self {
            max_size,
            max_count,
            stores: Arc::default(),
        }
    }

    /// Puts a blob into a store. Returns its digest.
    ///
    /// # Errors
    /// Where the store is full.
    pub fn put(&self, store: &str, data: Bytes) -> Result<String, StoreError> {
        let digest = sha256(&data);
        let mut stores = self.lock();
        let blobs = stores.entry(store.to_owned()).or_default();
        if blobs.len() >= self.max_count {
            return Err(StoreError::TooMany {
                store: store.to_owned(),
                limit: self.max_count,
            });
        }
        blobs.insert(digest.clone(), data);
        Ok(digest)
    }

    /// A blob of a store.
    pub fn get(&self, store: &str, digest: &str) -> Option<Bytes> {
        self.lock().get(store)?.get(digest).cloned()
    }

    /// One of the stores, for reading.
    pub fn store(&self, name: &str) -> Arc<dyn Store> {
        Arc::new(Named {
            blobs: self.clone(),
            name: name.to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, Bytes>>> {
        // Each change is one insertion, so a panic elsewhere leaves the maps whole.
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what one message of a write asks for. Returns the answer.
    fn write(
        &self,
        store: &str,
        ingest: &mut Ingest,
        request: &api::WriteContentRequest,
    ) -> Result<api::WriteContentResponse, StoreError> {
        if !request.r#ref.is_empty() {
            ingest.reference.clone_from(&request.r#ref);
        }
        if !request.expected.is_empty() {
            ingest.expected.clone_from(&request.expected);
        }
        let reference = || ingest.reference.clone();
        let length = ingest.data.len() + request.data.len();
        if length > self.max_size || request.total > self.max_size as i64 {
            return Err(StoreError::TooLarge {
                reference: reference(),
                limit: self.max_size,
            });
        }
        if !request.data.is_empty() {
            if usize::try_from(request.offset) != Ok(ingest.data.len()) {
                let at = ingest.data.len();
                return Err(StoreError::Offset {
                    reference: reference(),
                    at,
                    offset: request.offset,
                });
            }
            ingest.data.extend_from_slice(&request.data);
        }
        let mut response = api::WriteContentResponse {
            action: request.action,
            // Within the limit, which is far below.
            offset: length as i64,
            total: request.total,
            ..Default::default()
        };
        if request.action() == WriteAction::Commit {
            let found = sha256(&ingest.data);
            if !ingest.expected.is_empty() && ingest.expected != found {
                let expected = ingest.expected.clone();
                return Err(StoreError::Digest {
                    reference: reference(),
                    expected,
                    found,
                });
            }
            response.digest = self.put(store, std::mem::take(&mut ingest.data).freeze())?;
        }
        Ok(response)
    }
}

fn sha256(data: &[u8]) -> String {
    Digest::of(data).to_string()
}

// === impl StoreError ===

impl From<StoreError> for Status {
    fn from(err: StoreError) -> Self {
        let message = err.to_string();
        match err {
            StoreError::TooLarge { .. } | StoreError::TooMany { .. } => {
                Self::resource_exhausted(message)
            }
            StoreError::Offset { .. } => Self::out_of_range(message),
            StoreError::Digest { .. } => Self::failed_precondition(message),
        }
    }
}

// === impl ReadError ===

impl From<ReadError> for Status {
    fn from(err: ReadError) -> Self {
        let message = err.to_string();
        match err {
            ReadError::NotFound(_) => Self::not_found(message),
            ReadError::OutOfRange { .. } => Self::out_of_range(message),
            ReadError::Truncated { .. } => Self::data_loss(message),
            ReadError::Broken { .. } => Self::unavailable(message),
        }
    }
}

// === impl Named ===

#[tonic::async_trait]
impl Store for Named {
    async fn info(&self, digest: &str) -> Result<Option<u64>, ReadError> {
        let blob = self.blobs.get(&self.name, digest);
        Ok(blob.map(|blob| blob.len() as u64))
    }

    async fn read(&self, digest: &str, range: Range<u64>) -> Result<Chunks, ReadError> {
        let blob = self.blobs.get(&self.name, digest);
        let blob = blob.ok_or_else(|| ReadError::NotFound(digest.to_owned()))?;
        let bounds = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok());
        let within = bounds.filter(|(start, end)| start <= end && *end <= blob.len());
        let (start, end) = within.ok_or_else(|| ReadError::OutOfRange {
            digest: digest.to_owned(),
            size: blob.len() as u64,
        })?;
        Ok(stream::iter([Ok(blob.slice(start..end))]).boxed())
    }
}

// === impl Content ===

impl Content {
    /// A service that reads and writes these blobs.
    pub fn of_blobs(blobs: Blobs) -> Self {
        Self {
            stores: Stores::Blobs(blobs),
        }
    }

    /// A service that reads one store.
    pub fn of_store(store: Arc<dyn Store>) -> Self {
        Self {
            stores: Stores::One(store),
        }
    }

    fn store<T>(&self, request: &Request<T>) -> Result<Arc<dyn Store>, Status> {
        match &self.stores {
            Stores::One(store) => Ok(Arc::clone(store)),
            Stores::Blobs(blobs) => Ok(blobs.store(&store_name(request)?)),
        }
    }
}

fn store_name<T>(request: &Request<T>) -> Result<String, Status> {
    let named = request
        .metadata()
        .get(STORE_HEADER)
        .and_then(|name| name.to_str().ok());
    named
        .map(str::to_owned)
        .ok_or_else(|| Status::invalid_argument(format!("no {STORE_HEADER}")))
}

/// The messages of a read: exactly the range, in chunks of at most [`READ_CHUNK`] bytes.
fn replies(digest: &str, range: Range<u64>, chunks: Chunks) -> Replies<api::ReadContentResponse> {
    let digest = digest.to_owned();
    let state = (chunks, Bytes::new(), range);
    let replies = stream::try_unfold(state, move |(mut chunks, mut chunk, mut range)| {
        let digest = digest.clone();
        async move {
            let missing = range.end - range.start;
            if missing == 0 {
                return Ok(None);
            }
            while chunk.is_empty() {
                let next = chunks.next().await;
                chunk = next.ok_or(ReadError::Truncated {
                    digest: digest.clone(),
                    missing,
                })??;
            }
            let length = chunk
                .len()
                .min(READ_CHUNK)
                .min(usize::try_from(missing).unwrap_or(READ_CHUNK));
            let reply = api::ReadContentResponse {
                offset: range.start as i64,
                data: chunk.split_to(length),
            };
            range.start += length as u64;
            Ok::<_, Status>(Some((reply, (chunks, chunk, range))))
        }
    });
    replies.boxed()
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Service for Content {
    async fn info(
        &self,
        request: Request<api::InfoRequest>,
    ) -> Result<Response<api::InfoResponse>, Status> {
        let digest = &request.get_ref().digest;
        let size = self.store(&request)?.info(digest).await?;
        let size = size.ok_or_else(|| ReadError::NotFound(digest.clone()))?;
        let info = api::Info {
            digest: digest.clone(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
        };
        Ok(Response::new(api::InfoResponse { info: Some(info) }))
    }

    type ReadStream = Replies<api::ReadContentResponse>;

    async fn read(
        &self,
        request: Request<api::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let store = self.store(&request)?;
        let api::ReadContentRequest {
            digest,
            offset,
            size: wanted,
        } = request.get_ref();
        let size = store.info(digest).await?;
        let size = size.ok_or_else(|| ReadError::NotFound(digest.clone()))?;
        let out_of_range = || ReadError::OutOfRange {
            digest: digest.clone(),
            size,
        };
        let start = u64::try_from(*offset).ok().filter(|start| *start <= size);
        let start = start.ok_or_else(out_of_range)?;
        let end = match u64::try_from(*wanted).map_err(|_| out_of_range())? {
            0 => size,
            wanted => size.min(start.saturating_add(wanted)),
        };
        let chunks = store.read(digest, start..end).await?;
        Ok(Response::new(replies(digest, start..end, chunks)))
    }

    async fn status(
        &self,
        request: Request<api::StatusRequest>,
    ) -> Result<Response<api::StatusResponse>, Status> {
        Err(Status::not_found(format!(
            "no write {} is under way",
            request.get_ref().r#ref
        )))
    }

    type WriteStream = Replies<api::WriteContentResponse>;

    async fn write(
        &self,
        request: Request<Streaming<api::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let Stores::Blobs(blobs) = &self.stores else {
            return Err(Status::permission_denied("this store is only read"));
        };
        let blobs = blobs.clone();
        let store = store_name(&request)?;
        let mut requests = request.into_inner();
        let first = requests
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("an empty write"))?;
        if first.r#ref.starts_with(LAYER_REF) {
            return Err(Status::already_exists(format!("{} is here", first.r#ref)));
        }
        let requests = stream::iter([Ok(first)]).chain(requests);
        let replies = requests.scan(Ingest::default(), move |ingest, request| {
            let reply = request.and_then(|request| Ok(blobs.write(&store, ingest, &request)?));
            std::future::ready(Some(reply))
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn abort(&self, _: Request<api::AbortRequest>) -> Result<Response<api::Empty>, Status> {
        Ok(Response::new(api::Empty {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(action: WriteAction, offset: i64, data: &'static [u8]) -> api::WriteContentRequest {
        api::WriteContentRequest {
            action: action.into(),
            r#ref: "r".to_owned(),
            offset,
            data: Bytes::from_static(data),
            ..Default::default()
        }
    }

    #[test]
    fn a_blob_is_taken_in_pieces_and_found_by_its_digest() {
        let blobs = Blobs::new(10, 1);
        let mut ingest = Ingest::default();
        let mut write =
            |request: &api::WriteContentRequest| blobs.write("s", &mut ingest, request).unwrap();
        assert_eq!(write(&request(WriteAction::Stat, 0, b"")).offset, 0);
        assert_eq!(write(&request(WriteAction::Write, 0, b"ab")).offset, 2);
        let digest = write(&request(WriteAction::Commit, 2, b"c")).digest;
        assert_eq!(
            digest,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(blobs.get("s", &digest).unwrap(), "abc");
        assert_eq!(blobs.get("other", &digest), None);
        let full = blobs.put("s", Bytes::from_static(b"x")).unwrap_err();
        assert_eq!(
            full,
            StoreError::TooMany {
                store: "s".to_owned(),
                limit: 1
            }
        );
    }

    #[test]
    fn what_is_too_large_or_misplaced_or_false_is_refused() {
        let blobs = Blobs::new(4, 1);
        let refusal = |request: &api::WriteContentRequest| {
            blobs
                .write("s", &mut Ingest::default(), request)
                .unwrap_err()
        };
        let reference = || "r".to_owned();
        let too_large = StoreError::TooLarge {
            reference: reference(),
            limit: 4,
        };
        assert_eq!(
            refusal(&request(WriteAction::Write, 0, b"abcde")),
            too_large
        );
        let announced = api::WriteContentRequest {
            total: 5,
            ..request(WriteAction::Stat, 0, b"")
        };
        assert_eq!(refusal(&announced), too_large);
        let misplaced = StoreError::Offset {
            reference: reference(),
            at: 0,
            offset: 3,
        };
        assert_eq!(refusal(&request(WriteAction::Write, 3, b"a")), misplaced);
        let lie = api::WriteContentRequest {
            expected: "sha256:00".to_owned(),
            ..request(WriteAction::Commit, 0, b"a")
        };
        assert!(matches!(refusal(&lie), StoreError::Digest { .. }));
    }

    #[tokio::test]
    async fn a_read_has_its_range_whatever_pieces_it_comes_in() {
        let read = async |range: Range<u64>, pieces: Vec<&'static [u8]>| {
            let pieces = pieces
                .into_iter()
                .map(|piece| Ok(Bytes::from_static(piece)));
            let mut replies = replies("d", range, stream::iter(pieces).boxed());
            let mut read = Vec::new();
            while let Some(reply) = replies.next().await {
                let reply = reply?;
                read.push((reply.offset, reply.data));
            }
            Ok::<_, Status>(read)
        };
        let expected: [(i64, Bytes); 2] = [(3, "ab".into()), (5, "c".into())];
        // What is more than the range is cut.
        let pieces = vec![&b"ab"[..], b"", b"cd", b"e"];
        assert_eq!(read(3..6, pieces).await.unwrap(), expected);
        assert_eq!(read(3..3, vec![b"a"]).await.unwrap(), []);
        // A large piece is cut into messages.
        static LARGE: [u8; 3 * READ_CHUNK / 2] = [7; 3 * READ_CHUNK / 2];
        let messages = read(0..LARGE.len() as u64, vec![&LARGE]).await.unwrap();
        let lengths: Vec<_> = messages.iter().map(|(_, data)| data.len()).collect();
        assert_eq!(lengths, [READ_CHUNK, READ_CHUNK / 2]);
        let short = read(3..6, vec![b"ab"]).await.unwrap_err();
        assert_eq!(short.code(), tonic::Code::DataLoss);
        assert_eq!(short.message(), "blob d ends 1 bytes early");
    }
}
