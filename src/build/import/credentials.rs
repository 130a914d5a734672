//! The logins of the user whose build it is, asked for over the session of that build.

use crate::session::{Sessions, credentials};
use crate::source::{Credentials, CredentialsError, Login};

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
    async fn of(&self, host: &str) -> Result<Option<Login>, CredentialsError> {
        match self.sessions.get(&self.session).await {
            Some(session) => credentials(&session, host).await,
            None => Ok(None),
        }
    }
}
