//! Calls, as a server answers them.

use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use h2::Reason;
use h2::server::{Builder, SendResponse};
use http::{Request, Response};
use hyper::body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::body::{Body, reason, to_body};
use super::incoming::Incoming;
use super::pipe::{self, GivenUp};
use super::{CONNECTION_WINDOW, MAX_FRAME, MAX_HEADER_LIST, STREAM_WINDOW};

/// The most calls that a client may reset before they are accepted here. A build that is canceled resets
/// all of its calls at once.
const MAX_EARLY_RESETS: usize = 1024;

/// Speaks HTTP/2 to a client, and has `call` answer its calls, each in a task of its own. A call that
/// the client resets is dropped. Ends when the client has left; from `leave` on it takes no new calls
/// and ends with the last one.
///
/// # Errors
/// Where the client breaks off, or speaks no HTTP/2.
pub async fn serve<S, C, F, E>(
    socket: S,
    leave: CancellationToken,
    call: C,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Fn(Request<Body>) -> F,
    F: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    E: Error + Send + 'static,
{
    let mut connection = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_frame_size(MAX_FRAME)
        .max_pending_accept_reset_streams(MAX_EARLY_RESETS)
        .handshake(socket)
        .await?;
    let mut leaving = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = leave.cancelled(), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
            accepted = connection.accept() => accepted,
        };
        let Some(accepted) = accepted else {
            return Ok(());
        };
        let (mut request, respond) = accepted?;
        let given_up = GivenUp::default();
        request.extensions_mut().insert(given_up.clone());
        let request = request.map(|received| to_body(Incoming::of_request(received)));
        tokio::spawn(answer(call(request), respond, given_up));
    }
}

/// Sends the answer to a call, until it ends or the client gives it up.
async fn answer<E>(
    call: impl Future<Output = Result<Response<Body>, E>>,
    mut respond: SendResponse<Bytes>,
    given_up: GivenUp,
) where
    E: Error + 'static,
{
    let mut call = pin!(call);
    let reset = poll_fn(|context| respond.poll_reset(context));
    let answered = match select(call.as_mut(), pin!(reset)).await {
        Either::Left((answered, _)) => answered,
        Either::Right((reset, _)) => {
            if let Ok(reason) = reset {
                given_up.with(reason);
            }
            return;
        }
    };
    let (head, mut body) = match answered {
        Ok(response) => response.into_parts(),
        Err(err) => {
            debug!("a call is reset: {err}");
            respond.send_reset(reason(&err));
            return;
        }
    };
    let ends = body.is_end_stream();
    match respond.send_response(Response::from_parts(head, ()), ends) {
        Ok(_) if ends => {}
        Ok(mut stream) => {
            if let Some(reason) = pipe::send(&mut stream, &mut body).await {
                given_up.with(reason);
            }
        }
        Err(err) => {
            debug!("an answer cannot be sent: {err}");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
