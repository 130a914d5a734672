//! Reads the caches of an image through a [`Source`]: its manifests for a build's platforms, their
//! configs, and the cache in each, checked; or a cache that was exported by itself.
//!
//! Fetching comes before checking, and the two are told apart. A cache that could not be fetched may
//! be left to the daemon. One that was received and is refused may not.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use oci_spec::image::{Descriptor, ImageManifest};
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::debug;

use super::documents::KnownDocuments;
use super::image::{self, CachedImage, ImageError, MAX_DOCUMENT};
use super::memory::{ImportMemory, MAX_DOCUMENTS};
use crate::cache::image::Platform;
use crate::cache::image::config;
use crate::cache::image::manifest::{Document, Fit, Index, ManifestError};
use crate::source::{Source, SourceError};

/// The largest manifest, index or cache config: BuildKit imports no larger one.
const MAX_MANIFEST: u64 = MAX_DOCUMENT as u64;
/// The largest image config.
const MAX_CONFIG: u64 = config::DEFAULT_LIMIT as u64;
/// How many manifests and indexes of one image are read.
const MAX_ENTRIES: usize = 64;
/// How deep an index may be in other indexes.
const MAX_DEPTH: usize = 4;
/// How many layers are checked at a time.
const STATS_AT_A_TIME: usize = 32;
/// The timeout for checking all of them. A build waits for it.
const STATS_TIMEOUT: Duration = Duration::from_secs(10);

/// The documents of a location, as they were received. Their digests are checked, their content not yet.
#[derive(Debug)]
pub struct Documents {
    kind: Kind,
    /// The bytes that were read.
    pub bytes: u64,
    /// How many entries of its index were skipped that may be for the build's platforms.
    pub skipped: usize,
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
    /// A layer cannot be read, or is not what its manifest says.
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
    pub async fn fetch(
        source: &dyn Source,
        known: &KnownDocuments,
        platforms: &[Platform],
    ) -> Result<Self, ReadingError> {
        let (root, data) = source.root(MAX_MANIFEST).await?;
        let mut bytes = data.len() as u64;
        let document = parse(&root, &data)?;
        if document.is_cache_export() {
            let (config, layers) = document.into_cache_export().map_err(malformed(&root))?;
            let config = part(known.fetch(source, &config, MAX_MANIFEST).await, &root)?;
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
                skipped: 0,
            });
        }
        let mut walk = Walk {
            source,
            known,
            platforms,
            images: Vec::new(),
            bytes,
            skipped: 0,
        };
        match document {
            Document::Manifest(manifest) => walk.manifest(root, *manifest, Fit::Stated).await?,
            Document::Index(index) => walk.index(&root, index).await?,
        }
        Ok(Self {
            kind: Kind::Images(walk.images),
            bytes: walk.bytes,
            skipped: walk.skipped,
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

/// A way through an index and what it names.
struct Walk<'a> {
    source: &'a dyn Source,
    known: &'a KnownDocuments,
    platforms: &'a [Platform],
    images: Vec<(Descriptor, ImageManifest, Bytes)>,
    bytes: u64,
    skipped: usize,
}

// === impl Walk ===

impl Walk<'_> {
    fn count(&mut self, document: &Bytes) -> Result<(), ReadingError> {
        self.bytes += document.len() as u64;
        match self.bytes > MAX_DOCUMENTS {
            true => Err(ReadingError::TooLarge(self.bytes)),
            false => Ok(()),
        }
    }

    /// Reads the images of an index, and of indexes within it, for the build's platforms.
    async fn index(&mut self, root: &Descriptor, index: Index) -> Result<(), ReadingError> {
        if index.manifests.is_empty() && index.skipped == 0 {
            return Ok(());
        }
        let mut known = HashSet::from([root.digest().clone()]);
        let mut missing = None;
        let mut open = VecDeque::from([(index, 0)]);
        while let Some((index, depth)) = open.pop_front() {
            self.skipped += index.skipped;
            for (entry, fit) in index.choose(self.platforms) {
                if known.contains(entry.digest()) {
                    continue;
                }
                if known.len() > MAX_ENTRIES {
                    self.skipped += 1;
                    continue;
                }
                known.insert(entry.digest().clone());
                let data = match self.known.fetch(self.source, entry, MAX_MANIFEST).await {
                    // Who copies an image may copy the manifests of some platforms only.
                    Err(err @ SourceError::Missing(_)) => {
                        missing = Some(err);
                        self.skipped += 1;
                        continue;
                    }
                    data => data?,
                };
                self.count(&data)?;
                match parse(entry, &data) {
                    Ok(Document::Manifest(manifest)) => {
                        self.manifest(entry.clone(), *manifest, fit).await?;
                    }
                    Ok(Document::Index(index)) if depth < MAX_DEPTH => {
                        open.push_back((index, depth + 1));
                    }
                    Err(err) if fit == Fit::Stated => return Err(err),
                    Ok(Document::Index(_)) | Err(_) => self.skipped += 1,
                }
            }
        }
        if !self.images.is_empty() {
            return Ok(());
        }
        if let Some(reason) = missing {
            let digest = root.digest().to_string();
            return Err(ReadingError::Incomplete { digest, reason });
        }
        let names = self.platforms.iter();
        let names = names.map(|of| format!("{}/{}", of.os, of.architecture));
        Err(ReadingError::Platform(names.collect()))
    }

    /// Reads the config of an image, and takes the image if it is for the build's platforms.
    async fn manifest(
        &mut self,
        descriptor: Descriptor,
        manifest: ImageManifest,
        fit: Fit,
    ) -> Result<(), ReadingError> {
        let config = self.known.fetch(self.source, manifest.config(), MAX_CONFIG);
        let config = part(config.await, &descriptor)?;
        self.count(&config)?;
        if fit == Fit::Stated || self.platforms.iter().any(|of| of.is_of_config(&config)) {
            self.images.push((descriptor, manifest, config));
        }
        Ok(())
    }
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

/// Runs work on a thread for such, since reading a large cache takes a while.
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

    /// The layers of all images, or of the cache that was exported by itself.
    pub fn layers(&self) -> Vec<&Descriptor> {
        match self {
            Self::CacheExport(export) => export.layers.iter().collect(),
            Self::Images(images) => images.iter().flat_map(CachedImage::layers).collect(),
        }
    }

    /// The digests of the manifests by which BuildKit can import what was checked from its registry;
    /// `None` where it cannot. An index is not among them: BuildKit would read every image of it.
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
    ///
    /// # Errors
    /// Where BuildKit could not take the caches of its images together.
    pub fn documents(&self) -> Result<Vec<Bytes>, ImageError> {
        match self {
            Self::CacheExport(export) => Ok(vec![export.config.clone(), export.root.clone()]),
            Self::Images(images) => {
                let images: Vec<_> = images.iter().collect();
                let documents = image::documents(&images)?;
                Ok(documents.into_iter().map(Bytes::from).collect())
            }
        }
    }
}

/// Checks that the layers of images can be read: a build fails when the daemon needs one that cannot.
/// A layer for which no answer comes in time counts as readable.
///
/// # Errors
/// Where a layer cannot be read, or is not what its manifest says.
pub async fn stat_layers(images: &[CachedImage], source: &dyn Source) -> Result<(), ReadingError> {
    let mut layers = Vec::new();
    for image in images {
        let digest = image.digest();
        layers.extend((image.layers().iter()).map(|layer| Ok((digest.to_owned(), layer.clone()))));
    }
    let stats = stream::iter(layers).try_for_each_concurrent(
        STATS_AT_A_TIME,
        |(digest, layer): (String, Descriptor)| async move {
            let stat = source.stat(&layer).await;
            stat.map_err(|reason| ReadingError::Layer { digest, reason })
        },
    );
    timeout(STATS_TIMEOUT, stats).await.unwrap_or_else(|_| {
        debug!("not all layers are checked within {STATS_TIMEOUT:?}");
        Ok(())
    })
}
