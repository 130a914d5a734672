//! `Control.Session`: a client opens its session.

use http::{Request, Response};
use tracing::debug;

use crate::daemon::{Connection, ConnectionError};
use crate::session::{Sessions, is_compressed};
use crate::transport::http2::Body;

pub use crate::session::PATH;

/// Forwards the call, and terminates the HTTP/2 connection within it on both sides.
pub async fn open(
    sessions: &Sessions,
    connection: &Connection,
    request: Request<Body>,
) -> Result<Response<Body>, ConnectionError> {
    if is_compressed(request.headers()) {
        debug!("a session of compressed messages passes unread");
        return connection.forward(request).await;
    }
    let (request, opening) = sessions.open(request);
    let answer = connection.forward(request).await?;
    Ok(opening.answered(answer))
}
