//! Reads what the daemon writes when it exports cache: a manifest that names a cache config and the
//! layers.
//!
//! Format: `cache/remotecache/export.go` of BuildKit. The config is a manifest's `config`, or
//! one of an index's `manifests`, as older daemons write it.

use std::collections::HashMap;

use serde::Deserialize;
use thiserror::Error;

use crate::cache::JsonError;
use crate::cache::record::Digest;

/// The media type of the config of a cache export, as BuildKit's `type=registry` and `type=local` write it.
pub const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The annotation with a layer's diff ID.
pub const DIFF_ID: &str = "containerd.io/uncompressed";

/// Why an export cannot be read.
#[derive(Debug, Error)]
pub enum ExportedError {
    /// A document is not JSON, or has another form.
    #[error("the cache export's {what}: {source}")]
    Json {
        /// Which document.
        what: &'static str,
        /// What is wrong.
        source: JsonError,
    },
    /// The manifest names no cache config.
    #[error("the cache export's manifest {0} names no cache config")]
    NoConfig(String),
    /// A blob that the export names was not written.
    #[error("the cache export lacks its blob {0}")]
    NoBlob(String),
}

/// An exported cache.
#[derive(Debug)]
pub struct Exported {
    /// The cache config: layers and records.
    pub config: Vec<u8>,
    /// The diff IDs of the layers, by blob, as far as they are known.
    pub diff_ids: HashMap<Digest, Digest>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// A manifest or an index, which have different fields.
#[derive(Debug, Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// Reads the export whose manifest a descriptor (JSON) names. `blob` returns a written blob by its digest.
///
/// # Errors
/// Where a blob is missing or malformed.
pub fn read<B: AsRef<[u8]>>(
    descriptor: &str,
    blob: impl Fn(&str) -> Option<B>,
) -> Result<Exported, ExportedError> {
    let json = |what| {
        move |err: serde_json::Error| ExportedError::Json {
            what,
            source: err.into(),
        }
    };
    let named: Descriptor = serde_json::from_str(descriptor).map_err(json("descriptor"))?;
    let find = |digest: &str| blob(digest).ok_or_else(|| ExportedError::NoBlob(digest.to_owned()));
    let manifest: Manifest =
        serde_json::from_slice(find(&named.digest)?.as_ref()).map_err(json("manifest"))?;
    let all = || {
        manifest
            .config
            .iter()
            .chain(&manifest.layers)
            .chain(&manifest.manifests)
    };
    let config = all().find(|descriptor| descriptor.media_type == CACHE_CONFIG);
    let config = find(&config.ok_or(ExportedError::NoConfig(named.digest))?.digest)?;
    let config = config.as_ref().to_vec();
    let diff_ids = all().filter_map(|layer| {
        let diff_id = layer.annotations.get(DIFF_ID)?;
        Some((layer.digest.parse().ok()?, diff_id.parse().ok()?))
    });
    Ok(Exported {
        config,
        diff_ids: diff_ids.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"c"}"#;

    fn read_manifest(manifest: &str) -> Result<Exported, ExportedError> {
        read(r#"{"digest":"m"}"#, |digest| match digest {
            "m" => Some(manifest.as_bytes().to_vec()),
            "c" => Some(b"{}".to_vec()),
            _ => None,
        })
    }

    #[test]
    fn a_manifest_and_an_index_are_read_alike() {
        let [blob, diff_id] = ["1", "2"].map(|digit| format!("sha256:{}", digit.repeat(64)));
        let layer = format!(
            r#"{{"digest":"{blob}","annotations":{{"containerd.io/uncompressed":"{diff_id}"}}}}"#
        );
        let manifest = format!(r#"{{"config":{CONFIG},"layers":[{layer}]}}"#);
        let index = format!(r#"{{"manifests":[{layer},{CONFIG}]}}"#);
        for form in [manifest, index] {
            let exported = read_manifest(&form).unwrap();
            assert_eq!(exported.config, b"{}");
            assert_eq!(
                exported.diff_ids[&blob.parse::<Digest>().unwrap()].to_string(),
                diff_id
            );
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |manifest: &str| read_manifest(manifest).unwrap_err().to_string();
        assert_eq!(
            message("{}"),
            "the cache export's manifest m names no cache config"
        );
        let lost = CONFIG.replace("\"c\"", "\"lost\"");
        assert_eq!(
            message(&format!(r#"{{"config":{lost}}}"#)),
            "the cache export lacks its blob lost"
        );
        assert!(message("[").starts_with("the cache export's manifest: "));
    }
}
