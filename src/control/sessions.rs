//! `Control.Session`: a client opens its session.

use http::header::HeaderValue;
use http::{Request, Response};
use tracing::debug;

use super::connection::Connection;
use super::pipe::{PipeError, Upstream};
use crate::relay::Body;
use crate::session::ID_HEADER;

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.Control/Session";

/// Hands the call on; where a build may want something of inlay there, stands between its two ends
/// as long as it is open.
pub async fn intercept(
    connection: &Connection,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Body>, PipeError> {
    let id = request.headers().get(ID_HEADER).map(HeaderValue::as_bytes);
    let id = String::from_utf8_lossy(id.unwrap_or_default());
    if !connection.needs.may_need(&id).await {
        debug!("session {id} passes as it is");
        return upstream.send(request).await;
    }
    let (request, opening) = connection.importer.sessions.open(request);
    let answer = upstream.send(request).await?;
    Ok(opening.answered(answer))
}
