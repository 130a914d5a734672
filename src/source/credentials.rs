//! The user's logins to registries.

use std::fmt;

use thiserror::Error;

/// The client ID in requests for tokens, as buildkitd's.
pub const CLIENT_ID: &str = "buildkit-client";

/// What a user logs in to a registry with.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        secret: String,
    },
    /// An identity token, as OAuth's refresh token.
    IdentityToken(String),
}

/// What a registry asks a token for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The registry, as for a login.
    pub host: String,
    /// The URL that gives tokens.
    pub realm: String,
    /// The service that takes the token.
    pub service: String,
    /// The repository, and what may be done with it.
    pub scopes: Vec<String>,
}

/// A token of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

/// The user's logins. A source asks for one only when a registry wants it.
#[tonic::async_trait]
pub trait Credentials: Send + Sync + fmt::Debug {
    /// Has the user's client fetch a token, so that the password stays with the client. `None` where the
    /// client fetches no tokens.
    ///
    /// # Errors
    /// Where the user cannot be asked, or gets no token.
    async fn token(&self, request: &TokenRequest) -> Result<Option<Token>, CredentialsError>;

    /// The login for a registry; `None` where the user has none. `host` is host and port as
    /// buildkitd asks for them: Docker Hub is `registry-1.docker.io`.
    ///
    /// # Errors
    /// Where the user cannot be asked.
    async fn of(&self, host: &str) -> Result<Option<Login>, CredentialsError>;
}

/// Why a user's login cannot be had.
#[derive(Debug, Error)]
#[error("asking the client for its credentials of {host}: {reason}")]
pub struct CredentialsError {
    /// The registry.
    pub host: String,
    /// What went wrong.
    pub reason: String,
}

// === impl Token ===

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

// === impl Login ===

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Logs have no secrets.
        f.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
        })
    }
}
