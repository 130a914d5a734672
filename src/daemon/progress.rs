//! What inlay says to a build's user: steps and warnings in the progress output of the build.
//!
//! It knows how something is said there, and nothing of what there is to say. A build goes on
//! whether or not it can be said.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::Status;
use tracing::{info, warn};

use crate::daemon::Daemon;
use crate::daemon::notice::{Notice, notice};
use crate::protocol::proto::gateway::{SolveRequest, WarnRequest};

/// How long it may take to say something.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is said at most (characters).
const MAX_TEXT: usize = 600;

/// Says something as a step of its own.
pub async fn step(daemon: &Daemon, build: &str, text: &str) {
    info!("{}", plain(text));
    bounded(show(daemon, build, text, None)).await;
}

/// Says something as a warning: of the vertex `of`, or of the step by which it is said as well. A
/// plain log shows no warning of a step that is over.
pub async fn warn(daemon: &Daemon, build: &str, text: &str, of: Option<String>) {
    warn!("{}", plain(text));
    tell(daemon, build, text, of).await;
}

/// Says a warning without logging it.
pub async fn tell(daemon: &Daemon, build: &str, text: &str, of: Option<String>) {
    bounded(show(daemon, build, text, Some(of))).await;
}

async fn show(
    daemon: &Daemon,
    build: &str,
    text: &str,
    warns: Option<Option<String>>,
) -> Result<(), Status> {
    let mut gateway = daemon.gateway(build)?;
    let text = format!("inlay: {}", plain(text));
    let Notice { definition, vertex } = notice(&text);
    let shown = SolveRequest {
        definition: Some(definition.into()),
        allow_result_return: true,
        evaluate: true,
        ..Default::default()
    };
    let warning = warns.map(|of| WarnRequest {
        digest: of.unwrap_or(vertex),
        level: 1,
        short: Bytes::from(text),
        ..Default::default()
    });
    if let Some(warning) = warning {
        gateway.warn(warning).await?;
    }
    gateway.solve(shown).await?;
    Ok(())
}

/// A text of one line and some length: others may have had their say in it.
fn plain(text: &str) -> String {
    let text = text.chars().take(MAX_TEXT);
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn bounded(said: impl Future<Output = Result<(), Status>>) {
    match timeout(TIMEOUT, said).await {
        Ok(Ok(())) => {}
        Ok(Err(status)) => warn!("the user could not be told: {:?}", status.code()),
        Err(_) => warn!("the user could not be told in time"),
    }
}
