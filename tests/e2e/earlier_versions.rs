//! Images that earlier versions of inlay wrote, which later ones and BuildKit still import.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use inlay::cache::record::Digest;
use serde_json::Value;

use crate::support::{Buildctl, Buildkitd, Inlay, Scripted, inline_records};

/// The manifest and the config of two images, `base` and `app`, and the context that `app` was built of.
struct Recorded(&'static str);

impl Recorded {
    fn path(&self, name: &str) -> PathBuf {
        let images = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images");
        PathBuf::from(images).join(self.0).join(name)
    }

    fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A registry that has both images as tag 1. Of their layers it tells the size alone.
    fn registry(&self) -> Scripted {
        let mut answers = BTreeMap::new();
        for image in ["base", "app"] {
            let manifest = self.read(&format!("{image}.manifest.json"));
            let config = self.read(&format!("{image}.config.json"));
            let parsed: Value = serde_json::from_str(&manifest).unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            for layer in parsed["layers"].as_array().unwrap() {
                let path = format!("/v2/{image}/blobs/{}", text(&layer["digest"]));
                let size = layer["size"].as_u64().unwrap();
                answers.insert(format!("HEAD {path}"), Answer::of(BLOB, size, ""));
            }
            let kind = text(&parsed["mediaType"]);
            let digest = |text: &str| Digest::of(text.as_bytes());
            for (path, kind, body) in [
                ("manifests/1".to_owned(), &*kind, &manifest),
                (
                    format!("manifests/{}", digest(&manifest)),
                    &*kind,
                    &manifest,
                ),
                (format!("blobs/{}", digest(&config)), BLOB, &config),
            ] {
                for (method, sent) in [("HEAD", ""), ("GET", &**body)] {
                    let answer = Answer::of(kind, body.len() as u64, sent);
                    answers.insert(format!("{method} /v2/{image}/{path}"), answer);
                }
            }
        }
        let missing = Answer("404 Not Found\r\nConnection: close\r\n\r\n".to_owned());
        Scripted::start(move |asked| answers.get(&asked.line).unwrap_or(&missing).0.clone())
    }
}

/// The type of anything.
const BLOB: &str = "application/octet-stream";

/// As [`Scripted`] sends it.
struct Answer(String);

impl Answer {
    /// That something is there of this type and size, with as much of it as is sent.
    fn of(kind: &str, size: u64, sent: &str) -> Self {
        Self(format!(
            "200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n{sent}"
        ))
    }
}

/// Builds the recorded context with the import of the recorded image, and pulls nothing.
fn imports(recorded: &Recorded, addr: &str, what: &str) {
    let registry = recorded.registry();
    let context = recorded.path("context").display().to_string();
    let built = Buildctl::new(addr)
        .args(["--frontend=dockerfile.v0"])
        .args([
            format!("--local=context={context}"),
            format!("--local=dockerfile={context}"),
        ])
        .opt(&format!("build-arg:BASE={}/base:1", registry.host()))
        .epoch(1_700_000_000)
        .import_cache(&format!("type=registry,ref={}/app:1", registry.host()))
        .run_ok();
    assert_eq!(built.steps_failed(), [], "{what}: {built}");
    assert_eq!(built.warnings, [""; 0], "{what}: {built}");
    assert_eq!(built.steps_ran(), [""; 0], "{what}: {built}");
    // Those of the stages, linked copies as two.
    assert_eq!(built.steps_cached().len(), 11, "{what}: {built}");
}

/// Of the commit b174ed4, with BuildKit v0.34.2.
#[test]
fn images_of_inlay_0_1() {
    let recorded = Recorded("inlay-0.1");
    assert_eq!(
        inline_records(recorded.read("app.config.json").as_bytes()).len(),
        16
    );
    let plain = Buildkitd::start();
    imports(&recorded, &plain.addr(), "plain BuildKit");
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    imports(&recorded, &inlay.addr(), "inlay");
    assert_eq!(plain.executed(), [""; 0]);
    assert_eq!(buildkitd.executed(), [""; 0]);
}
