//! Images read from registries that answer as no sound one does: each answer is scripted.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/reader.rs"]
#[allow(dead_code, reason = "shared; this uses a part of it")]
mod reader;
#[path = "support/scripted.rs"]
mod scripted;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use inlay::source::{Login, Settings, SourceError};
use oci_spec::image::{Descriptor, Digest};
use reader::{LIMIT, Reader, User};
use scripted::{Asked, Scripted, answer};

/// A registry that answers every manifest with `manifest`, and else as it is told.
fn registry_that(
    manifest: &'static str,
    blob: impl Fn(&Asked) -> String + Send + 'static,
) -> Scripted {
    Scripted::start(move |asked| match &asked.line {
        line if line.contains("/manifests/") => answer("200 OK", "", manifest),
        _ => blob(asked),
    })
}

#[test]
fn a_login_does_not_follow_a_redirect_to_another_host() {
    let elsewhere = Scripted::start(|asked| match &asked.line {
        line if line.contains("closed") => answer(
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=x\r\n",
            "",
        ),
        _ => answer("200 OK", "", "12345"),
    });
    let host = elsewhere.host().to_owned();
    let registry = Scripted::start(move |asked| match asked.headers.get("authorization") {
        None => answer(
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=x\r\n",
            "",
        ),
        Some(_) if asked.line.contains("/manifests/") => answer("200 OK", "", "{}"),
        Some(_) => {
            let closed = if asked.line.ends_with("1111") {
                "closed"
            } else {
                "open"
            };
            answer(
                "307 Temporary Redirect",
                &format!("Location: http://{host}/{closed}\r\n"),
                "",
            )
        }
    });
    let reader = Reader::new(Settings::default());
    let user = User::with_password("user", "secret");
    let source = reader
        .open_as(&format!("{}/app:1", registry.host()), user.clone())
        .unwrap();
    reader.wait(source.root(LIMIT)).unwrap();
    let blob = |digit: &str| {
        let digest = format!("sha256:{}", digit.repeat(64));
        let digest: Digest = digest.parse().unwrap();
        Descriptor::new("application/octet-stream".into(), 5, digest)
    };
    assert_eq!(reader.part(&*source, &blob("0"), 0..5).unwrap(), b"12345");
    let refusal = reader.part(&*source, &blob("1"), 0..5).unwrap_err();
    assert!(matches!(refusal, SourceError::Denied { .. }), "{refusal}");
    let asked = elsewhere.requests();
    assert_eq!(asked.len(), 2, "{asked:#?}");
    assert!(
        asked
            .iter()
            .all(|asked| !asked.headers.contains_key("authorization")),
        "{asked:#?}"
    );
    assert_eq!(user.asked(), [registry.host()]);
}

#[test]
fn a_token_request_stays_on_its_host() {
    let thief = Scripted::start(|_| answer("200 OK", "", r#"{"token":"x"}"#));
    let location = format!("Location: http://{}/\r\n", thief.host());
    let realm = Scripted::start(move |_| answer("307 Temporary Redirect", &location, ""));
    let wants = format!(
        "WWW-Authenticate: Bearer realm=\"http://{}/\"\r\n",
        realm.host()
    );
    let registry = Scripted::start(move |_| answer("401 Unauthorized", &wants, ""));
    let reader = Reader::new(Settings::default());
    let user = User::new(Some(Login::IdentityToken("secret".to_owned())));
    let refusal = reader
        .refusal_as(&format!("{}/app", registry.host()), user)
        .to_string();
    assert!(refusal.contains("307"), "{refusal}");
    let [asked] = &realm.requests()[..] else {
        panic!("asked once")
    };
    assert!(asked.body.contains("refresh_token=secret"), "{asked:?}");
    assert!(thief.requests().is_empty());
}

#[test]
fn a_registry_that_lies_gets_an_error() {
    let reader = Reader::new(Settings::default());
    let blob = Descriptor::new(
        "application/octet-stream".into(),
        10,
        format!("sha256:{}", "0".repeat(64))
            .parse::<Digest>()
            .unwrap(),
    );
    let part = |answer_with: fn() -> String| {
        let registry = registry_that("{}", move |_| answer_with());
        let source = reader.open(&format!("{}/app", registry.host())).unwrap();
        reader
            .part(&*source, &blob, 2..5)
            .map_err(|err| err.to_string())
    };
    // No ranges: what is wanted is taken of the whole, however it comes in pieces.
    let whole: String = (0..50_000).map(|number| format!("{number:07} ")).collect();
    let large = Descriptor::new(
        "application/octet-stream".into(),
        whole.len() as u64,
        blob.digest().clone(),
    );
    let served = whole.clone();
    let registry = registry_that("{}", move |_| answer("200 OK", "", &served));
    let source = reader.open(&format!("{}/app", registry.host())).unwrap();
    let before = registry.requests().len();
    for (start, end) in [(300_000, 300_010), (300_010, 390_000), (390_000, 400_000)] {
        let found = reader.part(&*source, &large, start..end).unwrap();
        assert!(found == whole.as_bytes()[start as usize..end as usize]);
    }
    // Nor does it come once more for each part.
    assert_eq!(registry.requests().len(), before + 1);
    assert_eq!(part(|| answer("200 OK", "", "0123456789")).unwrap(), b"234");
    assert_eq!(
        part(|| answer(
            "206 Partial Content",
            "Content-Range: bytes 2-4/10\r\n",
            "234"
        ))
        .unwrap(),
        b"234"
    );
    for (answer_with, said) in [
        (
            (|| answer("200 OK", "", "012")) as fn() -> String,
            "too early",
        ),
        (
            || {
                answer(
                    "206 Partial Content",
                    "Content-Range: bytes 0-2/10\r\n",
                    "012",
                )
            },
            "bytes 2-4/",
        ),
        (|| answer("206 Partial Content", "", "234"), "bytes 2-4/"),
        (
            || {
                answer(
                    "206 Partial Content",
                    "Content-Range: bytes 2-4/10\r\n",
                    "23",
                )
            },
            "too early",
        ),
        (
            || {
                answer(
                    "206 Partial Content",
                    "Content-Range: bytes 2-4/10\r\n",
                    "23456",
                )
            },
            "more comes",
        ),
        (
            || {
                "206 Partial Content\r\nContent-Length: 3\r\nContent-Range: bytes 2-4/10\r\n\r\n2"
                    .to_owned()
            },
            "127.0.0.1",
        ),
        (
            || {
                answer(
                    "500 Internal Server Error",
                    "",
                    r#"{"errors":[{"code":"UNKNOWN","message":"oh"}]}"#,
                )
            },
            "500 Internal Server Error (UNKNOWN)",
        ),
        (|| answer("404 Not Found", "", "<html>"), "does not exist"),
        (|| "nonsense\r\n\r\n".to_owned(), "127.0.0.1"),
    ] {
        let refusal = part(answer_with).unwrap_err();
        assert!(refusal.contains(said), "{said}: {refusal}");
    }

    let root = |registry: &Scripted, name: &str| {
        reader
            .refusal(&format!("{}/{name}", registry.host()))
            .to_string()
    };
    let wrong = Scripted::start(|_| {
        let digest = format!("Docker-Content-Digest: sha256:{}\r\n", "0".repeat(64));
        answer("200 OK", &digest, "{}")
    });
    assert!(root(&wrong, "app").contains("has digest"));
    let plain = registry_that("{}", |_| answer("404 Not Found", "", ""));
    assert!(root(&plain, &format!("app@sha256:{}", "0".repeat(64))).contains("has digest"));
    let endless = Scripted::start(|_| {
        let body = " ".repeat(LIMIT as usize + 1);
        format!("200 OK\r\nConnection: close\r\n\r\n{body}")
    });
    assert!(root(&endless, "app").contains("larger than 1048576 bytes"));
    let text = registry_that("text", |_| answer("404 Not Found", "", ""));
    assert!(root(&text, "app").contains("malformed"));
    let unknown =
        Scripted::start(|_| answer("401 Unauthorized", "WWW-Authenticate: Negotiate\r\n", ""));
    assert!(root(&unknown, "app").contains("no login that is known"));
}

/// A registry that gets images from another one may say first that it has no such blob, and have it
/// once it is read.
#[test]
fn a_blob_is_missing_if_it_cannot_be_read_either() {
    let reader = Reader::new(Settings::default());
    let layer = |digit: &str| {
        let digest = format!("sha256:{}", digit.repeat(64));
        let digest: Digest = digest.parse().unwrap();
        Descriptor::new("application/octet-stream".into(), 10, digest)
    };
    let registry = registry_that("{}", |asked| {
        let is_read = asked.line.starts_with("GET ");
        if is_read && asked.line.contains("1111") {
            assert_eq!(asked.headers["range"], "bytes=0-0");
            answer(
                "206 Partial Content",
                "Content-Range: bytes 0-0/10\r\n",
                "0",
            )
        } else {
            answer("404 Not Found", "", "")
        }
    });
    let source = reader.open(&format!("{}/app", registry.host())).unwrap();
    reader.wait(source.stat(&layer("1"))).unwrap();
    let refusal = reader.wait(source.stat(&layer("2"))).unwrap_err();
    assert!(matches!(refusal, SourceError::Missing(_)), "{refusal}");
}

#[test]
fn who_falls_silent_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("silent.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let reader = Reader::new(Settings {
        containerd_address: Some(socket),
        timeout: Duration::from_millis(300),
        ..Settings::default()
    });
    let refusal = reader.refusal("containerd:app").to_string();
    assert!(refusal.contains("nothing came for 300ms"), "{refusal}");

    let silent = Scripted::start(|_| {
        loop {
            std::thread::park();
        }
    });
    let refusal = reader.refusal(&format!("{}/app", silent.host()));
    assert!(
        matches!(refusal, SourceError::Unavailable { .. }),
        "{refusal}"
    );
    assert!(refusal.to_string().contains("timed out"), "{refusal}");
    let patient = Reader::new(Settings::default());
    let refusal = patient.refusal(&format!("{}/app", silent.host()));
    let told = refusal.to_string();
    assert!(told.contains("does not answer within 2 s"), "{refusal}");

    // Half of a blob.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Who answers before it is asked breaks the protocol.
        let lines = BufReader::new(&stream).lines().map(|line| line.unwrap());
        assert!(lines.take_while(|line| !line.is_empty()).count() > 1);
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234";
        stream.write_all(half).unwrap();
        loop {
            std::thread::park();
        }
    });
    let source = reader.open(&format!("{host}/app")).unwrap();
    let digest = format!("sha256:{}", "0".repeat(64)).parse::<Digest>();
    let blob = Descriptor::new("application/octet-stream".into(), 10, digest.unwrap());
    let refusal = reader.part(&*source, &blob, 0..10).unwrap_err().to_string();
    assert!(refusal.contains("timed out"), "{refusal}");
}

/// A redirect may lead to a URL that lets anyone in, and what is asked for may be no registry at all.
#[test]
fn errors_tell_no_secrets() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let location = format!("Location: http://{closed}/blob?signature=secret\r\n");
    let registry = registry_that("{}", move |_| {
        answer("307 Temporary Redirect", &location, "")
    });
    let reader = Reader::new(Settings::default());
    let source = reader.open(&format!("{}/app", registry.host())).unwrap();
    let digest = format!("sha256:{}", "0".repeat(64)).parse::<oci_spec::image::Digest>();
    let blob = Descriptor::new("application/octet-stream".into(), 10, digest.unwrap());
    for refusal in [
        reader.part(&*source, &blob, 0..10).unwrap_err(),
        reader.wait(source.stat(&blob)).unwrap_err(),
    ] {
        let said = refusal.to_string();
        assert!(said.contains("127.0.0.1"), "{said}");
        assert!(
            !said.contains("secret") && !said.contains("/blob"),
            "{said}"
        );
    }
    for document in [
        r#""secret""#,
        r#"{"mediaType":["secret"]}"#,
        r#"{"secret":"#,
    ] {
        let service = registry_that(document, |_| answer("404 Not Found", "", ""));
        let refusal = reader.refusal(&format!("{}/app", service.host()));
        let said = refusal.to_string();
        assert!(said.contains("line 1 column"), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("index.json"), r#"{"manifests":"secret"}"#).unwrap();
    let reader = Reader::new(Settings {
        allow_paths: vec![dir.path().to_owned()],
        ..Settings::default()
    });
    let said = reader
        .refusal(&format!("oci:{}", dir.path().display()))
        .to_string();
    assert!(said.contains("line 1 column"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}
