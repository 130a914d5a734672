//! What inlay says to a build's user: steps and warnings in the progress output of the build.
//!
//! This module says a given text there. A build goes on whether or not it can be said.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::Status;
use tracing::{info, warn};

use crate::daemon::notice::{Notice, notice};
use crate::daemon::{Daemon, HeldCall};
use crate::protocol::proto::gateway::{SolveRequest, WarnRequest, WarnResponse};

/// The timeout for saying something.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest text (characters). A longer one is cut.
const MAX_TEXT: usize = 600;

/// Says something as a step of its own.
pub async fn step(daemon: &Daemon, build: &str, text: &str) {
    info!("{}", plain(text));
    bounded(show(daemon, build, text, None)).await;
}

/// Says something as a warning, and by a step as well, since a plain log shows no warning of a step that
/// has ended. It is a warning of the vertex `of`, or else of that step.
pub async fn warn(daemon: &Daemon, build: &str, text: &str, of: Option<String>) {
    warn!("{}", plain(text));
    tell(daemon, build, text, of).await;
}

/// Says a warning without logging it, and returns whether it was said.
pub async fn tell(daemon: &Daemon, build: &str, text: &str, of: Option<String>) -> bool {
    bounded(show(daemon, build, text, Some(of))).await
}

/// A warning that can be said even if the daemon takes no more calls, since its call is open already.
#[derive(Debug)]
pub struct LastWord(Mutex<Option<HeldCall<WarnRequest, WarnResponse>>>);

// === impl LastWord ===

impl LastWord {
    /// Opens the call. `None` for a build whose ref cannot be a header's value.
    pub fn open(daemon: &Daemon, build: &str) -> Option<Self> {
        let call = daemon.hold_warning(build).ok()?;
        Some(Self(Mutex::new(Some(call))))
    }

    /// Says it, once, as a warning of the vertex `of`.
    pub async fn say(&self, text: &str, of: Option<String>) {
        // A panic elsewhere leaves it there or not.
        let call = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(call) = call {
            let text = format!("inlay: {}", plain(text));
            let of = of.unwrap_or_else(|| notice(&text).vertex);
            let said = call.send(warning(&text, of));
            bounded(async { said.await.map(drop) }).await;
        }
    }
}

fn warning(text: &str, of: String) -> WarnRequest {
    WarnRequest {
        digest: of,
        level: 1,
        short: Bytes::copy_from_slice(text.as_bytes()),
        ..Default::default()
    }
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
    if let Some(of) = warns {
        gateway.warn(warning(&text, of.unwrap_or(vertex))).await?;
    }
    gateway.solve(shown).await?;
    Ok(())
}

/// The text in one line, cut to [`MAX_TEXT`]. It may have parts that registries or users wrote.
fn plain(text: &str) -> String {
    let text = text.chars().take(MAX_TEXT);
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether it was said.
async fn bounded(said: impl Future<Output = Result<(), Status>>) -> bool {
    let said = timeout(TIMEOUT, said).await;
    match &said {
        Ok(Ok(())) => {}
        Ok(Err(status)) => warn!("the user could not be told: {:?}", status.code()),
        Err(_) => warn!("the user could not be told in time"),
    }
    matches!(said, Ok(Ok(())))
}
