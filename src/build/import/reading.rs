//! Reads the caches of an image through a [`Source`]: its manifests for a build's platforms, their
//! configs, and the cache in each, checked.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci_spec::image::{Descriptor, ImageManifest};
use thiserror::Error;
use tokio::task::spawn_blocking;
use tracing::debug;

use super::image::{CachedImage, ImageError, MAX_DOCUMENT};
use crate::cache::image::Platform;
use crate::cache::image::config;
use crate::cache::image::manifest::{self, Document, ManifestError};
use crate::source::{Source, SourceError, fetch};

/// The largest manifest or index: BuildKit imports no larger one.
const MAX_MANIFEST: u64 = MAX_DOCUMENT as u64;
/// How many layers are asked for at a time.
const STATS_AT_A_TIME: usize = 8;

/// What an image has.
#[derive(Debug)]
pub enum Found {
    /// A cache that was exported by itself, and no image.
    CacheExport,
    /// Images for the build's platforms that have a cache; perhaps none.
    Images {
        /// The images.
        images: Vec<CachedImage>,
        /// What was read (bytes).
        bytes: u64,
    },
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

impl ReadingError {
    /// Whether the image could not be read, which says nothing of its cache.
    pub fn is_of_source(&self) -> bool {
        match self {
            Self::Source(err) => !matches!(
                err,
                SourceError::Digest { .. } | SourceError::TooLarge { .. }
            ),
            Self::Panicked => true,
            _ => false,
        }
    }
}

/// Reads an image for these platforms.
///
/// # Errors
/// Where the image cannot be had, or its cache is not sound.
pub async fn read(source: &dyn Source, platforms: &[Platform]) -> Result<Found, ReadingError> {
    let (root, document) = source.root(MAX_MANIFEST).await?;
    let mut bytes = document.len() as u64;
    let document = parse(&root, &document)?;
    if document.is_cache_export() {
        return Ok(Found::CacheExport);
    }
    let mut manifests = Vec::new();
    match document {
        Document::Manifest(manifest) => manifests.push((root.clone(), *manifest)),
        Document::Index(index) => {
            let mut chosen: Vec<Descriptor> = Vec::new();
            for platform in platforms {
                let found = manifest::for_platform(&index, platform);
                let new =
                    found.filter(|found| chosen.iter().all(|of| of.digest() != found.digest()));
                chosen.extend(new.cloned());
            }
            if chosen.is_empty() {
                let names = platforms.iter();
                let names = names.map(|of| format!("{}/{}", of.os, of.architecture));
                return Err(ReadingError::Platform(names.collect()));
            }
            for descriptor in chosen {
                let document = fetch(source, &descriptor, MAX_MANIFEST).await?;
                bytes += document.len() as u64;
                match parse(&descriptor, &document)? {
                    Document::Manifest(manifest) => manifests.push((descriptor, *manifest)),
                    Document::Index(_) => {
                        return Err(ReadingError::Nested(descriptor.digest().to_string()));
                    }
                }
            }
        }
    }
    let mut images = Vec::with_capacity(manifests.len());
    for (descriptor, manifest) in manifests {
        let config = fetch(source, manifest.config(), config::DEFAULT_LIMIT as u64).await?;
        bytes += config.len() as u64;
        images.extend(checked(source, &descriptor, manifest, config).await?);
    }
    Ok(Found::Images { images, bytes })
}

fn parse(descriptor: &Descriptor, document: &[u8]) -> Result<Document, ReadingError> {
    Document::read(document).map_err(|reason| ReadingError::Manifest {
        digest: descriptor.digest().to_string(),
        reason,
    })
}

/// The cache of one image, whose layers all exist. Without this check, a build would fail when the
/// daemon needs a missing layer.
async fn checked(
    source: &dyn Source,
    descriptor: &Descriptor,
    manifest: ImageManifest,
    config: Bytes,
) -> Result<Option<CachedImage>, ReadingError> {
    let digest = || descriptor.digest().to_string();
    let named = digest();
    // A large one takes a while.
    let read = spawn_blocking(move || CachedImage::read(named, &manifest, &config));
    let image = read.await.map_err(|_| ReadingError::Panicked)?;
    let image = image.map_err(|reason| ReadingError::Image {
        digest: digest(),
        reason,
    })?;
    let Some(image) = image else {
        return Ok(None);
    };
    let layers = stream::iter(image.layers()).map(Ok);
    layers
        .try_for_each_concurrent(STATS_AT_A_TIME, |layer| async move {
            match source.stat(layer).await {
                Err(reason @ (SourceError::Missing(_) | SourceError::Malformed { .. })) => {
                    Err(ReadingError::Layer {
                        digest: digest(),
                        reason,
                    })
                }
                // The daemon finds out when it needs the layer.
                Err(err) => {
                    debug!("a layer is not checked: {err}");
                    Ok(())
                }
                Ok(()) => Ok(()),
            }
        })
        .await?;
    Ok(Some(image))
}
