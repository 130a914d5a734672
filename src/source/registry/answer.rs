//! Answers of registries: bodies of bounded size, and errors with the registry's own codes.

use std::error::Error as _;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use reqwest::{Response, Url};
use serde::Deserialize;

use crate::source::SourceError;

/// The largest error or token that is read (bytes).
pub const MAX_ANSWER: u64 = 1 << 20;

/// The errors in a registry's answer.
#[derive(Debug, Deserialize)]
struct Errors {
    errors: Vec<ErrorEntry>,
}

#[derive(Debug, Deserialize)]
struct ErrorEntry {
    code: String,
}

/// The codes of the OCI distribution specification, and two more of Docker's registry. Errors quote no other
/// text of an answer: it may come from an internal service that is no registry.
const CODES: [&str; 16] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNKNOWN",
    "UNSUPPORTED",
];

/// The text of an error with its causes, which reqwest's own text leaves out. It has only the host of the
/// URL: a redirect may have led to a signed URL, which would give access to anyone who reads it.
pub fn causes(err: reqwest::Error) -> String {
    let host = err.url().and_then(Url::host_str).map(str::to_owned);
    let err = err.without_url();
    let mut said = match host {
        Some(host) => format!("{host}: {err}"),
        None => err.to_string(),
    };
    let mut cause = err.source();
    while let Some(err) = cause {
        said = format!("{said}: {err}");
        cause = err.source();
    }
    said
}

/// The body of an answer.
///
/// # Errors
/// Where it breaks off, or has more than `limit` bytes.
pub async fn body(mut response: Response, limit: u64, what: &str) -> Result<Bytes, SourceError> {
    let mut data = BytesMut::new();
    loop {
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|err| SourceError::Unavailable {
            what: what.to_owned(),
            reason: causes(err),
        })?;
        let Some(chunk) = chunk else {
            return Ok(data.freeze());
        };
        if data.len() as u64 + chunk.len() as u64 > limit {
            return Err(SourceError::TooLarge {
                what: what.to_owned(),
                limit,
            });
        }
        data.extend_from_slice(&chunk);
    }
}

/// The error for an answer whose status is no success.
pub async fn refusal(response: Response, what: &str) -> SourceError {
    let status = response.status();
    let url = response.url();
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let said = body(response, MAX_ANSWER, what).await.unwrap_or_default();
    let said = serde_json::from_slice::<Errors>(&said).map(|said| said.errors);
    let said: Vec<String> = said
        .unwrap_or_default()
        .into_iter()
        .filter(|entry| CODES.contains(&&*entry.code))
        .map(|entry| format!(" ({})", entry.code))
        .collect();
    let what = what.to_owned();
    match status {
        StatusCode::NOT_FOUND => SourceError::Missing(what),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SourceError::Denied {
            what,
            reason: format!("{host} answers {status}{}", said.concat()),
        },
        _ => SourceError::Unavailable {
            what,
            reason: format!("{host} answers {status}{}", said.concat()),
        },
    }
}
