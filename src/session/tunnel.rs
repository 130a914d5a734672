//! The session's byte stream: `Control.Session` carries it as messages, one HTTP/2 connection
//! within another, with the daemon as its client.

use futures_util::stream;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::client::{ID_HEADER, METHOD_HEADER};
use super::messages::{self, MAX_MESSAGE};
use crate::daemon::Daemon;
use crate::protocol::proto::control::BytesMessage;

/// How much of the stream is held between the two connections (bytes).
const BUFFER: usize = 2 * MAX_MESSAGE;
/// What the session offers, as the daemon wants it told beforehand.
const METHODS: [&str; 6] = [
    "/grpc.health.v1.Health/Check",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Status",
    "/containerd.services.content.v1.Content/Write",
    "/containerd.services.content.v1.Content/Abort",
];

/// Opens a tunnel and returns its near end. It is open until `closed`, or until either end closes
/// it.
///
/// # Errors
/// Where the daemon refuses the session.
pub async fn open(
    daemon: &Daemon,
    id: &str,
    closed: &CancellationToken,
) -> Result<DuplexStream, Status> {
    let (near, far) = duplex(BUFFER);
    let (from_near, to_near) = tokio::io::split(far);
    let (messages, outgoing) = mpsc::channel::<BytesMessage>(4);
    let outgoing = stream::unfold(outgoing, |mut outgoing| async move {
        let message = outgoing.recv().await?;
        Some((message, outgoing))
    });
    let mut request = Request::new(outgoing);
    let metadata = request.metadata_mut();
    let id = MetadataValue::try_from(id).map_err(|_| Status::invalid_argument("session id"))?;
    metadata.insert(ID_HEADER, id);
    metadata.insert(
        "x-docker-expose-session-name",
        MetadataValue::from_static("inlay"),
    );
    metadata.insert(
        "x-docker-expose-session-sharedkey",
        MetadataValue::from_static(""),
    );
    for method in METHODS {
        metadata.append(METHOD_HEADER, MetadataValue::from_static(method));
    }
    let send = messages::send(from_near, messages);
    // It answers at once: as the client of the connection within, it has the first word.
    let incoming = daemon.control().session(request).await?.into_inner();
    let receive = messages::receive(incoming, to_near);
    let closed = closed.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = closed.cancelled() => {}
            () = send => {}
            () = receive => {}
        }
    });
    Ok(near)
}
