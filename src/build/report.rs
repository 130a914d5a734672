//! What a build's user is told of its imports.

use futures_util::{StreamExt as _, stream};
use tracing::info;

use super::Build;
use super::import::{Note, Outcome};
use crate::daemon::progress;

/// How many imports the user is told of at a time.
const AT_A_TIME: usize = 16;

/// Tells the user that imports were dropped because they cannot be read.
pub async fn unreadable_imports(build: &Build, imports: usize) {
    let text = format!(
        "{imports} of the build's cache imports cannot be read and are not used: \
         cache-imports has to be a list of JSON objects with Type and Attrs"
    );
    progress::warn(&build.daemon, build.reference(), &text, None).await;
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
