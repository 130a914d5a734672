//! Pings that are held for a moment before HTTP/2 sees, and answers, them.
//!
//! gRPC's Go implementation measures with pings how much a connection has in flight. It sends the next
//! ping with the first data after an answer. If the answer came at once, as on one machine, there would be
//! a ping for each 100 KiB, with a write and two switches each time. Also, Go would treat the little that
//! arrived meanwhile as all that the connection can hold, and keep its windows small.
//!
//! A ping that was held is not put between the frames of a block of headers (RFC 9113, section 6.10).
//! Everything but pings passes as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::frames::{Beginning, PING, Place};

/// How long a ping is held. It is about the time that a local socket takes for a window of data, and
/// little for a client that asks whether the server is alive: that one waits for seconds.
const HELD: Duration = Duration::from_millis(5);

/// A connection from which a ping is read later than it comes. It holds one ping at a time. Further ones,
/// and one that comes in pieces, are read at once.
#[derive(Debug)]
pub struct HeldPings<S> {
    inner: S,
    place: Place,
    ping: Option<Late>,
}

#[derive(Debug)]
enum Late {
    Held {
        frame: [u8; PING],
        until: Pin<Box<Sleep>>,
    },
    /// It is to be read before the next frame.
    Due { frame: [u8; PING], read: usize },
}

// === impl HeldPings ===

impl<S> HeldPings<S> {
    /// A connection to a server, which begins with a frame.
    pub fn connected(inner: S) -> Self {
        Self {
            inner,
            place: Place::of_server(),
            ping: None,
        }
    }

    /// A connection of a client, which begins with the preface.
    pub fn accepted(inner: S) -> Self {
        Self {
            place: Place::of_client(),
            ..Self::connected(inner)
        }
    }

    /// Reads of a ping that is due, where a frame may begin; `false` where none is.
    fn read_due(&mut self, into: &mut ReadBuf<'_>) -> bool {
        let Some(Late::Due { frame, read }) = &mut self.ping else {
            return false;
        };
        if self.place.to_gap() > 0 {
            return false;
        }
        let length = into.remaining().min(PING - *read);
        into.put_slice(&frame[*read..*read + length]);
        *read += length;
        if *read == PING {
            self.ping = None;
        }
        true
    }

    /// Takes a ping out of what was read from `from` on, if there is one and none is held.
    fn hold(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>, mut from: usize) {
        while let Some(at) = next_ping(&mut self.place, &into.filled()[from..]) {
            let (at, end) = (from + at, into.filled().len());
            from = at + PING;
            if self.ping.is_some() {
                continue;
            }
            let mut frame = [0; PING];
            frame.copy_from_slice(&into.filled()[at..from]);
            let mut until = Box::pin(sleep(HELD));
            // It has just begun; this has it wake the task.
            let _ = until.as_mut().poll(context);
            self.ping = Some(Late::Held { frame, until });
            into.filled_mut().copy_within(from..end, at);
            into.set_filled(end - PING);
            from = at;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeldPings<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(Late::Held { frame, until }) = &mut this.ping
            && until.as_mut().poll(context).is_ready()
        {
            let (frame, read) = (*frame, 0);
            this.ping = Some(Late::Due { frame, read });
        }
        if this.read_due(into) {
            return Poll::Ready(Ok(()));
        }
        if matches!(this.ping, Some(Late::Due { .. })) {
            // No further than where it can be read.
            let room = into.remaining().min(this.place.to_gap());
            let mut piece = ReadBuf::new(into.initialize_unfilled_to(room));
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut piece))?;
            let length = piece.filled().len();
            this.place.pass(piece.filled(), |_| {});
            into.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        loop {
            ready!(Pin::new(&mut this.inner).poll_read(context, into))?;
            let ended = into.filled().len() == before;
            this.hold(context, into, before);
            // Nothing read would mean the end.
            if ended || into.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeldPings<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Passes `bytes` to the end of the next whole ping in them, and tells where it begins; or, without
/// one, to their end.
fn next_ping(place: &mut Place, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if place.to_gap() == 0 && is_ping(rest) {
            return Some(at);
        }
        let step = place.step(rest);
        place.pass(&rest[..step], |_| {});
        at += step;
    }
    None
}

/// Whether bytes where a frame begins are a whole ping, and no answer to one.
fn is_ping(bytes: &[u8]) -> bool {
    matches!(Beginning::of(bytes), Beginning::Ping(ping) if !ping.ack)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{Instant, advance, timeout};

    use super::super::frames::tests::frames_of;
    use super::super::frames::{CONTINUATION, END_HEADERS, HEAD, HEADERS};
    use super::*;

    const PUSH_PROMISE: u8 = 5;
    const ROOM: usize = 1 << 20;
    /// A SETTINGS frame without any.
    const SETTINGS: [u8; HEAD] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

    fn ping(number: u8) -> Vec<u8> {
        [[0, 0, 8, 6, 0, 0, 0, 0, 0].as_slice(), &[number; 8]].concat()
    }

    fn pong(number: u8) -> Vec<u8> {
        [[0, 0, 8, 6, 1, 0, 0, 0, 0].as_slice(), &[number; 8]].concat()
    }

    /// A DATA frame of stream 1, whose payload looks like a ping.
    fn data(length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([0, 0, 0, 0, 0, 1]);
        frame.extend(ping(0).iter().cycle().take(length));
        frame
    }

    /// A block of headers in frames of these lengths, or one of another kind that goes on like it.
    fn headers(kind: u8, lengths: &[usize]) -> Vec<u8> {
        let mut block = Vec::new();
        for (at, length) in lengths.iter().enumerate() {
            let kind = if at == 0 { kind } else { CONTINUATION };
            let flags = if at + 1 == lengths.len() {
                END_HEADERS
            } else {
                0
            };
            block.extend(&(*length as u32).to_be_bytes()[1..]);
            block.extend([kind, flags, 0, 0, 0, 1]);
            block.extend(ping(0).iter().cycle().take(*length));
        }
        block
    }

    /// Any other frame.
    fn other(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = data(length);
        (frame[3], frame[4]) = (kind, flags);
        frame
    }

    fn connection() -> (HeldPings<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(ROOM);
        let near = HeldPings {
            // The first frame has come.
            place: Place::default(),
            ..HeldPings::connected(near)
        };
        (near, far)
    }

    /// What can be read at this moment.
    async fn here(near: &mut HeldPings<DuplexStream>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ROOM);
        let at_once = near.read_buf(&mut bytes);
        let _ = timeout(Duration::ZERO, at_once).await;
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_is_held_and_what_comes_with_it_is_not() {
        let (mut near, mut far) = connection();
        far.write_all(&[data(100), ping(1), SETTINGS.into()].concat())
            .await
            .expect("room");
        assert_eq!(here(&mut near).await, [data(100), SETTINGS.into()].concat());
        far.write_all(&data(7)).await.expect("room");
        assert_eq!(here(&mut near).await, data(7));
        advance(HELD).await;
        assert_eq!(here(&mut near).await, ping(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_alone_is_no_end_and_wakes_who_reads() {
        let (mut near, mut far) = connection();
        far.write_all(&ping(1)).await.expect("room");
        let started = Instant::now();
        let mut bytes = [0; PING];
        near.read_exact(&mut bytes).await.expect("the ping");
        assert_eq!(bytes.as_slice(), ping(1));
        assert!(started.elapsed() >= HELD);
        drop(far);
        assert_eq!(near.read(&mut bytes).await.expect("an end"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_is_held_and_no_answer() {
        let (mut near, mut far) = connection();
        let frames = [pong(1), ping(2), ping(3), ping(4)].concat();
        far.write_all(&frames).await.expect("room");
        let read = [pong(1), ping(3), ping(4)].concat();
        assert_eq!(here(&mut near).await, read);
        advance(HELD).await;
        assert_eq!(here(&mut near).await, ping(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_that_is_due_waits_for_the_end_of_a_frame() {
        let (mut near, mut far) = connection();
        let frame = data(1000);
        far.write_all(&[&ping(1), &frame[..500]].concat())
            .await
            .expect("room");
        assert_eq!(here(&mut near).await, frame[..500]);
        advance(HELD).await;
        far.write_all(&[&frame[500..], &SETTINGS].concat())
            .await
            .expect("room");
        assert_eq!(here(&mut near).await, frame[500..]);
        assert_eq!(here(&mut near).await, ping(1));
        assert_eq!(here(&mut near).await, SETTINGS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_that_is_due_waits_for_the_end_of_a_block_of_headers() {
        let (mut near, mut far) = connection();
        let block = headers(HEADERS, &[100, 0, 50]);
        far.write_all(&[&ping(1), &block[..HEAD + 100]].concat())
            .await
            .expect("room");
        assert_eq!(here(&mut near).await, block[..HEAD + 100]);
        advance(HELD).await;
        far.write_all(&[&block[HEAD + 100..], &SETTINGS].concat())
            .await
            .expect("room");
        let mut read = Vec::new();
        while read.len() < block.len() - (HEAD + 100) {
            read.extend(here(&mut near).await);
        }
        assert_eq!(read, block[HEAD + 100..]);
        assert_eq!(here(&mut near).await, ping(1));
        assert_eq!(here(&mut near).await, SETTINGS);
    }

    #[tokio::test(start_paused = true)]
    async fn the_preface_of_a_client_is_no_frame() {
        let (near, mut far) = duplex(ROOM);
        let mut near = HeldPings::accepted(near);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let settings = SETTINGS.to_vec();
        let sent = [preface.clone(), settings.clone(), ping(1), settings.clone()];
        far.write_all(&sent.concat()).await.expect("room");
        assert_eq!(
            here(&mut near).await,
            [preface, settings.clone(), settings].concat()
        );
    }

    proptest! {
        /// However it is cut: all frames are read whole, those that are no pings in their order, and
        /// no ping comes within a block of headers.
        #[test]
        fn no_frame_is_lost_or_torn(
            kinds in vec(0..16_usize, 1..40),
            writes in vec(1..60_usize, 1..20),
            reads in vec(1..60_usize, 1..20),
        ) {
            let sent: Vec<Vec<u8>> = kinds.iter().enumerate().map(|(at, kind)| match kind {
                0..4 => ping(at as u8),
                4 => pong(at as u8),
                5 => SETTINGS.into(),
                6 => headers(HEADERS, &[at]),
                7 => headers(HEADERS, &[3 * at, at, 0, at]),
                8 => headers(PUSH_PROMISE, &[at, 2 * at]),
                // PRIORITY, RST_STREAM, GOAWAY, WINDOW_UPDATE, and one that nobody knows.
                9 => other(2, 0, 5),
                10 => other(3, 0, 4),
                11 => other(7, 0, 8 + at),
                12 => other(8, 0, 4),
                13 => other(200, at as u8, at),
                _ => data(3 * at),
            }).collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            let bytes = sent.concat();
            let read = runtime.block_on(async {
                let (mut near, mut far) = connection();
                let (mut left, mut read) = (bytes.as_slice(), Vec::new());
                let mut sizes = writes.iter().cycle().zip(reads.iter().cycle());
                while read.len() < bytes.len() {
                    let Some((write, take)) = sizes.next() else { break };
                    let (piece, rest) = left.split_at(left.len().min(*write));
                    far.write_all(piece).await.expect("room");
                    left = rest;
                    let mut buffer = vec![0; *take];
                    if let Ok(length) = timeout(HELD / 2, near.read(&mut buffer)).await {
                        read.extend_from_slice(&buffer[..length.expect("no error")]);
                    }
                }
                read
            });
            let (mut pings, mut others, mut in_headers) = (Vec::new(), Vec::new(), false);
            for frame in frames_of(&read) {
                prop_assert!(!in_headers || frame[3] == CONTINUATION);
                let is_of_headers = matches!(frame[3], HEADERS | PUSH_PROMISE | CONTINUATION);
                in_headers = is_of_headers && frame[4] & END_HEADERS == 0;
                if is_ping(frame) { pings.push(frame) } else { others.push(frame) }
            }
            let (mut sent_pings, mut sent_others) = (Vec::new(), Vec::new());
            for frame in frames_of(&bytes) {
                if is_ping(frame) { sent_pings.push(frame) } else { sent_others.push(frame) }
            }
            pings.sort_unstable();
            sent_pings.sort_unstable();
            prop_assert_eq!(pings, sent_pings);
            prop_assert_eq!(others, sent_others);
        }
    }

    /// Headers of more than one frame, with pings between them, by a real client to a real server.
    #[tokio::test]
    async fn h2_reads_long_headers_among_pings() {
        let (near, far) = duplex(ROOM);
        let server = async {
            let mut server = h2::server::Builder::new();
            server.max_header_list_size(1 << 20);
            let near = HeldPings::accepted(Slices(near, 0));
            let mut connection = server.handshake::<_, bytes::Bytes>(near).await.unwrap();
            let mut lengths = Vec::new();
            while let Some(call) = connection.accept().await {
                // Once its calls are answered, the client ends the connection as it likes.
                let Ok((request, mut answer)) = call else {
                    break;
                };
                lengths.push(request.headers()["long"].len());
                answer.send_response(http::Response::new(()), true).unwrap();
            }
            lengths
        };
        let client = async {
            let mut client = h2::client::Builder::new();
            client.max_header_list_size(1 << 20);
            let (requests, mut connection) =
                client.handshake::<_, bytes::Bytes>(far).await.unwrap();
            let mut pings = connection.ping_pong().unwrap();
            let pinging =
                tokio::spawn(async move { while pings.ping(h2::Ping::opaque()).await.is_ok() {} });
            let connection = tokio::spawn(connection);
            for number in 0..200 {
                let mut requests = requests.clone().ready().await.unwrap();
                let long = "x".repeat(20_000 + 997 * number % 30_000);
                let request = http::Request::get("http://localhost/").header("long", long);
                let (answer, _) = requests
                    .send_request(request.body(()).unwrap(), true)
                    .unwrap();
                answer.await.unwrap();
            }
            drop(requests);
            pinging.abort();
            connection.await.unwrap().unwrap();
        };
        let (lengths, ()) = tokio::join!(server, client);
        assert_eq!(lengths.len(), 200);
    }

    /// A stream that is read in pieces of changing sizes, as a busy machine's sockets are.
    struct Slices(DuplexStream, usize);

    impl AsyncRead for Slices {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.1 = (self.1 * 31 + 7) % 4_099;
            let room = into.remaining().min(1 + self.1);
            let mut piece = ReadBuf::new(into.initialize_unfilled_to(room));
            ready!(Pin::new(&mut self.0).poll_read(context, &mut piece))?;
            let length = piece.filled().len();
            into.advance(length);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Slices {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(context, data)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }
    }
}
