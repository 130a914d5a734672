//! A registry, by OCI's distribution protocol: manifests and blobs of one repository.
//!
//! inlay needs two kinds of GET of the protocol, and a HEAD. No crate was found that limits what it reads,
//! logs in only where the registry asks for it, and knows identity tokens.

mod answer;
mod certificates;
mod client;
mod host;
mod login;
mod rests;
mod retry;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{Method, StatusCode};
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest as OciDigest, MediaType, ToDockerV2S2 as _};
use reqwest::{Response, Url};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tracing::debug;

use self::answer::{body, causes, refusal};
use self::login::{Authorization, Challenge, Origin};
use self::rests::Rests;
use super::{
    ByteStream, Credentials, Source, SourceError, exactly, has_size, sha256, verify, within,
};
use crate::cache::JsonError;
use crate::cache::image::manifest::{is_index, is_manifest};

pub use self::client::Client;
pub use self::host::{host, is_local};

/// The media types of indexes and manifests, OCI's and Docker's, as requests say them.
static MANIFESTS: LazyLock<String> = LazyLock::new(|| {
    let kinds = [MediaType::ImageIndex, MediaType::ImageManifest];
    let docker = kinds.iter().filter_map(|kind| kind.to_docker_v2s2().ok());
    let all: Vec<&str> = kinds.iter().map(AsRef::as_ref).chain(docker).collect();
    all.join(", ")
});
/// The header in which a registry may tell the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// The timeout for the answer to requests for an image until the registry has answered once. Later answers
/// may take longer.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// One image of a registry.
#[derive(Debug)]
pub struct RegistryImage {
    client: Client,
    reference: Reference,
    /// Host and port, as the user's login is asked for.
    host: String,
    /// The repository, with a slash at its end.
    base: Url,
    credentials: Arc<dyn Credentials>,
    /// What requests carry, once the registry has asked for it.
    authorization: Mutex<Option<Authorization>>,
    /// The unread rests of blobs that the registry sends whole.
    rests: Rests,
    /// Whether the registry has answered any request.
    has_answered: AtomicBool,
}

/// A manifest's own media type.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
}

// === impl RegistryImage ===

impl RegistryImage {
    /// The image of that name. It sends no request yet.
    ///
    /// # Errors
    /// Where the name makes no URL.
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
            has_answered: AtomicBool::new(false),
            reference,
        })
    }

    /// Asks for a manifest or a blob, and logs in where the registry asks for that.
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
        let mut may_log_in = true;
        let mut retries = 0;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let request = self.client.http.request(method.clone(), url.clone());
            let mut request = request.header(ACCEPT, &*MANIFESTS);
            if let Some(range) = range {
                let range = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
                request = request.header(RANGE, range);
            }
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, &authorization.header);
            }
            let send = request.send();
            let response = if self.has_answered.load(Ordering::Relaxed) {
                send.await
            } else {
                let answered = timeout(FIRST_ANSWER_TIMEOUT, send).await;
                answered.map_err(|_| SourceError::NoAnswer {
                    what: what.to_owned(),
                    host: self.host.clone(),
                    seconds: FIRST_ANSWER_TIMEOUT.as_secs(),
                })?
            };
            let response = response.map_err(|err| unavailable(causes(err)))?;
            self.has_answered.store(true, Ordering::Relaxed);
            // A host that a redirect led to gets no login.
            let asked = response.url().origin() == self.base.origin();
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && asked && may_log_in {
                may_log_in = false;
                self.log_in(&response, authorization, what).await?;
            } else if status.is_success() {
                return Ok(response);
            } else if let Some(pause) = retry::pause(status, response.headers(), retries) {
                retries += 1;
                debug!("{what}: {status}, asked again in {pause:?}");
                drop(response);
                sleep(pause).await;
            } else {
                let tried = match authorization.map(|carried| carried.origin) {
                    Some(Origin::Client) => " to the token that the client fetched",
                    Some(Origin::Login) => " to the user's login",
                    Some(Origin::Nobody) => ", and the user has no login for it",
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

    /// A blob's name in errors.
    fn blob(&self, digest: &OciDigest) -> String {
        format!("{digest} of {}/{}", self.host, self.reference.repository())
    }

    /// Answers the challenge of a refused request, for the requests that follow.
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
        let default_scope = format!("repository:{}:pull", self.reference.repository());
        let answer = login::Answer {
            credentials: &*self.credentials,
            client: &self.client.tokens,
            host: &self.host,
            encrypted: self.base.scheme() == "https",
            default_scope: &default_scope,
            what,
        };
        *authorization = Some(answer.to(&challenge).await?);
        Ok(())
    }
}

#[tonic::async_trait]
impl Source for RegistryImage {
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
            let digest = expected.parse().map_err(|_| SourceError::Malformed {
                what: what.clone(),
                reason: "it is named by something that is no digest".to_owned(),
            })?;
            verify(&digest, &data)?;
        }
        // Its own media type is part of its digest. OCI's manifests need not have one.
        let kind: Kind = serde_json::from_slice(&data).map_err(|err| SourceError::Malformed {
            what: what.clone(),
            reason: JsonError::from(err).to_string(),
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
        let media_type = descriptor.media_type();
        let is_document = is_manifest(media_type) || is_index(media_type);
        let kind = if is_document { "manifests" } else { "blobs" };
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
                    reason: format!("{} sends another part than {wanted:?}", self.host),
                });
            }
        }
        let called = what.clone();
        let chunks = response
            .bytes_stream()
            .map_err(move |err| SourceError::Unavailable {
                what: called.clone(),
                reason: causes(err),
            });
        Ok(match is_partial {
            true => exactly(length, what, chunks.boxed()),
            // A registry without ranges sends the whole blob.
            false => part(0, chunks.boxed()),
        })
    }

    async fn stat(&self, descriptor: &Descriptor) -> Result<(), SourceError> {
        let digest = descriptor.digest();
        let what = self.blob(digest);
        let path = format!("blobs/{digest}");
        let response = match self.ask(Method::HEAD, &path, None, &what).await {
            // A pull-through cache may not have the blob yet, and fetches it when it is read. And where
            // blobs are in a store whose URLs are signed for GET, that refuses HEAD.
            Err(SourceError::Missing(_) | SourceError::Denied { .. }) => {
                let start = 0..1;
                return self
                    .ask(Method::GET, &path, Some(&start), &what)
                    .await
                    .map(drop);
            }
            answer => answer?,
        };
        let length = response.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        has_size(descriptor, length)
    }

    fn repository(&self) -> Option<String> {
        Some(self.base.to_string())
    }
}
