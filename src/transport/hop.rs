//! What inlay forwards between the two HTTP/2 connections of one client beside its calls: pings that ask
//! whether the daemon is alive, and the reason for which the daemon leaves (GOAWAY).
//!
//! The HTTP/2 library would answer a client's ping in the daemon's place, and a client would never notice
//! a daemon that hangs. So inlay takes such a ping out of what the client sends, and inserts it between
//! the frames that go to the daemon. The answer goes back in the same way.
//!
//! A client asks whether the daemon is alive after a time without data. A ping right after data measures
//! the connection instead: gRPC's Go implementation sends one for each part of a large answer. The HTTP/2
//! library answers these pings here, for two reasons. The data that inlay holds left the daemon long ago.
//! And a daemon ends connections with more pings than data (`too_many_pings`), so inlay adds no ping of
//! its own either.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::frames::{self, Beginning, DATA, GOAWAY, HEADERS, PING, Part, Ping, Place, SETTINGS};

/// How long after data a ping still measures the connection. gRPC's clients ask after 10 s or more.
const MEASURED: Duration = Duration::from_secs(1);
/// The most pings that wait for the daemon's answer. Further ones are answered here.
const MAX_PINGS: usize = 16;
/// The timeout for a client to begin with HTTP/2, as in gRPC's Go implementation.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);
/// How much of a GOAWAY's payload is read (bytes): the last stream, the code, and as much of the reason as
/// fits. The rest of a longer reason is not forwarded.
const MAX_GOAWAY: usize = 1024;
/// The code of GOAWAY without an error.
const NO_ERROR: u32 = 0;

/// One client's hop: its connection, and the daemon's connection that belongs to it.
#[derive(Debug, Clone, Default)]
pub struct Hop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    between: Mutex<Between>,
    begun: CancellationToken,
    draining: CancellationToken,
    failing: CancellationToken,
    /// How much was written to the client (bytes).
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct Between {
    /// The daemon is connected.
    connected: bool,
    /// Frames on their way, whole ones.
    to_daemon: Outgoing,
    to_client: Outgoing,
    /// Pings that the daemon has not answered.
    asked: VecDeque<[u8; 8]>,
}

/// Frames for one connection, and who writes them.
#[derive(Debug, Default)]
struct Outgoing {
    frames: VecDeque<u8>,
    task: Option<Waker>,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Client,
    Daemon,
}

/// A connection of a hop.
#[derive(Debug)]
pub struct HopStream<S> {
    inner: S,
    hop: Hop,
    peer: Peer,
    incoming: Place,
    /// The beginning of what may be a ping, which came in pieces.
    piece: Piece,
    /// Whether the piece is another frame's, and is to be read.
    released: bool,
    /// A GOAWAY that is being read.
    goaway: Option<Vec<u8>>,
    /// The time for the client to begin, until it has.
    begin: Option<Pin<Box<Sleep>>>,
    outgoing: Place,
    /// A frame that is being written between others.
    inserted: VecDeque<u8>,
    is_torn: bool,
    /// When data went out last.
    spoke: Option<Instant>,
}

/// Up to as many bytes as a ping has.
#[derive(Debug, Default)]
struct Piece {
    bytes: [u8; PING],
    from: usize,
    to: usize,
}

// === impl Hop ===

impl Hop {
    /// Ends when the daemon has begun to speak HTTP/2.
    pub async fn begun(&self) {
        self.0.begun.cancelled().await;
    }

    /// Whether the daemon has begun to speak HTTP/2.
    pub fn has_begun(&self) -> bool {
        self.0.begun.is_cancelled()
    }

    /// Ends when the daemon takes no more calls on its connection: it drains (GOAWAY without an error).
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Notes that the daemon takes no more calls on its connection.
    pub fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Ends when the daemon takes no more calls on its connection because of an error. The hop forwards
    /// that GOAWAY to the client by itself.
    pub async fn failing(&self) {
        self.0.failing.cancelled().await;
    }

    /// How much was written to the client (bytes).
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Wraps the client's connection.
    pub fn client<S>(&self, inner: S) -> HopStream<S> {
        HopStream {
            begin: Some(Box::pin(sleep(BEGIN_TIMEOUT))),
            ..HopStream::new(inner, self.clone(), Peer::Client)
        }
    }

    /// Wraps the daemon's connection, and notes that the daemon is connected.
    pub fn daemon<S>(&self, inner: S) -> HopStream<S> {
        self.lock().connected = true;
        HopStream::new(inner, self.clone(), Peer::Daemon)
    }

    fn lock(&self) -> MutexGuard<'_, Between> {
        // Nothing panics while it is held. If something did, pings of one client would be lost.
        self.0
            .between
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Forwards a client's ping, if there is a daemon to ask.
    fn ask(&self, data: [u8; 8]) -> bool {
        let mut between = self.lock();
        let asks = between.connected && between.asked.len() < MAX_PINGS;
        if asks {
            between.asked.push_back(data);
            between.to_daemon.push(&Ping { ack: false, data }.frame());
        }
        asks
    }

    /// Forwards the daemon's answer to a ping, if it was asked.
    fn answer(&self, data: [u8; 8]) -> bool {
        let mut between = self.lock();
        let Some(at) = between.asked.iter().position(|asked| *asked == data) else {
            return false;
        };
        between.asked.remove(at);
        between.to_client.push(&Ping { ack: true, data }.frame());
        true
    }

    /// Notes that the daemon leaves. If it leaves for an error, tells the client why. If it drains, the
    /// server of the client tells it.
    fn leaves(&self, payload: &[u8]) {
        let [_, _, _, _, a, b, c, d, debug @ ..] = payload else {
            return;
        };
        match u32::from_be_bytes([*a, *b, *c, *d]) {
            NO_ERROR => self.drain(),
            code => {
                self.lock().to_client.push(&frames::goaway(code, debug));
                self.0.failing.cancel();
            }
        }
    }
}

// === impl Between ===

impl Between {
    fn outgoing(&mut self, peer: Peer) -> &mut Outgoing {
        match peer {
            Peer::Client => &mut self.to_client,
            Peer::Daemon => &mut self.to_daemon,
        }
    }
}

// === impl Outgoing ===

impl Outgoing {
    fn push(&mut self, frame: &[u8]) {
        self.frames.extend(frame);
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

// === impl Piece ===

impl Piece {
    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.to..self.to + bytes.len()].copy_from_slice(bytes);
        self.to += bytes.len();
    }
}

// === impl HopStream ===

impl<S> HopStream<S> {
    fn new(inner: S, hop: Hop, peer: Peer) -> Self {
        let (incoming, outgoing) = match peer {
            Peer::Client => (Place::of_client(), Place::of_server()),
            Peer::Daemon => (Place::of_server(), Place::of_client()),
        };
        Self {
            inner,
            hop,
            peer,
            incoming,
            piece: Piece::default(),
            released: false,
            goaway: None,
            begin: None,
            outgoing,
            inserted: VecDeque::new(),
            is_torn: false,
            spoke: None,
        }
    }

    /// Forwards a ping to the other connection, if it is to be forwarded. Returns whether it is.
    fn takes(&self, ping: Ping) -> bool {
        match (self.peer, ping.ack) {
            (Peer::Client, false) => {
                let measures = self.spoke.is_some_and(|spoke| spoke.elapsed() < MEASURED);
                !measures && self.hop.ask(ping.data)
            }
            (Peer::Daemon, true) => self.hop.answer(ping.data),
            (Peer::Client, true) | (Peer::Daemon, false) => false,
        }
    }

    /// Takes note of bytes that are read.
    fn pass(&mut self, bytes: &[u8]) {
        let (peer, hop, goaway, begin) = (self.peer, &self.hop, &mut self.goaway, &mut self.begin);
        self.incoming.pass(bytes, |part| match part {
            Part::Head(kind) => {
                *begin = None;
                if peer == Peer::Daemon && kind == SETTINGS {
                    hop.0.begun.cancel();
                }
                *goaway = (peer == Peer::Daemon && kind == GOAWAY).then(Vec::new);
            }
            Part::Payload(bytes, left) => {
                if let Some(payload) = goaway {
                    let room = MAX_GOAWAY - payload.len();
                    payload.extend(&bytes[..bytes.len().min(room)]);
                    if left == 0 {
                        hop.leaves(payload);
                        *goaway = None;
                    }
                }
            }
        });
    }

    /// Takes the pings for the other connection out of what was read from `at` on, and holds the last
    /// bytes back if they may be one's beginning.
    fn take_pings(&mut self, into: &mut ReadBuf<'_>, mut at: usize) {
        loop {
            let end = into.filled().len();
            let rest = &into.filled()[at..];
            if rest.is_empty() {
                return;
            }
            let beginning = match self.incoming.to_gap() {
                0 => Beginning::of(rest),
                _ => Beginning::Other,
            };
            match beginning {
                Beginning::Ping(ping) if self.takes(ping) => {
                    into.filled_mut().copy_within(at + PING..end, at);
                    into.set_filled(end - PING);
                }
                Beginning::Unknown => {
                    self.piece = Piece::default();
                    self.piece.push(rest);
                    into.set_filled(at);
                    return;
                }
                Beginning::Ping(_) | Beginning::Other => {
                    let step = self.incoming.step(rest);
                    self.pass(&into.filled()[at..at + step]);
                    at += step;
                }
            }
        }
    }

    /// Gives the reader a piece that turned out to be no ping for the other connection.
    fn read_released(&mut self, into: &mut ReadBuf<'_>) {
        let bytes = self.piece.bytes();
        let length = bytes.len().min(into.remaining());
        let mut read = [0; PING];
        read[..length].copy_from_slice(&bytes[..length]);
        into.put_slice(&read[..length]);
        self.piece.from += length;
        self.released = !self.piece.is_empty();
        self.pass(&read[..length]);
    }

    /// Takes note of bytes that are written.
    fn written(&mut self, bytes: &[u8]) {
        let mut spoke = false;
        self.outgoing.pass(bytes, |part| {
            spoke |= matches!(part, Part::Head(DATA | HEADERS));
        });
        if spoke {
            self.spoke = Some(Instant::now());
        }
        if self.peer == Peer::Client {
            let length = bytes.len() as u64;
            self.hop.0.written.fetch_add(length, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> HopStream<S> {
    /// Reads more of a piece.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; PING];
        // Not more than it takes to tell what it is: another frame may begin right behind.
        let told = match self.piece.to < Beginning::TOLD {
            true => Beginning::TOLD,
            false => PING,
        };
        let room = told - self.piece.to;
        let mut more = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut more))?;
        let ended = more.filled().is_empty();
        self.piece.push(more.filled());
        match Beginning::of(self.piece.bytes()) {
            Beginning::Ping(ping) if self.takes(ping) => self.piece = Piece::default(),
            Beginning::Unknown if !ended => {}
            Beginning::Ping(_) | Beginning::Unknown | Beginning::Other => self.released = true,
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HopStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.hop.lock().outgoing(this.peer).task = Some(context.waker().clone());
        if let Some(begin) = &mut this.begin
            && begin.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        loop {
            if this.released {
                this.read_released(into);
                return Poll::Ready(Ok(()));
            }
            if !this.piece.is_empty() {
                ready!(this.poll_piece(context))?;
                continue;
            }
            let before = into.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(context, into))?;
            let ended = into.filled().len() == before;
            this.take_pings(into, before);
            // To return without data would mean the end of the stream.
            if ended || into.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> HopStream<S> {
    /// Writes the frames that are to be inserted, if this is where one may be. `Ready` tells that
    /// others may be written: all, or up to the next gap.
    fn poll_insert(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let more = std::mem::take(&mut self.hop.lock().outgoing(self.peer).frames);
        self.inserted.extend(more);
        while !self.inserted.is_empty() && (self.is_torn || self.outgoing.to_gap() == 0) {
            let (bytes, _) = self.inserted.as_slices();
            match ready!(Pin::new(&mut self.inner).poll_write(context, bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.inserted.drain(..written)),
            }
            self.is_torn = !self.inserted.is_empty();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HopStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_insert(context))?;
        let most = match self.inserted.is_empty() {
            true => data.len(),
            false => data.len().min(self.outgoing.to_gap()),
        };
        let length = ready!(Pin::new(&mut self.inner).poll_write(context, &data[..most]))?;
        self.written(&data[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_insert(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{advance, timeout};

    use super::super::frames::tests::frames_of;
    use super::super::frames::{CONTINUATION, HEAD};
    use super::*;

    const ROOM: usize = 1 << 20;
    const SETTINGS: [u8; HEAD] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn ping(ack: bool, number: u8) -> Vec<u8> {
        let data = [number; 8];
        Ping { ack, data }.frame().to_vec()
    }

    /// A frame whose payload looks like pings.
    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(ping(false, 0).iter().cycle().take(length));
        frame
    }

    /// The hop's end of each connection, and the other ends.
    struct Stand {
        hop: Hop,
        client: HopStream<DuplexStream>,
        daemon: HopStream<DuplexStream>,
        of_client: DuplexStream,
        of_daemon: DuplexStream,
    }

    impl Stand {
        fn new() -> Self {
            let hop = Hop::default();
            let ((near, of_client), (far, of_daemon)) = (duplex(ROOM), duplex(ROOM));
            Self {
                client: hop.client(near),
                daemon: hop.daemon(far),
                hop,
                of_client,
                of_daemon,
            }
        }

        /// Both connections have begun.
        async fn begun() -> Self {
            let mut stand = Self::new();
            let begin = [PREFACE, &SETTINGS].concat();
            stand.of_client.write_all(&begin).await.unwrap();
            assert_eq!(here(&mut stand.client).await, begin);
            stand.daemon.write_all(&begin).await.unwrap();
            assert_eq!(here(&mut stand.of_daemon).await, begin);
            stand.of_daemon.write_all(&SETTINGS).await.unwrap();
            assert_eq!(here(&mut stand.daemon).await, SETTINGS);
            stand.client.write_all(&SETTINGS).await.unwrap();
            assert_eq!(here(&mut stand.of_client).await, SETTINGS);
            stand
        }
    }

    /// What can be read at this moment.
    async fn here(near: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ROOM);
        // Tokio lets a task do so much at a time, and no more before this.
        tokio::task::yield_now().await;
        while let Ok(Ok(1..)) = timeout(Duration::ZERO, near.read_buf(&mut bytes)).await {}
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_goes_to_the_daemon_and_its_answer_to_the_client() {
        let mut stand = Stand::begun().await;
        // Also if it comes in pieces.
        let mut read = Vec::new();
        for byte in [ping(false, 1), SETTINGS.to_vec()].concat() {
            stand.of_client.write_all(&[byte]).await.unwrap();
            read.extend(here(&mut stand.client).await);
        }
        assert_eq!(read, SETTINGS);
        stand.daemon.flush().await.unwrap();
        assert_eq!(here(&mut stand.of_daemon).await, ping(false, 1));
        assert_eq!(here(&mut stand.of_client).await, [0_u8; 0]);

        let answer = [frame(DATA, 0, 100), ping(true, 1), frame(DATA, 0, 5)];
        stand.of_daemon.write_all(&answer.concat()).await.unwrap();
        let rest = [&answer[0][..], &answer[2]].concat();
        assert_eq!(here(&mut stand.daemon).await, rest);
        stand.client.flush().await.unwrap();
        assert_eq!(here(&mut stand.of_client).await, ping(true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_daemon_did_not_ask_stays_and_what_measures_too() {
        let mut stand = Stand::begun().await;
        // Of the daemon: its own pings, and an answer to nothing.
        let sent = [ping(false, 1), ping(true, 2)].concat();
        stand.of_daemon.write_all(&sent).await.unwrap();
        assert_eq!(here(&mut stand.daemon).await, sent);
        // Of the client: a ping behind data.
        stand.client.write_all(&frame(DATA, 0, 10)).await.unwrap();
        stand.of_client.write_all(&ping(false, 3)).await.unwrap();
        assert_eq!(here(&mut stand.client).await, ping(false, 3));
        advance(MEASURED).await;
        stand.of_client.write_all(&ping(false, 4)).await.unwrap();
        assert_eq!(here(&mut stand.client).await, [0_u8; 0]);
        // And more than the daemon has to answer.
        for _ in 0..MAX_PINGS {
            stand.of_client.write_all(&ping(false, 5)).await.unwrap();
        }
        assert_eq!(here(&mut stand.client).await, ping(false, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_daemon_pings_stay() {
        let hop = Hop::default();
        let (near, mut far) = duplex(ROOM);
        let mut client = hop.client(near);
        let sent = [PREFACE, &SETTINGS, &ping(false, 1)].concat();
        far.write_all(&sent).await.unwrap();
        assert_eq!(here(&mut client).await, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_leaves_for_an_error_says_why() {
        let mut stand = Stand::begun().await;
        let calm = frames::goaway(11, b"too_many_pings");
        stand.of_daemon.write_all(&calm).await.unwrap();
        assert_eq!(here(&mut stand.daemon).await, calm);
        stand.client.flush().await.unwrap();
        assert_eq!(here(&mut stand.of_client).await, calm);
        timeout(Duration::ZERO, stand.hop.failing()).await.unwrap();

        let mut stand = Stand::begun().await;
        let leave = frames::goaway(NO_ERROR, b"max_age");
        stand.of_daemon.write_all(&leave).await.unwrap();
        assert_eq!(here(&mut stand.daemon).await, leave);
        stand.client.flush().await.unwrap();
        assert_eq!(here(&mut stand.of_client).await, [0_u8; 0]);
        timeout(Duration::ZERO, stand.hop.draining()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_not_waited_for_for_ever() {
        for sent in [&b""[..], &PREFACE[..10], PREFACE] {
            let mut stand = Stand::new();
            stand.of_client.write_all(sent).await.unwrap();
            let began = Instant::now();
            let mut all = Vec::new();
            let err = stand.client.read_to_end(&mut all).await.unwrap_err();
            assert_eq!(err.kind(), io::ErrorKind::TimedOut);
            assert_eq!((began.elapsed(), all.as_slice()), (BEGIN_TIMEOUT, sent));
        }
        let mut stand = Stand::begun().await;
        let waited = timeout(10 * BEGIN_TIMEOUT, stand.client.read_u8()).await;
        assert!(waited.is_err(), "a client that has begun may be silent");
    }

    proptest! {
        /// However both directions are cut: every ping of the client reaches the daemon whole, between
        /// frames and outside of blocks of headers, and all other frames pass in their order.
        #[test]
        fn pings_come_between_frames(
            kinds in vec(0..8_usize, 1..30),
            others in vec(0..8_usize, 1..30),
            cuts in vec(1..40_usize, 1..20),
        ) {
            let frames_for = |kinds: &[usize], pings: bool| -> Vec<Vec<u8>> {
                kinds.iter().enumerate().map(|(at, kind)| match kind {
                    0..3 if pings => ping(false, at as u8),
                    3 => SETTINGS.to_vec(),
                    4 => [frame(HEADERS, 0, at), frame(CONTINUATION, 4, 30)].concat(),
                    5 => frame(HEADERS, 4, at),
                    6 => frame(200, at as u8, at),
                    _ => frame(DATA, 0, 3 * at),
                }).collect()
            };
            let sent = frames_for(&kinds, true);
            let written = frames_for(&others, false).concat();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let (read, arrived) = runtime.block_on(async {
                let mut stand = Stand::begun().await;
                let bytes = sent.concat();
                let (mut left, mut writes) = (&bytes[..], &written[..]);
                let (mut read, mut arrived) = (Vec::new(), Vec::new());
                let mut cuts = cuts.iter().cycle();
                while !left.is_empty() || !writes.is_empty() {
                    let (piece, rest) = left.split_at(left.len().min(*cuts.next().unwrap()));
                    stand.of_client.write_all(piece).await.unwrap();
                    left = rest;
                    read.extend(here(&mut stand.client).await);
                    let (piece, rest) = writes.split_at(writes.len().min(*cuts.next().unwrap()));
                    stand.daemon.write_all(piece).await.unwrap();
                    writes = rest;
                    arrived.extend(here(&mut stand.of_daemon).await);
                }
                stand.daemon.flush().await.unwrap();
                arrived.extend(here(&mut stand.of_daemon).await);
                (read, arrived)
            });
            // No more are taken than wait for an answer.
            let is_ping = |frame: &&[u8]| matches!(Beginning::of(frame), Beginning::Ping(_));
            let all = sent.concat();
            let pings: Vec<_> = frames_of(&all).into_iter().filter(is_ping).collect();
            let taken = &pings[..pings.len().min(MAX_PINGS)];
            let kept = frames_of(&all).into_iter().filter(|frame| !taken.contains(frame));
            prop_assert_eq!(frames_of(&read), kept.collect::<Vec<_>>());
            let (mut inserted, mut rest, mut in_headers) = (Vec::new(), Vec::new(), false);
            for frame in frames_of(&arrived) {
                prop_assert!(!in_headers || frame[3] == CONTINUATION);
                in_headers = frame[3] == HEADERS && frame[4] & 4 == 0;
                match is_ping(&frame) {
                    true => inserted.push(frame),
                    false => rest.extend_from_slice(frame),
                }
            }
            prop_assert_eq!(inserted, taken);
            prop_assert_eq!(rest, written);
        }
    }
}
