//! Reads the caches of an image through a [`Source`]: its manifests for a build's platforms, their
//! configs, and the cache in each, checked; or a cache that was exported by itself.
//!
//! Fetching comes before checking, and the two are told apart. A cache that could not be fetched may
//! be left to the daemon. One that was received and is refused may not.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci_spec::image::{Descriptor, ImageManifest};
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::debug;

use super::image::{self, CachedImage, ImageError, MAX_DOCUMENT};
use super::memory::{ImportMemory, MAX_DOCUMENTS};
use crate::cache::image::Platform;
use crate::cache::image::config;
use crate::cache::image::manifest::{Document, Index, ManifestError};
use crate::source::{Source, SourceError, fetch};

/// The largest manifest, index or cache config: BuildKit imports no larger one.
const MAX_MANIFEST: u64 = MAX_DOCUMENT as u64;
/// The largest image config.
const MAX_CONFIG: u64 = config::DEFAULT_LIMIT as u64;
/// How many layers are asked for at a time.
const STATS_AT_A_TIME: usize = 8;
/// The timeout for asking for all of them. A build waits for it.
const STATS_TIMEOUT: Duration = Duration::from_secs(10);

/// The documents of a location, as they were received. Nothing of them is checked but their digests.
#[derive(Debug)]
pub struct Documents {
    kind: Kind,
    /// The bytes that were read.
    pub bytes: u64,
}

#[derive(Debug)]
enum Kind {
    CacheExport(CacheExport),
    /// Manifests for the build's platforms, and their configs.
    Images(Vec<(Descriptor, ImageManifest, Bytes)>),
}

/// What a location has.
#[derive(Debug)]
pub enum Found {
    /// A cache that was exported by itself, and no image.
    CacheExport(CacheExport),
    /// Images for the build's platforms that have a cache; perhaps none.
    Images(Vec<CachedImage>),
}

/// A cache that was exported by itself (`type=registry`).
#[derive(Debug)]
pub struct CacheExport {
    /// The digest of its manifest or index.
    pub digest: String,
    /// Its manifest or index, as it was read.
    pub root: Bytes,
    /// Its records, as they were read.
    pub config: Bytes,
    /// Its layers.
    pub layers: Vec<Descriptor>,
    /// How many records it has.
    pub records: usize,
}

/// Why the cache of an image is not used.
#[derive(Debug, Error)]
pub enum ReadingError {
    /// It cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A manifest or an index is malformed.
    #[error("manifest {digest}: {reason}")]
    Manifest {
        /// Its digest.
        digest: String,
        /// What is wrong with it.
        reason: ManifestError,
    },
    /// A document that a manifest or an index names does not exist.
    #[error("image {digest} is incomplete: {reason}")]
    Incomplete {
        /// The digest of the manifest or index.
        digest: String,
        /// What does not exist.
        reason: SourceError,
    },
    /// An index names another index.
    #[error("manifest {0} is an index within an index")]
    Nested(String),
    /// The build is for other platforms.
    #[error("it has no image for {}", .0.join(", "))]
    Platform(Vec<String>),
    /// Its cache is not sound.
    #[error("image {digest}: {reason}")]
    Image {
        /// The digest of its manifest.
        digest: String,
        /// What is wrong with it.
        reason: ImageError,
    },
    /// A cache that was exported by itself is not sound.
    #[error("cache {digest}: {reason}")]
    CacheExport {
        /// The digest of its manifest or index.
        digest: String,
        /// What is wrong with it.
        reason: ImageError,
    },
    /// Its documents are too large together.
    #[error("its documents have {0} bytes and more, and may have {MAX_DOCUMENTS}")]
    TooLarge(u64),
    /// inlay panicked while it read the image.
    #[error("reading it failed within inlay")]
    Panicked,
    /// A layer does not exist, or is not what its manifest says.
    #[error("image {digest}: {reason}")]
    Layer {
        /// The digest of its manifest.
        digest: String,
        /// What is wrong.
        reason: SourceError,
    },
}

// === impl ReadingError ===

impl ReadingError {
    /// Whether the image could not be fetched, which says nothing of its cache.
    pub fn is_fetching(&self) -> bool {
        match self {
            Self::Source(err) => !err.was_received(),
            Self::Manifest { .. }
            | Self::Incomplete { .. }
            | Self::Nested(_)
            | Self::Platform(_)
            | Self::CacheExport { .. }
            | Self::Image { .. }
            | Self::TooLarge(_)
            | Self::Panicked
            | Self::Layer { .. } => false,
        }
    }
}

// === impl Documents ===

impl Documents {
    /// Fetches the documents of a cache for these platforms: manifests and configs.
    ///
    /// # Errors
    /// Where a document cannot be fetched, is too large, or does not match its digest, and where a
    /// manifest cannot be read.
    pub async fn fetch(source: &dyn Source, platforms: &[Platform]) -> Result<Self, ReadingError> {
        let (root, data) = source.root(MAX_MANIFEST).await?;
        let mut bytes = data.len() as u64;
        let document = parse(&root, &data)?;
        if document.is_cache_export() {
            let (config, layers) = document.into_cache_export().map_err(malformed(&root))?;
            let config = part(fetch(source, &config, MAX_MANIFEST).await, &root)?;
            bytes += config.len() as u64;
            let export = CacheExport {
                digest: root.digest().to_string(),
                root: data,
                config,
                layers,
                records: 0,
            };
            return Ok(Self {
                kind: Kind::CacheExport(export),
                bytes,
            });
        }
        let manifests = match document {
            Document::Manifest(manifest) => vec![(root, *manifest)],
            Document::Index(index) => {
                let chosen = chosen(&index, platforms)?;
                let mut manifests = Vec::with_capacity(chosen.len());
                let mut missing = None;
                for descriptor in chosen {
                    let data = match fetch(source, &descriptor, MAX_MANIFEST).await {
                        // Who copies an image may copy the manifests of some platforms only.
                        Err(err @ SourceError::Missing(_)) => {
                            missing = Some(err);
                            continue;
                        }
                        data => data?,
                    };
                    bytes += data.len() as u64;
                    if bytes > MAX_DOCUMENTS {
                        return Err(ReadingError::TooLarge(bytes));
                    }
                    match parse(&descriptor, &data)? {
                        Document::Manifest(manifest) => manifests.push((descriptor, *manifest)),
                        Document::Index(_) => {
                            return Err(ReadingError::Nested(descriptor.digest().to_string()));
                        }
                    }
                }
                if let (Some(reason), true) = (missing, manifests.is_empty()) {
                    let digest = root.digest().to_string();
                    return Err(ReadingError::Incomplete { digest, reason });
                }
                manifests
            }
        };
        let mut images = Vec::with_capacity(manifests.len());
        for (descriptor, manifest) in manifests {
            let config = fetch(source, manifest.config(), MAX_CONFIG).await;
            let config = part(config, &descriptor)?;
            bytes += config.len() as u64;
            if bytes > MAX_DOCUMENTS {
                return Err(ReadingError::TooLarge(bytes));
            }
            images.push((descriptor, manifest, config));
        }
        Ok(Self {
            kind: Kind::Images(images),
            bytes,
        })
    }

    /// Checks them.
    ///
    /// # Errors
    /// Where a cache is not sound.
    pub async fn check(self, memory: &ImportMemory) -> Result<Found, ReadingError> {
        match self.kind {
            Kind::CacheExport(mut export) => {
                let config = export.config.clone();
                let layers = export.layers.clone();
                let records =
                    blocking(memory, move || image::check_export(&config, &layers)).await?;
                let checked = records.map_err(|reason| ReadingError::CacheExport {
                    digest: export.digest.clone(),
                    reason,
                });
                export.records = checked?;
                Ok(Found::CacheExport(export))
            }
            Kind::Images(documents) => {
                let mut images = Vec::with_capacity(documents.len());
                for (descriptor, manifest, config) in documents {
                    let digest = descriptor.digest().to_string();
                    let named = digest.clone();
                    let read = move || CachedImage::read(named, &manifest, &config);
                    let image = blocking(memory, read).await?;
                    images.extend(image.map_err(|reason| ReadingError::Image { digest, reason })?);
                }
                Ok(Found::Images(images))
            }
        }
    }
}

/// The manifests of an index for these platforms, each once.
fn chosen(index: &Index, platforms: &[Platform]) -> Result<Vec<Descriptor>, ReadingError> {
    if index.skipped > 0 {
        debug!("{} entries of an index are not known", index.skipped);
    }
    let mut chosen: Vec<Descriptor> = Vec::new();
    for found in platforms.iter().filter_map(|of| index.for_platform(of)) {
        if chosen.iter().all(|of| of.digest() != found.digest()) {
            chosen.push(found.clone());
        }
    }
    if chosen.is_empty() {
        let names = platforms.iter();
        let names = names.map(|of| format!("{}/{}", of.os, of.architecture));
        return Err(ReadingError::Platform(names.collect()));
    }
    Ok(chosen)
}

/// A document that a manifest names. Where it does not exist, it is the image that is incomplete.
fn part(fetched: Result<Bytes, SourceError>, manifest: &Descriptor) -> Result<Bytes, ReadingError> {
    fetched.map_err(|err| match err {
        SourceError::Missing(_) => ReadingError::Incomplete {
            digest: manifest.digest().to_string(),
            reason: err,
        },
        err => err.into(),
    })
}

fn malformed(descriptor: &Descriptor) -> impl FnOnce(ManifestError) -> ReadingError {
    let digest = descriptor.digest().to_string();
    move |reason| ReadingError::Manifest { digest, reason }
}

/// Runs work on a thread for such: reading a large cache takes a while.
async fn blocking<T: Send + 'static>(
    memory: &ImportMemory,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReadingError> {
    let share = memory.check().await;
    // The work goes on where nobody waits for it any more, and so its share is its own.
    let work = move || {
        let done = work();
        drop(share);
        done
    };
    spawn_blocking(work)
        .await
        .map_err(|_| ReadingError::Panicked)
}

fn parse(descriptor: &Descriptor, document: &[u8]) -> Result<Document, ReadingError> {
    Document::read(document).map_err(malformed(descriptor))
}

// === impl Found ===

impl Found {
    /// The images that have an inline cache.
    pub fn images(&self) -> &[CachedImage] {
        match self {
            Self::CacheExport(_) => &[],
            Self::Images(images) => images,
        }
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        match self {
            Self::CacheExport(export) => export.records,
            Self::Images(images) => images.iter().map(|image| image.set().records().len()).sum(),
        }
    }

    /// The layers of all of it.
    pub fn layers(&self) -> Vec<&Descriptor> {
        match self {
            Self::CacheExport(export) => export.layers.iter().collect(),
            Self::Images(images) => images.iter().flat_map(CachedImage::layers).collect(),
        }
    }

    /// The digests by which BuildKit can import what was checked from its registry, and no more;
    /// `None` where it cannot. Of an index it would read every image.
    pub fn digests(&self) -> Option<Vec<&str>> {
        match self {
            Self::CacheExport(export) => Some(vec![&export.digest]),
            Self::Images(images) => {
                let importable = images.iter().all(CachedImage::is_importable);
                importable.then(|| images.iter().map(CachedImage::digest).collect())
            }
        }
    }

    /// The documents by which BuildKit imports it from a content store. The last one is imported.
    pub fn documents(&self) -> Vec<Bytes> {
        match self {
            Self::CacheExport(export) => vec![export.config.clone(), export.root.clone()],
            Self::Images(images) => image::documents(images)
                .into_iter()
                .map(Bytes::from)
                .collect(),
        }
    }

    /// Checks that the layers of images exist: else a build fails when the daemon needs one that does
    /// not. The daemon finds out by itself about layers that cannot be asked for, or not in time.
    ///
    /// # Errors
    /// Where a layer does not exist, or is not what its manifest says.
    pub async fn stat_layers(&self, source: &dyn Source) -> Result<(), ReadingError> {
        let stats = async {
            for image in self.images() {
                let layers = stream::iter(image.layers()).map(Ok);
                let stats = layers.try_for_each_concurrent(STATS_AT_A_TIME, |layer| async move {
                    stat(source, layer)
                        .await
                        .map_err(|reason| ReadingError::Layer {
                            digest: image.digest().to_owned(),
                            reason,
                        })
                });
                stats.await?;
            }
            Ok(())
        };
        timeout(STATS_TIMEOUT, stats).await.unwrap_or_else(|_| {
            debug!("not all layers are checked within {STATS_TIMEOUT:?}");
            Ok(())
        })
    }
}

/// Checks that a layer exists, where its source tells.
async fn stat(source: &dyn Source, layer: &Descriptor) -> Result<(), SourceError> {
    match source.stat(layer).await {
        Err(err @ (SourceError::Missing(_) | SourceError::Malformed { .. })) => Err(err),
        Err(err) => {
            debug!("a layer is not checked: {err}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
