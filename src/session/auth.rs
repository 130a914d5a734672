//! The client's logins to registries, which inlay asks for as buildkitd does: by
//! `moby.filesync.v1.Auth` on the client's session.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Code;

use super::client::ClientSession;
use crate::protocol::proto::auth::CredentialsRequest;
use crate::protocol::proto::auth::auth_client::AuthClient;
use crate::source::{CredentialsError, Login};

const METHOD: &str = "/moby.filesync.v1.Auth/Credentials";
/// The client may ask a credential helper, and that a person.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The client's login to a registry; `None` where it has none. `host` is spelled as in image names.
///
/// # Errors
/// Where the client refuses, does not answer, or is gone.
pub async fn credentials(
    session: &ClientSession,
    host: &str,
) -> Result<Option<Login>, CredentialsError> {
    if !session.advertises(METHOD) {
        return Ok(None);
    }
    let failed = |reason: String| CredentialsError {
        host: host.to_owned(),
        reason,
    };
    let mut client = AuthClient::new(session.call());
    let answer = client.credentials(CredentialsRequest {
        host: host.to_owned(),
    });
    let answer = timeout(TIMEOUT, answer).await;
    let answer = answer.map_err(|_| failed(format!("no answer within {} s", TIMEOUT.as_secs())))?;
    let answer = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return Ok(None),
        Err(status) => return Err(failed(status.message().to_owned())),
    };
    Ok(match (answer.username, answer.secret) {
        (_, secret) if secret.is_empty() => None,
        // A client gives an identity token without a name.
        (username, secret) if username.is_empty() => Some(Login::IdentityToken(secret)),
        (username, secret) => Some(Login::Password { username, secret }),
    })
}
