//! The byte stream within a session's call: a [`Reader`] of the messages in one body, and a
//! [`Writer`] of the messages in another.
//!
//! What is written up to a flush is sent in as few messages as it needs. Memory is bounded: a writer
//! waits while [`MAX_HELD`] messages are held, and a reader takes the next frame of its body when the last
//! one is read.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::framing::{self, Decoder, FramingError, HEAD};
use crate::transport::http2::{Body, BodyError};

/// The largest HTTP/2 frame that gRPC's Go implementation takes (bytes). Go reads a message of one frame
/// in place. It copies a message of several frames to a buffer that it clears first. That buffer has
/// 1 MiB for messages from 32 KiB on.
pub const MAX_FRAME: usize = 16 << 10;
/// The most data in a message that is written (bytes): with its head it fills a frame.
pub const MAX_DATA: usize = MAX_FRAME - HEAD;
/// The most messages that are held between a writer and the body that takes them.
pub const MAX_HELD: usize = 4;

/// How a stream ended.
#[derive(Debug)]
pub enum End {
    /// In order, with the trailers that came last.
    Clean(Option<HeaderMap>),
    /// The call that carries it broke off.
    Broken(BodyError),
    /// Its bytes are no messages.
    Framing(FramingError),
}

/// The reading end. Clones read the same stream, one at a time.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    body: Body,
    decoder: Decoder,
    /// Bytes of the body that are not decoded yet.
    input: Bytes,
    /// Data that is not read yet.
    data: Bytes,
    ended: bool,
    /// How it ended, until [`Reader::take_end`] takes it.
    end: Option<End>,
}

/// The writing end. Clones write to the same stream.
#[derive(Debug, Clone)]
pub struct Writer {
    held: Arc<Mutex<Held>>,
    dropped: CancellationToken,
}

/// The body of the messages of a [`Writer`].
#[derive(Debug)]
pub struct Messages {
    held: Arc<Mutex<Held>>,
    _dropped: DropGuard,
}

#[derive(Debug, Default)]
struct Held {
    /// Each is room for the message's head, and its data. More data may be added to the last one.
    messages: VecDeque<BytesMut>,
    /// Whether they may be taken: all that belongs together is written, or no more may be held.
    complete: bool,
    /// How the stream ends after them.
    end: Option<Result<Option<HeaderMap>, BodyError>>,
    /// Wakes the task that waits for a message.
    taker: Option<Waker>,
    /// Wakes the task that waits for room.
    writer: Option<Waker>,
}

/// A writing end, and the body of its messages.
pub fn messages() -> (Writer, Messages) {
    let held = Arc::default();
    let dropped = CancellationToken::new();
    let messages = Messages {
        held: Arc::clone(&held),
        _dropped: dropped.clone().drop_guard(),
    };
    (Writer { held, dropped }, messages)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held. If something did, one session would be lost.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Reader ===

impl Reader {
    /// Reads the messages of a body.
    pub fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Source {
            body,
            decoder: Decoder::default(),
            input: Bytes::new(),
            data: Bytes::new(),
            ended: false,
            end: None,
        })))
    }

    /// How the stream ended; `None` before its end, and when this was called before.
    pub fn take_end(&self) -> Option<End> {
        lock(&self.0).end.take()
    }

    /// Reads to the end of the stream, and returns how it ended.
    pub async fn drain(self) -> End {
        poll_fn(|context| {
            let mut source = lock(&self.0);
            while ready!(source.poll_data(context)) {
                source.data = Bytes::new();
            }
            Poll::Ready(source.end.take().unwrap_or(End::Clean(None)))
        })
        .await
    }
}

impl Source {
    /// Waits for data; `false` at the end.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        while self.data.is_empty() && !self.ended {
            match self.decoder.next(&mut self.input) {
                Ok(Some(data)) => self.data = data,
                Ok(None) => {
                    let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
                    self.frame(frame);
                }
                Err(err) => self.end(End::Framing(err)),
            }
        }
        Poll::Ready(!self.data.is_empty())
    }

    fn frame(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>) {
        let trailers = match frame {
            Some(Err(err)) => return self.end(End::Broken(err)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.input = data;
                    return;
                }
                Err(frame) => frame.into_trailers().ok(),
            },
            None => None,
        };
        let end = match self.decoder.finish() {
            // The status in trailers says more.
            Err(err) if trailers.is_none() => End::Framing(err),
            _ => End::Clean(trailers),
        };
        self.end(end);
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        self.end = Some(end);
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut source = lock(&self.0);
        // Fills the buffer with all that has come.
        let before = buffer.filled().len();
        while buffer.remaining() > 0 {
            match source.poll_data(context) {
                Poll::Ready(true) => {
                    let length = source.data.len().min(buffer.remaining());
                    buffer.put_slice(&source.data[..length]);
                    source.data.advance(length);
                }
                Poll::Ready(false) => break,
                Poll::Pending if buffer.filled().len() > before => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

// === impl Writer ===

impl Writer {
    /// Ends the stream after what was written, with trailers or with an error. Only the first call
    /// counts.
    pub fn finish(&self, end: Result<Option<HeaderMap>, BodyError>) {
        let mut held = lock(&self.held);
        held.end.get_or_insert(end);
        held.complete();
        wake(&mut held.writer);
    }

    /// Ends the stream at once, with trailers or with an error: what was written and is not taken yet
    /// finds no reader any more.
    pub fn finish_now(&self, end: Result<Option<HeaderMap>, BodyError>) {
        lock(&self.held).messages.clear();
        self.finish(end);
    }

    /// Waits until the body is dropped.
    pub async fn closed(&self) {
        self.dropped.cancelled().await;
    }

    fn poll_append(
        &self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut held = lock(&self.held);
        if held.end.is_some() || self.dropped.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut written = 0;
        for part in parts {
            let mut part = &part[..];
            while !part.is_empty()
                && let Some(message) = held.with_room()
            {
                let length = part.len().min(MAX_FRAME - message.len());
                message.extend_from_slice(&part[..length]);
                part = &part[length..];
                written += length;
            }
        }
        if written == 0 && parts.iter().any(|part| !part.is_empty()) {
            held.writer = Some(context.waker().clone());
            held.complete();
            return Poll::Pending;
        }
        Poll::Ready(Ok(written))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_append(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_append(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.held).complete();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `finish` ends the stream, and says how.
        Poll::Ready(Ok(()))
    }
}

// === impl Held ===

impl Held {
    /// Wakes the task that takes the messages.
    fn complete(&mut self) {
        self.complete = true;
        wake(&mut self.taker);
    }

    /// A message with room for more data; `None` where no more may be held.
    fn with_room(&mut self) -> Option<&mut BytesMut> {
        let is_full = |message: &BytesMut| message.len() == MAX_FRAME;
        if self.messages.back().is_none_or(is_full) {
            if self.messages.len() == MAX_HELD {
                return None;
            }
            let mut message = BytesMut::with_capacity(MAX_FRAME);
            message.resize(HEAD, 0);
            self.messages.push_back(message);
        }
        self.messages.back_mut()
    }
}

// === impl Messages ===

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut held = lock(&self.held);
        if !held.complete {
            held.taker = Some(context.waker().clone());
            return Poll::Pending;
        }
        if let Some(mut message) = held.messages.pop_front() {
            let head = framing::head(message.len() - HEAD);
            message[..HEAD].copy_from_slice(&head);
            wake(&mut held.writer);
            return Poll::Ready(Some(Ok(Frame::data(message.freeze()))));
        }
        match &mut held.end {
            None => {
                held.complete = false;
                held.taker = Some(context.waker().clone());
                Poll::Pending
            }
            // Trailers and errors come once.
            Some(end) => match std::mem::replace(end, Ok(None)) {
                Ok(trailers) => Poll::Ready(trailers.map(|map| Ok(Frame::trailers(map)))),
                Err(err) => Poll::Ready(Some(Err(err))),
            },
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
