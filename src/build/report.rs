//! What a build's user is told of its imports.

use tracing::info;

use super::Build;
use super::import::Note;
use crate::daemon::progress;

/// Tells what became of them. `unreadable` imports were dropped because they cannot be read.
pub async fn imported(build: &Build, unreadable: usize) {
    let (daemon, reference) = (&build.daemon, build.reference());
    if unreadable > 0 {
        let text = format!(
            "{unreadable} of the build's cache imports cannot be read and are not used: \
             cache-imports has to be a list of JSON objects with Type and Attrs"
        );
        progress::warn(daemon, reference, &text, None).await;
    }
    for outcome in build.imports.outcomes().await {
        match &outcome.note {
            Note::Nothing => {}
            Note::Step(text) => progress::step(daemon, reference, text).await,
            Note::Warning(text) => progress::warn(daemon, reference, text, None).await,
        }
    }
}

/// Logs what the daemon has read through inlay. It is known once the image is exported, when no step
/// can be added to the build any more.
pub fn log_moved(build: &Build) {
    let served = build.imports.served();
    for (image, moved) in served.filter(|(_, moved)| moved.bytes > 0) {
        let (layers, bytes) = (moved.layers.len(), moved.bytes);
        info!("inline cache of {image}: {bytes} bytes of {layers} layers went to the daemon");
    }
}
