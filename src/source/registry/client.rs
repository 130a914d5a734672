//! The HTTP clients for registries.

use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;

use super::answer::causes;
use super::certificates::trusting;
use crate::source::SourceError;

/// The timeout for a connection. Builds wait for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_REDIRECTS: usize = 10;
/// How long an idle connection is kept. The requests of an import follow each other closely.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections to registries.
#[derive(Debug, Clone)]
pub struct Client {
    /// For manifests and blobs. It follows redirects, to other hosts without the login.
    pub(super) http: reqwest::Client,
    /// For tokens. It follows no redirect to another host: bodies have logins, too.
    pub(super) tokens: reqwest::Client,
}

// === impl Client ===

impl Client {
    /// A client that trusts `authorities` beside the system's. `timeout` is how long an answer may send
    /// nothing. As in Go, and so in BuildKit, requests to this machine (`local`) use no proxy of the
    /// environment.
    ///
    /// # Errors
    /// Where no certificate can be loaded.
    pub fn new(
        authorities: &[CertificateDer<'static>],
        timeout: Duration,
        local: bool,
    ) -> Result<Self, SourceError> {
        let tls = trusting(authorities).map_err(|err| SourceError::Unavailable {
            what: "registries".to_owned(),
            reason: err.to_string(),
        })?;
        let build = |redirects: Policy| {
            let client = reqwest::Client::builder()
                .user_agent(concat!("inlay/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(timeout)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .redirect(redirects)
                .referer(false)
                .tls_backend_preconfigured(tls.clone());
            let client = if local { client.no_proxy() } else { client };
            client.build().map_err(|err| SourceError::Unavailable {
                what: "registries".to_owned(),
                reason: causes(err),
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
