//! A session between a daemon and a client that are both here, and do what real ones cannot be made
//! to do. tests/e2e/session.rs has the real ones.

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::{Empty, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::Join;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::protocol::proto::auth::auth_server::{Auth, AuthServer};
use crate::protocol::proto::auth::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse,
};
use crate::protocol::proto::content as api;
use crate::protocol::proto::content::content_client::ContentClient;
use crate::session::byte_stream::Messages;
use crate::session::{Blobs, credentials, fetch_token};
use crate::source::{Login, Token, TokenRequest};

/// How long anything may take that has nothing to wait for.
const SOON: Duration = Duration::from_secs(10);

/// A session that is open.
struct Stand {
    sessions: Sessions,
    session: Arc<ClientSession>,
    /// The daemon's connection within.
    daemon: Requests,
    /// What the daemon and the client write to, for their last words.
    of_daemon: Writer,
    of_client: Writer,
    /// What the daemon reads: the end tells how the client's stream ended.
    to_daemon: Reader,
    to_client: Reader,
}

/// The outer calls, without anybody at their ends.
struct Ends {
    sessions: Sessions,
    /// As the daemon gets it.
    headers: HeaderMap,
    with_daemon: Join<Reader, Writer>,
    with_client: Join<Reader, Writer>,
}

fn body(messages: Messages) -> Body {
    messages.boxed_unsync()
}

fn call(methods: &[&'static str], messages: Body) -> Request<Body> {
    let mut call = Request::new(messages);
    let headers = call.headers_mut();
    headers.insert(ID_HEADER, HeaderValue::from_static("one"));
    for method in methods {
        headers.append(METHOD_HEADER, HeaderValue::from_static(method));
    }
    call
}

fn ends(methods: &[&'static str]) -> Ends {
    let sessions = Sessions::default();
    let (of_client, from_client) = messages();
    let (of_daemon, from_daemon) = messages();
    let (request, opening) = sessions.open(call(methods, body(from_client)));
    let (head, to_daemon) = request.into_parts();
    let answer = opening.answered(Response::new(body(from_daemon)));
    Ends {
        sessions,
        headers: head.headers,
        with_daemon: join(Reader::new(to_daemon), of_daemon),
        with_client: join(Reader::new(answer.into_body()), of_client),
    }
}

impl Stand {
    /// Opens one with a client that answers calls by `tool`.
    async fn open<F, R>(methods: &[&'static str], tool: F) -> Self
    where
        F: Fn(Request<Body>) -> R + Send + 'static,
        R: Future<Output = Result<Response<Body>, Status>> + Send + 'static,
    {
        let ends = ends(methods);
        let (of_daemon, to_daemon) = (
            ends.with_daemon.writer().clone(),
            ends.with_daemon.reader().clone(),
        );
        let (of_client, to_client) = (
            ends.with_client.writer().clone(),
            ends.with_client.reader().clone(),
        );
        tokio::spawn(http2::serve(
            ends.with_client,
            CancellationToken::new(),
            tool,
        ));
        let (daemon, connection) = http2::connect(ends.with_daemon).await.unwrap();
        tokio::spawn(connection);
        let session = ends.sessions.get("one").await.unwrap();
        Self {
            sessions: ends.sessions,
            session,
            daemon,
            of_daemon,
            of_client,
            to_daemon,
            to_client,
        }
    }

    async fn send(&self, path: &str, body: Body) -> Result<Response<Incoming>, CallError> {
        let request = Request::post(format!("http://localhost{path}")).body(body);
        let sent = self.daemon.call(request.unwrap());
        timeout(SOON, sent).await.expect("an answer comes soon")
    }
}

fn nothing() -> Body {
    Empty::new()
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

fn full(data: impl Into<Bytes>) -> Body {
    Full::new(data.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The code by which HTTP/2 reset a call.
fn reset(err: &(dyn Error + 'static)) -> Option<h2::Reason> {
    let mut source = Some(err);
    while let Some(err) = source {
        if let Some(err) = err.downcast_ref::<h2::Error>() {
            return err.reason();
        }
        source = err.source();
    }
    None
}

fn with_reset(reason: h2::Reason) -> Status {
    let mut status = Status::internal("reset");
    status.set_source(Arc::new(h2::Error::from(reason)));
    status
}

#[tokio::test]
async fn a_method_that_nobody_knows_passes_with_all_it_has() {
    let (seen, mut calls) = mpsc::channel(1);
    let stand = Stand::open(&[], move |call| {
        let seen = seen.clone();
        async move {
            let (head, body) = call.into_parts();
            seen.send((head.uri.path().to_owned(), head.headers))
                .await
                .unwrap();
            // Each message back as it comes, then trailers.
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.append("twice", HeaderValue::from_static("a"));
            trailers.append("twice", HeaderValue::from_static("b"));
            let trailers = stream::iter([Ok(Frame::trailers(trailers))]);
            let frames = body.into_data_stream().map(|data| Ok(Frame::data(data?)));
            let body = StreamBody::new(frames.chain(trailers)).boxed_unsync();
            let mut response = Response::new(body);
            let headers = response.headers_mut();
            headers.insert(
                "x-binary-bin",
                HeaderValue::from_bytes(b"\xff\x80").unwrap(),
            );
            Ok(response)
        }
    })
    .await;
    let (messages, outgoing) = mpsc::channel::<Bytes>(1);
    let outgoing = stream::unfold(outgoing, |mut outgoing| async move {
        Some((Ok(Frame::data(outgoing.recv().await?)), outgoing))
    });
    let mut request = Request::post("http://localhost/no.such.Service/Method")
        .body(StreamBody::new(outgoing).boxed_unsync())
        .unwrap();
    let headers = request.headers_mut();
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.append("key", HeaderValue::from_static("one"));
    headers.append("key", HeaderValue::from_static("two"));
    let sent = request.headers().clone();
    let response = stand.daemon.call(request).await.unwrap();
    let (path, received) = calls.recv().await.unwrap();
    assert_eq!((path.as_str(), received), ("/no.such.Service/Method", sent));
    assert_eq!(response.headers().len(), 1);
    assert_eq!(response.headers()["x-binary-bin"].as_bytes(), b"\xff\x80");
    let mut body = response.into_body();
    for message in ["first", "second"] {
        messages.send(message.into()).await.unwrap();
        let frame = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    drop(messages);
    let frame = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
    let trailers = frame.into_trailers().unwrap();
    assert_eq!(trailers.get_all("twice").iter().count(), 2);
    assert!(timeout(SOON, body.frame()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_reset_passes_both_ways_with_its_code() {
    let (seen, mut resets) = mpsc::channel(1);
    let stand = Stand::open(&[], move |call| {
        let seen = seen.clone();
        async move {
            match call.uri().path() {
                "/refused" => Err(with_reset(h2::Reason::REFUSED_STREAM)),
                "/broken" => {
                    let frames = [
                        Ok(Frame::data(Bytes::from_static(b"data"))),
                        Err(with_reset(h2::Reason::ENHANCE_YOUR_CALM).into()),
                    ];
                    let frames = stream::iter(frames);
                    Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
                }
                _ => {
                    tokio::spawn(async move {
                        let err = call.into_body().collect().await.unwrap_err();
                        seen.send(reset(&err)).await.unwrap();
                    });
                    Ok(Response::new(nothing()))
                }
            }
        }
    })
    .await;
    let err = stand.send("/refused", nothing()).await.unwrap_err();
    assert_eq!(reset(&err), Some(h2::Reason::REFUSED_STREAM));
    let mut body = stand.send("/broken", nothing()).await.unwrap().into_body();
    let frame = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "data");
    let err = timeout(SOON, body.collect()).await.unwrap().unwrap_err();
    assert_eq!(reset(&err), Some(h2::Reason::ENHANCE_YOUR_CALM));
    // The daemon's own, in the middle of what it sends.
    let (cancel, canceled) = tokio::sync::oneshot::channel::<()>();
    let frames = stream::once(canceled.map(|_| Err(with_reset(h2::Reason::CANCEL).into())));
    let endless = StreamBody::new(frames).boxed_unsync();
    let _response = stand.send("/read", endless).await.unwrap();
    drop(cancel);
    let seen = timeout(SOON, resets.recv()).await.unwrap().unwrap();
    assert_eq!(seen, Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn a_call_that_the_daemon_gives_up_ends_at_the_client() {
    let given_up = CancellationToken::new();
    let guard = given_up.clone();
    let (called, mut calls) = mpsc::channel(1);
    let stand = Stand::open(&[], move |_| {
        let (guard, called) = (guard.clone().drop_guard(), called.clone());
        async move {
            let _guard = guard;
            called.send(()).await.unwrap();
            std::future::pending().await
        }
    })
    .await;
    let request = Request::post("http://localhost/slow")
        .body(nothing())
        .unwrap();
    let daemon = stand.daemon.clone();
    let sent = tokio::spawn(async move { daemon.call(request).await });
    timeout(SOON, calls.recv()).await.unwrap().unwrap();
    sent.abort();
    timeout(SOON, given_up.cancelled())
        .await
        .expect("the client is told");
}

#[tokio::test]
async fn what_nobody_reads_is_held_back_and_holds_up_nobody() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let stand = Stand::open(&[], move |call| {
        let counter = Arc::clone(&counter);
        async move {
            if call.uri().path() != "/endless" {
                return Ok(Response::new(full("answer")));
            }
            let chunks = stream::repeat_with(move || {
                counter.fetch_add(16 << 10, Ordering::SeqCst);
                Ok(Frame::data(Bytes::from_static(&[0; 16 << 10])))
            });
            Ok(Response::new(StreamBody::new(chunks).boxed_unsync()))
        }
    })
    .await;
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(stand.send("/endless", nothing()).await.unwrap());
    }
    // Until nothing moves any more.
    let mut before = usize::MAX;
    while before != sent.load(Ordering::SeqCst) {
        before = sent.load(Ordering::SeqCst);
        sleep(Duration::from_millis(300)).await;
    }
    let each = before / unread.len();
    assert!(each < 4 << 20, "{each} bytes of each call are on their way");
    let body = stand.send("/other", nothing()).await.unwrap().into_body();
    let other = timeout(SOON, body.collect()).await.unwrap().unwrap();
    assert_eq!(other.to_bytes(), "answer");
}

#[tokio::test]
async fn a_hundred_calls_run_beside_each_other() {
    // None is answered before all have come.
    let all = Arc::new(tokio::sync::Barrier::new(100));
    let stand = Stand::open(&[], move |call| {
        let all = Arc::clone(&all);
        async move {
            let body = call.into_body().collect().await.unwrap().to_bytes();
            all.wait().await;
            Ok(Response::new(full(body)))
        }
    })
    .await;
    let calls = (0..100_u8).map(|number| {
        let stand = &stand;
        async move {
            let data = vec![number; 100_000];
            let response = stand.send("/echo", full(data.clone())).await.unwrap();
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                data
            );
        }
    });
    let done = futures_util::future::join_all(calls);
    timeout(6 * SOON, done).await.unwrap();
}

#[tokio::test]
async fn methods_are_added_and_none_twice() {
    let other = "/moby.filesync.v1.Auth/Credentials";
    let read = READ_METHODS[1];
    let ends = ends(&[other, read]);
    let sent: Vec<_> = ends.headers.get_all(METHOD_HEADER).iter().collect();
    assert_eq!(sent, [other, read, READ_METHODS[0]]);
    let session = ends.sessions.get("one").await.unwrap();
    assert!(session.advertises(&other.to_uppercase()) && session.advertises(read));
    assert!(!session.advertises(READ_METHODS[0]), "that one is inlay's");
}

#[tokio::test]
async fn a_store_is_answered_from_as_long_as_it_is_offered() {
    let stand = Stand::open(&[], |call| async move {
        let name = call.headers()[STORE_HEADER].to_str().unwrap().to_owned();
        let answer = Status::not_found(format!("the client has no {name}"));
        Ok(answer.into_http::<()>().map(|()| nothing()))
    })
    .await;
    let blobs = Blobs::new(4 << 20, 2);
    let data: Bytes = (0..3_000_000_u32).map(|at| at as u8).collect();
    let digest = blobs.put("mine", data.clone()).unwrap();
    let offer = stand.session.offer("inlay-1", blobs.store("mine"));
    let read = async |store: &'static str, offset: i64, size: i64| {
        let mut request = tonic::Request::new(api::ReadContentRequest {
            digest: digest.clone(),
            offset,
            size,
        });
        request
            .metadata_mut()
            .insert(STORE_HEADER, store.parse().unwrap());
        let mut client = ContentClient::new(Calls(stand.daemon.clone()));
        let mut read = Vec::new();
        let mut chunks = client.read(request).await?.into_inner();
        while let Some(chunk) = chunks.message().await? {
            assert_eq!(chunk.offset, offset + read.len() as i64);
            assert!(chunk.data.len() <= 1 << 20);
            read.extend_from_slice(&chunk.data);
        }
        Ok::<_, Status>(read)
    };
    assert_eq!(read("inlay-1", 0, 0).await.unwrap(), data);
    assert_eq!(
        read("inlay-1", 7, 1_500_000).await.unwrap(),
        data[7..1_500_007]
    );
    let theirs = read("other", 0, 0).await.unwrap_err();
    assert_eq!(theirs.message(), "the client has no other");
    // A later offer of that name is not ended by the end of an earlier one.
    let later = stand.session.offer("inlay-1", blobs.store("mine"));
    drop(offer);
    assert_eq!(
        read("inlay-1", 2_999_999, 0).await.unwrap(),
        data[2_999_999..]
    );
    drop(later);
    let gone = read("inlay-1", 0, 0).await.unwrap_err();
    assert_eq!(gone.message(), "the client has no inlay-1");
}

/// Gives its credentials for one registry. Fetches tokens of another, which it does not give a
/// password for.
struct Keys;

#[tonic::async_trait]
impl Auth for Keys {
    async fn credentials(
        &self,
        request: tonic::Request<CredentialsRequest>,
    ) -> Result<tonic::Response<CredentialsResponse>, Status> {
        let mut answer = CredentialsResponse::default();
        match request.into_inner().host.as_str() {
            "registry.example" => {
                (answer.username, answer.secret) = ("user".to_owned(), "secret".to_owned());
            }
            "locked.example" => return Err(Status::unknown("the keyring is locked")),
            _ => {}
        }
        Ok(tonic::Response::new(answer))
    }

    async fn get_token_authority(
        &self,
        request: tonic::Request<GetTokenAuthorityRequest>,
    ) -> Result<tonic::Response<GetTokenAuthorityResponse>, Status> {
        match request.into_inner().host.as_str() {
            "tokens.example" | "locked.example" => Ok(tonic::Response::new(Default::default())),
            "silent.example" => Err(Status::unimplemented("no")),
            _ => Err(Status::unavailable("client side tokens disabled")),
        }
    }

    async fn fetch_token(
        &self,
        request: tonic::Request<FetchTokenRequest>,
    ) -> Result<tonic::Response<FetchTokenResponse>, Status> {
        let request = request.into_inner();
        if request.host == "locked.example" {
            return Err(Status::unknown("the keyring is locked"));
        }
        let token = format!(
            "{} {} {} {:?}",
            request.client_id, request.realm, request.service, request.scopes
        );
        Ok(tonic::Response::new(FetchTokenResponse {
            token,
            ..Default::default()
        }))
    }
}

/// A client with [`Keys`], and these methods.
async fn with_keys(methods: &[&'static str]) -> Stand {
    let answer = |call: Request<Body>| async {
        let Ok(response) = AuthServer::new(Keys).call(call).await;
        Ok(response.map(to_body))
    };
    Stand::open(methods, answer).await
}

#[tokio::test]
async fn a_client_fetches_tokens_itself() {
    let stand = with_keys(&[
        "/moby.filesync.v1.Auth/FetchToken",
        "/moby.filesync.v1.Auth/GetTokenAuthority",
    ])
    .await;
    let request = |host: &str| TokenRequest {
        host: host.to_owned(),
        realm: "https://realm.example".to_owned(),
        service: "registry".to_owned(),
        scopes: vec!["repository:app:pull".to_owned()],
    };
    let token = fetch_token(&stand.session, &request("tokens.example")).await;
    let Token(token) = token.unwrap().unwrap();
    assert_eq!(
        token,
        r#"buildkit-client https://realm.example registry ["repository:app:pull"]"#
    );
    // These are asked for the login.
    for host in ["disabled.example", "silent.example"] {
        let token = fetch_token(&stand.session, &request(host)).await.unwrap();
        assert_eq!(token, None);
    }
    // An error is no reason to ask for the password.
    let err = fetch_token(&stand.session, &request("locked.example")).await;
    assert_eq!(
        err.unwrap_err().to_string(),
        "asking the client for its credentials of locked.example: the keyring is locked"
    );
    let older = with_keys(&["/moby.filesync.v1.Auth/Credentials"]).await;
    let token = fetch_token(&older.session, &request("tokens.example")).await;
    assert_eq!(token.unwrap(), None);
}

#[tokio::test]
async fn a_clients_credentials_are_asked_for() {
    let stand = with_keys(&["/moby.filesync.v1.Auth/Credentials"]).await;
    let login = credentials(&stand.session, "registry.example")
        .await
        .unwrap();
    let expected = Login::Password {
        username: "user".to_owned(),
        secret: "secret".to_owned(),
    };
    assert_eq!(login.as_ref(), Some(&expected));
    assert!(!format!("{login:?}").contains("secret\""), "{login:?}");
    assert_eq!(
        credentials(&stand.session, "other.example").await.unwrap(),
        None
    );
    let err = credentials(&stand.session, "locked.example")
        .await
        .unwrap_err();
    assert_eq!(
        err.to_string(),
        "asking the client for its credentials of locked.example: the keyring is locked"
    );
    // A client that has no such method is not asked.
    let silent = Stand::open(&[], |_| std::future::pending()).await;
    assert_eq!(
        credentials(&silent.session, "registry.example")
            .await
            .unwrap(),
        None
    );
}

/// How a stream ended that somebody reads.
async fn end_of(reader: &Reader) -> End {
    let end = async {
        loop {
            match reader.take_end() {
                Some(end) => return end,
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(SOON, end).await.unwrap()
}

/// The status in trailers that are the last words of a session.
fn status(end: End) -> (String, String) {
    let End::Clean(Some(trailers)) = end else {
        panic!("{end:?}")
    };
    let status = Status::from_header_map(&trailers).unwrap();
    (format!("{:?}", status.code()), status.message().to_owned())
}

#[tokio::test]
async fn the_ends_of_clients_and_daemons_pass() {
    // The client's: the daemon sees the stream end, and has the last word.
    let stand = Stand::open(&[], |_| std::future::pending()).await;
    let daemon = stand.daemon.clone();
    let slow = Request::post("http://localhost/slow")
        .body(nothing())
        .unwrap();
    let waiting = tokio::spawn(async move { daemon.call(slow).await });
    stand.of_client.finish(Ok(None));
    let end = end_of(&stand.to_daemon).await;
    assert!(matches!(end, End::Clean(None)), "{end:?}");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("5"));
    stand.of_daemon.finish(Ok(Some(trailers)));
    let end = end_of(&stand.to_client).await;
    assert_eq!(status(end).0, "NotFound");
    assert!(waiting.await.unwrap().is_err());
    let gone = async {
        while lock(&stand.sessions.0.open).contains_key("one") {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.unwrap();

    // The client breaks off, and then the daemon does.
    let stand = Stand::open(&[], |_| std::future::pending()).await;
    let broken = || Err(BodyError::Own(Status::aborted("broken")));
    stand.of_client.finish(broken());
    let end = end_of(&stand.to_daemon).await;
    assert!(matches!(end, End::Broken(_)), "{end:?}");
    let stand = Stand::open(&[], |_| std::future::pending()).await;
    stand.of_daemon.finish(broken());
    let end = end_of(&stand.to_client).await;
    assert!(matches!(end, End::Broken(_)), "{end:?}");
    let end = end_of(&stand.to_daemon).await;
    assert!(matches!(end, End::Clean(None)), "{end:?}");

    // The client's call is gone: its bodies are dropped, and so the daemon's stream is.
    let ends = ends(&[]);
    drop(ends.with_client);
    let (reader, writer) = ends.with_daemon.into_inner();
    timeout(SOON, writer.closed()).await.unwrap();
    // Its other half ends, too: as that of the client did, or with the call, whichever is seen first.
    let end = timeout(SOON, reader.drain()).await;
    end.expect("it does not stay open");
}

#[tokio::test]
async fn what_is_no_session_ends_with_a_word() {
    let raw = |bytes: &'static [u8]| {
        let sessions = Sessions::default();
        let frames = stream::iter([Ok(Frame::data(Bytes::from_static(bytes)))]);
        let from_client = StreamBody::new(frames.chain(stream::pending())).boxed_unsync();
        let (request, opening) = sessions.open(call(&[], from_client));
        let (of_daemon, from_daemon) = messages();
        let answer = opening.answered(Response::new(body(from_daemon)));
        async move {
            let end = timeout(SOON, Reader::new(answer.into_body()).drain())
                .await
                .unwrap();
            // The daemon sees the end of the stream, no more.
            let end_of_daemons = Reader::new(request.into_body()).drain();
            let end_of_daemons = timeout(SOON, end_of_daemons).await.unwrap();
            assert!(
                matches!(end_of_daemons, End::Clean(None)),
                "{end_of_daemons:?}"
            );
            timeout(SOON, of_daemon.closed()).await.unwrap();
            status(end)
        }
    };
    let internal = |message: &str| ("Internal".to_owned(), format!("inlay: session: {message}"));
    assert_eq!(
        raw(&[1, 0, 0, 0, 0]).await,
        internal("the client: a message of the session has flag 1 instead of 0")
    );
    assert_eq!(
        raw(&[0, 255, 255, 255, 255]).await,
        internal("the client: a message of the session has 4294967295 bytes, more than 16777216")
    );
    // Messages in order, and no HTTP/2 in them.
    let (code, message) = raw(&[
        0, 0, 0, 0, 11, 10, 9, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    ])
    .await;
    assert_eq!(code, "Internal");
    assert!(
        message.starts_with("inlay: session: the client: "),
        "{message}"
    );
}

#[tokio::test]
async fn a_session_is_waited_for() {
    let sessions = Sessions::default();
    let found = sessions.get("one");
    let (_of_client, from_client) = messages();
    let (_of_daemon, from_daemon) = messages();
    let opened = async {
        sleep(Duration::from_millis(20)).await;
        let (request, opening) = sessions.open(call(&[], body(from_client)));
        let answer = opening.answered(Response::new(body(from_daemon)));
        (request, answer)
    };
    let (found, _open) = tokio::join!(found, opened);
    assert_eq!(found.unwrap().id, "one");
}
