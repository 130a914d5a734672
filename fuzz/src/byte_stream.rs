//! The byte stream of a session: bytes become messages, and messages become bytes again. The first
//! four bytes say how the stream is cut and where it breaks off; the others are what it carries.

use bytes::{Buf, Bytes};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use inlay::protocol::proto::control::BytesMessage;
use inlay::session::byte_stream::{End, MAX_DATA, MAX_FRAME, MAX_HELD, Messages, Reader, messages};
use inlay::transport::http2::BodyError;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Status;

/// Holds the target's properties against one input.
pub fn check(input: &[u8]) {
    let Some((&[cut, write, lost, repeat], data)) = input.split_first_chunk() else {
        return;
    };
    let (cut, write) = (usize::from(cut) * 32 + 1, usize::from(write) * 64 + 1);
    // Some are longer than what is held, and none by much.
    let times = usize::from(repeat).min(MAX_HELD * MAX_DATA * 5 / 4 / data.len().max(1));
    let data = data.repeat(times + 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime
        .expect("no driver, nothing to fail")
        .block_on(async {
            let stream = written(&data, write).await;

            // The other end cuts its frames elsewhere.
            let pieces = stream.chunks(cut).map(Bytes::copy_from_slice);
            let pieces: Vec<_> = pieces.map(Frame::data).collect();
            let count = pieces.len();
            let (read, end) = self::read(pieces.into_iter().map(Ok)).await;
            assert_eq!(read, data);
            assert!(matches!(end, Some(End::Clean(None))), "{end:?}");

            // Its call breaks off.
            let kept = usize::from(lost) % (count + 1);
            let pieces = stream.chunks(cut).map(Bytes::copy_from_slice);
            let pieces = pieces.take(kept).map(|piece| Ok(Frame::data(piece)));
            let broken = [Err(Status::aborted("broken").into())];
            let (read, end) = self::read(pieces.chain(broken)).await;
            assert!(data.starts_with(&read));
            assert!(matches!(end, Some(End::Broken(_))), "{end:?}");

            // Nobody takes the messages.
            let (mut writer, _messages) = messages();
            let is_held = writer.write_all(&data).now_or_never().is_some();
            assert_eq!(is_held, data.len() <= MAX_HELD * MAX_DATA);
        });
}

/// The frames of bytes that are written in pieces, one after another.
async fn written(data: &[u8], piece: usize) -> Vec<u8> {
    let (mut writer, messages) = messages();
    let write = async {
        for piece in data.chunks(piece) {
            let (first, second) = piece.split_at(piece.len() / 2);
            let mut both = Buf::chain(first, second);
            writer.write_all_buf(&mut both).await.expect("it is taken");
        }
        writer.finish(Ok(None));
    };
    let ((), stream) = tokio::join!(write, taken(messages, data));
    stream
}

/// What a body of messages has. Each is a frame, and they carry the data.
async fn taken(mut messages: Messages, data: &[u8]) -> Vec<u8> {
    let (mut stream, mut carried) = (Vec::new(), Vec::new());
    while let Some(frame) = messages.frame().await {
        let frame = frame.expect("it ends in order").into_data();
        let mut frame = frame.expect("it has no trailers");
        assert!(frame.len() <= MAX_FRAME);
        stream.extend_from_slice(&frame);
        let (flag, length) = (Buf::get_u8(&mut frame), Buf::get_u32(&mut frame));
        assert_eq!((flag, length as usize), (0, frame.len()));
        let message = BytesMessage::decode(frame).expect("a message");
        assert!(!message.data.is_empty());
        carried.extend_from_slice(&message.data);
    }
    assert_eq!(carried, data);
    stream
}

/// What comes out of frames, and how it ends.
async fn read<I>(frames: I) -> (Vec<u8>, Option<End>)
where
    I: Iterator<Item = Result<Frame<Bytes>, BodyError>>,
{
    // They are not all there at once.
    let frames: Vec<_> = frames.collect();
    let frames = stream::iter(frames).then(|frame| async {
        tokio::task::yield_now().await;
        frame
    });
    let mut reader = Reader::new(StreamBody::new(frames).boxed_unsync());
    let mut data = Vec::new();
    let read = reader.read_to_end(&mut data).await;
    read.expect("how it ended is asked apart");
    (data, reader.take_end())
}
