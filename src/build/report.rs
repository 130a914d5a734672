//! What a build's user is told of its imports.

use futures_util::{StreamExt as _, stream};
use tracing::info;

use super::Build;
use super::import::{MAX_IMPORTS, Note, Outcome};
use crate::daemon::progress;

/// How many imports the user is told of at a time.
const AT_A_TIME: usize = 16;

/// Tells the user of imports that were dropped without a look at an image: those that cannot be read, and those
/// that are too many.
pub async fn unused_imports(build: &Build, unreadable: usize, left_out: usize) {
    let (daemon, reference) = (&build.daemon, build.reference());
    if unreadable > 0 {
        let text = format!(
            "{unreadable} of the build's cache imports cannot be read and are not used: \
             cache-imports has to be a list of JSON objects with Type and Attrs"
        );
        progress::warn(daemon, reference, &text, None).await;
    }
    if left_out > 0 {
        let text =
            format!("{left_out} more cache imports are not used: a build may have {MAX_IMPORTS}");
        progress::warn(daemon, reference, &text, None).await;
    }
}

/// Tells the user what became of imports.
pub async fn imported(build: &Build, outcomes: &[Outcome]) {
    let (daemon, reference) = (&build.daemon, build.reference());
    let outcomes = stream::iter(outcomes);
    let told = outcomes.for_each_concurrent(AT_A_TIME, |outcome| async move {
        match &outcome.note {
            Note::Nothing => {}
            Note::Step(text) => progress::step(daemon, reference, text).await,
            Note::Warning(text) => progress::warn(daemon, reference, text, None).await,
        }
    });
    told.await;
}

/// Logs what the daemon has read through inlay. That is known once the image is exported. Then it is
/// too late to tell the user.
pub fn log_moved(build: &Build) {
    let served = build.imports.served().into_iter();
    for (image, moved) in served.filter(|(_, moved)| moved.bytes > 0) {
        let (layers, bytes) = (moved.layers.len(), moved.bytes);
        info!("inline cache of {image}: {bytes} bytes of {layers} layers went to the daemon");
    }
}
