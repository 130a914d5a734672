//! Sessions, by which the daemon calls those that it builds for: inlay's own, and those of clients,
//! which are ended here and carried on; and what the daemon finds there.
//!
//! It knows how a session is held, and nothing of the builds that use it.

mod auth;
mod byte_stream;
mod client;
mod content;
pub mod framing;
pub mod messages;
mod tunnel;

use std::io;

use futures_util::stream;
use thiserror::Error;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::Server;
use tracing::debug;

pub use auth::{CredentialsError, Login, credentials};
pub use client::{Calls, ClientSession, Offer, Opening, Sessions, is_compressed};
pub use content::{Blobs, Chunks, ReadError, Store, StoreError};

use crate::daemon::{Daemon, new_id};
use crate::protocol::proto::content::content_server::ContentServer;

/// Why a session cannot be held.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The daemon refuses it.
    #[error("opening a session: {}", .0.message())]
    Refused(#[from] Status),
}

/// A session that the daemon can call, as long as it is not dropped.
#[derive(Debug)]
pub struct Session {
    id: String,
    blobs: Blobs,
    _closes_when_dropped: DropGuard,
}

// === impl Session ===

impl Session {
    /// Opens a session that offers `blobs` as content stores.
    ///
    /// # Errors
    /// Where the daemon refuses it.
    pub async fn open(daemon: &Daemon, blobs: Blobs) -> Result<Self, SessionError> {
        let id = new_id();
        let closed = CancellationToken::new();
        let stream = tunnel::open(daemon, &id, &closed).await?;
        let content = ContentServer::new(content::Content::of_blobs(blobs.clone()));
        let (_, health) = tonic_health::server::health_reporter();
        let served = Server::builder()
            .add_service(health)
            .add_service(content)
            .serve_with_incoming(stream::iter([Ok::<_, io::Error>(stream)]));
        tokio::spawn(async move {
            if let Err(err) = served.await {
                debug!("session ended: {err}");
            }
        });
        Ok(Self {
            id,
            blobs,
            _closes_when_dropped: closed.drop_guard(),
        })
    }

    /// The id by which a solve names it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the daemon wrote, and may read.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }
}
