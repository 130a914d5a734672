//! Connections: how they end, and what is asked of them.

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use h2::{Ping, Reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use crate::peers::{Do, End, GRPC, Inlay, SOON, Script, Way, request};

use Do::{Answer, Data, Headers, Meet, Read, ReadAll, Sleep, Trailers};

const OK: &[(&str, &[u8])] = &[("grpc-status", b"0")];

/// A call that is answered at once.
fn quick() -> Script {
    Script {
        client: vec![Headers(GRPC, true), Answer, ReadAll],
        daemon: vec![ReadAll, Headers(GRPC, false), Data(10, false), Trailers(OK)],
    }
}

/// Ends the daemon's connection, and gives what the client sees of one call that ran in each state,
/// of a call after that, and of its connection.
async fn ended(way: &Way, end: End) -> Vec<Vec<String>> {
    let client = way.connect().await;
    let mut seen = Vec::new();
    let before = way.call(&client, "/test.Service/before", quick());
    seen.push(before.seen(3).await.client);
    // The first is not answered, the second is within its answer.
    let late = Script {
        client: vec![Headers(GRPC, true), Meet, Answer, ReadAll],
        daemon: vec![
            ReadAll,
            Meet,
            Sleep(300),
            Headers(GRPC, false),
            Data(10, false),
            Trailers(OK),
        ],
    };
    let slow = Script {
        client: vec![Headers(GRPC, true), Answer, Read(10), Meet, ReadAll],
        daemon: vec![
            ReadAll,
            Headers(GRPC, false),
            Data(10, false),
            Meet,
            Sleep(300),
            Data(10, false),
            Trailers(OK),
        ],
    };
    let running = [
        way.call(&client, "/test.Service/late", late),
        way.call(&client, "/test.Service/slow", slow),
    ];
    sleep(Duration::from_millis(100)).await;
    way.daemon.ends.send_replace(end);
    sleep(Duration::from_millis(300)).await;
    let after = way.call(&client, "/test.Service/after", quick());
    for call in running.into_iter().chain([after]) {
        seen.push(call.seen(0).await.client);
    }
    seen.push(vec![client.end().await]);
    way.daemon.ends.send_replace(End::Not);
    seen
}

#[tokio::test]
async fn connections_end_the_same() {
    let (direct, inlay) = (Way::direct(), Way::through_inlay().await);
    for (end, shows) in [
        (End::InOrder, "data 20"),
        (
            End::For(Reason::ENHANCE_YOUR_CALM),
            "goaway ENHANCE_YOUR_CALM",
        ),
        (End::For(Reason::INTERNAL_ERROR), "goaway INTERNAL_ERROR"),
        (End::AtOnce, "broken"),
    ] {
        let expected = ended(&direct, end).await;
        let lines: Vec<_> = expected.iter().flatten().collect();
        assert!(
            lines.iter().any(|line| line.contains(shows)) || end == End::InOrder,
            "{end:?}: {lines:?}"
        );
        assert_eq!(ended(&inlay, end).await, expected, "{end:?}");
    }
}

/// A client that takes nothing holds up nobody, and inlay holds some MiB of it, not all.
#[tokio::test]
async fn what_is_not_taken_is_not_read() {
    const ALL: usize = 64 << 20;
    let way = Way::through_inlay().await;
    let client = way.connect().await;
    let script = Script {
        client: vec![Headers(GRPC, true), Answer, Meet, Sleep(1500), ReadAll],
        daemon: vec![Headers(GRPC, false), Meet, Data(ALL, false), Trailers(OK)],
    };
    let call = way.call(&client, "/test.Service/unread", script);
    sleep(Duration::from_millis(500)).await;
    let other = way.call(&client, "/test.Service/other", quick());
    assert!(other.seen(3).await.client.contains(&"data 10".to_owned()));
    let written = way.daemon.written.load(Ordering::SeqCst);
    assert!((1 << 20..8 << 20).contains(&written), "{written}");
    let seen = call.seen(1).await;
    assert!(seen.client.contains(&format!("data {ALL}")), "{seen:?}");
}

/// A daemon that has its say and is gone: the client gets all that had left the daemon, as slow as it
/// is. Inlay holds what the client has no window for yet.
#[tokio::test]
async fn what_a_daemon_said_last_arrives() {
    let (direct, inlay) = (Way::direct(), Way::through_inlay().await);
    for (way, length) in [(&direct, 500_000), (&inlay, 500_000), (&inlay, 1_800_000)] {
        let client = way.connect().await;
        let last = Script {
            client: vec![Headers(GRPC, true), Answer, Meet, Sleep(400), ReadAll],
            daemon: vec![
                Headers(GRPC, false),
                Meet,
                Data(length, false),
                Trailers(OK),
            ],
        };
        let calls = [1, 2].map(|number| {
            let path = format!("/test.Service/last-{number}");
            way.call(&client, &path, last.clone())
        });
        way.daemon.has_written(2 * length).await;
        way.daemon.ends.send_replace(End::AtOnce);
        for call in calls {
            let seen = call.seen(1).await.client;
            assert_eq!(seen[1], format!("data {length}"));
            assert!(seen[2].starts_with("trailers"), "{seen:?}");
        }
        way.daemon.ends.send_replace(End::Not);
    }
}

/// A daemon that takes all and answers pings only when it is told to. Counts them.
#[derive(Debug, Default)]
struct Frozen {
    is_thawed: AtomicBool,
    pings: AtomicUsize,
}

impl Frozen {
    fn start(socket: &Path) -> Arc<Self> {
        let frozen = Arc::new(Self::default());
        let listener = UnixListener::bind(socket).unwrap();
        let shared = Arc::clone(&frozen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&shared).serve(stream));
            }
        });
        frozen
    }

    async fn serve(self: Arc<Self>, mut stream: UnixStream) {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(&settings).await.unwrap();
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            let [_, _, _, kind, flags, ..] = head;
            if kind == 6 && flags == 0 {
                self.pings.fetch_add(1, Ordering::SeqCst);
                while !self.is_thawed.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(5)).await;
                }
                head[4] = 1;
                stream
                    .write_all(&[&head[..], &payload].concat())
                    .await
                    .unwrap();
            }
        }
    }
}

/// A client asks whether its server is alive: the daemon is asked, once each time, and its answer is
/// the answer.
#[tokio::test]
async fn a_daemon_that_hangs_answers_no_ping() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("daemon.sock");
    let frozen = Frozen::start(&socket);
    let (_inlay, through) = Inlay::start(&socket).await;
    for socket in [socket, through] {
        frozen.is_thawed.store(false, Ordering::SeqCst);
        frozen.pings.store(0, Ordering::SeqCst);
        let stream = UnixStream::connect(&socket).await.unwrap();
        let (requests, mut connection) = h2::client::handshake(stream).await.unwrap();
        let mut pings = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        // A call, which the daemon does not answer.
        let mut requests = requests.ready().await.unwrap();
        let (_answer, _stream) = requests
            .send_request(request("/test.Service/any"), true)
            .unwrap();
        sleep(Duration::from_millis(100)).await;
        pings.send_ping(Ping::opaque()).unwrap();
        let pong = poll_fn(|context| pings.poll_pong(context));
        let pong = timeout(Duration::from_secs(1), pong).await;
        assert!(pong.is_err(), "{}: it is frozen", socket.display());
        frozen.is_thawed.store(true, Ordering::SeqCst);
        let pong = poll_fn(|context| pings.poll_pong(context));
        timeout(SOON, pong).await.expect("an answer").unwrap();
        timeout(SOON, pings.ping(Ping::opaque()))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            frozen.pings.load(Ordering::SeqCst),
            2,
            "{}",
            socket.display()
        );
    }
}
