//! A byte stream as messages: how `Control.Session` carries a connection within another.
//!
//! It must not know what the bytes are, nor who is at either end.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::Sender;

use crate::protocol::proto::control::BytesMessage;

/// The most that one message carries, in bytes.
pub const MAX_MESSAGE: usize = 32 << 10;

/// Sends a byte stream as messages, none of them empty, until it ends or nobody takes them.
pub async fn send(stream: impl AsyncRead, messages: Sender<BytesMessage>) {
    let mut stream = pin!(stream);
    let mut buffer = vec![0; MAX_MESSAGE];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let data = Bytes::copy_from_slice(&buffer[..read]);
        if messages.send(BytesMessage { data }).await.is_err() {
            break;
        }
    }
}

/// Writes what messages carry to a byte stream, until one is an error or nobody reads.
pub async fn receive<E>(
    messages: impl Stream<Item = Result<BytesMessage, E>>,
    stream: impl AsyncWrite,
) {
    let (mut messages, mut stream) = (pin!(messages), pin!(stream));
    while let Some(Ok(message)) = messages.next().await {
        if stream.write_all(&message.data).await.is_err() {
            break;
        }
    }
}
