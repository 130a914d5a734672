//! The export: a build's result in, the same result with a cache in its image configs out.
//!
//! Top to bottom: evaluate the result's refs in the client's own build, have the daemon export
//! their cache to a session of inlay's, make the record set of each image, embed it. It knows the
//! order of things, and leaves the record set, configs, sessions and messages to their modules.

mod side;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use prost::Message as _;
use thiserror::Error;
use tokio::time::timeout;
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use self::side::{Made, Side};

use crate::daemon::{Daemon, new_id};
use crate::exported::ExportedError;
use crate::image::config::{self, ConfigError};
use crate::image::default::{Platform, default_config};
use crate::image_cache::ImageCacheError;
use crate::llb::notice::notice;
use crate::plan::Plan;
use crate::proto::control::ListWorkersRequest;
use crate::proto::gateway::{EvaluateRequest, Result as BuildResult, SolveRequest, WarnRequest};
use crate::proto::pb;
use crate::recall::Recall;
use crate::record::Limits;
use crate::result::{self, Image, ResultError};
use crate::session::{Blobs, Session, SessionError};

/// How many blobs an export writes for one image: a cache config and its manifest, and some room.
const MAX_BLOBS: usize = 8;
/// How large a result may be with its cache: buildkitd takes messages of 16 MiB, and there is more
/// in one.
const MAX_RESULT: usize = (16 << 20) - (4 << 10);

/// How long a warning may take.
const MAX_NOTICE: Duration = Duration::from_secs(5);

/// What becomes of a result.
#[derive(Debug)]
pub enum Conclusion {
    /// It goes on as it is.
    Unchanged,
    /// It goes on like this, an encoded `Result`.
    Cached(Vec<u8>),
    /// The build ends with an error, since the user wants no image without its cache.
    Failed(Status),
}

/// Why a result gets no cache.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The build itself fails.
    #[error("the build failed: {}", .0.message())]
    Build(Status),
    /// Whether the build fails cannot be told.
    #[error("evaluating the result: {}", .0.message())]
    Evaluate(Status),
    /// What was solved is not what the definitions say.
    #[error("its frontend replaces sources by a policy of its own")]
    SourcesChanged,
    /// The result cannot be read.
    #[error(transparent)]
    Result(#[from] ResultError),
    /// There is no session to export to.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The daemon takes too long.
    #[error("the daemon did not export the cache within {} s", .0.as_secs())]
    Patience(Duration),
    /// The daemon does not export the cache.
    #[error("exporting the cache: {}", .0.message())]
    Solve(Status),
    /// The daemon exports no cache of steps. It finds steps that an earlier build in the same session
    /// had by keys that are that session's alone.
    #[error("the daemon has no keys of its steps that mean anything to another build")]
    NoRecords,
    /// The daemon does not say what platform it has.
    #[error("asking for the daemon's platform: {}", .0.message())]
    Workers(Status),
    /// What the daemon exported cannot be read.
    #[error(transparent)]
    Exported(#[from] ExportedError),
    /// No cache can be made of it.
    #[error(transparent)]
    ImageCache(#[from] ImageCacheError),
    /// The daemon would not take the result.
    #[error("with it the build's result has {0} bytes, and the daemon takes {MAX_RESULT}")]
    TooLarge(usize),
    /// The image config cannot hold it.
    #[error("image config: {0}")]
    Config(#[from] ConfigError),
}

/// Gives results their cache.
#[derive(Debug, Clone)]
pub struct Exporter {
    /// The daemon that all builds are on.
    pub daemon: Daemon,
    /// What is remembered of images.
    pub recall: Arc<Recall>,
    /// How long the daemon may take to export the cache of one image.
    pub patience: Duration,
}

// === impl Exporter ===

impl Exporter {
    /// Gives a build's result its cache if that can be had, and tells the user if it cannot.
    pub async fn conclude(&self, plan: &Plan, result: &[u8]) -> Conclusion {
        match self.with_cache(plan, result).await {
            Ok(cached) => Conclusion::Cached(cached),
            Err(ExportError::Build(status)) => {
                // The daemon meets the same error in a moment, and tells the user in its own words.
                info!("the build failed: {}", status.message());
                Conclusion::Unchanged
            }
            Err(err) if plan.required => {
                Conclusion::Failed(Status::unknown(format!("inlay: inline cache: {err}")))
            }
            Err(err) => {
                let text = format!("built without inline cache: {err}");
                self.warn_user(&plan.build, result, &text).await;
                Conclusion::Unchanged
            }
        }
    }

    /// Says something in the progress output of a build's user: as a warning of the step that made
    /// the result, and as a step by itself.
    pub async fn warn_user(&self, build: &str, result: &[u8], text: &str) {
        warn!("{text}");
        let text = format!("inlay: {text}");
        let vertex = BuildResult::decode(result)
            .ok()
            .and_then(|result| result::images(&result).ok()?.first()?.vertex())
            .unwrap_or_default();
        let warned = async {
            let mut gateway = self.daemon.gateway(build)?;
            let warning = WarnRequest {
                digest: vertex,
                level: 1,
                short: Bytes::from(text.clone()),
                ..Default::default()
            };
            gateway.warn(warning).await?;
            // A plain log shows no warning of a step that is over.
            let notice = SolveRequest {
                definition: Some(notice(&text, &new_id()).into()),
                allow_result_return: true,
                evaluate: true,
                ..Default::default()
            };
            gateway.solve(notice).await
        };
        let warned = timeout(MAX_NOTICE, warned).await;
        // The build goes on: a warning that cannot be given must not fail it.
        match warned {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => warn!("the user could not be warned: {}", status.message()),
            Err(_) => warn!("the user could not be warned in time"),
        }
    }

    async fn with_cache(&self, plan: &Plan, result: &[u8]) -> Result<Vec<u8>, ExportError> {
        let daemon = &self.daemon;
        let decoded = BuildResult::decode(result).map_err(ResultError::from)?;
        let images = result::images(&decoded)?;
        debug!("evaluating the result");
        evaluate(daemon, &plan.build, &images).await?;
        if plan.sources_changed.load(Ordering::Relaxed) {
            return Err(ExportError::SourcesChanged);
        }
        debug!("exporting the cache of the result");

        let blobs = Blobs::new(Limits::default().bytes, MAX_BLOBS);
        let session = &Session::open(daemon, blobs).await?;
        let platform = platform(daemon).await?;
        let side = Side {
            exporter: self,
            plan,
            session,
        };
        let caches = images.iter().enumerate();
        let caches = caches.map(|(n, image)| side.cache(n, image, &platform));
        let caches = try_join_all(caches).await?;

        let mut configs = HashMap::new();
        for (image, cache) in images.iter().zip(caches) {
            let Some(Made { cache, note }) = cache else {
                continue;
            };
            if let Some(note) = note {
                self.warn_user(&plan.build, result, &note).await;
            }
            let config = match image.config {
                Some(config) => config.clone(),
                None => made_up_config(&platform).into(),
            };
            let config = config::embed(&config, &cache, config::DEFAULT_LIMIT)?;
            configs.insert(image.config_key.clone(), config);
        }
        let cached = result::with_metadata(result, &configs).map_err(ResultError::from)?;
        if cached.len() > MAX_RESULT {
            return Err(ExportError::TooLarge(cached.len()));
        }
        Ok(cached)
    }
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
        // Of the call, and not of the build: the connection broke, or the daemon has no such call.
        Err(status) if status.source().is_some() || status.code() == Code::Unimplemented => {
            Err(ExportError::Evaluate(status))
        }
        Err(status) => Err(ExportError::Build(status)),
    }
}

/// The daemon's own platform.
async fn platform(daemon: &Daemon) -> Result<pb::Platform, ExportError> {
    let workers = daemon
        .control()
        .list_workers(ListWorkersRequest::default())
        .await;
    let workers = workers.map_err(ExportError::Workers)?.into_inner().record;
    let platforms = workers.into_iter().next().map(|worker| worker.platforms);
    let machine = daemon
        .address()
        .is_local()
        .then_some(std::env::consts::ARCH);
    let platform = own_platform(platforms.unwrap_or_default(), machine);
    platform.ok_or_else(|| ExportError::Workers(Status::not_found("the daemon has no worker")))
}

/// Of a worker's platforms the one of the machine, if that is known: the first one listed is that
/// unless the worker is told otherwise. `machine` is an architecture in Rust's terms.
fn own_platform(platforms: Vec<pb::Platform>, machine: Option<&str>) -> Option<pb::Platform> {
    // As Go calls them.
    let machine = machine.map(|machine| match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    });
    let of_machine = platforms
        .iter()
        .find(|platform| Some(platform.architecture.as_str()) == machine);
    of_machine.or(platforms.first()).cloned()
}

/// The config that the daemon's exporter writes for a result without one.
fn made_up_config(platform: &pb::Platform) -> Vec<u8> {
    let pb::Platform {
        architecture,
        os,
        variant,
        os_version,
        os_features,
    } = platform.clone();
    default_config(&Platform {
        os,
        architecture,
        variant,
        os_version,
        os_features,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_platform_is_found_wherever_it_is_listed() {
        let platforms = ["arm64", "amd64"].map(|architecture| pb::Platform {
            architecture: architecture.to_owned(),
            ..Default::default()
        });
        let own = |machine| {
            own_platform(platforms.to_vec(), machine)
                .unwrap()
                .architecture
        };
        assert_eq!(own(Some("x86_64")), "amd64");
        assert_eq!(own(Some("s390x")), "arm64");
        assert_eq!(own(None), "arm64");
        assert!(own_platform(Vec::new(), Some("x86_64")).is_none());
    }
}
