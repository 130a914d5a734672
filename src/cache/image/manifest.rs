//! Image manifests, and indexes of them.
//!
//! Functions of a document's bytes, for OCI's and Docker's media types alike. As for BuildKit, the fields
//! of a document say whether it is a manifest or an index.

use oci_spec::image::{Descriptor, DigestAlgorithm, ImageManifest, MediaType, ToDockerV2S2 as _};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use super::platform::{Platform, normalized};
use super::spelling;
use crate::cache::JsonError;
use crate::cache::export::CACHE_CONFIG;

/// The operating system or architecture of an index entry without a platform.
const UNKNOWN: &str = "unknown";

/// What a document is.
#[derive(Debug, Clone)]
pub enum Document {
    /// Manifests to choose from.
    Index(Index),
    /// One image.
    Manifest(Box<ImageManifest>),
}

/// The list of manifests that a document has.
#[derive(Default)]
enum Manifests {
    #[default]
    None,
    /// `null`, as Go writes a list without entries.
    Null,
    Some,
}

impl<'de> Deserialize<'de> for Manifests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Option::<IgnoredAny>::deserialize(deserializer)?;
        Ok(list.map_or(Self::Null, |_| Self::Some))
    }
}

/// The entries of an index.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// The entries that can be read and have a SHA-256 digest.
    pub manifests: Vec<Descriptor>,
    /// How many other entries it has: malformed ones, and ones with another kind of digest.
    pub skipped: usize,
}

/// Why a document is refused.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// It is not JSON, is malformed, or has a name that BuildKit reads as another one.
    #[error("it is no {what}: {source}")]
    Json {
        /// What it seemed to be.
        what: &'static str,
        /// What is wrong.
        source: JsonError,
    },
    /// It has the fields of both a manifest and an index. Readers would differ on which it is.
    #[error("it has both manifests and layers")]
    Ambiguous,
    /// It is a cache export with entries that inlay cannot read. BuildKit may read one as the cache config.
    #[error("{0} of its entries are not known")]
    Skipped(usize),
    /// It is a cache export, and does not have exactly one cache config.
    #[error("it has {0} cache configs")]
    CacheConfigs(usize),
    /// It has the fields of neither a manifest nor an index.
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
            #[serde(default)]
            manifests: Manifests,
            config: Option<IgnoredAny>,
            layers: Option<IgnoredAny>,
        }
        let error = |what| move |source| ManifestError::Json { what, source };
        let json = |what| move |err: serde_json::Error| error(what)(err.into());
        spelling::check(document, &spelling::MANIFEST).map_err(error("manifest or index"))?;
        let shape: Shape = serde_json::from_slice(document).map_err(json("manifest or index"))?;
        let is_manifest = shape.config.is_some() || shape.layers.is_some();
        match shape.manifests {
            Manifests::Some if is_manifest => Err(ManifestError::Ambiguous),
            Manifests::Some => Index::read(document)
                .map(Self::Index)
                .map_err(json("index")),
            Manifests::None | Manifests::Null if is_manifest => {
                let manifest = match shape.layers {
                    Some(_) => serde_json::from_slice(document),
                    None => without_layers(document),
                };
                let manifest = manifest.map_err(json("manifest"))?;
                Ok(Self::Manifest(Box::new(manifest)))
            }
            Manifests::Null => Ok(Self::Index(Index::default())),
            Manifests::None => Err(ManifestError::Neither),
        }
    }

    /// Whether it is a cache export, and no image.
    pub fn is_cache_export(&self) -> bool {
        match self {
            Self::Index(index) => index.manifests.iter().any(is_cache_config),
            Self::Manifest(manifest) => is_cache_config(manifest.config()),
        }
    }

    /// The config and the layers of a cache export.
    ///
    /// # Errors
    /// Where it does not have exactly one config, or has an entry that cannot be read and may be another one.
    pub fn into_cache_export(self) -> Result<(Descriptor, Vec<Descriptor>), ManifestError> {
        let (configs, layers): (Vec<_>, Vec<_>) = match self {
            Self::Manifest(manifest) => {
                let config = manifest.config().clone();
                (vec![config], manifest.layers().clone())
            }
            // BuildKit before v0.12 wrote only indexes.
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

/// Reads a manifest whose list of layers is `null`, as Go writes an empty one, or is left out.
fn without_layers(document: &[u8]) -> Result<ImageManifest, serde_json::Error> {
    let mut fields: serde_json::Map<String, Value> = serde_json::from_slice(document)?;
    fields.insert("layers".to_owned(), Value::Array(Vec::new()));
    serde_json::from_value(fields.into())
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

    /// The entries that are, or may be, for one of these platforms. If no entry has the variant of a
    /// platform, entries with any variant of it fit.
    pub fn choose<'a>(
        &'a self,
        wanted: &'a [Platform],
    ) -> impl Iterator<Item = (&'a Descriptor, Fit)> {
        let is_own = |entry: &Descriptor, of: &Platform| {
            StatedPlatform::of(entry)
                .is_some_and(|told| told.is_of(of) && told.variant == of.variant)
        };
        let normal: Vec<_> = wanted.iter().map(Platform::normal).collect();
        let has_own: Vec<_> = (normal.iter())
            .map(|of| self.manifests.iter().any(|entry| is_own(entry, of)))
            .collect();
        self.manifests.iter().filter_map(move |entry| {
            if is_attestation(entry) {
                return None;
            }
            let media_type = entry.media_type();
            let Some(told) = StatedPlatform::of(entry) else {
                let may_be = is_manifest(media_type) || is_index(media_type);
                return may_be.then_some((entry, Fit::Unstated));
            };
            let mut fitting = normal.iter().zip(&has_own);
            let fits = fitting.any(|(of, has_own)| match has_own {
                true => is_own(entry, of),
                false => told.is_of(of),
            });
            match fits {
                true if is_manifest(media_type) => Some((entry, Fit::Stated)),
                true if is_index(media_type) => Some((entry, Fit::Unstated)),
                _ => None,
            }
        })
    }
}

/// How an entry of an index is known to be for a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The index says so.
    Stated,
    /// Only its document says.
    Unstated,
}

/// The platform that an entry of an index states.
struct StatedPlatform {
    os: String,
    architecture: String,
    variant: String,
}

// === impl StatedPlatform ===

impl StatedPlatform {
    /// `None` where it states none, or `unknown`.
    fn of(entry: &Descriptor) -> Option<Self> {
        let platform = entry.platform().as_ref()?;
        let os = platform.os().to_string();
        let variant = platform.variant().as_deref().unwrap_or_default();
        let (architecture, variant) = normalized(&platform.architecture().to_string(), variant);
        let is_told = [&os, &architecture]
            .iter()
            .all(|part| !part.is_empty() && **part != UNKNOWN);
        is_told.then_some(Self {
            os,
            architecture,
            variant,
        })
    }

    fn is_of(&self, platform: &Platform) -> bool {
        self.os == platform.os && self.architecture == platform.architecture
    }
}

/// Whether an entry is an attestation by BuildKit, such as provenance.
fn is_attestation(entry: &Descriptor) -> bool {
    let annotations = entry.annotations().as_ref();
    annotations.is_some_and(|of| of.contains_key("vnd.docker.reference.type"))
}

/// The media type of a document: the one in its `mediaType`, or else OCI's for what its fields say.
pub fn media_type(document: &[u8]) -> MediaType {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said {
        media_type: Option<MediaType>,
    }
    let said = serde_json::from_slice(document).ok();
    said.and_then(|Said { media_type }| media_type)
        .unwrap_or_else(|| match Document::read(document) {
            Ok(Document::Manifest(_)) => MediaType::ImageManifest,
            Ok(Document::Index(_)) | Err(_) => MediaType::ImageIndex,
        })
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

    /// The numbers of the entries that are chosen.
    fn chosen(platforms: &[&str], wanted: &str) -> Vec<(usize, Fit)> {
        let Document::Index(index) = Document::read(index(platforms).as_bytes()).unwrap() else {
            panic!("no index");
        };
        let wanted = [Platform::parse(wanted).unwrap()];
        let chosen = index.choose(&wanted).map(|(entry, fit)| {
            let number = entry.digest().digest().parse().unwrap();
            (number, fit)
        });
        chosen.collect()
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
    fn the_entries_for_a_platform_are_chosen() {
        let amd64 = r#"{"os":"linux","architecture":"amd64"}"#;
        let arm64 = r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#;
        let armv6 = r#"{"os":"linux","architecture":"arm","variant":"v6"}"#;
        let all = [armv6, arm64, amd64, amd64];
        let told = |numbers: &[usize]| {
            let numbers = numbers.iter().map(|number| (*number, Fit::Stated));
            numbers.collect::<Vec<_>>()
        };
        assert_eq!(chosen(&all, "linux/amd64"), told(&[2, 3]));
        assert_eq!(chosen(&all, "linux/arm64"), told(&[1]));
        assert_eq!(chosen(&all, "arm64"), told(&[1]));
        assert_eq!(chosen(&all, "linux/arm/6"), told(&[0]));
        assert_eq!(chosen(&all, "windows/amd64"), []);
        // Another variant, where there is none of the platform's own.
        let v2 = r#"{"os":"linux","architecture":"amd64","variant":"v2"}"#;
        assert_eq!(chosen(&[v2], "linux/amd64"), told(&[0]));
        assert_eq!(chosen(&[v2, amd64], "linux/amd64"), told(&[1]));
        assert_eq!(chosen(&all, "linux/arm/v7"), told(&[0]));
        // What is not told by the index is told by the config.
        let unknown = r#"{"os":"unknown","architecture":"unknown"}"#;
        let untold = [(0, Fit::Unstated), (1, Fit::Stated), (2, Fit::Unstated)];
        assert_eq!(chosen(&[unknown, amd64, "null"], "linux/amd64"), untold);
        let attestation = r#"{"os":"unknown","architecture":"unknown"},
            "annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
        assert_eq!(chosen(&[attestation], "linux/amd64"), []);
    }

    #[test]
    fn lists_that_are_null_are_empty() {
        let manifest = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":null}}"#);
        let Ok(Document::Manifest(manifest)) = Document::read(manifest.as_bytes()) else {
            panic!("no manifest");
        };
        assert!(manifest.layers().is_empty());
        let index = Document::read(br#"{"schemaVersion":2,"manifests":null}"#);
        assert!(matches!(index, Ok(Document::Index(index)) if index.manifests.is_empty()));
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
        let wanted = [Platform::parse("linux/amd64").unwrap()];
        let chosen: Vec<_> = index.choose(&wanted).collect();
        assert_eq!(chosen.len(), 1);
        assert_eq!(chosen[0].0.digest().as_ref(), known);
        assert_eq!(index.skipped, 4);
    }
}
