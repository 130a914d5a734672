//! Image manifests, and indexes of them.
//!
//! Pure functions of a document's bytes. Of the OCI image specification's and Docker's media types
//! alike; what a document is, its fields tell, as they do for BuildKit. Nothing here knows where a
//! document comes from.

use oci_spec::image::{Descriptor, DigestAlgorithm, ImageManifest, MediaType, ToDockerV2S2 as _};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use thiserror::Error;

use super::json::JsonError;
use super::platform::{Platform, normalized};
use super::spelling;
use crate::cache::export::CACHE_CONFIG;

/// What a document is.
#[derive(Debug, Clone)]
pub enum Document {
    /// Manifests to choose from.
    Index(Index),
    /// One image.
    Manifest(Box<ImageManifest>),
}

/// The entries of an index.
#[derive(Debug, Clone)]
pub struct Index {
    /// Those that can be read, and verified by a SHA-256.
    pub manifests: Vec<Descriptor>,
    /// How many others it has: with other fields, or named by another kind of digest.
    pub skipped: usize,
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
        source: JsonError,
    },
    /// It has the fields of both, and what it is would depend on who reads it.
    #[error("it has both manifests and layers")]
    Ambiguous,
    /// It is a cache, and has entries that are not known: each may be the cache for BuildKit.
    #[error("{0} of its entries are not known")]
    Skipped(usize),
    /// It is a cache, and has several.
    #[error("it has {0} cache configs")]
    CacheConfigs(usize),
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
        let error = |what| move |source| ManifestError::Json { what, source };
        let json = |what| move |err: serde_json::Error| error(what)(err.into());
        spelling::check(document, &spelling::MANIFEST).map_err(error("manifest or index"))?;
        let shape: Shape = serde_json::from_slice(document).map_err(json("manifest or index"))?;
        let is_manifest = shape.config.is_some() || shape.layers.is_some();
        match (shape.manifests.is_some(), is_manifest) {
            (true, true) => Err(ManifestError::Ambiguous),
            (false, false) => Err(ManifestError::Neither),
            (true, false) => Index::read(document)
                .map(Self::Index)
                .map_err(json("index")),
            (false, true) => serde_json::from_slice(document)
                .map(|manifest| Self::Manifest(Box::new(manifest)))
                .map_err(json("manifest")),
        }
    }

    /// Whether it is a cache that was exported by itself, and no image.
    pub fn is_cache_export(&self) -> bool {
        match self {
            Self::Index(index) => index.manifests.iter().any(is_cache_config),
            Self::Manifest(manifest) => is_cache_config(manifest.config()),
        }
    }

    /// The config and the layers of a cache that was exported by itself.
    ///
    /// # Errors
    /// Where there is not one config, or an entry that cannot be read and may be another one.
    pub fn into_cache_export(self) -> Result<(Descriptor, Vec<Descriptor>), ManifestError> {
        let (configs, layers): (Vec<_>, Vec<_>) = match self {
            Self::Manifest(manifest) => {
                let config = manifest.config().clone();
                (vec![config], manifest.layers().clone())
            }
            // BuildKit wrote no other before v0.12.
            Self::Index(index) if index.skipped == 0 => {
                index.manifests.into_iter().partition(is_cache_config)
            }
            Self::Index(index) => return Err(ManifestError::Skipped(index.skipped)),
        };
        match <[_; 1]>::try_from(configs) {
            Ok([config]) => Ok((config, layers)),
            Err(configs) => Err(ManifestError::CacheConfigs(configs.len())),
        }
    }
}

fn is_cache_config(of: &Descriptor) -> bool {
    of.media_type().as_ref() == CACHE_CONFIG
}

// === impl Index ===

impl Index {
    fn read(document: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Entries<'a> {
            #[serde(borrow)]
            manifests: Vec<&'a RawValue>,
        }
        let Entries { manifests } = serde_json::from_slice(document)?;
        let all = manifests.len();
        let manifests = manifests.into_iter().filter_map(|entry| {
            let entry: Descriptor = serde_json::from_str(entry.get()).ok()?;
            (*entry.digest().algorithm() == DigestAlgorithm::Sha256).then_some(entry)
        });
        let manifests: Vec<_> = manifests.collect();
        Ok(Self {
            skipped: all - manifests.len(),
            manifests,
        })
    }

    /// The manifest for a platform: the first one with its system, architecture and variant. Where no
    /// variant is said it is the usual one.
    pub fn for_platform(&self, wanted: &Platform) -> Option<&Descriptor> {
        let kind = normalized(&wanted.architecture, &wanted.variant);
        self.manifests.iter().find(|manifest| {
            let Some(platform) = manifest.platform().as_ref() else {
                return false;
            };
            let variant = platform.variant().as_deref().unwrap_or_default();
            is_manifest(manifest.media_type())
                && platform.os().to_string() == wanted.os
                && normalized(&platform.architecture().to_string(), variant) == kind
        })
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
        let found = index.for_platform(&wanted);
        found.map(|found| found.digest().to_string())
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

    #[test]
    fn entries_of_an_index_that_are_not_known_are_skipped() {
        let platform = r#""platform":{"os":"linux","architecture":"amd64"}"#;
        let entry = |digest: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,
                    "digest":"{digest}",{platform}}}"#
            )
        };
        let known = format!("sha256:{:064}", 1);
        let entries = [
            entry(&format!("sha512:{:0128}", 0)),
            entry("none"),
            format!(r#"{{"digest":"{known}","size":-1,{platform}}}"#),
            "7".to_owned(),
            entry(&known),
        ];
        let index = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        let Document::Index(index) = Document::read(index.as_bytes()).unwrap() else {
            panic!("no index");
        };
        let found = index.for_platform(&Platform::parse("linux/amd64").unwrap());
        assert_eq!(found.unwrap().digest().as_ref(), known);
        assert_eq!(index.skipped, 4);
    }
}
