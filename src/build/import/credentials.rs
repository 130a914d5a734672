//! The user's logins, asked for on the session of their build.

use crate::session::{Sessions, credentials};
use crate::source::{Credentials, CredentialsError, Login};

/// The logins that a client has.
#[derive(Debug)]
pub struct OfSession {
    /// The sessions of clients.
    pub sessions: Sessions,
    /// The one of the build.
    pub id: String,
}

#[tonic::async_trait]
impl Credentials for OfSession {
    async fn of(&self, host: &str) -> Result<Option<Login>, CredentialsError> {
        let Some(session) = self.sessions.get(&self.id).await else {
            return Ok(None);
        };
        let login = credentials(&session, host).await;
        let login = login.map_err(|err| CredentialsError {
            host: host.to_owned(),
            reason: err.to_string(),
        })?;
        // A client gives an identity token without a name.
        Ok(login.map(|login| {
            if login.username.is_empty() {
                Login::IdentityToken(login.secret)
            } else {
                Login::Password {
                    username: login.username,
                    secret: login.secret,
                }
            }
        }))
    }
}
