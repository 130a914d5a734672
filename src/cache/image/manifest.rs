//! Image manifests, and indexes of them.
//!
//! Pure functions of a document's bytes. Of the OCI image specification's and Docker's media types
//! alike; what a document is, its fields tell, as they do for BuildKit. Nothing here knows where a
//! document comes from.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType, ToDockerV2S2 as _};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use super::platform::{Platform, normalized};
use super::spelling;
use crate::cache::export::CACHE_CONFIG;

/// What a document is.
#[derive(Debug, Clone)]
pub enum Document {
    /// Manifests to choose from.
    Index(Box<ImageIndex>),
    /// One image.
    Manifest(Box<ImageManifest>),
}

/// Why a document is refused.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// It is not JSON, not of the form, or has a name that BuildKit reads as another one.
    #[error("it is no {what}: {source}")]
    Json {
        /// What it seemed to be.
        what: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It has the fields of both, and what it is would depend on who reads it.
    #[error("it has both manifests and layers")]
    Ambiguous,
    /// It has the fields of neither.
    #[error("it is neither a manifest nor an index")]
    Neither,
}

// === impl Document ===

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// Where it is neither an index nor a manifest, or could be read as either.
    pub fn read(document: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Shape {
            manifests: Option<IgnoredAny>,
            config: Option<IgnoredAny>,
            layers: Option<IgnoredAny>,
        }
        let json = |what| move |source| ManifestError::Json { what, source };
        spelling::check(document, &spelling::MANIFEST).map_err(json("manifest or index"))?;
        let shape: Shape = serde_json::from_slice(document).map_err(json("manifest or index"))?;
        let is_manifest = shape.config.is_some() || shape.layers.is_some();
        match (shape.manifests.is_some(), is_manifest) {
            (true, true) => Err(ManifestError::Ambiguous),
            (false, false) => Err(ManifestError::Neither),
            (true, false) => serde_json::from_slice(document)
                .map(|index| Self::Index(Box::new(index)))
                .map_err(json("index")),
            (false, true) => serde_json::from_slice(document)
                .map(|manifest| Self::Manifest(Box::new(manifest)))
                .map_err(json("manifest")),
        }
    }

    /// Whether it is a cache that was exported by itself, and no image.
    pub fn is_cache_export(&self) -> bool {
        let is_config = |of: &Descriptor| of.media_type().as_ref() == CACHE_CONFIG;
        match self {
            Self::Index(index) => index.manifests().iter().any(is_config),
            Self::Manifest(manifest) => is_config(manifest.config()),
        }
    }
}

/// Whether a media type is that of a manifest, OCI's or Docker's.
pub fn is_manifest(media_type: &MediaType) -> bool {
    is_either(media_type, &MediaType::ImageManifest)
}

/// Whether a media type is that of an index, OCI's or Docker's.
pub fn is_index(media_type: &MediaType) -> bool {
    is_either(media_type, &MediaType::ImageIndex)
}

fn is_either(media_type: &MediaType, oci: &MediaType) -> bool {
    media_type == oci || oci.to_docker_v2s2() == Ok(media_type.as_ref())
}

/// Of an index the manifest for a platform: the first one with its system, architecture and
/// variant. Where a variant is not said it is the usual one.
pub fn for_platform<'a>(index: &'a ImageIndex, wanted: &Platform) -> Option<&'a Descriptor> {
    let kind = normalized(&wanted.architecture, &wanted.variant);
    index.manifests().iter().find(|manifest| {
        let Some(platform) = manifest.platform().as_ref() else {
            return false;
        };
        let variant = platform.variant().as_deref().unwrap_or_default();
        is_manifest(manifest.media_type())
            && platform.os().to_string() == wanted.os
            && normalized(&platform.architecture().to_string(), variant) == kind
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,
        "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}"#;

    fn index(platforms: &[&str]) -> String {
        let manifests: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(n, platform)| {
                format!(
                    r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,
                        "digest":"sha256:{n:064}","platform":{platform}}}"#
                )
            })
            .collect();
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            manifests.join(",")
        )
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<String> {
        let Document::Index(index) = Document::read(index(platforms).as_bytes()).unwrap() else {
            panic!("no index");
        };
        let wanted = Platform::parse(wanted).unwrap();
        for_platform(&index, &wanted).map(|found| found.digest().to_string())
    }

    #[test]
    fn a_document_is_what_its_fields_say() {
        let manifest = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[]}}"#);
        assert!(matches!(
            Document::read(manifest.as_bytes()),
            Ok(Document::Manifest(_))
        ));
        let both = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"manifests":[]}}"#);
        assert!(matches!(
            Document::read(both.as_bytes()),
            Err(ManifestError::Ambiguous)
        ));
        let two = format!(r#"{{"config":{CONFIG},"layers":[],"Config":{CONFIG}}}"#);
        let refusal = Document::read(two.as_bytes()).unwrap_err().to_string();
        assert!(refusal.contains(r#""Config", which BuildKit reads as "config""#));
        assert!(matches!(Document::read(b"{}"), Err(ManifestError::Neither)));
        assert!(matches!(
            Document::read(b"[1"),
            Err(ManifestError::Json { .. })
        ));
        assert!(matches!(
            Document::read(br#"{"schemaVersion":2,"layers":[]}"#),
            Err(ManifestError::Json {
                what: "manifest",
                ..
            })
        ));
    }

    #[test]
    fn a_cache_export_is_no_image() {
        let cache = CONFIG.replace("application/vnd.oci.image.config.v1+json", CACHE_CONFIG);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{cache},"layers":[]}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{cache}]}}"#);
        for document in [manifest, index] {
            assert!(
                Document::read(document.as_bytes())
                    .unwrap()
                    .is_cache_export()
            );
        }
    }

    #[test]
    fn an_index_has_a_manifest_for_a_platform_or_not() {
        let amd64 = r#"{"os":"linux","architecture":"amd64"}"#;
        let arm64 = r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#;
        let armv6 = r#"{"os":"linux","architecture":"arm","variant":"v6"}"#;
        let attestation = r#"{"os":"unknown","architecture":"unknown"}"#;
        let all = [attestation, armv6, arm64, amd64];
        let at = |n: usize| Some(format!("sha256:{n:064}"));
        assert_eq!(chosen(&all, "linux/amd64"), at(3));
        assert_eq!(chosen(&all, "linux/arm64"), at(2));
        assert_eq!(chosen(&all, "arm64"), at(2));
        assert_eq!(chosen(&all, "linux/arm/6"), at(1));
        assert_eq!(chosen(&all, "linux/arm/v6"), at(1));
        assert_eq!(chosen(&all, "linux/arm"), None);
        assert_eq!(chosen(&all, "windows/amd64"), None);
    }
}
