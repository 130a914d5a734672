//! A registry's challenge to a user, and the answer: the `Authorization` header of requests.
//!
//! As in buildkitd, the user's client fetches tokens where it can, and keeps the password. Only where
//! it cannot, or the registry wants the password itself, inlay asks for the login.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_auth::parse_challenges;
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;

use super::answer::{MAX_ANSWER, body, causes, refusal};
use crate::source::{CLIENT_ID, Credentials, Login, SourceError, Token, TokenRequest};

/// A registry's challenge.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A name and a password in each request.
    Basic,
    /// A token from the URL `realm`.
    Bearer {
        /// The URL that issues tokens.
        realm: String,
        /// The service that takes the token.
        service: Option<String>,
        /// The repository, and what may be done with it.
        scope: Option<String>,
    },
}

/// The authorization of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The header's value.
    pub header: HeaderValue,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a request's authorization comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The token was fetched by the user's client, with a login or without.
    Client,
    /// It was made with the user's login.
    Login,
    /// Anyone gets the same token.
    Nobody,
}

/// What is needed to answer a challenge.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The user's logins.
    pub credentials: &'a dyn Credentials,
    /// Asks for tokens.
    pub client: &'a reqwest::Client,
    /// The registry.
    pub host: &'a str,
    /// Whether the registry is spoken to with TLS. The realm then needs TLS, too.
    pub encrypted: bool,
    /// The scope of a token, if the challenge names none.
    pub default_scope: &'a str,
    /// What was asked for, in errors.
    pub what: &'a str,
}

/// The answer with a token, by either of its two names.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

// === impl Challenge ===

impl Challenge {
    /// The challenge to answer, of those in a response. A token is preferred to a password.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Some(challenges) = header
                .to_str()
                .ok()
                .and_then(|header| parse_challenges(header).ok())
            else {
                continue;
            };
            for challenge in challenges {
                let param = |name: &str| {
                    let mut params = challenge.params.iter();
                    let (_, value) = params.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                    Some(value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    return Some(Self::Bearer {
                        realm: param("realm")?,
                        service: param("service"),
                        scope: param("scope"),
                    });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

// === impl Answer ===

impl Answer<'_> {
    /// The authorization that satisfies a challenge.
    ///
    /// # Errors
    /// Where the login does not suit, or there is no token for it.
    pub async fn to(&self, challenge: &Challenge) -> Result<Authorization, SourceError> {
        let (header, origin) = match challenge {
            Challenge::Basic => (self.password().await?, Origin::Login),
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let scope = scope.as_deref().unwrap_or(self.default_scope);
                let (token, origin) = self.token(realm, service.as_deref(), scope).await?;
                (format!("Bearer {token}"), origin)
            }
        };
        let mut header = HeaderValue::try_from(header)
            .map_err(|_| self.denied("its token is no value of a header"))?;
        header.set_sensitive(true);
        Ok(Authorization { header, origin })
    }

    /// The user's password, as a header.
    async fn password(&self) -> Result<String, SourceError> {
        match self.credentials.of(self.host).await? {
            Some(Login::Password { username, secret }) => {
                use base64::Engine as _;
                let pair = base64::engine::general_purpose::STANDARD
                    .encode(format!("{username}:{secret}"));
                Ok(format!("Basic {pair}"))
            }
            Some(Login::IdentityToken(_)) => {
                Err(self
                    .denied("it wants a name and a password, and the login is an identity token"))
            }
            None => Err(self.denied("it wants a login, and the user has none for it")),
        }
    }

    /// A token, fetched by the user's client, or else with the user's login.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<(String, Origin), SourceError> {
        let url =
            Url::parse(realm).map_err(|err| self.denied(&format!("its realm is no URL: {err}")))?;
        if self.encrypted && url.scheme() != "https" {
            let host = url.host_str().unwrap_or_default();
            return Err(self.denied(&format!("it wants the login sent to {host} in clear")));
        }
        let request = TokenRequest {
            host: self.host.to_owned(),
            realm: realm.to_owned(),
            service: service.unwrap_or_default().to_owned(),
            scopes: scope.split(' ').map(str::to_owned).collect(),
        };
        if let Some(Token(token)) = self.credentials.token(&request).await? {
            return Ok((token, Origin::Client));
        }
        let login = self.credentials.of(self.host).await?;
        let origin = match login {
            Some(_) => Origin::Login,
            None => Origin::Nobody,
        };
        let token = self.token_of(login, url, service, scope).await?;
        Ok((token, origin))
    }

    fn denied(&self, reason: &str) -> SourceError {
        SourceError::Denied {
            what: self.what.to_owned(),
            reason: format!("{}: {reason}", self.host),
        }
    }

    /// A token that inlay fetches with a login, or without one.
    async fn token_of(
        &self,
        login: Option<Login>,
        url: Url,
        service: Option<&str>,
        scope: &str,
    ) -> Result<String, SourceError> {
        let form = |pairs: &[(&str, &str)]| {
            let common = [
                ("scope", scope),
                ("service", service.unwrap_or_default()),
                ("client_id", CLIENT_ID),
            ];
            let form: Vec<_> = common.iter().chain(pairs).collect();
            self.client.post(url.clone()).form(&form)
        };
        let by_get = {
            let mut url = url.clone();
            {
                let mut query = url.query_pairs_mut();
                if let Some(service) = service {
                    query.append_pair("service", service);
                }
                for scope in scope.split(' ') {
                    query.append_pair("scope", scope);
                }
            }
            self.client.get(url)
        };
        match login {
            None => self.ask(by_get, &[]).await.map(Option::unwrap_or_default),
            Some(Login::IdentityToken(token)) => {
                let pairs = [("grant_type", "refresh_token"), ("refresh_token", &token)];
                self.ask(form(&pairs), &[])
                    .await
                    .map(Option::unwrap_or_default)
            }
            Some(Login::Password { username, secret }) => {
                // As in buildkitd, by GET first: Docker Hub has only that. Some registries have only POST,
                // and answer a GET with one of these.
                let other = [
                    StatusCode::METHOD_NOT_ALLOWED,
                    StatusCode::NOT_FOUND,
                    StatusCode::UNAUTHORIZED,
                ];
                let by_get = by_get.basic_auth(&username, Some(&secret));
                if let Some(token) = self.ask(by_get, &other).await? {
                    return Ok(token);
                }
                let pairs = [
                    ("grant_type", "password"),
                    ("username", &*username),
                    ("password", &*secret),
                ];
                self.ask(form(&pairs), &[])
                    .await
                    .map(Option::unwrap_or_default)
            }
        }
    }

    /// The token that a request gets. `None` where the status is one of `other`.
    async fn ask(
        &self,
        request: RequestBuilder,
        other: &[StatusCode],
    ) -> Result<Option<String>, SourceError> {
        let what = format!("a token for {} of {}", self.what, self.host);
        let response = request
            .send()
            .await
            .map_err(|err| SourceError::Unavailable {
                what: what.clone(),
                reason: causes(err),
            })?;
        if other.contains(&response.status()) {
            return Ok(None);
        }
        if !response.status().is_success() {
            return Err(refusal(response, &what).await);
        }
        let unavailable = |reason: String| SourceError::Unavailable {
            what: what.clone(),
            reason,
        };
        let said = body(response, MAX_ANSWER, &what).await;
        let said = said.map_err(|err| unavailable(err.to_string()))?;
        let token: Option<TokenAnswer> = serde_json::from_slice(&said).ok();
        let token = token.and_then(|said| said.access_token.or(said.token));
        // Errors do not quote the answer, which may have a secret.
        let token = token.filter(|token| !token.is_empty());
        token
            .map(Some)
            .ok_or_else(|| unavailable("there is none in the answer".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[&str]) -> Option<Challenge> {
        let headers = headers
            .iter()
            .map(|value| (WWW_AUTHENTICATE, value.parse().unwrap()));
        Challenge::read(&headers.collect())
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let bearer = r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#;
        let wanted = Challenge::Bearer {
            realm: "https://auth.example/token".to_owned(),
            service: Some("reg".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(read(&[r#"Basic realm="x""#, bearer]), Some(wanted));
        assert_eq!(
            read(&[r#"basic realm="x", Other a=1"#]),
            Some(Challenge::Basic)
        );
        assert_eq!(read(&["Other a=1", "\"", "Bearer service=x"]), None);
        assert_eq!(read(&[]), None);
    }
}
