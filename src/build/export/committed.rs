//! The image that a side solve commits: its layers, read from the daemon's own content store.
//!
//! A daemon that exports an image without a name writes a config and a manifest, and pulls and pushes
//! nothing. These two have the layers of the image. The exported cache may have others.

use std::collections::HashMap;

use serde::Deserialize;
use tonic::Status;
use tracing::debug;

use crate::cache::JsonError;
use crate::cache::record::{Digest, ImageLayer};
use crate::daemon::Daemon;

/// The key of the exporter's response with the digest of the manifest.
const DIGEST: &str = "containerimage.digest";
/// The largest manifest or config (bytes).
const MAX_DOCUMENT: usize = 8 << 20;

#[derive(Deserialize)]
struct CommittedManifest {
    config: BlobName,
    layers: Vec<BlobName>,
}

#[derive(Deserialize)]
struct BlobName {
    digest: Digest,
}

#[derive(Deserialize)]
struct CommittedConfig {
    rootfs: DiffIds,
}

#[derive(Deserialize)]
struct DiffIds {
    diff_ids: Option<Vec<Digest>>,
}

/// The layers of the image that a solve committed; `None` where they cannot be read. `response` is the
/// answer of its exporters.
pub async fn layers(
    daemon: &Daemon,
    response: &HashMap<String, String>,
) -> Option<Vec<ImageLayer>> {
    let digest = response.get(DIGEST)?;
    let read = read(daemon, digest).await;
    read.inspect_err(|err| debug!("the layers of the image cannot be read: {}", err.message()))
        .ok()?
}

async fn read(daemon: &Daemon, digest: &str) -> Result<Option<Vec<ImageLayer>>, Status> {
    let json = |err: serde_json::Error| Status::internal(JsonError::from(err).to_string());
    let manifest = daemon.content(digest, MAX_DOCUMENT).await?;
    let manifest: CommittedManifest = serde_json::from_slice(&manifest).map_err(json)?;
    let config = daemon
        .content(manifest.config.digest.as_str(), MAX_DOCUMENT)
        .await?;
    let config: CommittedConfig = serde_json::from_slice(&config).map_err(json)?;
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != manifest.layers.len() {
        return Ok(None);
    }
    let layers = manifest.layers.into_iter().zip(diff_ids);
    let layers = layers.map(|(layer, diff_id)| ImageLayer {
        blob: layer.digest,
        diff_id,
    });
    Ok(Some(layers.collect()))
}
