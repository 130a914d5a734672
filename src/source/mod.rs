//! Where cached images are read from, one file a transport, behind one trait.
//!
//! A [`Location`] says where an image is; [`Access`] is what the operator lets be read, and opens
//! it as a [`Source`]. Nothing here knows of builds, sessions or cache records: it hands out
//! manifests that match their digests, and the bytes of blobs.

mod access;
mod archive;
#[cfg(feature = "containerd")]
mod containerd;
mod docker_archive;
mod files;
mod layout;
pub mod location;
mod registry;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use oci_spec::image::{Descriptor, Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::cache::record;

pub use access::{Access, Settings};
pub use location::Location;

/// What a list of images or a config may have in a layout or an archive (bytes). BuildKit reads no
/// config above 1 MiB.
const MAX_JSON: u64 = 4 << 20;

/// A blob's bytes as they come.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, SourceError>> + Send>>;

/// One image, wherever it is.
#[tonic::async_trait]
pub trait Source: Send + Sync + Debug {
    /// What the location names, an index or a manifest: its descriptor and its bytes, which match
    /// the descriptor.
    ///
    /// # Errors
    /// Where it is missing, larger than `limit` bytes, or cannot be read.
    async fn root(&self, limit: u64) -> Result<(Descriptor, Bytes), SourceError>;

    /// Some bytes of a blob or manifest of the image. They are not verified: a part has no digest.
    /// A stream that ends without error has given the whole range.
    ///
    /// # Errors
    /// Where the range exceeds the descriptor's size, or the blob is missing or cannot be read.
    async fn read(
        &self,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<ByteStream, SourceError>;

    /// That a blob is there, with the descriptor's size; nothing of it is read.
    ///
    /// # Errors
    /// Where it is not, or this cannot be told.
    async fn look(&self, descriptor: &Descriptor) -> Result<(), SourceError>;
}

/// What a registry wants of a user.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        secret: String,
    },
    /// An identity token, as OAuth's refresh token.
    IdentityToken(String),
}

/// The user's logins. They are asked for only when a registry wants one.
#[tonic::async_trait]
pub trait Credentials: Send + Sync + Debug {
    /// The login for a registry, by host and port as buildkitd asks for it: Docker Hub is
    /// `registry-1.docker.io`. `None` where the user has none.
    ///
    /// # Errors
    /// Where the user cannot be asked.
    async fn of(&self, host: &str) -> Result<Option<Login>, CredentialsError>;
}

/// Nobody's logins: what is read, anyone may read.
#[derive(Debug, Clone, Copy)]
pub struct Anonymous;

/// Why a user's logins cannot be had.
#[derive(Debug, Error)]
#[error("asking for the login of {host}: {reason}")]
pub struct CredentialsError {
    /// The registry.
    pub host: String,
    /// What went wrong.
    pub reason: String,
}

/// Why an image cannot be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// It is not there, or a part of it is not.
    #[error("{0} does not exist")]
    Missing(String),
    /// Whoever has it does not give it to this user.
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
    /// The operator allows no images of that kind.
    #[error("{what} is not allowed: {reason}")]
    Closed {
        /// What was asked for.
        what: String,
        /// What the operator would have to say.
        reason: &'static str,
    },
    /// It is larger than what is read.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// What is read at most.
        limit: u64,
    },
    /// It is not what its digest says.
    #[error("{what} has digest {found}, not {expected}")]
    Digest {
        /// What was read.
        what: String,
        /// The digest by which it was asked for.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// It is not of the form that it should have.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// What.
        what: String,
        /// In which way.
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
    /// Whoever has it does not answer as it should.
    #[error("{what}: {reason}")]
    Unavailable {
        /// What was asked for, and of whom.
        what: String,
        /// What happened.
        reason: String,
    },
    /// The user's login cannot be had.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
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

/// That a range lies within what a descriptor describes.
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

/// That what was found of a blob is its descriptor's size, if it is known.
fn has_size(descriptor: &Descriptor, found: Option<u64>) -> Result<(), SourceError> {
    match found {
        Some(size) if size != descriptor.size() => Err(SourceError::Malformed {
            what: descriptor.digest().to_string(),
            reason: format!("it has {size} bytes, not {}", descriptor.size()),
        }),
        _ => Ok(()),
    }
}

/// That data has this digest. Only SHA-256 is known here: BuildKit makes no other.
fn verify(digest: &Digest, data: &[u8]) -> Result<(), SourceError> {
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

fn sha256(data: &[u8]) -> Result<Digest, SourceError> {
    hashed(Sha256::new_with_prefix(data))
}

/// The digest of what was put into a hasher.
fn hashed(hasher: Sha256) -> Result<Digest, SourceError> {
    let digest = record::Digest::from_sha256(hasher.finalize().into()).to_string();
    digest.parse().map_err(|err| SourceError::Malformed {
        what: digest,
        reason: format!("{err}"),
    })
}

/// A stream that gives `length` bytes, or an error.
fn exactly(length: u64, what: String, stream: ByteStream) -> ByteStream {
    let wrong = move |reason: &str| SourceError::Unavailable {
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

// === impl Login ===

impl Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets have no place in logs.
        f.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
        })
    }
}

// === impl Anonymous ===

#[tonic::async_trait]
impl Credentials for Anonymous {
    async fn of(&self, _: &str) -> Result<Option<Login>, CredentialsError> {
        Ok(None)
    }
}
