//! Daemons that stop in order, and several daemons behind one address.

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use inlay::protocol::proto::control::{
    CacheOptions, CacheOptionsEntry, Exporter, ListWorkersResponse, SolveRequest,
    types::WorkerRecord,
};
use inlay::protocol::proto::gateway::{
    Ref, Result as BuildResult, ReturnRequest, WarnRequest, result,
};
use inlay::protocol::proto::pb;
use inlay::transport::http2;
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Buildctl, Buildkitd, Inlay, Project, Registry, SOON, inline_records, wait_for,
};

const SLOW: &str = "\
FROM scratch
ADD rootfs.tar /
COPY file /
RUN while ! test -e /stop && test $((n=n+1)) -lt 20; do sleep 0.1; done; cp /file /copy
";

/// A client's build ends well, and has its cache, though the daemon stops in the middle of a step.
#[test]
fn a_draining_daemon_lets_builds_end() {
    let registry = Registry::start();
    let project = Project::new().base().dockerfile(SLOW).file("file", "x");
    for is_cached in [true, false] {
        let mut buildkitd = Buildkitd::start();
        let inlay = Inlay::start(&buildkitd, &[]);
        let mut build = Buildctl::new(inlay.addr())
            .project(&project)
            .push(&registry.image("demo:drain"));
        if is_cached {
            build = build.export_cache("type=inline,ignore-error=false");
        }
        let build = build.spawn();
        let in_step = || {
            let processes = buildkitd.processes();
            let in_step = processes.iter().any(|line| line.contains("sleep"));
            in_step.then_some(())
        };
        assert!(wait_for(6 * SOON, in_step).is_some(), "{}", build.kill());
        buildkitd.drain();
        let built = build.wait();
        assert!(built.status.success(), "{built}");
        assert_eq!(built.warnings, [""; 0], "{built}");
        let records = inline_records(&registry.config("demo:drain", None));
        assert_eq!(records.is_empty(), !is_cached);
    }
}

/// Each connection of a client goes to one daemon, and what inlay asks for its builds goes there too.
#[test]
fn builds_behind_a_balancer_have_their_cache() {
    let registry = Registry::start();
    let daemons = [Buildkitd::start(), Buildkitd::start()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("tcp://{}", listener.local_addr().unwrap());
    let sockets = daemons.each_ref().map(|daemon| {
        let addr = daemon.addr();
        addr.strip_prefix("unix://").unwrap().to_owned()
    });
    thread::spawn(move || {
        for (stream, socket) in listener.incoming().zip(sockets.iter().cycle()) {
            let (Ok(client), Ok(daemon)) = (stream, UnixStream::connect(socket)) else {
                return;
            };
            let (mut to_client, mut from_daemon) =
                (client.try_clone().unwrap(), daemon.try_clone().unwrap());
            let (mut from_client, mut to_daemon) = (client, daemon);
            thread::spawn(move || {
                let _ = io::copy(&mut from_client, &mut to_daemon);
                let _ = to_daemon.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let _ = io::copy(&mut from_daemon, &mut to_client);
                let _ = to_client.flush();
                let _ = to_client.shutdown(Shutdown::Both);
            });
        }
    });
    let inlay = Inlay::in_front_of(&addr, &[]);
    for number in 0..6 {
        let project = Project::new()
            .dockerfile("FROM scratch\nCOPY file /\n")
            .file("file", number.to_string());
        let built = Buildctl::new(inlay.addr())
            .project(&project)
            .push(&registry.image("demo:balanced"))
            .export_cache("type=inline,ignore-error=false")
            .run_ok();
        assert_eq!(built.warnings, [""; 0], "{built}");
        assert!(!inline_records(&registry.config("demo:balanced", None)).is_empty());
    }
}

/// A server that tells each connection to leave after a moment, as one with a largest age does.
async fn leave_soon(listener: UnixListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let leave = CancellationToken::new();
            let served = http2::serve(stream, leave.clone(), |request| async move {
                let slow = request.uri().path().ends_with("/Slow");
                sleep(Duration::from_millis(if slow { 200 } else { 1 })).await;
                let body = http2::from_parts(Bytes::from_static(b"\0\0\0\0\0"), None);
                Ok::<_, http::Error>(Response::new(body))
            });
            let told = async {
                sleep(Duration::from_millis(50)).await;
                leave.cancel();
            };
            let _ = tokio::join!(served, told);
        });
    }
}

/// A gRPC answer: no message where the status is not 0.
fn answer(
    status: &'static str,
    text: &'static str,
    message: &impl Message,
) -> Response<http2::Body> {
    let mut data = BytesMut::new();
    if status == "0" {
        let message = message.encode_to_vec();
        data.put_u8(0);
        data.put_u32(message.len() as u32);
        data.extend(message);
    }
    let trailers = HeaderMap::from_iter([
        (
            "grpc-status".parse().unwrap(),
            HeaderValue::from_static(status),
        ),
        (
            "grpc-message".parse().unwrap(),
            HeaderValue::from_static(text),
        ),
    ]);
    let mut answer = Response::new(http2::from_parts(data.freeze(), Some(trailers)));
    let grpc = HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert("content-type", grpc);
    answer
}

/// A daemon that takes no more calls while a build is evaluated, and cannot evaluate it. Gives on
/// what it is to warn of.
async fn leave_at_the_end(listener: UnixListener, warnings: UnboundedSender<WarnRequest>) {
    let returned = Arc::new(Notify::new());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let leave = CancellationToken::new();
        let shared = (leave.clone(), Arc::clone(&returned), warnings.clone());
        let call = move |request: Request<http2::Body>| {
            let (leave, returned, warnings) = shared.clone();
            async move {
                let (head, body) = request.into_parts();
                if head.uri.path().ends_with("/Session") {
                    return Ok(answer("12", "it has no sessions", &()));
                }
                let message = body.collect().await.map(|body| body.to_bytes());
                let message = message.unwrap_or_default();
                let message = message.get(5..).unwrap_or_default();
                let path = head.uri.path().rsplit('/').next().unwrap_or_default();
                Ok::<_, http::Error>(match path {
                    "ListWorkers" => {
                        let platform = pb::Platform {
                            os: "linux".to_owned(),
                            architecture: "amd64".to_owned(),
                            ..Default::default()
                        };
                        let worker = WorkerRecord {
                            platforms: vec![platform],
                            ..Default::default()
                        };
                        answer(
                            "0",
                            "",
                            &ListWorkersResponse {
                                record: vec![worker],
                            },
                        )
                    }
                    "Solve" => {
                        let solve = SolveRequest::decode(message).unwrap();
                        if solve.exporters.is_empty() {
                            answer("2", "requires dest", &())
                        } else {
                            returned.notified().await;
                            answer("0", "", &())
                        }
                    }
                    "Evaluate" => {
                        leave.cancel();
                        sleep(Duration::from_millis(300)).await;
                        answer("12", "it has no such call", &())
                    }
                    "Return" => {
                        returned.notify_one();
                        answer("0", "", &())
                    }
                    "Warn" => {
                        warnings
                            .send(WarnRequest::decode(message).unwrap())
                            .unwrap();
                        answer("0", "", &())
                    }
                    _ => answer("12", "it has no such call", &()),
                })
            }
        };
        tokio::spawn(http2::serve(stream, leave, call));
    }
}

/// A daemon that takes no more calls takes the warning that an image has no cache: its call is open
/// since the build began.
#[tokio::test]
async fn a_draining_daemon_is_told_why_there_is_no_cache() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("buildkitd.sock");
    let (warn, mut warnings) = unbounded_channel();
    tokio::spawn(leave_at_the_end(UnixListener::bind(&socket).unwrap(), warn));
    let inlay = Inlay::in_front_of(&format!("unix://{}", socket.display()), &[]);
    let addr = inlay.addr();
    let stream = tokio::net::UnixStream::connect(addr.strip_prefix("unix://").unwrap());
    let (requests, connection) = h2::client::handshake(stream.await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let call = async |path: &str, message: Vec<u8>| {
        let request = Request::post(format!("http://localhost/{path}"))
            .header("content-type", "application/grpc")
            .header("buildkit-controlapi-buildid", "build-1");
        let request = request.body(()).unwrap();
        let mut ready = requests.clone().ready().await.unwrap();
        let (answer, mut body) = ready.send_request(request, false).unwrap();
        let mut data = BytesMut::new();
        data.put_u8(0);
        data.put_u32(message.len() as u32);
        data.extend(message);
        body.send_data(data.freeze(), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        while body.data().await.is_some() {}
        body.trailers().await.unwrap().unwrap()["grpc-status"].clone()
    };
    let entry = |kind: &str| CacheOptionsEntry {
        r#type: kind.to_owned(),
        ..Default::default()
    };
    let solve = SolveRequest {
        r#ref: "build-1".to_owned(),
        exporters: vec![Exporter {
            r#type: "image".to_owned(),
            ..Default::default()
        }],
        cache: Some(CacheOptions {
            exports: vec![entry("inline")],
            ..Default::default()
        }),
        ..Default::default()
    };
    let definition = pb::Definition {
        def: vec![pb::Op::default().encode_to_vec()],
        ..Default::default()
    };
    let made = Ref {
        id: "ref-1".to_owned(),
        def: definition.encode_to_vec().into(),
    };
    let result = BuildResult {
        result: Some(result::Result::Ref(made)),
        ..Default::default()
    };
    let returned = ReturnRequest {
        result: Some(result.encode_to_vec().into()),
        ..Default::default()
    };
    let build = async {
        tokio::join!(
            call("moby.buildkit.v1.Control/Solve", solve.encode_to_vec()),
            async {
                sleep(Duration::from_millis(200)).await;
                let path = "moby.buildkit.v1.frontend.LLBBridge/Return";
                call(path, returned.encode_to_vec()).await
            }
        )
    };
    let (solved, returned) = timeout(6 * SOON, build).await.expect("the build ends");
    assert_eq!(
        (solved, returned),
        ("0".parse().unwrap(), "0".parse().unwrap())
    );
    let warning = timeout(SOON, warnings.recv())
        .await
        .expect("a warning")
        .unwrap();
    let text = String::from_utf8(warning.short.to_vec()).unwrap();
    assert!(text.contains("built without inline cache"), "{text}");
}

/// Calls that run go on. One that is too late is reset with REFUSED_STREAM after GOAWAY, so that
/// clients make it again on a new connection, and none fails in another way.
#[test]
fn a_call_that_is_too_late_can_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("buildkitd.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let addr = format!("unix://{}", socket.display());
    let listener = runtime.block_on(async { UnixListener::bind(&socket).unwrap() });
    runtime.spawn(leave_soon(listener));
    let inlay = Inlay::in_front_of(&addr, &[]);
    let addr = inlay.addr();
    let inlay_socket = addr.strip_prefix("unix://").unwrap().to_owned();
    let (answered, refused) = runtime.block_on(async {
        let (mut answered, mut refused) = (0, 0);
        for _ in 0..10 {
            let stream = tokio::net::UnixStream::connect(&inlay_socket)
                .await
                .unwrap();
            let (requests, connection) = h2::client::handshake(stream).await.unwrap();
            let connection = tokio::spawn(connection);
            let request = |path: &str| {
                let uri = format!("http://localhost/any.Service/{path}");
                http::Request::post(uri).body(()).unwrap()
            };
            let Ok(mut ready) = requests.clone().ready().await else {
                continue; // it was told to leave before it could begin
            };
            let (slow, _) = ready.send_request(request("Slow"), true).unwrap();
            loop {
                let Ok(mut ready) = requests.clone().ready().await else {
                    break; // it was told to leave
                };
                let (quick, _) = ready.send_request(request("Quick"), true).unwrap();
                match quick.await {
                    Ok(answer) => {
                        assert_eq!(answer.status(), 200);
                        answered += 1;
                    }
                    Err(err) => {
                        let is_refused = err.reason() == Some(h2::Reason::REFUSED_STREAM);
                        assert!(is_refused || err.is_go_away(), "{err:?}");
                        refused += 1;
                        break;
                    }
                }
                sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(slow.await.expect("a call that runs goes on").status(), 200);
            connection.abort(); // the server has left, and what is still sent finds nobody
        }
        (answered, refused)
    });
    assert!(answered > 10, "{answered}");
    assert!(refused <= 10, "{refused}");
}
