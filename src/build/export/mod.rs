//! The export: a build's result in, the same result with a cache in its image configs out.
//!
//! Top to bottom: evaluate the result's refs in the client's own build, have the daemon export
//! their cache to a session of inlay's, make the record set of each image, embed it. This file has the
//! order of the steps; other modules have the record set, configs, sessions and messages.

mod committed;
mod error;
pub mod recall;
mod side_solve;
pub mod unknown_keys;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::atomic::Ordering;

use futures_util::future::{join, try_join_all};
use prost::Message as _;
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use self::error::MAX_RESULT;
use self::side_solve::{Made, Side, Solves};
use super::Build;
use crate::cache::image::config;
use crate::cache::image::default::default_config;
use crate::cache::record::Limits;
use crate::daemon::Daemon;
use crate::daemon::progress;
use crate::protocol::proto::gateway::{EvaluateRequest, Result as BuildResult};
use crate::protocol::result::{self, Image, ResultError};
use crate::protocol::solve::Inline;
use crate::session::{Blobs, Session};

pub use error::ExportError;

/// The most blobs that the session takes for one image. An export writes two, a cache config and its
/// manifest.
const MAX_BLOBS: usize = 8;

/// What becomes of a result.
#[derive(Debug)]
pub enum Conclusion {
    /// It is forwarded as it is.
    Unchanged,
    /// This encoded `Result` is forwarded in its place.
    Cached(Vec<u8>),
    /// The build ends with an error: the user asked for that if there is no cache.
    Failed(Status),
}

/// Gives a build's result its cache if that can be had, and tells the user if it cannot.
pub async fn conclude(build: &Build, result: &[u8]) -> Conclusion {
    let Some(inline) = &build.plan.inline else {
        return Conclusion::Unchanged;
    };
    match with_cache(build, inline, result).await {
        Ok(cached) => Conclusion::Cached(cached),
        Err(err) => without_cache(build, inline, result, &err).await,
    }
}

/// What becomes of a return request that cannot be read or written.
pub async fn unreadable(build: &Build, err: ResultError) -> Conclusion {
    match &build.plan.inline {
        None => Conclusion::Unchanged,
        Some(inline) => without_cache(build, inline, &[], &err.into()).await,
    }
}

/// Tells the user why a result gets no cache: by a warning, or by an error if they asked for that.
async fn without_cache(
    build: &Build,
    inline: &Inline,
    result: &[u8],
    err: &ExportError,
) -> Conclusion {
    match err {
        ExportError::Build(_) => {
            // The daemon meets the same error in a moment, and tells the user in its own words.
            info!("{}", err.logged());
            Conclusion::Unchanged
        }
        err if inline.required => {
            Conclusion::Failed(Status::unknown(format!("inlay: inline cache: {err}")))
        }
        err => {
            warn!("built without inline cache: {}", err.logged());
            let text = format!("built without inline cache: {err}");
            let of = vertex(result);
            let told = progress::tell(&build.daemon, build.reference(), &text, of.clone()).await;
            if let (false, Some(last_word)) = (told, &build.last_word) {
                last_word.say(&text, of).await;
            }
            Conclusion::Unchanged
        }
    }
}

/// Says something in the progress output of a build's user: as a warning of the step that made
/// the result, and as a step by itself.
pub async fn warn_user(daemon: &Daemon, build: &str, result: &[u8], text: &str) {
    progress::warn(daemon, build, text, vertex(result)).await;
}

/// The step that made a result.
fn vertex(result: &[u8]) -> Option<String> {
    let result = BuildResult::decode(result).ok()?;
    result::images(&result).ok()?.first()?.vertex()
}

async fn with_cache(build: &Build, inline: &Inline, result: &[u8]) -> Result<Vec<u8>, ExportError> {
    let Build {
        shared,
        daemon,
        plan,
        imports,
        ..
    } = build;
    let decoded = BuildResult::decode(result).map_err(ResultError::from)?;
    let images = result::images(&decoded)?;
    // All that the export calls is opened now: once the result is evaluated, a daemon that drains takes
    // no more calls.
    let solves: Vec<_> = images.iter().map(|_| Solves::open(daemon)).collect();
    let opened = async {
        let session = Session::open(daemon, Blobs::new(Limits::default().bytes, MAX_BLOBS)).await?;
        let worker = daemon.worker().await.map_err(ExportError::Workers)?;
        Ok::<_, ExportError>((session, worker))
    };
    debug!("evaluating the result");
    let (evaluated, opened) = join(evaluate(daemon, &plan.build, &images), opened).await;
    evaluated?;
    if build.sources_changed.load(Ordering::Relaxed) {
        return Err(ExportError::SourcesChanged);
    }
    debug!("exporting the cache of the result");
    let (session, worker) = opened?;
    let platform = worker.platform.clone();
    let side = Side {
        shared,
        daemon,
        plan,
        inline,
        imports,
        images: images.len().max(1),
        session: &session,
    };
    let caches = images.iter().zip(solves).enumerate();
    let caches = caches.map(|(n, (image, solves))| side.cache(n, image, solves, &worker));
    let caches = try_join_all(caches).await?;

    let mut configs = HashMap::new();
    let mut unknown_keys = None;
    for (image, cache) in images.iter().zip(caches) {
        let Some(Made {
            cache,
            note,
            unknown_keys: unknown,
        }) = cache
        else {
            continue;
        };
        unknown_keys = unknown_keys.or(unknown);
        if let Some(note) = note {
            warn_user(daemon, &plan.build, result, &note).await;
        }
        let config = match image.config {
            Some(config) => config.clone(),
            // The one that the daemon's exporter writes then.
            None => default_config(&platform.clone().into()).into(),
        };
        let config = config::embed(&config, &cache, config::DEFAULT_LIMIT)?;
        configs.insert(image.config_key.clone(), config);
    }
    // Once a build, however many images it has.
    if let Some(why) = unknown_keys {
        shared.unknown_keys.log(&worker, &why);
        let text = format!("inline cache: {why}");
        progress::tell(daemon, &plan.build, &text, vertex(result)).await;
    }
    let cached = result::with_metadata(result, &configs).map_err(ResultError::from)?;
    if cached.len() > MAX_RESULT {
        return Err(ExportError::TooLarge(cached.len()));
    }
    Ok(cached)
}

/// Waits for the refs in the client's build: progress, logs and errors appear where the user looks.
async fn evaluate(daemon: &Daemon, build: &str, images: &[Image<'_>]) -> Result<(), ExportError> {
    let gateway = daemon.gateway(build).map_err(ExportError::Evaluate)?;
    let evaluated = try_join_all(images.iter().map(|image| {
        let mut gateway = gateway.clone();
        let request = EvaluateRequest {
            r#ref: image.reference.to_owned(),
        };
        async move { gateway.evaluate(request).await }
    }));
    match evaluated.await {
        Ok(_) => Ok(()),
        // The call failed, not the build: the connection broke, or the daemon has no such method.
        Err(status) if status.source().is_some() || status.code() == Code::Unimplemented => {
            Err(ExportError::Evaluate(status))
        }
        Err(status) => Err(ExportError::Build(status)),
    }
}
