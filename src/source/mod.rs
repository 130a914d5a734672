//! Where cached images are read from, one file a transport, behind one trait.
//!
//! A [`Location`] says where an image is. [`Access`] has what the operator allows to be read, and opens a
//! location as a [`Source`]: the image's manifests, which match their digests, and the bytes of its
//! blobs.

mod access;
mod archive;
#[cfg(feature = "containerd")]
mod containerd;
mod credentials;
mod docker_archive;
mod files;
mod layout;
pub mod location;
mod registry;

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use oci_spec::image::{Descriptor, Digest as OciDigest, DigestAlgorithm};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::cache::record::Digest;

pub use access::{Access, Settings};
pub use credentials::{CLIENT_ID, Credentials, CredentialsError, Login, Token, TokenRequest};
pub use location::Location;

/// The largest list of images or config of a layout or an archive that is read (bytes). BuildKit
/// reads no config above 1 MiB.
const MAX_JSON: u64 = 4 << 20;

/// A blob's bytes as they come.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, SourceError>> + Send>>;

/// One image, wherever it is.
#[tonic::async_trait]
pub trait Source: Send + Sync + fmt::Debug {
    /// The index or manifest that the location names: its descriptor and its bytes, which match the
    /// descriptor.
    ///
    /// # Errors
    /// Where it is missing, larger than `limit` bytes, or cannot be read.
    async fn root(&self, limit: u64) -> Result<(Descriptor, Bytes), SourceError>;

    /// A range of a blob or manifest of the image. It is not verified, since a part has no digest. A stream
    /// that ends without an error has returned the whole range.
    ///
    /// # Errors
    /// Where the range exceeds the descriptor's size, or the blob is missing or cannot be read.
    async fn read(
        &self,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<ByteStream, SourceError>;

    /// Checks that a blob exists and has the descriptor's size, without reading it.
    ///
    /// # Errors
    /// Where it does not exist, has another size, or its store does not answer.
    async fn stat(&self, descriptor: &Descriptor) -> Result<(), SourceError>;

    /// The repository that the image is in, if it is in a registry. Users who may read one blob of a
    /// repository may read all of it.
    fn repository(&self) -> Option<String> {
        None
    }
}

/// Why an image cannot be read. [`SourceError::was_received`] tells the two kinds apart.
#[derive(Debug, Error)]
pub enum SourceError {
    /// It does not exist, or a part of it does not.
    #[error("{0} does not exist")]
    Missing(String),
    /// This user may not read it.
    #[error("{what} is refused: {reason}")]
    Denied {
        /// What was asked for.
        what: String,
        /// What was answered.
        reason: String,
    },
    /// There are several images, and none is named.
    #[error("{what} has {count} images: name one")]
    Several {
        /// Where they are.
        what: String,
        /// How many.
        count: usize,
    },
    /// The operator does not allow it.
    #[error("{0} is not allowed: it is in no folder that --allow-path names")]
    NotAllowed(String),
    /// The operator allows no images of that transport or namespace.
    #[error("{what} is not allowed: {reason}")]
    Closed {
        /// What was asked for.
        what: String,
        /// What the operator has not allowed.
        reason: &'static str,
    },
    /// It is larger than the limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// It does not match its digest.
    #[error("{what} has digest {found}, not {expected}")]
    Digest {
        /// What was read.
        what: String,
        /// The digest by which it was asked for.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// It breaks a rule of its format.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// What.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read.
    #[error("reading {what}: {error}")]
    Io {
        /// What was read.
        what: String,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Its registry or containerd does not answer as it should.
    #[error("{what}: {reason}")]
    Unavailable {
        /// What was asked for, and where.
        what: String,
        /// What happened.
        reason: String,
    },
    /// Its registry gives no answer at all.
    #[error("{what}: {host} does not answer within {seconds} s")]
    NoAnswer {
        /// What was asked for.
        what: String,
        /// The registry.
        host: String,
        /// The timeout.
        seconds: u64,
    },
    /// The user's login cannot be had.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

// === impl SourceError ===

impl SourceError {
    /// Whether something was received and is wrong. Otherwise nothing was received, which says nothing about
    /// the image.
    pub fn was_received(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Digest { .. } | Self::Malformed { .. } => true,
            Self::Missing(_)
            | Self::Denied { .. }
            | Self::Several { .. }
            | Self::NotAllowed(_)
            | Self::Closed { .. }
            | Self::Io { .. }
            | Self::Unavailable { .. }
            | Self::NoAnswer { .. }
            | Self::Credentials(_) => false,
        }
    }
}

/// A whole blob or manifest, which matches its descriptor.
///
/// # Errors
/// Where it is larger than `limit` bytes, cannot be read, or does not match.
pub async fn fetch(
    source: &dyn Source,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Bytes, SourceError> {
    let size = descriptor.size();
    if size > limit {
        return Err(SourceError::TooLarge {
            what: descriptor.digest().to_string(),
            limit,
        });
    }
    let mut chunks = source.read(descriptor, 0..size).await?;
    let mut data = BytesMut::new();
    while let Some(chunk) = chunks.try_next().await? {
        data.extend_from_slice(&chunk);
    }
    let data = data.freeze();
    verify(descriptor.digest(), &data)?;
    Ok(data)
}

/// Checks that a range lies within the blob of a descriptor.
fn within(descriptor: &Descriptor, range: &Range<u64>) -> Result<(), SourceError> {
    if range.start <= range.end && range.end <= descriptor.size() {
        return Ok(());
    }
    Err(SourceError::Malformed {
        what: descriptor.digest().to_string(),
        reason: format!(
            "bytes {} to {} of {} are asked for",
            range.start,
            range.end,
            descriptor.size()
        ),
    })
}

/// Checks that a blob has its descriptor's size. An unknown size passes.
fn has_size(descriptor: &Descriptor, found: Option<u64>) -> Result<(), SourceError> {
    match found {
        Some(size) if size != descriptor.size() => Err(SourceError::Malformed {
            what: descriptor.digest().to_string(),
            reason: format!("it has {size} bytes, not {}", descriptor.size()),
        }),
        _ => Ok(()),
    }
}

/// Checks that data has this digest, a SHA-256: BuildKit writes no other.
fn verify(digest: &OciDigest, data: &[u8]) -> Result<(), SourceError> {
    if *digest.algorithm() != DigestAlgorithm::Sha256 {
        return Err(SourceError::Malformed {
            what: digest.to_string(),
            reason: format!("{} is no digest that is known here", digest.algorithm()),
        });
    }
    let found = sha256(data)?;
    if found == *digest {
        Ok(())
    } else {
        Err(SourceError::Digest {
            what: digest.to_string(),
            expected: digest.to_string(),
            found: found.to_string(),
        })
    }
}

fn sha256(data: &[u8]) -> Result<OciDigest, SourceError> {
    hashed(Sha256::new_with_prefix(data))
}

/// The digest of the data that a hasher was given.
fn hashed(hasher: Sha256) -> Result<OciDigest, SourceError> {
    let digest = Digest::from_sha256(hasher.finalize().into()).to_string();
    digest.parse().map_err(|err| SourceError::Malformed {
        what: digest,
        reason: format!("{err}"),
    })
}

/// A stream that returns exactly `length` bytes, or an error. The manifest has the length, so a difference
/// means a malformed blob. A broken connection is an error of `stream` itself.
fn exactly(length: u64, what: String, stream: ByteStream) -> ByteStream {
    let wrong = move |reason: &str| SourceError::Malformed {
        what: what.clone(),
        reason: reason.to_owned(),
    };
    let whole = stream::try_unfold((stream, length), move |(mut stream, left)| {
        let wrong = wrong.clone();
        async move {
            match stream.try_next().await? {
                None if left == 0 => Ok(None),
                None => Err(wrong("it ends too early")),
                Some(chunk) => {
                    let left = left.checked_sub(chunk.len() as u64);
                    let left = left.ok_or_else(|| wrong("more comes than was asked for"))?;
                    Ok(Some((chunk, (stream, left))))
                }
            }
        }
    });
    whole.boxed()
}
