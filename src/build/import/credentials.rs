//! The logins of the user whose build it is, asked for over the session of that build.

use crate::session::{Sessions, credentials, fetch_token};
use crate::source::{Credentials, CredentialsError, Login, Token, TokenRequest};

/// The logins of one build's client.
#[derive(Debug)]
pub struct ClientCredentials {
    /// The sessions of clients.
    pub sessions: Sessions,
    /// The id of the build's session.
    pub session: String,
}

#[tonic::async_trait]
impl Credentials for ClientCredentials {
    async fn token(&self, request: &TokenRequest) -> Result<Option<Token>, CredentialsError> {
        match self.sessions.get(&self.session).await {
            Some(session) => fetch_token(&session, request).await,
            None => Ok(None),
        }
    }

    async fn of(&self, host: &str) -> Result<Option<Login>, CredentialsError> {
        match self.sessions.get(&self.session).await {
            Some(session) => credentials(&session, host).await,
            None => Ok(None),
        }
    }
}
