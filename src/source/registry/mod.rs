//! A registry, by OCI's distribution protocol: manifests and blobs of one repository.
//!
//! There are crates that pull images. Those that were looked at read what a registry says without a
//! bound, want a login before it is asked for, and know no identity tokens; what is needed of the
//! protocol is two kinds of GET, and a HEAD.

mod login;
mod rests;

use std::error::Error as _;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderValue, Method, StatusCode};
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest, MediaType};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Response, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    ByteStream, Credentials, Source, SourceError, exactly, has_size, sha256, verify, within,
};
use login::Challenge;
use rests::Rests;

/// What a manifest may be.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// The name of Docker Hub in images' names, and that of its registry.
const HUB: &str = "docker.io";
const HUB_REGISTRY: &str = "registry-1.docker.io";
/// By which a registry may say the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// How long a connection may take. Builds wait for it.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;
/// What an error or a token may have (bytes).
const MAX_ANSWER: u64 = 1 << 20;

/// The connections to registries; made once.
#[derive(Debug, Clone)]
pub struct Client {
    /// Follows redirects, to other hosts without the login.
    http: reqwest::Client,
    /// Carries logins in requests' bodies, too: stays on the host that it asks.
    tokens: reqwest::Client,
}

/// One image of a registry.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    reference: Reference,
    /// Host and port, as the user's login is asked for.
    host: String,
    /// The repository, with a slash at its end.
    base: Url,
    credentials: Arc<dyn Credentials>,
    /// What a request carries, once the registry has wanted it.
    authorization: Mutex<Option<Authorization>>,
    /// Of blobs that come whole.
    rests: Rests,
}

/// What a request carries to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authorization {
    header: HeaderValue,
    /// Whether it comes of the user's login, or is what anyone gets.
    as_user: bool,
}

/// How registries say what is wrong.
#[derive(Debug, Deserialize)]
struct Errors {
    errors: Vec<ErrorEntry>,
}

#[derive(Debug, Deserialize)]
struct ErrorEntry {
    code: String,
    #[serde(default)]
    message: String,
}

/// What a manifest says of its own kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
}

/// The host and port of an image's registry.
pub fn host(reference: &Reference) -> &str {
    match reference.registry() {
        HUB => HUB_REGISTRY,
        host => host,
    }
}

/// Whether BuildKit speaks to a host without TLS, if it is not told how: this machine.
pub fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        // Not the last part of an IPv6 address.
        Some((name, port)) if port.parse::<u16>().is_ok() && !name.ends_with(':') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// An error with its causes: reqwest's own says little.
fn causes(err: &reqwest::Error) -> String {
    let mut said = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        said = format!("{said}: {err}");
        cause = err.source();
    }
    said
}

/// A whole answer of at most `limit` bytes.
async fn body(mut response: Response, limit: u64, what: &str) -> Result<Bytes, SourceError> {
    let mut data = BytesMut::new();
    loop {
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|err| SourceError::Unavailable {
            what: what.to_owned(),
            reason: causes(&err),
        })?;
        let Some(chunk) = chunk else {
            return Ok(data.freeze());
        };
        if data.len() as u64 + chunk.len() as u64 > limit {
            return Err(SourceError::TooLarge {
                what: what.to_owned(),
                limit,
            });
        }
        data.extend_from_slice(&chunk);
    }
}

/// What an answer that is no success means.
async fn refusal(response: Response, what: &str) -> SourceError {
    let status = response.status();
    let url = response.url();
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let said = body(response, MAX_ANSWER, what).await.unwrap_or_default();
    let said = serde_json::from_slice::<Errors>(&said).map(|said| said.errors);
    let said: Vec<String> = said
        .unwrap_or_default()
        .into_iter()
        .map(|entry| format!(" ({}: {})", entry.code, entry.message))
        .collect();
    let what = what.to_owned();
    match status {
        StatusCode::NOT_FOUND => SourceError::Missing(what),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SourceError::Denied {
            what,
            reason: format!("{host} answers {status}{}", said.concat()),
        },
        _ => SourceError::Unavailable {
            what,
            reason: format!("{host} answers {status}{}", said.concat()),
        },
    }
}

// === impl Client ===

impl Client {
    /// With further certificates beside the system's. Nothing may come for `patience`. What is on
    /// this machine is not behind the proxy that the environment names: such are Go's rules, and so
    /// BuildKit's.
    ///
    /// # Errors
    /// Where there is no certificate at all.
    pub fn new(
        authorities: &[Certificate],
        patience: Duration,
        local: bool,
    ) -> Result<Self, SourceError> {
        // Where another one is the process's already, that one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let build = |redirects: Policy| {
            let client = reqwest::Client::builder()
                .user_agent(concat!("inlay/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_LIMIT)
                .read_timeout(patience)
                .redirect(redirects)
                .referer(false)
                .tls_certs_merge(authorities.iter().cloned());
            let client = if local { client.no_proxy() } else { client };
            client.build().map_err(|err| SourceError::Unavailable {
                what: "registries".to_owned(),
                reason: causes(&err),
            })
        };
        let stay = Policy::custom(|attempt| {
            let first = attempt.previous().first().map(Url::origin);
            if attempt.previous().len() > MAX_REDIRECTS || first != Some(attempt.url().origin()) {
                attempt.stop()
            } else {
                attempt.follow()
            }
        });
        Ok(Self {
            http: build(Policy::limited(MAX_REDIRECTS))?,
            tokens: build(stay)?,
        })
    }
}

// === impl Registry ===

impl Registry {
    /// The image of that name; nothing is asked yet.
    ///
    /// # Errors
    /// Where the name is none that a registry can have.
    pub fn new(
        client: Client,
        reference: Reference,
        plain_http: bool,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Self, SourceError> {
        let host = host(&reference);
        let scheme = if plain_http { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}/", reference.repository());
        let base = Url::parse(&base).map_err(|err| SourceError::Malformed {
            what: reference.whole(),
            reason: err.to_string(),
        })?;
        Ok(Self {
            client,
            host: host.to_owned(),
            base,
            credentials,
            authorization: Mutex::default(),
            rests: Rests::default(),
            reference,
        })
    }

    /// Asks for a manifest or a blob, and logs in where the registry wants it.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        range: Option<&Range<u64>>,
        what: &str,
    ) -> Result<Response, SourceError> {
        let unavailable = |reason: String| SourceError::Unavailable {
            what: what.to_owned(),
            reason,
        };
        let url = self.base.join(path);
        let url = url.map_err(|err| unavailable(err.to_string()))?;
        let mut tries = 0..2;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let request = self.client.http.request(method.clone(), url.clone());
            let mut request = request.header(ACCEPT, MANIFESTS);
            if let Some(range) = range {
                let range = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
                request = request.header(RANGE, range);
            }
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, &authorization.header);
            }
            let response = request.send().await;
            let response = response.map_err(|err| unavailable(causes(&err)))?;
            tries.next();
            // Where a redirect led elsewhere, the login is not for that host.
            let asked = response.url().origin() == self.base.origin();
            if response.status() == StatusCode::UNAUTHORIZED && asked && !tries.is_empty() {
                self.log_in(&response, authorization, what).await?;
            } else if response.status().is_success() {
                return Ok(response);
            } else {
                let tried = match authorization.map(|carried| carried.as_user) {
                    Some(true) => " to the user's login",
                    Some(false) => ", and the user has no login for it",
                    None => "",
                };
                return Err(match refusal(response, what).await {
                    SourceError::Denied { what, reason } => SourceError::Denied {
                        what,
                        reason: format!("{reason}{tried}"),
                    },
                    other => other,
                });
            }
        }
    }

    /// What errors call a blob.
    fn blob(&self, digest: &Digest) -> String {
        format!("{digest} of {}/{}", self.host, self.reference.repository())
    }

    /// Does what a refused request wants, so that the next one carries what it lacked.
    async fn log_in(
        &self,
        refused: &Response,
        carried: Option<Authorization>,
        what: &str,
    ) -> Result<(), SourceError> {
        let mut authorization = self.authorization.lock().await;
        // Another request may have done it meanwhile.
        if *authorization != carried {
            return Ok(());
        }
        let challenge = Challenge::read(refused.headers()).ok_or_else(|| SourceError::Denied {
            what: what.to_owned(),
            reason: format!("{} asks for no login that is known here", self.host),
        })?;
        let login = self.credentials.of(&self.host).await?;
        let default_scope = format!("repository:{}:pull", self.reference.repository());
        let answer = login::Answer {
            client: &self.client.tokens,
            host: &self.host,
            encrypted: self.base.scheme() == "https",
            default_scope: &default_scope,
            what,
        };
        let as_user = login.is_some();
        let header = answer.to(&challenge, login).await?;
        *authorization = Some(Authorization { header, as_user });
        Ok(())
    }
}

#[tonic::async_trait]
impl Source for Registry {
    async fn root(&self, limit: u64) -> Result<(Descriptor, Bytes), SourceError> {
        let what = self.reference.whole();
        let named = self.reference.digest().or(self.reference.tag());
        let path = format!("manifests/{}", named.unwrap_or("latest"));
        let response = self.ask(Method::GET, &path, None, &what).await?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let (announced, content_type) = (header(CONTENT_DIGEST), header(CONTENT_TYPE.as_str()));
        let data = body(response, limit, &what).await?;
        for expected in self
            .reference
            .digest()
            .into_iter()
            .chain(announced.as_deref())
        {
            let digest = expected.parse().map_err(|err| SourceError::Malformed {
                what: what.clone(),
                reason: format!("{expected} is no digest: {err}"),
            })?;
            verify(&digest, &data)?;
        }
        // What it says of itself is part of its digest; OCI's need not say it.
        let kind: Kind = serde_json::from_slice(&data).map_err(|err| SourceError::Malformed {
            what: what.clone(),
            reason: err.to_string(),
        })?;
        let media_type = kind.media_type.or(content_type).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let descriptor = Descriptor::new(
            MediaType::from(media_type),
            data.len() as u64,
            sha256(&data)?,
        );
        Ok((descriptor, data))
    }

    async fn read(
        &self,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<ByteStream, SourceError> {
        within(descriptor, &range)?;
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let digest = descriptor.digest();
        let what = self.blob(digest);
        let length = range.end - range.start;
        let part = |from, all| {
            let part = self
                .rests
                .part(digest, descriptor.size(), range.clone(), from, all);
            exactly(length, what.clone(), part)
        };
        if let Some(rest) = self.rests.take(digest, range.start).await {
            return Ok(part(range.start, rest));
        }
        let kind = match descriptor.media_type() {
            MediaType::ImageIndex | MediaType::ImageManifest => "manifests",
            MediaType::Other(kind) if MANIFESTS.split(", ").any(|one| one == kind) => "manifests",
            _ => "blobs",
        };
        let partial = (range != (0..descriptor.size())).then_some(&range);
        let response = self
            .ask(Method::GET, &format!("{kind}/{digest}"), partial, &what)
            .await?;
        let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if is_partial {
            let got = response.headers().get(CONTENT_RANGE);
            let got = got.and_then(|got| got.to_str().ok()).unwrap_or_default();
            let wanted = format!("bytes {}-{}/", range.start, range.end - 1);
            if !got.starts_with(&wanted) {
                return Err(SourceError::Unavailable {
                    what,
                    reason: format!("{} sends {got:?} for {wanted:?}", self.host),
                });
            }
        }
        let called = what.clone();
        let chunks = response
            .bytes_stream()
            .map_err(move |err| SourceError::Unavailable {
                what: called.clone(),
                reason: causes(&err),
            });
        Ok(match is_partial {
            true => exactly(length, what, chunks.boxed()),
            // Who does not know ranges sends all.
            false => part(0, chunks.boxed()),
        })
    }

    async fn look(&self, descriptor: &Descriptor) -> Result<(), SourceError> {
        let digest = descriptor.digest();
        let what = self.blob(digest);
        let path = format!("blobs/{digest}");
        let response = match self.ask(Method::HEAD, &path, None, &what).await {
            // One that stands for another registry may not have the blob yet, and get it once it is
            // read.
            Err(SourceError::Missing(_)) => {
                let start = 0..1;
                return self
                    .ask(Method::GET, &path, Some(&start), &what)
                    .await
                    .map(drop);
            }
            looked => looked?,
        };
        let length = response.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        has_size(descriptor, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
            "[::1]",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "registry-1.docker.io",
            "localhost.example",
            "128.0.0.1:5000",
            "[::2]:5000",
            "127.0.0.1.example:5000",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
