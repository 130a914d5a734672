//! What inlay does not handle passes as it is: calls of any service, streams, errors with their
//! details, the other subcommands of buildctl.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use hyper_util::rt::TokioIo;
use inlay::protocol::proto::control::control_client::ControlClient;
use inlay::protocol::proto::control::{BytesMessage, SolveRequest};
use inlay::protocol::proto::pb;
use inlay::transport::http2;
use prost::Message as _;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::support::{
    Buildctl, Buildkitd, INLINE_CACHE_KEY, Inlay, Project, Registry, SOON, own_platform,
};

/// A gRPC client of the socket at an address.
async fn connect(addr: &str) -> Channel {
    let path = PathBuf::from(addr.strip_prefix("unix://").unwrap());
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// What a health check answers: 1 is good.
#[derive(Clone, PartialEq, prost::Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// A wish for builds of the past, and no more.
#[derive(Clone, PartialEq, prost::Message)]
struct History {
    #[prost(bool, tag = "3")]
    early_exit: bool,
}

/// Any message, unread.
#[derive(Clone, PartialEq, prost::Message)]
struct Unread {}

/// Calls a unary method.
async fn call(channel: Channel, path: &'static str) -> Result<tonic::Response<Health>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Unread, Health>::default();
    client
        .unary(Request::new(Unread {}), path.parse().unwrap(), codec)
        .await
}

/// All that a client sees of a status.
fn seen(status: &Status) -> (Code, String, Bytes, Vec<String>) {
    let metadata = status.metadata().clone().into_headers();
    let mut headers: Vec<String> = metadata
        .iter()
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    headers.sort();
    (
        status.code(),
        status.message().to_owned(),
        Bytes::copy_from_slice(status.details()),
        headers,
    )
}

#[test]
fn services_and_methods_that_inlay_does_not_know_pass() {
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    block_on(async {
        for (path, message) in [
            ("/no.such.Service/Method", "unknown service no.such.Service"),
            (
                "/moby.buildkit.v1.Control/NoSuchMethod",
                "unknown method NoSuchMethod",
            ),
        ] {
            let direct = call(connect(&buildkitd.addr()).await, path)
                .await
                .unwrap_err();
            let through = call(connect(&inlay.addr()).await, path).await.unwrap_err();
            assert_eq!(direct.code(), Code::Unimplemented);
            assert!(direct.message().contains(message), "{direct}");
            assert_eq!(seen(&direct), seen(&through));
        }
        // Of a service that inlay has no definition of, with an answer.
        let health = "/grpc.health.v1.Health/Check";
        let direct = call(connect(&buildkitd.addr()).await, health)
            .await
            .unwrap();
        let through = call(connect(&inlay.addr()).await, health).await.unwrap();
        assert_eq!((direct.get_ref().status, through.get_ref().status), (1, 1));
        assert_eq!(
            direct.metadata().clone().into_headers(),
            through.metadata().clone().into_headers()
        );
    });
}

/// A definition of one step, which cannot be run.
fn failing_definition() -> pb::Definition {
    let meta = pb::Meta {
        args: vec!["/no-such-program".to_owned()],
        cwd: "/".to_owned(),
        ..Default::default()
    };
    let rootfs = pb::Mount {
        input: -1,
        dest: "/".to_owned(),
        ..Default::default()
    };
    let exec = pb::ExecOp {
        meta: Some(meta),
        mounts: vec![rootfs],
        ..Default::default()
    };
    let op = pb::Op {
        op: Some(pb::op::Op::Exec(exec)),
        ..Default::default()
    }
    .encode_to_vec();
    let end = pb::Op {
        inputs: vec![pb::Input {
            digest: inlay::cache::record::Digest::of(&op).to_string(),
            index: 0,
        }],
        ..Default::default()
    };
    pb::Definition {
        def: vec![op, end.encode_to_vec()],
        ..Default::default()
    }
}

#[test]
fn the_error_of_a_solve_comes_with_its_details() {
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let solve = async |addr: String, reference: &str| {
        let request = SolveRequest {
            r#ref: reference.to_owned(),
            definition: Some(failing_definition().encode_to_vec().into()),
            ..Default::default()
        };
        let mut control = ControlClient::new(connect(&addr).await);
        control.solve(request).await.unwrap_err()
    };
    block_on(async {
        let direct = solve(buildkitd.addr(), "direct").await;
        let through = solve(inlay.addr(), "through").await;
        assert!(direct.message().contains("no-such-program"), "{direct}");
        assert!(direct.details().len() > 100, "{direct}");
        assert_eq!(seen(&direct), seen(&through));
    });
}

#[test]
fn a_session_is_open_as_long_as_its_client_wants() {
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    // One of compressed messages, too: it passes unread.
    for compression in [None, Some(CompressionEncoding::Gzip)] {
        block_on(async {
            let mut control = ControlClient::new(connect(&inlay.addr()).await);
            if let Some(encoding) = compression {
                control = control
                    .send_compressed(encoding)
                    .accept_compressed(encoding);
            }

            // The daemon speaks first in a session: as the client of an HTTP/2 connection within.
            let (messages, outgoing) = tokio::sync::mpsc::channel::<BytesMessage>(1);
            let outgoing = futures_util::stream::unfold(outgoing, |mut outgoing| async move {
                Some((outgoing.recv().await?, outgoing))
            });
            let mut request = Request::new(outgoing);
            let id = "x-docker-expose-session-uuid";
            request.metadata_mut().insert(id, "test".parse().unwrap());
            let opened = timeout(SOON, control.session(request)).await;
            let opened = opened.expect("the headers come at once").unwrap();
            let encoding = opened.metadata().get("grpc-encoding").cloned();
            assert_eq!(encoding.is_some(), compression.is_some(), "{encoding:?}");
            let mut incoming = opened.into_inner();
            let first = timeout(SOON, incoming.message()).await;
            let first = first.unwrap().unwrap().unwrap();
            assert!(first.data.starts_with(b"PRI * HTTP/2.0"), "{first:?}");
            // What the client says arrives: this server's settings, which are acknowledged.
            let settings = Bytes::from_static(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
            let settings = BytesMessage { data: settings };
            messages.send(settings).await.unwrap();
            let acknowledged = async {
                let mut received = Vec::new();
                while let Some(message) = incoming.message().await.unwrap() {
                    received.extend_from_slice(&message.data);
                    if received.windows(5).any(|frame| frame == [0, 0, 0, 4, 1]) {
                        return true;
                    }
                }
                false
            };
            assert!(timeout(SOON, acknowledged).await.unwrap());
            assert_eq!(buildkitd.sessions(), 1);
            // Its end arrives, too.
            drop((incoming, messages));
            let ended = async {
                while buildkitd.sessions() != 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(SOON, ended).await.unwrap();
        });
    }
}

#[test]
fn a_stream_ends_with_its_trailers() {
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    block_on(async {
        let mut client = tonic::client::Grpc::new(connect(&inlay.addr()).await);
        client.ready().await.unwrap();
        let path = "/moby.buildkit.v1.Control/ListenBuildHistory"
            .parse()
            .unwrap();
        let codec = tonic_prost::ProstCodec::<History, Unread>::default();
        let request = Request::new(History { early_exit: true });
        let events = client.server_streaming(request, path, codec).await;
        let mut events = events.unwrap().into_inner();
        while timeout(SOON, events.message())
            .await
            .unwrap()
            .unwrap()
            .is_some()
        {}
        assert!(events.trailers().await.unwrap().is_some());
    });
}

/// What `buildctl` says, directly and through inlay.
fn both(buildkitd: &Buildkitd, inlay: &Inlay, args: &[&str]) -> [String; 2] {
    [buildkitd.addr(), inlay.addr()].map(|addr| {
        let output = Buildctl::command(&addr, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

#[test]
fn the_other_subcommands_of_buildctl_work() {
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = Project::new()
        .dockerfile("FROM scratch\nCOPY file /\n")
        .file("file", "x");
    Buildctl::new(inlay.addr()).project(&project).run_ok();
    for (args, part) in [
        (&["du", "--verbose"][..], "COPY file /"),
        (&["debug", "workers", "--verbose"], &own_platform()),
        (&["debug", "info"], "v0."),
        (&["debug", "histories"], "COMPLETE\t"),
    ] {
        let [direct, through] = both(&buildkitd, &inlay, args);
        assert!(direct.contains(part), "{args:?}: {direct}");
        assert_eq!(direct, through, "{args:?}");
    }
    let pruned = Buildctl::command(&inlay.addr(), &["prune"]);
    let pruned = String::from_utf8_lossy(&pruned.stdout).into_owned();
    assert!(pruned.contains("Total:"), "{pruned}");
    assert_eq!(buildkitd.usage(), Vec::<Value>::new());
}

#[test]
fn a_build_that_asks_for_no_inline_cache_is_untouched() {
    let registry = Registry::start();
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let never = Inlay::start(&buildkitd, &["--inline-export=never"]);
    let project = Project::new()
        .dockerfile("FROM scratch\nCOPY file /\n")
        .file("file", "x");
    let build = |addr: &str, tag: &str| {
        Buildctl::new(addr)
            .project(&project)
            .epoch(1_700_000_000)
            .push_with(&registry.image(tag), "rewrite-timestamp=true")
    };
    build(&buildkitd.addr(), "demo:plain").run_ok();
    buildkitd.wipe();
    build(&inlay.addr(), "demo:inlay").run_ok();
    assert_eq!(registry.digest("demo:plain"), registry.digest("demo:inlay"));
    let config: Value = serde_json::from_slice(&registry.config("demo:inlay", None)).unwrap();
    assert!(config.get(INLINE_CACHE_KEY).is_none());

    build(&never.addr(), "demo:never")
        .export_cache("type=inline")
        .run_ok();
    let records = crate::support::inline_records(&registry.config("demo:never", None));
    assert!(
        records
            .iter()
            .any(|record| record.to_string().contains("createdAt")),
        "BuildKit's own"
    );
}

/// A server that ends each connection as soon as it has answered one call.
async fn answer_and_leave(listener: UnixListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let leave = CancellationToken::new();
            let answered = leave.clone();
            let served = http2::serve(stream, leave, move |_| {
                answered.cancel();
                async {
                    let message = Health { status: 1 }.encode_to_vec();
                    let mut data = vec![0, 0, 0, 0, message.len() as u8];
                    data.extend(message);
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    Response::builder()
                        .header("content-type", "application/grpc")
                        .body(http2::from_parts(data.into(), Some(trailers)))
                }
            });
            let _ = served.await;
        });
    }
}

#[test]
fn what_a_daemon_answers_last_reaches_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("buildkitd.sock");
    block_on(async {
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(answer_and_leave(listener));
        let addr = format!("unix://{}", socket.display());
        let inlay = tokio::task::spawn_blocking(move || Inlay::in_front_of(&addr, &[]));
        let inlay = inlay.await.unwrap();
        for round in 0..50 {
            let answer = call(connect(&inlay.addr()).await, "/any.Service/Method").await;
            let answer = answer.unwrap_or_else(|err| panic!("round {round}: {err}"));
            assert_eq!(answer.get_ref().status, 1);
        }
    });
}

/// A daemon that is stopped, as `SIGSTOP` and a host without memory do: a client that asks whether it
/// is alive gets no answer, and gets it as soon as the daemon goes on.
#[test]
fn a_daemon_that_is_stopped_answers_no_ping() {
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    for addr in [buildkitd.addr(), inlay.addr()] {
        block_on(async {
            let path = addr.strip_prefix("unix://").unwrap();
            let stream = UnixStream::connect(path).await.unwrap();
            let (requests, mut connection) = h2::client::handshake(stream).await.unwrap();
            let mut pings = connection.ping_pong().unwrap();
            tokio::spawn(connection);
            // A call that stays open, with an answer that has begun.
            let request = http::Request::post("http://localhost/moby.buildkit.v1.Control/Session")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("x-docker-expose-session-uuid", "stopped");
            let mut requests = requests.ready().await.unwrap();
            let request = request.body(()).unwrap();
            let (answer, _stream) = requests.send_request(request, false).unwrap();
            timeout(SOON, answer).await.unwrap().unwrap();
            // Pings right behind data measure the connection.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let ping = pings.ping(h2::Ping::opaque());
            timeout(SOON, ping).await.expect("it is alive").unwrap();

            buildkitd.stop(true);
            // A busy machine lets its threads go on for a moment.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let ping = pings.ping(h2::Ping::opaque());
            let answered = timeout(Duration::from_secs(2), ping).await;
            buildkitd.stop(false);
            assert!(answered.is_err(), "{addr}");
            let pong = std::future::poll_fn(|context| pings.poll_pong(context));
            timeout(SOON, pong).await.expect("it goes on").unwrap();
        });
    }
}
