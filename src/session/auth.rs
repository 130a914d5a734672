//! Registry credentials, asked of the client whose session it is: as buildkitd asks, by
//! `moby.filesync.v1.Auth`.

use std::fmt;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::ClientSession;
use crate::protocol::proto::auth::CredentialsRequest;
use crate::protocol::proto::auth::auth_client::AuthClient;

const METHOD: &str = "/moby.filesync.v1.Auth/Credentials";
/// How long a client may take: it may have to ask a helper, which may ask a person.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What a client logs in to a registry with.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name. Where it is empty the secret is an identity token.
    pub username: String,
    /// The password, or the identity token.
    pub secret: String,
}

/// Why a client's credentials cannot be had.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The client refuses, or is gone.
    #[error("asking the client for its credentials of {host}: {}", .status.message())]
    Refused {
        /// The registry.
        host: String,
        /// What the client says.
        status: Box<Status>,
    },
    /// The client does not answer.
    #[error("the client did not give its credentials of {host} within {} s", MAX_WAIT.as_secs())]
    TimedOut {
        /// The registry.
        host: String,
    },
}

/// The client's credentials for a registry host, as its users write it; `None` where it has none.
///
/// # Errors
/// Where the client does not tell.
pub async fn credentials(
    session: &ClientSession,
    host: &str,
) -> Result<Option<Login>, CredentialsError> {
    if !session.advertises(METHOD) {
        return Ok(None);
    }
    let host = || host.to_owned();
    let request = CredentialsRequest { host: host() };
    let mut client = AuthClient::new(session.call());
    let answer = timeout(MAX_WAIT, client.credentials(request)).await;
    match answer.map_err(|_| CredentialsError::TimedOut { host: host() })? {
        Ok(answer) => {
            let answer = answer.into_inner();
            let login = Login {
                username: answer.username,
                secret: answer.secret,
            };
            Ok((!login.secret.is_empty()).then_some(login))
        }
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(CredentialsError::Refused {
            host: host(),
            status: Box::new(status),
        }),
    }
}

// === impl Login ===

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Logs have no secrets.
        formatter
            .debug_struct("Login")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
