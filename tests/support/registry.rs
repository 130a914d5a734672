//! A registry, and what landed in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use super::{Daemon, Peers, wait_for};

/// What a manifest may be: asked for together, the registry gives what it has.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The platform under which an index has the attestations of its images.
const ATTESTATION: &str = "unknown/unknown";

/// A registry on a free loopback port, over plain HTTP. BuildKit needs no configuration for it.
///
/// Images are named as `repository:tag` or `repository@digest` in its methods.
#[derive(Debug)]
pub struct Registry {
    // Before its directory: fields are dropped in order.
    daemon: Daemon,
    dir: TempDir,
    host: String,
}

/// A registry of the same images as another, which not everyone may read.
#[derive(Debug)]
pub struct Door {
    _daemon: Daemon,
    _dir: TempDir,
    host: String,
}

/// One line of the registry's access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`, `POST`, …
    pub method: String,
    /// With the query, as in `/v2/demo/blobs/sha256:…`.
    pub path: String,
    /// Of the answer.
    pub status: u16,
    /// Of the client: tells buildkitd from inlay.
    pub user_agent: String,
}

impl Registry {
    /// Starts an empty one.
    pub fn start() -> Self {
        let dir = temporary();
        let (daemon, host) = serve(dir.path(), &dir.path().join("data"), "", "");
        Self { dir, daemon, host }
    }

    /// A door to its images for those who know a password.
    pub fn with_password(&self) -> Door {
        // `USER` and `PASSWORD`, by bcrypt.
        let line = "user:$2b$04$TusnnJ22/fJbNjuCtQ3qKOFQx.KcBJWaBvTsd2XWwMrBu5oV8tHnO";
        let dir = temporary();
        let path = dir.path().join("htpasswd");
        fs::write(&path, line).expect("htpasswd is written");
        let auth = format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}",
            path.display()
        );
        self.door(dir, &auth, "")
    }

    /// A door for those who have a token from `realm`, signed by the certificate's key.
    pub fn with_tokens(&self, realm: &str, certificate: &str) -> Door {
        let dir = temporary();
        let path = dir.path().join("tokens.pem");
        fs::write(&path, certificate).expect("the certificate is written");
        let auth = format!(
            "auth: {{token: {{realm: \"{realm}\", service: test, issuer: test, rootcertbundle: {}}}}}",
            path.display()
        );
        self.door(dir, &auth, "")
    }

    /// A door with TLS.
    pub fn with_tls(&self, certificate: &str, key: &str) -> Door {
        let dir = temporary();
        let [certificate, key] = [("certificate", certificate), ("key", key)].map(|(name, pem)| {
            let path = dir.path().join(name);
            fs::write(&path, pem).expect("a PEM is written");
            path
        });
        let tls = format!(
            ", tls: {{certificate: {}, key: {}}}",
            certificate.display(),
            key.display()
        );
        self.door(dir, "", &tls)
    }

    fn door(&self, dir: TempDir, auth: &str, http: &str) -> Door {
        let (daemon, host) = serve(dir.path(), &self.dir.path().join("data"), auth, http);
        Door {
            _daemon: daemon,
            _dir: dir,
            host,
        }
    }

    /// Host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its base URL, no slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// The full name of an image, for `name=` of an output and `ref=` of a cache.
    pub fn image(&self, image: &str) -> String {
        format!("{}/{image}", self.host)
    }

    /// The digest that a tag points to.
    pub fn digest(&self, image: &str) -> String {
        self.fetch_manifest(image).1
    }

    /// The digest of each image manifest under a name, by platform such as `linux/arm64`; a single
    /// image that has no index is that of platform "". Attestations are no images.
    pub fn image_digests(&self, image: &str) -> BTreeMap<String, String> {
        let (bytes, digest) = self.fetch_manifest(image);
        let top = parse(&bytes);
        let Some(entries) = top["manifests"].as_array() else {
            return BTreeMap::from([(String::new(), digest)]);
        };
        let entries = entries.iter().map(|entry| {
            let digest = entry["digest"].as_str().expect("an entry has a digest");
            (platform(entry), digest.to_owned())
        });
        entries
            .filter(|(platform, _)| platform != ATTESTATION)
            .collect()
    }

    /// The manifest or index under a name, parsed.
    pub fn manifest(&self, image: &str) -> Value {
        parse(&self.fetch_manifest(image).0)
    }

    /// The image manifest for a platform such as `linux/arm64`, by way of the index if there is
    /// one. Without a platform the image has to have a single one.
    pub fn image_manifest(&self, image: &str, wanted: Option<&str>) -> Value {
        let top = self.manifest(image);
        let Some(entries) = top["manifests"].as_array() else {
            return top;
        };
        let entries: Vec<_> = entries
            .iter()
            .filter(|entry| {
                let name = platform(entry);
                name != ATTESTATION && wanted.is_none_or(|wanted| wanted == name)
            })
            .collect();
        let [entry] = entries[..] else {
            panic!("{} entries for {wanted:?} in {top:#}", entries.len())
        };
        let digest = entry["digest"].as_str().expect("an entry has a digest");
        self.manifest(&format!("{}@{digest}", repository(image)))
    }

    /// The bytes of an image's config; for the platform see
    /// [`image_manifest`](Self::image_manifest).
    pub fn config(&self, image: &str, platform: Option<&str>) -> Vec<u8> {
        let manifest = self.image_manifest(image, platform);
        let digest = manifest["config"]["digest"]
            .as_str()
            .expect("an image has a config");
        self.blob(repository(image), digest)
    }

    /// The digests of an image's layers, base first.
    pub fn layers(&self, image: &str, platform: Option<&str>) -> Vec<String> {
        let manifest = self.image_manifest(image, platform);
        let layers = manifest["layers"].as_array().expect("an image has layers");
        layers
            .iter()
            .map(|layer| {
                layer["digest"]
                    .as_str()
                    .expect("a layer has a digest")
                    .to_owned()
            })
            .collect()
    }

    /// The bytes of a blob.
    pub fn blob(&self, repository: &str, digest: &str) -> Vec<u8> {
        self.get(&format!("/v2/{repository}/blobs/{digest}")).0
    }

    /// The bytes of a blob or manifest, as they are on its disk.
    pub fn stored(&self, digest: &str) -> Vec<u8> {
        let (algorithm, hex) = digest.split_once(':').expect("a digest");
        let path = format!(
            "data/docker/registry/v2/blobs/{algorithm}/{}/{hex}/data",
            &hex[..2]
        );
        let path = self.dir.path().join(path);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Puts a blob there; gives whether the registry took it.
    pub fn put(&self, repository: &str, blob: &[u8]) -> bool {
        let digest = inlay::cache::record::Digest::of(blob);
        self.put_as(repository, digest.as_str(), blob)
    }

    /// The same by a digest of any kind.
    pub fn put_as(&self, repository: &str, digest: &str, blob: &[u8]) -> bool {
        let uploads = format!("{}/v2/{repository}/blobs/uploads/", self.url());
        let started = ureq::post(&uploads)
            .header("user-agent", "test")
            .send_empty();
        let started = started.expect("the registry starts an upload");
        let place = started.headers()["location"].to_str().expect("a URL");
        let mark = if place.contains('?') { '&' } else { '?' };
        let put = ureq::put(format!("{place}{mark}digest={digest}"));
        put.header("user-agent", "test").send(blob).is_ok()
    }

    /// Puts a manifest there, of OCI's kind; gives whether the registry took it.
    pub fn tag(&self, image: &str, manifest: &[u8]) -> bool {
        self.tag_as(
            image,
            manifest,
            "application/vnd.oci.image.manifest.v1+json",
        )
    }

    /// Puts an index there, of OCI's kind; gives whether the registry took it.
    pub fn tag_index(&self, image: &str, index: &[u8]) -> bool {
        self.tag_as(image, index, "application/vnd.oci.image.index.v1+json")
    }

    /// Has a tag point to what another one of the same repository points to.
    pub fn move_tag(&self, image: &str, target: &str) {
        let manifest = self.stored(&self.digest(target));
        assert!(self.tag(image, &manifest), "{image} points to {target}");
    }

    fn tag_as(&self, image: &str, manifest: &[u8], kind: &str) -> bool {
        let (_, tag) = image.rsplit_once(':').expect("a name with a tag");
        let repository = repository(image);
        let url = format!("{}/v2/{repository}/manifests/{tag}", self.url());
        let put = ureq::put(url)
            .header("user-agent", "test")
            .header("content-type", kind);
        put.send(manifest).is_ok()
    }

    /// Every request so far, also those that these methods made (their user agent is `test`).
    pub fn requests(&self) -> Vec<Request> {
        // The answer reaches the client before the line reaches the log: ask something and wait for
        // its line.
        let before = parse_log(&self.daemon.log()).len();
        self.get("/v2/");
        let log = wait_for(Duration::from_secs(5), || {
            let log = parse_log(&self.daemon.log());
            log[before..]
                .iter()
                .any(|request| request.path == "/v2/" && request.user_agent == "test")
                .then_some(log)
        });
        log.expect("the registry logs requests")
    }

    /// The digest of every blob that others have read so far, in order.
    pub fn blob_gets(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .filter(|request| {
                request.method == "GET" && request.status < 400 && request.user_agent != "test"
            })
            .filter_map(|request| Some(request.path.split_once("/blobs/")?.1.to_owned()))
            .collect()
    }

    fn fetch_manifest(&self, image: &str) -> (Vec<u8>, String) {
        let reference = match image.split_once('@') {
            Some((_, digest)) => digest,
            None => image.rsplit_once(':').map_or("latest", |(_, tag)| tag),
        };
        self.get(&format!("/v2/{}/manifests/{reference}", repository(image)))
    }

    /// The body, and `Docker-Content-Digest` (empty where there is none).
    fn get(&self, path: &str) -> (Vec<u8>, String) {
        let url = format!("{}{path}", self.url());
        let response = ureq::get(&url)
            .header("accept", MANIFEST_TYPES)
            .header("user-agent", "test")
            .call();
        let mut response = response.unwrap_or_else(|error| panic!("GET {url}: {error}"));
        let digest = response
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok());
        let digest = digest.unwrap_or_default().to_owned();
        let mut body = Vec::new();
        response
            .body_mut()
            .as_reader()
            .read_to_end(&mut body)
            .unwrap_or_else(|error| panic!("GET {url}: {error}"));
        (body, digest)
    }
}

impl Door {
    /// Who may pass, with [`PASSWORD`](Self::PASSWORD).
    pub const USER: &str = "user";
    /// The password.
    pub const PASSWORD: &str = "open sesame";

    /// Host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The full name of an image.
    pub fn image(&self, image: &str) -> String {
        format!("{}/{image}", self.host)
    }

    /// The configuration of a client who knows the password.
    pub fn docker_config(&self) -> String {
        let login = BASE64_STANDARD.encode(format!("{}:{}", Self::USER, Self::PASSWORD));
        format!(r#"{{"auths":{{"{}":{{"auth":"{login}"}}}}}}"#, self.host)
    }
}

fn temporary() -> TempDir {
    tempfile::Builder::new()
        .prefix("inlay-registry-")
        .tempdir()
        .expect("a temporary directory")
}

/// Starts one over the images in `data`; gives its host and port.
fn serve(dir: &Path, data: &Path, auth: &str, http: &str) -> (Daemon, String) {
    let config = format!(
        r#"version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: "{}"}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:0"{http}}}
{auth}
"#,
        data.display()
    );
    let config_path = dir.join("config.yml");
    fs::write(&config_path, config).expect("config.yml is written");
    let mut command = Command::new(Peers::locate().docker_registry());
    command.arg("serve").arg(&config_path);
    let mut daemon = Daemon::spawn("docker-registry", command, &dir.join("log"));
    // It picks the port and tells it: level=info msg="listening on 127.0.0.1:38685, tls" …
    let host = daemon.wait_until(Duration::from_secs(10), |daemon| {
        let log = daemon.log();
        let (_, rest) = log.split_once("msg=\"listening on ")?;
        Some(rest.split_once(['"', ','])?.0.to_owned())
    });
    (daemon, host)
}

fn parse(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("a manifest is JSON")
}

/// The platform of an index's entry.
fn platform(entry: &Value) -> String {
    [&entry["platform"]["os"], &entry["platform"]["architecture"]]
        .map(|part| part.as_str().unwrap_or_default())
        .join("/")
}

/// `repository:tag` or `repository@digest` without what follows.
fn repository(image: &str) -> &str {
    image.split(['@', ':']).next().unwrap_or(image)
}

/// Lines as web servers write them:
/// `127.0.0.1 - - [24/Nov/2026:12:47:01 +0000] "GET /v2/ HTTP/1.1" 200 2 "" "curl/7.88.1"`.
fn parse_log(log: &str) -> Vec<Request> {
    log.lines()
        .filter(|line| line.contains(" - - ["))
        .filter_map(|line| {
            let mut quoted = line.split('"');
            let mut request = quoted.nth(1)?.split(' ');
            let status = quoted.next()?.split_whitespace().next()?.parse().ok()?;
            let user_agent = quoted.nth(2)?;
            Some(Request {
                method: request.next()?.to_owned(),
                path: request.next()?.to_owned(),
                status,
                user_agent: user_agent.to_owned(),
            })
        })
        .collect()
}
