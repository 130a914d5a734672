//! The image store of a containerd, over its socket. Docker Engine and nerdctl keep images there, too.

use std::error::Error as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use containerd_client::services::v1::{GetImageRequest, InfoRequest, ReadContentRequest};
use containerd_client::{Client, with_namespace};
use futures_util::{StreamExt as _, stream};
use oci_spec::image::{Descriptor, MediaType};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::location::reference;
use super::{ByteStream, Source, SourceError, exactly, fetch, has_size, within};

/// The image stores that the operator allows to be read.
#[derive(Debug)]
pub struct Stores {
    /// containerd's socket.
    pub address: Option<PathBuf>,
    /// The namespaces that may be read. The first one is the default.
    pub namespaces: Vec<String>,
    /// How long containerd may be silent.
    pub timeout: Duration,
}

/// One image of a store.
#[derive(Debug)]
pub struct Containerd {
    store: Store,
    root: Descriptor,
}

/// A namespace of a containerd.
#[derive(Debug, Clone)]
struct Store {
    channel: Channel,
    /// `connect` has checked that it can be the value of a header.
    namespace: String,
    timeout: Duration,
    /// Its name in errors.
    what: String,
}

/// The innermost cause of an error, which tonic's own text leaves out.
fn cause(err: &tonic::transport::Error) -> String {
    let mut said = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        said = err.to_string();
        cause = err.source();
    }
    said
}

// === impl Stores ===

impl Stores {
    /// Finds an image by its full name, which Docker derives from a short one, or else by the name as it is
    /// spelled. `what` is its location, for errors.
    ///
    /// # Errors
    /// Where the operator does not allow it, containerd does not answer, or it has no such image.
    pub async fn open(
        &self,
        namespace: Option<&str>,
        name: &str,
        what: String,
    ) -> Result<Containerd, SourceError> {
        let closed = |reason| SourceError::Closed { what, reason };
        let Some(address) = &self.address else {
            return Err(closed("no --containerd-address is given"));
        };
        let mut allowed = self.namespaces.iter();
        let found = match namespace {
            Some(namespace) => allowed.find(|allowed| *allowed == namespace),
            None => allowed.next(),
        };
        let Some(namespace) = found else {
            return Err(closed("no --containerd-namespace names its namespace"));
        };
        let store = Store::connect(address, namespace, self.timeout).await?;
        Containerd::open(store, name).await
    }
}

// === impl Containerd ===

impl Containerd {
    async fn open(store: Store, name: &str) -> Result<Self, SourceError> {
        let full = reference(name).ok();
        let whole = full.as_ref().map(|full| full.whole());
        for candidate in whole.as_deref().into_iter().chain([name]) {
            let Some(root) = store.image(candidate).await? else {
                continue;
            };
            let wanted = full.as_ref().and_then(|full| full.digest());
            return match wanted {
                Some(wanted) if root.digest().as_ref() != wanted => Err(SourceError::Digest {
                    what: format!("image {candidate:?} in {}", store.what),
                    expected: wanted.to_owned(),
                    found: root.digest().to_string(),
                }),
                _ => Ok(Self { store, root }),
            };
        }
        Err(SourceError::Missing(format!(
            "image {name:?} in {}",
            store.what
        )))
    }
}

#[tonic::async_trait]
impl Source for Containerd {
    async fn root(&self, limit: u64) -> Result<(Descriptor, Bytes), SourceError> {
        let data = fetch(self, &self.root, limit).await?;
        Ok((self.root.clone(), data))
    }

    async fn read(
        &self,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<ByteStream, SourceError> {
        within(descriptor, &range)?;
        self.store.read(descriptor.digest().as_ref(), range).await
    }

    async fn stat(&self, descriptor: &Descriptor) -> Result<(), SourceError> {
        self.store.stat(descriptor).await
    }
}

// === impl Store ===

impl Store {
    async fn connect(socket: &Path, namespace: &str, limit: Duration) -> Result<Self, SourceError> {
        let what = format!("containerd at {}, namespace {namespace}", socket.display());
        let unavailable = |reason: String| SourceError::Unavailable {
            what: what.clone(),
            reason,
        };
        // `with_namespace!` panics on names that cannot be in a header.
        if namespace.parse::<MetadataValue<Ascii>>().is_err() {
            return Err(unavailable("a namespace has no such letters".to_owned()));
        }
        let channel = timeout(limit, containerd_client::connect(socket))
            .await
            .map_err(|_| unavailable("it does not answer".to_owned()))?
            .map_err(|err| unavailable(cause(&err)))?;
        Ok(Self {
            channel,
            namespace: namespace.to_owned(),
            timeout: limit,
            what,
        })
    }

    fn client(&self) -> Client {
        Client::from(self.channel.clone())
    }

    /// The error of a call that failed with `status`.
    fn failed(&self, what: &str, status: &Status) -> SourceError {
        let what = format!("{what} in {}", self.what);
        match status.code() {
            Code::NotFound => SourceError::Missing(what),
            _ => SourceError::Unavailable {
                what,
                reason: status.message().to_owned(),
            },
        }
    }

    fn silent(&self, what: &str) -> SourceError {
        SourceError::Unavailable {
            what: format!("{what} in {}", self.what),
            reason: format!("nothing came for {:?}", self.timeout),
        }
    }

    async fn image(&self, name: &str) -> Result<Option<Descriptor>, SourceError> {
        let what = format!("image {name:?}");
        let request = GetImageRequest {
            name: name.to_owned(),
        };
        let request = with_namespace!(request, self.namespace);
        let answer = timeout(self.timeout, self.client().images().get(request)).await;
        let answer = match answer.map_err(|_| self.silent(&what))? {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(self.failed(&what, &status)),
        };
        let malformed = |reason: &str| SourceError::Malformed {
            what: format!("{what} in {}", self.what),
            reason: reason.to_owned(),
        };
        let target = answer.image.and_then(|image| image.target);
        let target = target.ok_or_else(|| malformed("it has no target"))?;
        let digest = target.digest.parse::<oci_spec::image::Digest>();
        let digest = digest.map_err(|_| malformed("its target has no digest"))?;
        let size = u64::try_from(target.size).map_err(|_| malformed("its target has no size"))?;
        let media_type = MediaType::from(&*target.media_type);
        Ok(Some(Descriptor::new(media_type, size, digest)))
    }

    async fn stat(&self, descriptor: &Descriptor) -> Result<(), SourceError> {
        let digest = descriptor.digest().to_string();
        let what = format!("blob {digest}");
        let request = with_namespace!(InfoRequest { digest }, self.namespace);
        let answer = timeout(self.timeout, self.client().content().info(request)).await;
        let answer = answer.map_err(|_| self.silent(&what))?;
        let answer = answer.map_err(|status| self.failed(&what, &status))?;
        let size = answer.into_inner().info.map(|info| info.size);
        has_size(descriptor, size.and_then(|size| u64::try_from(size).ok()))
    }

    async fn read(&self, digest: &str, range: Range<u64>) -> Result<ByteStream, SourceError> {
        let what = format!("blob {digest}");
        // containerd reads a size of 0 as the rest of the blob.
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let length = range.end - range.start;
        let too_large = |_| SourceError::Malformed {
            what: what.clone(),
            reason: "it has no size that can be".to_owned(),
        };
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            offset: range.start.try_into().map_err(too_large)?,
            size: length.try_into().map_err(too_large)?,
        };
        let request = with_namespace!(request, self.namespace);
        let answer = timeout(self.timeout, self.client().content().read(request)).await;
        let answer = answer.map_err(|_| self.silent(&what))?;
        let messages = answer.map_err(|status| self.failed(&what, &status))?;
        let messages = messages.into_inner();
        let store = self.clone();
        let called = format!("{what} in {}", self.what);
        let chunks = stream::try_unfold((messages, store), move |(mut messages, store)| {
            let what = what.clone();
            async move {
                let message = timeout(store.timeout, messages.message()).await;
                let message = message.map_err(|_| store.silent(&what))?;
                let message = message.map_err(|status| store.failed(&what, &status))?;
                Ok(message.map(|message| (Bytes::from(message.data), (messages, store))))
            }
        });
        Ok(exactly(length, called, chunks.boxed()))
    }
}
