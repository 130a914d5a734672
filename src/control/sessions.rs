//! `Control.Session`: a client opens its session.

use http::{Request, Response};
use tracing::debug;

use super::connection::Connection;
use super::pipe::{PipeError, Upstream};
use crate::relay::Body;
use crate::session::session_id;

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.Control/Session";

/// Hands the call on; where a build may want something of inlay there, stands between its two ends
/// as long as it is open.
pub async fn intercept(
    connection: &Connection,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Body>, PipeError> {
    let id = session_id(request.headers());
    if !connection.needs.may_need(&id).await {
        debug!("session {id} passes as it is");
        return upstream.send(request).await;
    }
    let (request, opening) = connection.importer.sessions.open(request);
    let answer = upstream.send(request).await?;
    Ok(opening.answered(answer))
}
