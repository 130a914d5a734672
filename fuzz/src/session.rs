//! A byte stream as messages, and back. The first four bytes say how it is cut on its way, the
//! others are what it carries.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use inlay::proto::control::BytesMessage;
use inlay::session::messages::{MAX_MESSAGE, receive, send};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;

/// Holds the target's properties against one input.
pub fn check(input: &[u8]) {
    let Some((&[cut, write, buffer, repeat], data)) = input.split_first_chunk() else {
        return;
    };
    // Some are longer than a message, and none by much.
    let times = usize::from(repeat).min(MAX_MESSAGE * 5 / 4 / data.len().max(1));
    let data = data.repeat(times + 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime
        .expect("no driver, nothing to fail")
        .block_on(async {
            let messages = sent(&data, write, buffer).await;
            assert!(
                messages
                    .iter()
                    .all(|m| (1..=MAX_MESSAGE).contains(&m.data.len()))
            );
            assert_eq!(concat(&messages), data);

            // Whoever is at the other end may cut it elsewhere, and end it with an error.
            let messages = [vec![BytesMessage::default()], messages, chunks(&data, cut)].concat();
            let lost = usize::from(cut) % (messages.len() + 1);
            let whole = messages.iter().cloned().map(Ok);
            assert_eq!(received(whole, buffer, None).await, data.repeat(2));
            let cut_short = messages.iter().enumerate().map(|(n, message)| match n {
                n if n == lost => Err(()),
                _ => Ok(message.clone()),
            });
            assert_eq!(
                received(cut_short, buffer, None).await,
                concat(&messages[..lost])
            );

            // A reader that has enough ends it, and waits for nobody.
            let endless = messages.iter().cycle().cloned().map(Ok);
            if !data.is_empty() {
                let enough = data.len() / 2;
                assert_eq!(
                    received(endless, buffer, Some(enough)).await,
                    data[..enough]
                );
            }
        });
}

/// The messages of a byte stream that is written in pieces.
async fn sent(data: &[u8], write: u8, buffer: u8) -> Vec<BytesMessage> {
    let (mut near, far) = duplex(usize::from(buffer) * 64 + 7);
    let (messages, mut taken) = mpsc::channel(1);
    let write = async move {
        for piece in chunks(data, write) {
            near.write_all(&piece.data).await.expect("it is read");
        }
        drop(near);
    };
    let take = async {
        let mut all = Vec::new();
        while let Some(message) = taken.recv().await {
            all.push(message);
        }
        all
    };
    let ((), (), messages) = tokio::join!(write, send(far, messages), take);
    messages
}

/// What comes out of messages, or the first bytes of it.
async fn received(
    messages: impl Iterator<Item = Result<BytesMessage, ()>>,
    buffer: u8,
    enough: Option<usize>,
) -> Vec<u8> {
    let (near, far) = duplex(usize::from(buffer) * 64 + 7);
    // Whoever sends messages takes its time.
    let messages = stream::iter(messages).then(async |message| {
        tokio::task::yield_now().await;
        message
    });
    let (data, ()) = tokio::join!(read(near, enough), receive(messages, far));
    data
}

async fn read(mut stream: DuplexStream, enough: Option<usize>) -> Vec<u8> {
    let mut data = vec![0; enough.unwrap_or_default()];
    match enough {
        Some(_) => drop(stream.read_exact(&mut data).await.expect("there is more")),
        None => drop(stream.read_to_end(&mut data).await.expect("it ends")),
    }
    data
}

/// Pieces of different lengths, beginning with this one.
fn chunks(mut data: &[u8], first: u8) -> Vec<BytesMessage> {
    let mut chunks = Vec::new();
    let mut length = usize::from(first);
    while !data.is_empty() {
        let (chunk, rest) = data.split_at(length.min(data.len()));
        let data_of = Bytes::copy_from_slice(chunk);
        chunks.push(BytesMessage { data: data_of });
        length = length * 3 % 257 + 1;
        data = rest;
    }
    chunks
}

fn concat(messages: &[BytesMessage]) -> Vec<u8> {
    let data: Vec<_> = messages.iter().map(|message| &message.data[..]).collect();
    data.concat()
}
