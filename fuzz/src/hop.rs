//! The hop: a client and a daemon that are h2's, which reads strictly, and between them the two
//! connections of inlay, over streams that are cut anywhere. The first four bytes say how they are cut.
//! Each other byte is a call, a ping or a pause; some run beside each other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::{Ping, PingPong};
use http::{HeaderMap, Request, Response};
use inlay::transport::{Hop, http2};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The most steps of an input: each may move some 100 KiB.
const MAX_STEPS: usize = 16;
/// How long a step may take, on a clock that runs while nothing else does.
const LIMIT: Duration = Duration::from_secs(60);
/// The largest header list of both peers (bytes).
const MAX_HEADERS: u32 = 1 << 20;

/// Holds the target's properties against one input.
pub fn check(input: &[u8]) {
    let Some((&[a, b, c, d], steps)) = input.split_first_chunk() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime
        .expect("no driver, nothing to fail")
        .block_on(async {
            let (client, near) = duplex(1 << 20);
            let (far, daemon) = duplex(1 << 20);
            tokio::spawn(answer(daemon));
            let hop = Hop::default();
            let connected = http2::connected(Cut::new(far, c, d), &hop);
            let (requests, connection) = http2::connect(connected).await.expect("it is taken");
            tokio::spawn(connection);
            let accepted = http2::accepted(Cut::new(near, a, b), &hop);
            let never = CancellationToken::new();
            let served = http2::serve(accepted, never.clone(), move |request| {
                let (requests, never) = (requests.clone(), never.clone());
                async move { requests.forward(request, &never).await }
            });
            let served = tokio::spawn(served);
            ask(client, &steps[..steps.len().min(MAX_STEPS)]).await;
            let served = timeout(LIMIT, served)
                .await
                .expect("it ends with its client");
            // What is written to a client that has left goes nowhere.
            if let Err(err) = served.expect("no panic") {
                assert!(err.is_io(), "{err}");
            }
        });
}

/// The client, which takes the steps. All that is beside each other runs at a time.
async fn ask(stream: DuplexStream, steps: &[u8]) {
    let mut client = h2::client::Builder::new();
    client.max_header_list_size(MAX_HEADERS);
    let handshake = client.handshake::<_, Bytes>(stream).await;
    let (requests, mut connection) = handshake.expect("it is taken");
    let pings = Mutex::new(connection.ping_pong().expect("it is asked for once"));
    let connection = tokio::spawn(connection);
    for beside in steps.split_inclusive(|step| step & 0x80 == 0) {
        let steps = beside
            .iter()
            .map(|step| self::step(*step, requests.clone(), &pings));
        timeout(LIMIT, join_all(steps))
            .await
            .expect("all is answered");
    }
    drop((requests, pings));
    let ended = timeout(LIMIT, connection).await.expect("it ends");
    ended.expect("no panic").expect("no frame is out of place");
}

/// One step: the low bits say how much, the others what.
async fn step(step: u8, requests: h2::client::SendRequest<Bytes>, pings: &Mutex<PingPong>) {
    let size = usize::from(step & 0x1f);
    match step >> 5 & 3 {
        0 => sleep(Duration::from_millis(100 * size as u64)).await,
        1 => {
            let pong = pings.lock().await.ping(Ping::opaque()).await;
            pong.expect("an answer");
        }
        2 => call(requests, size * 1_500, 0).await,
        _ => call(requests, size, size * 3_000).await,
    }
}

/// A call with a long header and data, which both come back.
async fn call(requests: h2::client::SendRequest<Bytes>, header: usize, data: usize) {
    let mut requests = requests.ready().await.expect("the connection is there");
    let request = Request::post("http://localhost/any.Service/Method")
        .header("long", "x".repeat(header))
        .body(());
    let request = request.expect("a request");
    let (answer, mut stream) = requests.send_request(request, false).expect("it is taken");
    let bytes: Vec<u8> = (0..data).map(|at| (at % 251) as u8).collect();
    stream
        .send_data(bytes.clone().into(), true)
        .expect("it is taken");
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.headers()["long"].len(), header);
    let (mut body, mut read) = (answer.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        let data = data.expect("an answer to its end");
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
    }
    assert_eq!(read, bytes);
    let trailers = body.trailers().await.expect("an answer to its end");
    assert_eq!(trailers.expect("trailers")["long"].len(), header);
}

/// The daemon, which sends all back: headers as headers and as trailers.
async fn answer(stream: DuplexStream) {
    let mut server = h2::server::Builder::new();
    server.max_header_list_size(MAX_HEADERS);
    let handshake = server.handshake::<_, Bytes>(stream).await;
    let mut connection = handshake.expect("a preface");
    while let Some(call) = connection.accept().await {
        let (request, mut respond) = call.expect("no frame is out of place");
        tokio::spawn(async move {
            let mut headers = HeaderMap::new();
            headers.insert("long", request.headers()["long"].clone());
            let mut response = Response::new(());
            *response.headers_mut() = headers.clone();
            let mut stream = respond.send_response(response, false).expect("it is taken");
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let data = data.expect("a request to its end");
                let _ = body.flow_control().release_capacity(data.len());
                stream.send_data(data, false).expect("it is taken");
            }
            stream.send_trailers(headers).expect("it is taken");
        });
    }
}

/// A stream that is read and written in pieces of changing sizes.
struct Cut {
    stream: DuplexStream,
    most: usize,
    last: usize,
}

impl Cut {
    fn new(stream: DuplexStream, most: u8, first: u8) -> Self {
        Self {
            stream,
            most: usize::from(most) * 32 + 1,
            last: first.into(),
        }
    }

    /// The size of the next piece.
    fn next(&mut self) -> usize {
        self.last = (self.last * 31 + 7) % 8_191;
        self.last % self.most + 1
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = into.remaining().min(self.next());
        let mut piece = ReadBuf::new(into.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        let length = piece.filled().len();
        into.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = data.len().min(self.next());
        Pin::new(&mut self.stream).poll_write(context, &data[..length])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
