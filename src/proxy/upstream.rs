//! Hands calls on to the daemon: one HTTP/2 connection to it for one client connection.

use std::sync::Arc;

use http::{Request, Response};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::daemon::address::DaemonAddress;
use crate::daemon::{ConnectError, connect};
use crate::transport::http2::{self, Body};

/// Why a call got no answer from the daemon.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// The daemon cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection or the call broke off.
    #[error("the daemon broke off: {0}")]
    Broken(#[from] hyper::Error),
}

/// The daemon's side of one client connection; connected with the first call.
#[derive(Debug)]
pub struct Upstream {
    address: Arc<DaemonAddress>,
    requests: Mutex<Option<SendRequest<Body>>>,
    lost: CancellationToken,
}

// === impl Upstream ===

impl Upstream {
    /// The daemon at an address.
    pub fn new(address: Arc<DaemonAddress>) -> Self {
        Self {
            address,
            requests: Mutex::new(None),
            lost: CancellationToken::new(),
        }
    }

    /// Ends when a connection to the daemon that was made is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Hands a call on and returns the daemon's answer, whose body is still on its way.
    ///
    /// # Errors
    /// Where the daemon cannot be reached or gives no answer.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let mut requests = self.requests().await?;
        Ok(http2::send(&mut requests, request).await?)
    }

    async fn requests(&self) -> Result<SendRequest<Body>, ConnectError> {
        let mut slot = self.requests.lock().await;
        if let Some(requests) = &*slot {
            return Ok(requests.clone());
        }
        let stream = connect(&self.address).await?;
        let (requests, connection) = http2::client()
            .handshake(TokioIo::new(http2::connected(stream)))
            .await
            .map_err(|source| ConnectError::Http {
                address: (*self.address).clone(),
                source,
            })?;
        let lost = self.lost.clone();
        tokio::spawn(async move {
            // The client sees the end of its own connection; how this one ended adds nothing to
            // that.
            let _ = connection.await;
            lost.cancel();
        });
        Ok(slot.insert(requests).clone())
    }
}
