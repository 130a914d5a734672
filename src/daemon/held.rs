//! Unary calls of inlay's own that are opened before their message is known.
//!
//! A daemon that drains (`GOAWAY`) lets calls in flight end and takes no new ones. So the calls for the
//! end of a build are opened early, while the client's own call shows that the daemon still takes calls.

use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};
use tonic_prost::ProstCodec;

use super::connection::{Connection, origin};
use crate::protocol::MAX_MESSAGE;

/// An open call that waits for its message. It is canceled when it is dropped.
#[derive(Debug)]
pub struct HeldCall<M, R> {
    message: oneshot::Sender<M>,
    answer: AbortOnDropHandle<Result<R, Status>>,
}

// === impl HeldCall ===

impl<M, R> HeldCall<M, R>
where
    M: Message + 'static,
    R: Message + Default + 'static,
{
    /// Opens a call to the method at a path, with these headers.
    pub(super) fn open(connection: Connection, path: &'static str, headers: MetadataMap) -> Self {
        let (message, later) = oneshot::channel();
        // On the wire a unary call is one of a stream with one message.
        let messages = stream::once(later).filter_map(async |message| message.ok());
        let answer = tokio::spawn(async move {
            let mut client = Grpc::with_origin(connection, origin());
            client = client.max_decoding_message_size(MAX_MESSAGE);
            let codec = ProstCodec::<M, R>::default();
            let path = PathAndQuery::from_static(path);
            let request = Request::from_parts(headers, Extensions::default(), messages);
            let answer = client.client_streaming(request, path, codec).await?;
            Ok(answer.into_inner())
        });
        Self {
            message,
            answer: AbortOnDropHandle::new(answer),
        }
    }

    /// Sends the message and waits for the answer.
    ///
    /// # Errors
    /// Where the call fails.
    pub async fn send(self, message: M) -> Result<R, Status> {
        // If the call is over, its answer says why.
        let _ = self.message.send(message);
        match self.answer.await {
            Ok(answer) => answer,
            Err(err) => Err(Status::internal(format!("inlay: a call broke off: {err}"))),
        }
    }
}
