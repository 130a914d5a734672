//! Writes that are held until there is a batch of them, or nothing more comes.
//!
//! HTTP/2 writes and flushes each frame by itself, and gRPC's Go implementation has frames of at most
//! 16 KiB. Each write to a socket wakes the reader. So a large context would cost more in switches between
//! processes than in copying.
//!
//! There is no timer. A flush is put off to the next poll of its task, which it asks for at once. It is
//! put off again as long as each poll brings more to write, up to `BATCH` bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The size of a batch (bytes). It fits a processor's own cache, together with what is read ahead.
const BATCH: usize = 64 << 10;

/// A connection whose writes are batched. The task that flushes it must read from it and flush it again
/// when it is woken, as the task of an HTTP/2 connection does.
#[derive(Debug)]
pub struct Batched<S> {
    inner: S,
    batch: Vec<u8>,
    /// How much of the batch is written.
    written: usize,
    /// How often it was read from. Each poll of its task reads once or more.
    reads: u64,
    held: Option<Held>,
}

/// A flush that was put off.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// When it was put off, in reads.
    at: u64,
    /// The batch's length then.
    len: usize,
}

// === impl Batched ===

impl<S> Batched<S> {
    /// A connection with nothing written yet.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            batch: Vec::new(),
            written: 0,
            reads: 0,
            held: None,
        }
    }

    /// Whether a flush is to wait for what the next poll brings.
    fn holds(&mut self, context: &Context<'_>) -> bool {
        let now = Held {
            at: self.reads,
            len: self.batch.len(),
        };
        if now.len >= BATCH || self.written > 0 {
            return false;
        }
        match self.held {
            Some(held) if held.at == now.at => {}
            Some(held) if held.len == now.len => return false,
            _ => context.waker().wake_by_ref(),
        }
        self.held = Some(now);
        true
    }
}

impl<S: AsyncWrite + Unpin> Batched<S> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.batch.len() {
            let rest = &self.batch[self.written..];
            match ready!(Pin::new(&mut self.inner).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.batch.clear();
        self.written = 0;
        self.held = None;
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.batch.len() >= BATCH || self.written > 0 {
            return self.poll_drain(context);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Batched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads += 1;
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Batched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(context))?;
        self.batch.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(context))?;
        let before = self.batch.len();
        for data in data {
            self.batch.extend_from_slice(data);
        }
        Poll::Ready(Ok(self.batch.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.batch.is_empty() {
            if self.holds(context) {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_drain(context))?;
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex};

    use super::*;

    /// Counts how often a task would be polled again.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A batched end and the other, between which so many bytes fit.
    fn connection(room: usize) -> (Batched<BufReader<DuplexStream>>, DuplexStream) {
        let (near, far) = duplex(room);
        (Batched::new(BufReader::new(near)), far)
    }

    /// One poll of a connection's task: it reads, writes what it has, and flushes.
    fn poll(
        near: &mut Batched<BufReader<DuplexStream>>,
        context: &mut Context<'_>,
        frames: &[&[u8]],
    ) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let read = Pin::new(&mut *near).poll_read(context, &mut ReadBuf::new(&mut byte));
        assert!(read.is_pending());
        for frame in frames {
            let written = Pin::new(&mut *near).poll_write(context, frame);
            assert!(matches!(written, Poll::Ready(Ok(len)) if len == frame.len()));
            ready!(Pin::new(&mut *near).poll_flush(context))?;
        }
        Pin::new(near).poll_flush(context)
    }

    /// What has arrived at the other end.
    fn arrived(far: &mut DuplexStream) -> usize {
        let mut bytes = vec![0; 1 << 20];
        let mut into = ReadBuf::new(&mut bytes);
        let mut context = Context::from_waker(Waker::noop());
        let _ = Pin::new(far).poll_read(&mut context, &mut into);
        into.filled().len()
    }

    #[test]
    fn frames_of_several_polls_are_one_write() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let (mut near, mut far) = connection(1 << 20);

        assert!(poll(&mut near, &mut context, &[b"pong"]).is_ready());
        assert!(poll(&mut near, &mut context, &[b"data", b"data"]).is_ready());
        assert_eq!(arrived(&mut far), 0);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2, "once a poll");

        assert!(poll(&mut near, &mut context, &[]).is_ready());
        assert_eq!(arrived(&mut far), 12);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2, "nothing is left to do");
    }

    #[test]
    fn a_full_batch_waits_for_nothing_and_holds_no_more() {
        let mut context = Context::from_waker(Waker::noop());
        let (mut near, mut far) = connection(1000);
        let frame = vec![7; BATCH];

        assert!(poll(&mut near, &mut context, &[&frame]).is_pending());
        assert_eq!(arrived(&mut far), 1000);
        // One write may fill what is left; none is taken until there is room again.
        assert!(
            Pin::new(&mut near)
                .poll_write(&mut context, b"more")
                .is_pending()
        );
    }

    #[tokio::test]
    async fn all_arrives_in_order_at_a_reader_that_is_slow() {
        let (mut near, mut far) = connection(777);
        let bytes: Vec<u8> = (0..3 * BATCH).map(|at| (at % 251) as u8).collect();
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.expect("all of it");
            read
        });
        for frame in bytes.chunks(16 << 10) {
            near.write_all(frame).await.expect("it is taken");
            near.flush().await.expect("it is taken");
        }
        near.shutdown().await.expect("the rest is written");
        drop(near);
        assert_eq!(reader.await.expect("it ends"), bytes);
    }

    #[tokio::test]
    async fn a_connection_that_broke_is_told() {
        let (mut near, far) = connection(1000);
        drop(far);
        near.write_all(b"lost").await.expect("it is taken");
        poll_fn(|context| {
            let mut byte = [0];
            let _ = Pin::new(&mut near).poll_read(context, &mut ReadBuf::new(&mut byte));
            match Pin::new(&mut near).poll_flush(context) {
                Poll::Ready(Ok(())) => Poll::Pending,
                flushed => flushed,
            }
        })
        .await
        .expect_err("nobody is there");
    }
}
