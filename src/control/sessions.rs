//! `Control.Session`: a client opens its session.

use http::{Request, Response};
use tracing::debug;

use super::connection::Connection;
use super::pipe::{PipeError, Upstream};
use crate::relay::Body;
use crate::session::is_compressed;

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.Control/Session";

/// Hands the call on, and stands between its two ends as long as it is open.
pub async fn intercept(
    connection: &Connection,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Body>, PipeError> {
    if is_compressed(request.headers()) {
        debug!("a session of compressed messages passes unread");
        return upstream.send(request).await;
    }
    let (request, opening) = connection.importer.sessions.open(request);
    let answer = upstream.send(request).await?;
    Ok(opening.answered(answer))
}
