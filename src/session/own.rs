//! inlay's own session, to which the daemon exports a cache.

use std::convert::Infallible;

use http::{Request, header};
use thiserror::Error;
use tokio::io::join;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;
use tracing::debug;

use super::byte_stream::{Reader, messages};
use super::client::{ID_HEADER, METHOD_HEADER, PATH};
use super::content::{Blobs, Content, READ_METHODS, WRITE_METHODS};
use crate::daemon::{Daemon, new_id};
use crate::protocol::proto::content::content_server::ContentServer;
use crate::transport::http2::{self, to_body};

/// The method of the daemon's health check. The daemon ends a session that does not answer it.
const HEALTH_METHOD: &str = "/grpc.health.v1.Health/Check";

/// Why a session cannot be opened.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The daemon refuses it, or cannot be reached.
    #[error("opening a session: {}", .0.message())]
    Refused(#[from] Status),
    /// The call cannot be written.
    #[error("opening a session: {0}")]
    Call(#[from] http::Error),
}

/// A session that the daemon can call. It ends when this is dropped.
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
        let (to_daemon, body) = messages();
        let mut call = Request::post(format!("http://localhost{PATH}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(ID_HEADER, &id)
            .header("x-docker-expose-session-name", "inlay")
            .header("x-docker-expose-session-sharedkey", "");
        for method in [HEALTH_METHOD]
            .iter()
            .chain(&READ_METHODS)
            .chain(&WRITE_METHODS)
        {
            call = call.header(METHOD_HEADER, *method);
        }
        let call = call.body(to_body(body))?;
        // The daemon answers at once: it is the client of the connection within, and speaks first.
        let answer = daemon.connection().call(call).await;
        let answer = answer.map_err(|err| Status::from_error(err.into()))?;
        let (head, from_daemon) = answer.into_parts();
        match Status::from_header_map(&head.headers) {
            Some(refused) if refused.code() != Code::Ok => return Err(refused.into()),
            _ => {}
        }
        let from_daemon = Reader::new(to_body(from_daemon));

        let (_, health) = tonic_health::server::health_reporter();
        let content = ContentServer::new(Content::of_blobs(blobs.clone()));
        let services = Routes::new(health).add_service(content);
        let stream = join(from_daemon, to_daemon.clone());
        let served = http2::serve(stream, CancellationToken::new(), move |call| {
            let mut services = services.clone();
            async move { Ok::<_, Infallible>(services.call(call).await?.map(to_body)) }
        });
        let closed = CancellationToken::new();
        let closes_when_dropped = closed.clone().drop_guard();
        tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                ended = served => debug!("the daemon ended a session: {ended:?}"),
            }
            to_daemon.finish(Ok(None));
        });
        Ok(Self {
            id,
            blobs,
            _closes_when_dropped: closes_when_dropped,
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
