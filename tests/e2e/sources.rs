//! Images read from everywhere they can be, each put there by the real thing.

use std::path::{Path, PathBuf};

use inlay::source::{Access, Location, Login, Settings, Source, SourceError, TokenRequest, fetch};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use tempfile::TempDir;

use crate::support::{
    Asked, Buildctl, Buildkitd, Containerd, DockerEngine, Door, ImageStore, LIMIT, Layout, Project,
    Reader, Registry, Scripted, User, answer,
};

impl Reader {
    /// One that may read files below a folder.
    fn below(path: &Path) -> Self {
        Self::new(Settings {
            allow_paths: vec![path.to_owned()],
            ..Settings::default()
        })
    }

    /// That a source gives what `blob` gives, all of it and in parts; the layers' digests.
    fn check(&self, source: &dyn Source, blob: &dyn Fn(&str) -> Vec<u8>) -> Vec<String> {
        let (root, bytes) = self.wait(source.root(LIMIT)).unwrap();
        assert_eq!(bytes, blob(root.digest().as_ref()));
        let manifests = if root.media_type().to_string().contains("manifest.v1")
            || root.media_type().to_string().contains("manifest.v2")
        {
            vec![root.clone()]
        } else {
            let index: ImageIndex = serde_json::from_slice(&bytes).unwrap();
            index.manifests().clone()
        };
        assert!(!manifests.is_empty());
        let mut layers = Vec::new();
        for manifest in manifests {
            let bytes = self.wait(fetch(source, &manifest, LIMIT)).unwrap();
            assert_eq!(bytes, blob(manifest.digest().as_ref()));
            let manifest: ImageManifest = serde_json::from_slice(&bytes).unwrap();
            let config = self.wait(fetch(source, manifest.config(), LIMIT)).unwrap();
            assert_eq!(config, blob(manifest.config().digest().as_ref()));
            for layer in manifest.layers() {
                let data = blob(layer.digest().as_ref());
                let size = layer.size();
                assert_eq!(data.len() as u64, size);
                for range in [
                    0..size,
                    0..1,
                    1..size,
                    size / 3..size / 2,
                    size - 1..size,
                    7..7,
                ] {
                    let part = self.part(source, layer, range.clone()).unwrap();
                    let wanted = &data[range.start as usize..range.end as usize];
                    assert!(part == wanted, "{range:?} of {layer:?}");
                }
                assert!(self.part(source, layer, 0..size + 1).is_err());
                layers.push(layer.digest().to_string());
            }
        }
        let too_large = self.wait(source.root(root.size() - 1)).unwrap_err();
        assert!(
            matches!(too_large, SourceError::TooLarge { .. }),
            "{too_large}"
        );
        let absent = Descriptor::new(
            "application/octet-stream".into(),
            5,
            format!("sha256:{}", "0".repeat(64))
                .parse::<oci_spec::image::Digest>()
                .unwrap(),
        );
        let missing = self.part(source, &absent, 0..5).unwrap_err();
        assert!(matches!(missing, SourceError::Missing(_)), "{missing}");
        layers
    }
}

/// Two layers, one of them of some hundred kilobytes.
fn project() -> Project {
    let project = Project::new().base();
    project
        .file("text", "text")
        .dockerfile("FROM scratch\nADD rootfs.tar /\nCOPY text /\n")
}

/// Two platforms, so an index.
fn for_two(build: Buildctl) -> Buildctl {
    build.opt("platform=linux/amd64,linux/arm64")
}

fn pushed(image: &str) -> Registry {
    let (registry, buildkitd, project) = (Registry::start(), Buildkitd::start(), project());
    let build = Buildctl::new(buildkitd.addr()).project(&project);
    for_two(build).push(&registry.image(image)).run_ok();
    registry
}

/// A file that a build writes.
fn built(output: &str, file: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file);
    let (buildkitd, project) = (Buildkitd::start(), project());
    let build = Buildctl::new(buildkitd.addr()).project(&project);
    let output = format!("{output},dest={}", path.display());
    build.output(&output).run_ok();
    (dir, path)
}

#[test]
fn a_registry_gives_what_was_pushed() {
    let registry = pushed("team/app:1");
    let reader = Reader::new(Settings::default());
    let image = registry.image("team/app:1");
    let source = reader.open(&image).unwrap();
    let layers = reader.check(&*source, &|digest| registry.stored(digest));
    assert_eq!(layers.len(), 4, "{layers:?}");

    let digest = registry.digest("team/app:1");
    let by_digest = format!("docker://{}@{digest}", registry.image("team/app"));
    let source = reader.open(&by_digest).unwrap();
    let (root, _) = reader.wait(source.root(LIMIT)).unwrap();
    assert_eq!(root.digest().as_ref(), digest);

    let missing = reader.refusal(&registry.image("team/app:2"));
    assert!(matches!(missing, SourceError::Missing(_)), "{missing}");
    assert!(missing.to_string().contains("team/app:2"), "{missing}");
    let nobody = reader.refusal("127.0.0.1:1/app").to_string();
    assert!(
        nobody.contains("127.0.0.1:1") && nobody.contains("refused"),
        "{nobody}"
    );
    let read = registry.requests().into_iter();
    let read: Vec<_> = read
        .filter(|request| request.user_agent.starts_with("inlay/"))
        .collect();
    assert!(read.iter().any(|request| request.status == 206), "{read:?}");
}

#[test]
fn a_password_is_asked_for_only_where_the_registry_wants_one() {
    let registry = pushed("app:1");
    let door = registry.with_password();
    let reader = Reader::new(Settings::default());
    let user = User::with_password(Door::USER, Door::PASSWORD);
    let source = reader
        .open_as(&registry.image("app:1"), user.clone())
        .unwrap();
    reader.wait(source.root(LIMIT)).unwrap();
    assert_eq!(user.asked(), [""; 0]);

    let source = reader.open_as(&door.image("app:1"), user.clone()).unwrap();
    reader.check(&*source, &|digest| registry.stored(digest));
    assert_eq!(user.asked(), [door.host()]);

    for (user, said) in [
        (
            User::with_password(Door::USER, "wrong"),
            "to the user's login",
        ),
        (User::new(None), "the user has none for it"),
        (
            User::new(Some(Login::IdentityToken("x".to_owned()))),
            "identity token",
        ),
    ] {
        let refusal = reader.refusal_as(&door.image("app:1"), user);
        assert!(matches!(refusal, SourceError::Denied { .. }), "{refusal}");
        let refusal = refusal.to_string();
        assert!(
            refusal.contains(said) && refusal.contains("127.0.0.1"),
            "{refusal}"
        );
    }
}

/// What the registry accepts as a token, for reading `app`.
fn token(key: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use rcgen::SigningKey as _;
    let header = serde_json::json!({
        "alg": "ES256", "typ": "JWT", "x5c": [STANDARD.encode(key.cert.der())],
    });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let claims = serde_json::json!({
        "iss": "test", "aud": "test", "sub": "", "jti": "1",
        "iat": now - 60, "nbf": now - 60, "exp": now + 600,
        "access": [{ "type": "repository", "name": "app", "actions": ["pull"] }],
    });
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    // Two numbers, as DER; a token has them as 32 bytes each.
    let der = key.signing_key.sign(signed.as_bytes()).unwrap();
    let (mut at, mut signature) = (2, Vec::new());
    for _ in 0..2 {
        let length = usize::from(der[at + 1]);
        let number = &der[at + 2..at + 2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        signature.extend(std::iter::repeat_n(0, 32 - number.len()));
        signature.extend(number);
        at += 2 + length;
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn tokens_are_had_as_buildkitd_has_them() {
    use base64::Engine as _;
    let registry = pushed("app:1");
    let key = rcgen::generate_simple_self_signed(vec!["test".to_owned()]).unwrap();
    let good = token(&key);
    let pair = base64::engine::general_purpose::STANDARD.encode("user:open sesame");
    // Gives the token for one password by GET, for another by POST, and for an identity token.
    let server = Scripted::start(move |asked| {
        let basic = asked.headers.get("authorization");
        let by_get = asked.line.starts_with("GET")
            && basic.is_some_and(|basic| *basic == format!("Basic {pair}"));
        let by_post = asked.line.starts_with("POST")
            && (asked
                .body
                .contains("grant_type=password&username=user&password=by+post")
                || asked
                    .body
                    .contains("grant_type=refresh_token&refresh_token=identity"));
        if by_get {
            answer(
                "200 OK",
                "",
                &serde_json::json!({ "token": good }).to_string(),
            )
        } else if by_post {
            answer(
                "200 OK",
                "",
                &serde_json::json!({ "access_token": good }).to_string(),
            )
        } else if basic.is_none() && asked.line.starts_with("GET") {
            answer("200 OK", "", r#"{"token":"of.no.use"}"#)
        } else {
            answer("401 Unauthorized", "", "")
        }
    });
    let realm = format!("http://{}/token", server.host());
    let door = registry.with_tokens(&realm, &key.cert.pem());
    let reader = Reader::new(Settings::default());
    let image = door.image("app:1");
    let users = [
        User::with_password(Door::USER, Door::PASSWORD),
        User::with_password(Door::USER, "by post"),
        User::new(Some(Login::IdentityToken("identity".to_owned()))),
    ];
    for user in users {
        let before = server.requests().len();
        let source = reader.open_as(&image, user.clone()).unwrap();
        reader.check(&*source, &|digest| registry.stored(digest));
        assert_eq!(user.asked(), [door.host()]);
        // One token is enough for all of an image.
        let asked = &server.requests()[before..];
        assert!(asked.len() <= 2, "{asked:#?}");
        for Asked { line, body, .. } in asked {
            let said = format!("{line} {body}");
            assert!(said.contains("service=test"), "{said}");
            assert!(said.contains("scope=repository%3Aapp%3Apull"), "{said}");
            // Secrets have no place in URLs.
            assert!(
                !line.contains("identity") && !line.contains("post"),
                "{line}"
            );
        }
    }
    for user in [User::with_password(Door::USER, "wrong"), User::new(None)] {
        let refusal = reader.refusal_as(&image, user);
        assert!(matches!(refusal, SourceError::Denied { .. }), "{refusal}");
    }
}

/// The client keeps its password: neither inlay nor the realm that the registry names gets it of inlay.
#[test]
fn a_token_that_the_client_fetches_is_preferred_to_its_password() {
    let registry = pushed("app:1");
    let key = rcgen::generate_simple_self_signed(vec!["test".to_owned()]).unwrap();
    let server = Scripted::start(|_| answer("401 Unauthorized", "", ""));
    let realm = format!("http://{}/token", server.host());
    let door = registry.with_tokens(&realm, &key.cert.pem());
    let reader = Reader::new(Settings::default());
    let user = User::with_token(&token(&key));
    let source = reader.open_as(&door.image("app:1"), user.clone()).unwrap();
    reader.check(&*source, &|digest| registry.stored(digest));
    let asked = user.token_requests();
    let expected = TokenRequest {
        host: door.host().to_owned(),
        realm: realm.clone(),
        service: "test".to_owned(),
        scopes: vec!["repository:app:pull".to_owned()],
    };
    assert_eq!(asked, [expected]);
    assert_eq!(user.asked(), [""; 0]);
    assert!(server.requests().is_empty());

    // A token that is of no use is no reason to ask for the password either.
    let user = User::with_token("of.no.use");
    let refusal = reader.refusal_as(&door.image("app:1"), user.clone());
    assert!(matches!(refusal, SourceError::Denied { .. }), "{refusal}");
    let said = refusal.to_string();
    assert!(
        said.ends_with("to the token that the client fetched"),
        "{said}"
    );
    assert_eq!(user.asked(), [""; 0]);
    assert!(server.requests().is_empty());
}

#[test]
fn tls_is_checked_against_the_certificates_that_the_operator_names() {
    let registry = pushed("app:1");
    let names = vec!["127.0.0.1".to_owned(), "0.0.0.0".to_owned()];
    let key = rcgen::generate_simple_self_signed(names).unwrap();
    let door = registry.with_tls(&key.cert.pem(), &key.signing_key.serialize_pem());
    // Loopback by another name: that of a registry elsewhere, for all that is known.
    let elsewhere = |host: &str| format!("{}/app:1", host.replace("127.0.0.1", "0.0.0.0"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, key.cert.pem()).unwrap();
    let reader = Reader::new(Settings {
        registry_authorities: vec![file.clone()],
        ..Settings::default()
    });
    let source = reader.open(&elsewhere(door.host())).unwrap();
    reader.check(&*source, &|digest| registry.stored(digest));
    // One that says of itself that it is an authority's.
    let names = vec!["127.0.0.1".to_owned(), "0.0.0.0".to_owned()];
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&signing_key).unwrap().pem();
    let door_of_ca = registry.with_tls(&pem, &signing_key.serialize_pem());
    std::fs::write(&file, &pem).unwrap();
    let reader = Reader::new(Settings {
        registry_authorities: vec![file.clone()],
        ..Settings::default()
    });
    let source = reader.open(&elsewhere(door_of_ca.host())).unwrap();
    reader.check(&*source, &|digest| registry.stored(digest));

    let other = rcgen::generate_simple_self_signed(vec!["other".to_owned()]).unwrap();
    std::fs::write(&file, other.cert.pem()).unwrap();
    let settings = Settings {
        registry_authorities: vec![file.clone()],
        ..Settings::default()
    };
    let refusal = Reader::new(settings.clone())
        .refusal(&elsewhere(door.host()))
        .to_string();
    assert!(refusal.contains("certificate"), "{refusal}");

    // Without TLS only as the operator says.
    let settings = |plain: Vec<String>| Settings {
        plain_http_registries: plain,
        ..settings.clone()
    };
    let plain = elsewhere(registry.host());
    let refusal = Reader::new(settings(vec![])).refusal(&plain);
    assert!(
        matches!(refusal, SourceError::Unavailable { .. }),
        "{refusal}"
    );
    let host = plain.split('/').next().unwrap().to_owned();
    let source = Reader::new(settings(vec![host]));
    let found = source.open(&plain).unwrap();
    source.wait(found.root(LIMIT)).unwrap();

    std::fs::write(&file, "no certificate").unwrap();
    let refusal = Access::new(settings(vec![])).unwrap_err().to_string();
    assert!(
        refusal.contains("ca.pem") && refusal.contains("no certificate"),
        "{refusal}"
    );
}

#[test]
fn containerd_gives_what_it_imported_by_namespace() {
    let containerd = Containerd::start();
    let (_dir, tar) = built("type=oci,name=docker.io/library/app:1", "app.tar");
    containerd.import("builds", &tar);
    let layout = Layout::from_tar(&tar);
    let settings = |namespace: &str| Settings {
        containerd_address: Some(containerd.socket()),
        containerd_namespaces: vec![namespace.to_owned()],
        ..Settings::default()
    };
    let reader = Reader::new(settings("builds"));
    let digest = layout.digest();
    for name in ["app:1", "docker.io/library/app:1"] {
        let source = reader.open(&format!("containerd:{name}")).unwrap();
        let layers = reader.check(&*source, &|digest| layout.blob(digest));
        assert_eq!(layers.len(), 2);
    }
    let mut both = settings("default");
    both.containerd_namespaces.push("builds".to_owned());
    let other = Reader::new(both);
    let location: Location = "containerd:app:1".parse().unwrap();
    let named = other
        .access
        .open(&location, Some("builds"), User::new(None));
    let (root, _) = other.wait(other.wait(named).unwrap().root(LIMIT)).unwrap();
    assert_eq!(root.digest().as_ref(), digest);

    for (reader, name) in [
        (&other, "app:1"),
        (&reader, "app:2"),
        (&reader, "any string"),
    ] {
        let refusal = reader.refusal(&format!("containerd:{name}"));
        assert!(matches!(refusal, SourceError::Missing(_)), "{refusal}");
        assert!(refusal.to_string().contains(name), "{refusal}");
    }
    let nowhere = Reader::new(Settings {
        containerd_address: Some("/nowhere.sock".into()),
        ..Settings::default()
    });
    let refusal = nowhere.refusal("containerd:app:1").to_string();
    assert!(
        refusal.contains("/nowhere.sock") && refusal.contains("No such file"),
        "{refusal}"
    );
}

#[test]
fn a_layout_is_the_same_in_a_folder_and_in_a_tar() {
    let (tars, tar) = built(
        "type=oci,\"name=docker.io/me/app:1,docker.io/me/app:2\"",
        "app.tar",
    );
    let layout = Layout::from_tar(&tar);
    let reader = Reader::new(Settings {
        allow_paths: vec![tars.path().to_owned(), layout.path().to_owned()],
        ..Settings::default()
    });
    let folder = layout.path().display().to_string();
    for place in [
        format!("oci:{folder}"),
        format!("oci-archive:{}", tar.display()),
    ] {
        for pick in ["", ":1", ":2", ":docker.io/me/app:2", ":@1"] {
            let source = reader.open(&format!("{place}{pick}")).unwrap();
            let layers = reader.check(&*source, &|digest| layout.blob(digest));
            assert_eq!(layers.len(), 2, "{place}{pick}");
        }
        for pick in [":3", ":@2"] {
            let refusal = reader.refusal(&format!("{place}{pick}"));
            assert!(matches!(refusal, SourceError::Missing(_)), "{refusal}");
        }
    }
    // What the digest does not match, and what is cut off.
    let blob = |name: &str| layout.path().join("blobs").join(name.replace(':', "/"));
    let manifest = blob(&layout.digest());
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes[0] = b' ';
    std::fs::write(&manifest, &bytes).unwrap();
    let refusal = reader.refusal(&format!("oci:{folder}"));
    assert!(matches!(refusal, SourceError::Digest { .. }), "{refusal}");
    std::fs::write(&manifest, &bytes[1..]).unwrap();
    let refusal = reader.refusal(&format!("oci:{folder}")).to_string();
    assert!(refusal.contains("bytes, not"), "{refusal}");
    std::fs::remove_file(&manifest).unwrap();
    let refusal = reader.refusal(&format!("oci:{folder}"));
    assert!(matches!(refusal, SourceError::Missing(_)), "{refusal}");

    let closed = Reader::new(Settings::default());
    let refusal = closed
        .refusal(&format!("oci-archive:{}", tar.display()))
        .to_string();
    assert!(refusal.contains("--allow-path"), "{refusal}");
    let wrong = reader
        .refusal(&format!("oci:{}", tar.display()))
        .to_string();
    assert!(wrong.contains("it is no folder"), "{wrong}");
    let wrong = reader.refusal(&format!("oci-archive:{folder}")).to_string();
    assert!(wrong.contains("it is no file"), "{wrong}");
}

/// That a source has these layers' contents, uncompressed, and that config.
fn check_saved(reader: &Reader, source: &dyn Source, layout: &Layout) -> usize {
    let (root, bytes) = reader.wait(source.root(LIMIT)).unwrap();
    assert_eq!(reader.wait(fetch(source, &root, LIMIT)).unwrap(), bytes);
    let manifest: ImageManifest = serde_json::from_slice(&bytes).unwrap();
    let config = reader
        .wait(fetch(source, manifest.config(), LIMIT))
        .unwrap();
    assert_eq!(config, layout.config());
    for layer in manifest.layers() {
        // Verified against its digest.
        let data = reader.wait(fetch(source, layer, 64 << 20)).unwrap();
        let (half, end) = (layer.size() / 2, layer.size());
        assert!(reader.part(source, layer, half..end).unwrap() == data[half as usize..]);
    }
    manifest.layers().len()
}

#[test]
fn what_docker_exporters_write_has_a_manifest() {
    let (dir, tar) = built("type=docker,name=docker.io/library/app:1", "app.tar");
    let layout = Layout::from_tar(&tar);
    let reader = Reader::below(dir.path());
    let tar = format!("docker-archive:{}", tar.display());
    for pick in ["", ":app:1", ":@0"] {
        let source = reader.open(&format!("{tar}{pick}")).unwrap();
        assert_eq!(check_saved(&reader, &*source, &layout), 2, "{pick}");
        let (root, _) = reader.wait(source.root(LIMIT)).unwrap();
        // The layers are those of the real manifest.
        let (_, bytes) = reader.wait(source.root(LIMIT)).unwrap();
        let made: ImageManifest = serde_json::from_slice(&bytes).unwrap();
        let real = layout.manifest();
        for (made, real) in made.layers().iter().zip(real["layers"].as_array().unwrap()) {
            assert_eq!(made.digest().as_ref(), real["digest"].as_str().unwrap());
            assert_eq!(made.size(), real["size"].as_u64().unwrap());
            assert_eq!(
                made.media_type().to_string(),
                real["mediaType"].as_str().unwrap()
            );
        }
        assert!(root.size() > 0);
    }
    let refusal = reader.refusal(&format!("{tar}:app:2"));
    assert!(matches!(refusal, SourceError::Missing(_)), "{refusal}");
}

#[test]
fn docker_engine_gives_its_images_saved_and_from_its_store() {
    let (dir, tar) = built("type=docker,name=docker.io/library/app:1", "app.tar");
    let reader = Reader::below(dir.path());
    for store in [ImageStore::Classic, ImageStore::Containerd] {
        let engine = DockerEngine::start(store);
        let docker = |args: &[&str]| {
            let output = engine.docker(args);
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        docker(&["load", "--input", &tar.to_string_lossy()]);
        let saved = dir.path().join(format!("{store:?}.tar"));
        docker(&["save", "--output", &saved.to_string_lossy(), "app:1"]);
        let layout = Layout::from_tar(&saved);
        let source = reader
            .open(&format!("docker-archive:{}:app:1", saved.display()))
            .unwrap();
        assert_eq!(check_saved(&reader, &*source, &layout), 2, "{store:?}");
        // Such an archive is a layout, too.
        let source = reader
            .open(&format!("oci-archive:{}", saved.display()))
            .unwrap();
        let layers = reader.check(&*source, &|digest| layout.blob(digest));
        assert_eq!(layers.len(), 2, "{store:?}");
        if store == ImageStore::Containerd {
            let reader = Reader::new(Settings {
                containerd_address: Some(engine.containerd_socket()),
                containerd_namespaces: vec!["moby".to_owned()],
                ..Settings::default()
            });
            let source = reader.open("containerd:app:1").unwrap();
            let layers = reader.check(&*source, &|digest| layout.blob(digest));
            assert_eq!(layers.len(), 2);
        }
    }
}
