//! The client's access to registries. inlay asks for it as buildkitd does, by `moby.filesync.v1.Auth` on
//! the client's session.
//!
//! A client that can fetch tokens keeps its password. inlay asks other clients for the login.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use super::client::{Calls, ClientSession};
use crate::protocol::proto::auth::auth_client::AuthClient;
use crate::protocol::proto::auth::{
    CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest,
};
use crate::source::{CLIENT_ID, CredentialsError, Login, Token, TokenRequest};

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";
const GET_TOKEN_AUTHORITY: &str = "/moby.filesync.v1.Auth/GetTokenAuthority";
/// The timeout for an answer. The client may ask a credential helper, which may ask a person.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The client's login to a registry; `None` where it has none. `host` is spelled as in image names.
///
/// # Errors
/// Where the client refuses, does not answer, or is gone.
pub async fn credentials(
    session: &ClientSession,
    host: &str,
) -> Result<Option<Login>, CredentialsError> {
    if !session.advertises(CREDENTIALS) {
        return Ok(None);
    }
    let request = CredentialsRequest {
        host: host.to_owned(),
    };
    let answer = call(session, host, async |mut client| {
        client.credentials(request).await
    });
    let answer = match answer.await? {
        Ok(answer) => answer,
        Err(status) if status.code() == Code::Unimplemented => return Ok(None),
        Err(status) => return Err(failed(host, status.message())),
    };
    Ok(match (answer.username, answer.secret) {
        (_, secret) if secret.is_empty() => None,
        // A client gives an identity token without a name.
        (username, secret) if username.is_empty() => Some(Login::IdentityToken(secret)),
        (username, secret) => Some(Login::Password { username, secret }),
    })
}

/// A token that the client fetches for a registry, with its login or without one; `None` where the
/// client fetches no tokens.
///
/// # Errors
/// Where the client gets no token, does not answer, or is gone.
pub async fn fetch_token(
    session: &ClientSession,
    request: &TokenRequest,
) -> Result<Option<Token>, CredentialsError> {
    let host = &request.host;
    if !session.advertises(FETCH_TOKEN) || !session.advertises(GET_TOKEN_AUTHORITY) {
        return Ok(None);
    }
    // Tells whether the client fetches tokens. buildkitd shares tokens between sessions whose keys are
    // the same for one salt. inlay shares none.
    let authority = GetTokenAuthorityRequest {
        host: host.clone(),
        salt: Bytes::from_owner(*uuid::Uuid::new_v4().as_bytes()),
    };
    let answer = call(session, host, async |mut client| {
        client.get_token_authority(authority).await
    });
    match answer.await? {
        Ok(_) => {}
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::Unavailable) => {
            return Ok(None);
        }
        Err(status) => return Err(failed(host, status.message())),
    }
    let wanted = FetchTokenRequest {
        client_id: CLIENT_ID.to_owned(),
        host: host.clone(),
        realm: request.realm.clone(),
        service: request.service.clone(),
        scopes: request.scopes.clone(),
    };
    let answer = call(session, host, async |mut client| {
        client.fetch_token(wanted).await
    });
    let answer = answer.await?;
    let answer = answer.map_err(|status| failed(host, status.message()))?;
    Ok(Some(Token(answer.token)))
}

/// The answer to a call of the client's service.
async fn call<T>(
    session: &ClientSession,
    host: &str,
    call: impl AsyncFnOnce(AuthClient<Calls>) -> Result<Response<T>, Status>,
) -> Result<Result<T, Status>, CredentialsError> {
    let answer = timeout(TIMEOUT, call(AuthClient::new(session.call()))).await;
    let answer = answer.map_err(|_| {
        let reason = format!("no answer within {} s", TIMEOUT.as_secs());
        failed(host, &reason)
    })?;
    Ok(answer.map(Response::into_inner))
}

fn failed(host: &str, reason: &str) -> CredentialsError {
    CredentialsError {
        host: host.to_owned(),
        reason: reason.to_owned(),
    }
}
