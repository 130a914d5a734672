//! Calls, as a client makes them.

use std::future::pending;

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, SendRequest};
use http::{Request, Response};
use hyper::body::Body as _;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::body::{Body, to_body};
use super::incoming::{Incoming, is_of_connection};
use super::pipe::{GivenUp, Sending};
use super::{CONNECTION_WINDOW, MAX_FRAME, MAX_HEADER_LIST, STREAM_WINDOW};

/// The most of one call that waits to be sent (bytes).
const MAX_SEND_BUFFER: usize = 1 << 20;

/// Why a call got no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// The server takes no more calls on this connection: it said so (`GOAWAY`), or the connection broke
    /// before this one was sent. It can be called again on another connection.
    #[error("the server takes no more calls on this connection")]
    Refused(#[source] h2::Error),
    /// The connection broke, and with it all its calls.
    #[error("the connection broke: {0}")]
    Lost(#[source] h2::Error),
    /// The call was reset.
    #[error("{0}")]
    Reset(#[source] h2::Error),
}

/// Makes calls on one connection. The connection ends when all clones of this are dropped and all calls
/// have ended.
#[derive(Debug, Clone)]
pub struct Requests(SendRequest<Bytes>);

/// The connection of [`Requests`], which the caller polls at the same time. It ends with an error unless it
/// ends in order.
pub type Connection<S> = h2::client::Connection<S, Bytes>;

/// Begins HTTP/2 with a server.
///
/// # Errors
/// Where the socket cannot be written to.
pub async fn connect<S>(socket: S) -> Result<(Requests, Connection<S>), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (requests, connection) = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_frame_size(MAX_FRAME)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .enable_push(false)
        .handshake(socket)
        .await?;
    Ok((Requests(requests), connection))
}

// === impl Requests ===

impl Requests {
    /// Makes a call and returns its answer, whose body is still on its way. If the answer is dropped
    /// before its end, the call is canceled.
    ///
    /// # Errors
    /// Where the call gets no answer.
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Incoming>, CallError> {
        let (mut head, body) = request.into_parts();
        let given_up = head.extensions.remove::<GivenUp>().unwrap_or_default();
        let body = (!body.is_end_stream()).then_some(body);
        // A reset with this reason lets the client call again (RFC 9113, 8.7).
        let refused = |_| CallError::Refused(Reason::REFUSED_STREAM.into());
        let mut requests = self.0.clone().ready().await.map_err(refused)?;
        let sent = requests.send_request(Request::from_parts(head, ()), body.is_none());
        let (answer, stream) = sent.map_err(|err| match err.is_io() || err.is_go_away() {
            true => refused(err),
            false => CallError::Reset(err),
        })?;
        let sending = Sending::start(stream, body, given_up);
        match answer.await {
            Ok(answer) => Ok(answer.map(|received| Incoming::of_answer(received, sending))),
            Err(err) => {
                sending.finish();
                Err(if is_of_connection(&err) {
                    CallError::Lost(err)
                } else if err.is_go_away() {
                    // The server had ended the connection in order before it saw the call.
                    refused(err)
                } else {
                    CallError::Reset(err)
                })
            }
        }
    }

    /// Forwards a call and returns its answer, whose body is still on its way. If the connection breaks,
    /// this or the body never ends, and `broken` is cancelled.
    ///
    /// # Errors
    /// Where the call gets no answer.
    pub async fn forward(
        &self,
        request: Request<Body>,
        broken: &CancellationToken,
    ) -> Result<Response<Body>, CallError> {
        match self.call(request).await {
            Ok(answer) => Ok(answer.map(|body| to_body(body.endless(broken.clone())))),
            Err(CallError::Lost(_)) => {
                broken.cancel();
                pending().await
            }
            Err(err) => Err(err),
        }
    }
}
