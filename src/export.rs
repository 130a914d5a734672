//! The export: a build's result in, the same result with a cache in its image configs out.
//!
//! Top to bottom: evaluate the result's refs in the client's own build, have the daemon export their cache to a
//! session of inlay's, make the record set of each image, embed it. It knows the order of things, and leaves the
//! record set, configs, sessions and messages to their modules.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::try_join_all;
use prost::Message as _;
use thiserror::Error;
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use crate::daemon::{Daemon, new_id};
use crate::exported::{self, Exported, ExportedError};
use crate::image::config::{self, ConfigError};
use crate::image::default::{Platform, default_config};
use crate::plan::Plan;
use crate::proto::control::{CacheOptions, CacheOptionsEntry, ListWorkersRequest, SolveRequest};
use crate::proto::gateway::{EvaluateRequest, Result as BuildResult, WarnRequest};
use crate::record::{self, Limits, RecordSet, SelectError};
use crate::result::{self, Image, ResultError};
use crate::session::{Blobs, Session, SessionError};

/// How many blobs an export writes for one image: a cache config and its manifest, and some room.
const MAX_BLOBS: usize = 8;

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
    /// The result cannot be read.
    #[error(transparent)]
    Result(#[from] ResultError),
    /// There is no session to export to.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The daemon does not export the cache.
    #[error("exporting the cache: {}", .0.message())]
    Solve(Status),
    /// The daemon does not say what platform it has.
    #[error("asking for the daemon's platform: {}", .0.message())]
    Workers(Status),
    /// What the daemon exported cannot be read.
    #[error(transparent)]
    Exported(#[from] ExportedError),
    /// What the daemon exported is no sound cache.
    #[error("the exported cache: {0}")]
    Records(#[from] record::ParseError),
    /// No record set can be made of it.
    #[error("the exported cache: {0}")]
    Select(#[from] SelectError),
    /// The image config cannot hold it.
    #[error("image config: {0}")]
    Config(#[from] ConfigError),
}

/// Gives a build's result its cache if that can be had, and tells the user if it cannot.
pub async fn conclude(daemon: &Daemon, plan: &Plan, result: &[u8]) -> Conclusion {
    match with_cache(daemon, plan, result).await {
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
            warn_user(daemon, &plan.build, result, &text).await;
            Conclusion::Unchanged
        }
    }
}

/// Says something in the progress output of a build's user, beside the step that made the result.
pub async fn warn_user(daemon: &Daemon, build: &str, result: &[u8], text: &str) {
    warn!("{text}");
    let vertex = BuildResult::decode(result)
        .ok()
        .and_then(|result| result::images(&result).ok()?.first()?.vertex())
        .unwrap_or_default();
    let warning = WarnRequest {
        digest: vertex,
        level: 1,
        short: Bytes::from(format!("inlay: {text}")),
        ..Default::default()
    };
    let warned = match daemon.gateway(build) {
        Ok(mut gateway) => gateway.warn(warning).await.map(drop),
        Err(status) => Err(status),
    };
    if let Err(status) = warned {
        // The build goes on: a warning that cannot be given must not fail it.
        warn!("the user could not be warned: {}", status.message());
    }
}

async fn with_cache(daemon: &Daemon, plan: &Plan, result: &[u8]) -> Result<Vec<u8>, ExportError> {
    let decoded = BuildResult::decode(result).map_err(ResultError::from)?;
    let images = result::images(&decoded)?;
    evaluate(daemon, &plan.build, &images).await?;

    let blobs = Blobs::new(Limits::default().bytes, MAX_BLOBS);
    let session = Session::open(daemon, blobs).await?;
    let session = &session;
    let caches = try_join_all(images.iter().enumerate().map(|(n, image)| async move {
        let exported = exported_cache(daemon, plan, session, &n.to_string(), image).await?;
        exported.map(|exported| inline_cache(&exported)).transpose()
    }))
    .await?;

    let mut configs = HashMap::new();
    for (image, cache) in images.iter().zip(caches) {
        let Some(cache) = cache else { continue };
        let config = match image.config {
            Some(config) => config.clone(),
            None => made_up_config(daemon).await?.into(),
        };
        configs.insert(
            image.config_key.clone(),
            config::embed(&config, &cache, Limits::default().bytes)?,
        );
    }
    Ok(result::with_metadata(result, &configs).map_err(ResultError::from)?)
}

/// Waits for the refs in the client's build: progress, logs and errors appear where the user looks.
async fn evaluate(daemon: &Daemon, build: &str, images: &[Image<'_>]) -> Result<(), ExportError> {
    let gateway = daemon.gateway(build).map_err(ExportError::Build)?;
    try_join_all(images.iter().map(|image| {
        let mut gateway = gateway.clone();
        async move {
            gateway
                .evaluate(EvaluateRequest {
                    r#ref: image.reference.to_owned(),
                })
                .await
        }
    }))
    .await
    .map_err(ExportError::Build)?;
    Ok(())
}

/// Has the daemon export the cache of an image's definition; `None` if there is nothing to cache.
///
/// While the client's build is open its steps are shared: nothing runs again.
async fn exported_cache(
    daemon: &Daemon,
    plan: &Plan,
    session: &Session,
    store: &str,
    image: &Image<'_>,
) -> Result<Option<Exported>, ExportError> {
    let mut attrs = plan.compression.clone();
    for (name, value) in [
        ("dest", store),
        ("mode", "min"),
        ("oci-mediatypes", "true"),
        ("image-manifest", "true"),
    ] {
        attrs.insert(name.to_owned(), value.to_owned());
    }
    let export = CacheOptionsEntry {
        r#type: "local".to_owned(),
        attrs,
    };
    let request = SolveRequest {
        r#ref: new_id(),
        definition: Some(image.definition.clone()),
        session: session.id().to_owned(),
        internal: true,
        cache: Some(CacheOptions {
            exports: vec![export],
            ..Default::default()
        }),
        entitlements: plan.terms.entitlements.clone(),
        source_policy: plan.terms.source_policy.clone().into(),
        compatibility_version: plan.terms.compatibility_version,
        proxy_network: plan.terms.proxy_network,
        ..Default::default()
    };
    let response = daemon
        .control()
        .solve(request)
        .await
        .map_err(ExportError::Solve)?
        .into_inner();
    let Some(manifest) = response.exporter_response.get("cache.manifest") else {
        debug!("nothing to cache");
        return Ok(None);
    };
    let blobs = session.blobs();
    Ok(Some(exported::read(manifest, |digest| {
        blobs.get(&format!("local:{store}"), digest)
    })?))
}

/// The inline cache of an image, encoded.
fn inline_cache(exported: &Exported) -> Result<String, ExportError> {
    let mut set = RecordSet::parse(&exported.config, &Limits::default())?;
    set.set_diff_ids(|blob| exported.diff_ids.get(blob).cloned());
    let cache = record::select(&set)?;
    info!(
        "inline cache: {} of {} exported records, for {} layers",
        cache.records().len(),
        set.records().len(),
        cache.layers()
    );
    Ok(cache.encode())
}

/// The config that the daemon's exporter writes for a result without one.
async fn made_up_config(daemon: &Daemon) -> Result<Vec<u8>, ExportError> {
    let workers = daemon
        .control()
        .list_workers(ListWorkersRequest::default())
        .await;
    let workers = workers.map_err(ExportError::Workers)?.into_inner().record;
    let platform = workers
        .into_iter()
        .next()
        .and_then(|worker| worker.platforms.into_iter().next());
    let platform = platform.ok_or_else(|| {
        ExportError::Workers(Status::new(Code::NotFound, "the daemon has no worker"))
    })?;
    Ok(default_config(&Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    }))
}
