//! A cached image: its manifest, its config and the cache in it, checked against each other.
//!
//! Pure. The records of a [`CachedImage`] are sound, and are of this image. [`documents`] writes what
//! BuildKit imports anew, from one image or several, so BuildKit reads nothing that was not checked.

use std::collections::{HashMap, HashSet};

use oci_spec::image::{Descriptor, ImageManifest, MediaType};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cache::JsonError;
use crate::cache::export::{CACHE_CONFIG, DIFF_ID};
use crate::cache::image::config::{self, ConfigError};
use crate::cache::image::spelling;
use crate::cache::record::{
    Contradiction, Digest, DigestError, Limits, ParseError, RecordSet, base64, to_config,
};

/// The largest document of a cache that BuildKit imports (bytes; v0.34.2, `readBlob` in
/// `cache/remotecache/import.go`).
pub const MAX_DOCUMENT: usize = 1 << 20;
/// The most layers that the results of all records have together. BuildKit makes a list for each
/// result, of some 600 bytes a layer, even where results share layers.
const MAX_STACKED: usize = 1 << 18;

/// Why an image's cache is refused.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Its config cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its config has no list of layers, or one that Go reads in another way.
    #[error("the image config: {0}")]
    Rootfs(JsonError),
    /// Manifest and config have different numbers of layers.
    #[error("the manifest has {layers} layers and the config {diff_ids} diff IDs")]
    Layers {
        /// Of the manifest.
        layers: usize,
        /// Of the config.
        diff_ids: usize,
    },
    /// A digest is malformed.
    #[error("layer {layer}: {why}")]
    Digest {
        /// Its number.
        layer: usize,
        /// What is wrong.
        why: DigestError,
    },
    /// Manifest and config have different diff IDs for a layer.
    #[error("layer {layer} has one diff ID by the manifest and another by the config")]
    DiffId {
        /// Its number.
        layer: usize,
    },
    /// A layer is of a type that cannot be unpacked.
    #[error("layer {layer} has the media type of something else")]
    MediaType {
        /// Its number.
        layer: usize,
    },
    /// The records are not sound.
    #[error("its records: {0}")]
    Records(#[from] ParseError),
    /// The records contradict each other.
    #[error("its records contradict each other: {0}")]
    Contradiction(#[from] Contradiction),
    /// The last record does not have all layers of the image.
    #[error("its last record has {found} of {layers} layers")]
    End {
        /// How many layers the last record has.
        found: usize,
        /// How many the image has.
        layers: usize,
    },
    /// BuildKit would need much memory for the layers that the records name.
    #[error("its records have results of {0} layers together, more than {MAX_STACKED}")]
    Stacked(usize),
    /// BuildKit would make a loop of the records.
    #[error("of its records BuildKit would make a loop, and not survive it")]
    Loop,
    /// The cache is malformed JSON.
    #[error("its records: {0}")]
    Json(JsonError),
}

/// An image with a cache, checked.
#[derive(Debug, Clone)]
pub struct CachedImage {
    digest: String,
    layers: Vec<Descriptor>,
    diff_ids: Vec<Digest>,
    history: Vec<History>,
    records: Vec<u8>,
    set: RecordSet,
    is_importable: bool,
}

/// What BuildKit takes from an image's history: dates and descriptions of layers.
#[derive(Debug, Clone, Default, Deserialize)]
struct History {
    created: Option<String>,
    created_by: Option<String>,
    empty_layer: Option<bool>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: Rootfs,
    history: Option<Vec<History>>,
}

#[derive(Deserialize)]
struct Rootfs {
    diff_ids: Option<Vec<String>>,
}

// === impl CachedImage ===

impl CachedImage {
    /// Reads the cache of an image, whose manifest has this digest; `None` where it has no cache.
    ///
    /// # Errors
    /// Where manifest, config and cache do not fit together, or the cache is not sound.
    pub fn read(
        digest: String,
        manifest: &ImageManifest,
        config: &[u8],
    ) -> Result<Option<Self>, ImageError> {
        let current = config::cache_of(config, config::DEFAULT_LIMIT)?;
        let is_current = current.is_some();
        let cache = match current {
            Some(cache) => Some(cache),
            None => config::proposed_cache_of(config, config::DEFAULT_LIMIT)?
                .map(|cache| records_of(&cache))
                .transpose()?,
        };
        let Some(records) = cache else {
            return Ok(None);
        };
        spelling::check(config, &spelling::CONFIG).map_err(ImageError::Rootfs)?;
        let Config { rootfs, history } =
            serde_json::from_slice(config).map_err(|err| ImageError::Rootfs(err.into()))?;
        let layers = manifest.layers().clone();
        let diff_ids = diff_ids(&layers, &rootfs.diff_ids.unwrap_or_default())?;
        let blobs = layers.iter().enumerate();
        let blobs = blobs.map(|(layer, of)| blob(layer, of.digest().as_ref()));
        let blobs = blobs.collect::<Result<Vec<_>, _>>()?;
        let mut set = RecordSet::parse_inline(&records, &blobs, &Limits::default())?;
        if let Some(last) = set.image().filter(|last| last.len() != layers.len()) {
            return Err(ImageError::End {
                found: last.len(),
                layers: layers.len(),
            });
        }
        check(&set)?;
        let known: HashMap<_, _> = blobs.iter().zip(&diff_ids).collect();
        set.set_diff_ids(|blob| known.get(blob).map(|id| (*id).clone()));
        let mut history = history.unwrap_or_default();
        history.retain(|of| of.empty_layer != Some(true));
        let has_history = history.len() == layers.len();
        if !has_history {
            history = vec![History::default(); layers.len()];
        }
        Ok(Some(Self {
            digest,
            history,
            layers,
            diff_ids,
            records,
            set,
            is_importable: is_current && has_history && config.len() <= MAX_DOCUMENT,
        }))
    }

    /// The digest of its manifest.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its layers, base first.
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// The diff IDs of its layers.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// Its records.
    pub fn set(&self) -> &RecordSet {
        &self.set
    }

    /// Its cache as it was read, as text for an image config.
    pub fn encoded(&self) -> String {
        base64::encode(&self.records)
    }

    /// Whether BuildKit can import the cache from the image itself. BuildKit does not read the older
    /// key of the config, and no config of more than [`MAX_DOCUMENT`] bytes. It panics where the
    /// history has fewer entries than the image has layers (v0.34.2, `parseCreatedLayerInfo` in
    /// `cache/remotecache/import.go`).
    pub fn is_importable(&self) -> bool {
        self.is_importable
    }
}

/// Checks a cache that was exported by itself: its records, and the layers of its manifest. Returns
/// the number of records.
///
/// # Errors
/// Where it is not sound.
pub fn check_export(config: &[u8], layers: &[Descriptor]) -> Result<usize, ImageError> {
    let set = RecordSet::parse(config, &Limits::default())?;
    check(&set)?;
    for (number, layer) in layers.iter().enumerate() {
        for diff_id in manifest_diff_ids(number, layer)? {
            blob(number, diff_id)?;
        }
    }
    Ok(set.records().len())
}

/// Checks that BuildKit can read records, and that they do not contradict each other.
fn check(set: &RecordSet) -> Result<(), ImageError> {
    if let Some(contradiction) = set.contradiction() {
        return Err(contradiction.into());
    }
    check_reading(set)
}

/// Checks that BuildKit can read records.
fn check_reading(set: &RecordSet) -> Result<(), ImageError> {
    let results = set.records().iter().flat_map(|record| &record.results);
    let stacked = results.map(|result| result.len()).sum();
    if stacked > MAX_STACKED {
        return Err(ImageError::Stacked(stacked));
    }
    if !set.survives_merging() {
        return Err(ImageError::Loop);
    }
    Ok(())
}

/// The documents that BuildKit reads to import the caches of several images as one: a cache config, and
/// an index of that and of the layers. The last document is the one to import.
///
/// # Errors
/// Where BuildKit could not import them as one, though each is sound by itself.
pub fn documents(images: &[&CachedImage]) -> Result<Vec<Vec<u8>>, ImageError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index {
        schema_version: u8,
        media_type: MediaType,
        manifests: Vec<Entry>,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Entry {
        Layer(Box<Descriptor>),
        #[serde(rename_all = "camelCase")]
        Config {
            media_type: &'static str,
            digest: String,
            size: usize,
        },
    }

    let sets: Vec<_> = images.iter().map(|image| &image.set).collect();
    let config = to_config(&sets);
    if sets.len() > 1 {
        check_reading(&RecordSet::parse(&config, &Limits::default())?)?;
    }
    let mut known = HashSet::new();
    let mut manifests = Vec::new();
    for image in images {
        let layers = image.layers.iter().zip(&image.diff_ids).zip(&image.history);
        for ((layer, diff_id), history) in layers {
            if known.insert(layer.digest()) {
                let layer = annotated(layer, diff_id, history);
                manifests.push(Entry::Layer(Box::new(layer)));
            }
        }
    }
    manifests.push(Entry::Config {
        media_type: CACHE_CONFIG,
        digest: Digest::of(&config).to_string(),
        size: config.len(),
    });
    let index = Index {
        schema_version: 2,
        media_type: MediaType::ImageIndex,
        manifests,
    };
    let index = serde_json::to_vec(&index).map_err(|err| ImageError::Json(err.into()))?;
    Ok(vec![config, index])
}

/// A layer as a cache's index has it: with what BuildKit takes from an image's config.
fn annotated(layer: &Descriptor, diff_id: &Digest, history: &History) -> Descriptor {
    let mut annotations = layer.annotations().clone().unwrap_or_default();
    annotations.insert(DIFF_ID.to_owned(), diff_id.to_string());
    let told = [
        ("buildkit/createdat", &history.created),
        ("buildkit/description", &history.created_by),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            annotations.insert(name.to_owned(), value.clone());
        }
    }
    let mut layer = layer.clone();
    layer.set_annotations(Some(annotations));
    layer
}

/// The records of a cache under the older key: an array of them, or a whole cache config, whose layers
/// are the image's.
fn records_of(cache: &[u8]) -> Result<Vec<u8>, ImageError> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        records: &'a serde_json::value::RawValue,
    }
    if cache.trim_ascii_start().first() == Some(&b'[') {
        return Ok(cache.to_vec());
    }
    let whole: Whole<'_> =
        serde_json::from_slice(cache).map_err(|err| ImageError::Json(err.into()))?;
    Ok(whole.records.get().as_bytes().to_vec())
}

/// The diff IDs of layers, by the config. Where the manifest tells one too, it has to be the same.
fn diff_ids(layers: &[Descriptor], config: &[String]) -> Result<Vec<Digest>, ImageError> {
    if layers.len() != config.len() {
        return Err(ImageError::Layers {
            layers: layers.len(),
            diff_ids: config.len(),
        });
    }
    let both = layers.iter().zip(config).enumerate();
    both.map(|(number, (layer, diff_id))| {
        for manifest in manifest_diff_ids(number, layer)? {
            if manifest != diff_id {
                return Err(ImageError::DiffId { layer: number });
            }
        }
        blob(number, diff_id)
    })
    .collect()
}

/// The diff IDs that a manifest tells of a layer: by annotation, and by the digest of a layer that is
/// not compressed.
fn manifest_diff_ids(
    number: usize,
    layer: &Descriptor,
) -> Result<impl Iterator<Item = &str>, ImageError> {
    let media_type = layer.media_type();
    let is_compressed = is_compressed(media_type).ok_or(ImageError::MediaType { layer: number })?;
    let annotations = layer.annotations().as_ref();
    let told = annotations.and_then(|annotations| annotations.get(DIFF_ID));
    let own = (!is_compressed).then(|| layer.digest().as_ref());
    Ok(told.map(String::as_str).into_iter().chain(own))
}

/// Whether layers of a media type are compressed; `None` for a media type of other things.
fn is_compressed(media_type: &MediaType) -> Option<bool> {
    match media_type {
        MediaType::ImageLayer | MediaType::ImageLayerNonDistributable => Some(false),
        MediaType::ImageLayerGzip
        | MediaType::ImageLayerZstd
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => Some(true),
        MediaType::Other(docker) => match docker.as_str() {
            "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Some(false),
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(true),
            _ => None,
        },
        _ => None,
    }
}

/// The digest of a layer.
fn blob(layer: usize, text: &str) -> Result<Digest, ImageError> {
    let digest = Digest::parse(text).map_err(|why| ImageError::Digest { layer, why })?;
    if digest.is_random() {
        let why = DigestError::NotABlob;
        return Err(ImageError::Digest { layer, why });
    }
    Ok(digest)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const MANIFEST: &str = r#"{"schemaVersion":2,
        "config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,
            "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
        "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":1,
            "digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111"}]}"#;

    /// A record with the image's layer, as base64.
    fn cache() -> String {
        let digest = Digest::of(b"step");
        base64::encode(format!(r#"[{{"digest":"{digest}","layers":[{{}}]}}]"#).as_bytes())
    }

    fn read(config: &str) -> Result<Option<CachedImage>, ImageError> {
        let manifest = serde_json::from_str(MANIFEST).unwrap();
        CachedImage::read("sha256:m".to_owned(), &manifest, config.as_bytes())
    }

    fn config(more: &str) -> String {
        let id = Digest::of(b"layer");
        format!(r#"{{"rootfs":{{"diff_ids":["{id}"]}}{more}}}"#)
    }

    /// An image of one layer with these records, as JSON.
    pub fn image(records: &(impl AsRef<[u8]> + ?Sized)) -> CachedImage {
        let history = r#","history":[{"created_by":"a step"}]"#;
        let records = base64::encode(records.as_ref());
        let config = config(&format!(r#"{history},"{}":"{records}""#, config::CACHE_KEY));
        read(&config).unwrap().unwrap()
    }

    #[test]
    fn a_cache_is_found_under_either_key() {
        let current = format!(
            r#","history":[{{}},{{"empty_layer":true}}],"{}":"{}""#,
            config::CACHE_KEY,
            cache()
        );
        let image = read(&config(&current)).unwrap().unwrap();
        assert!(image.is_importable());
        assert_eq!(image.encoded(), cache());
        let older = current.replace(config::CACHE_KEY, config::PROPOSED_KEY);
        let image = read(&config(&older)).unwrap().unwrap();
        assert!(!image.is_importable());
        assert!(read(&config("")).unwrap().is_none());
    }

    #[test]
    fn what_is_written_anew_says_the_same() {
        let image = image(&base64::decode(&cache()).unwrap());
        let documents = documents(&[&image, &image]).unwrap();
        let [written, index] = &documents[..] else {
            panic!("config and index")
        };
        let again = RecordSet::parse(written, &Limits::default()).unwrap();
        assert_eq!(again.records().len(), 1);
        assert_eq!(again.records()[0].results.len(), 1);
        let index: serde_json::Value = serde_json::from_slice(index).unwrap();
        let [layer, config] = &index["manifests"].as_array().unwrap()[..] else {
            panic!("a layer and the config: {index}")
        };
        let diff_id = Digest::of(b"layer").to_string();
        assert_eq!(layer["annotations"][DIFF_ID], diff_id);
        assert_eq!(layer["annotations"]["buildkit/description"], "a step");
        assert_eq!(config["digest"], Digest::of(written).to_string());
    }

    fn refused_by_name(more: &str) -> bool {
        let refusal = read(&config(more)).unwrap_err().to_string();
        refusal.contains("which BuildKit reads as")
    }

    #[test]
    fn names_that_go_reads_as_others_are_refused() {
        let cache = cache();
        for name in ["Moby.buildkit.cache.v0", "moby.build\u{212a}it.cache.v0"] {
            let more = format!(r#","{}":"{cache}","{name}":"{cache}""#, config::CACHE_KEY);
            assert!(refused_by_name(&more));
        }
        for more in [r#","Rootfs":{}"#, r#","history":[{"Empty_layer":true}]"#] {
            let more = format!(r#","{}":"{cache}"{more}"#, config::CACHE_KEY);
            assert!(refused_by_name(&more));
        }
    }

    /// Each result on its own is small, and BuildKit makes a list of each.
    #[test]
    fn results_are_counted_even_where_they_lie_on_one_another() {
        let layers = 1024;
        let mut manifest: serde_json::Value = serde_json::from_str(MANIFEST).unwrap();
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = vec![layer; layers].into();
        let manifest = serde_json::from_value(manifest).unwrap();
        let id = Digest::of(b"layer").to_string();
        let records = |count: usize| {
            let records = (0..count).map(|number| {
                let digest = Digest::of(&number.to_be_bytes());
                format!(
                    r#"{{"digest":"{digest}","layers":[{{"layer":{}}}]}}"#,
                    layers - 1
                )
            });
            let records = records.collect::<Vec<_>>().join(",");
            let cache = base64::encode(format!("[{records}]").as_bytes());
            let ids = vec![&id; layers];
            format!(
                r#"{{"rootfs":{{"diff_ids":{ids:?}}},"{}":"{cache}"}}"#,
                config::CACHE_KEY
            )
        };
        let read = |count| CachedImage::read(String::new(), &manifest, records(count).as_bytes());
        let most = MAX_STACKED / layers;
        assert!(read(most).is_ok());
        assert!(matches!(read(most + 1), Err(ImageError::Stacked(_))));
    }

    #[test]
    fn manifest_and_config_are_of_one_image() {
        let more = format!(r#","{}":"{}""#, config::CACHE_KEY, cache());
        let none = config(&more).replace(&Digest::of(b"layer").to_string(), "sha256:x");
        assert!(matches!(read(&none), Err(ImageError::Digest { .. })));
        let plain = MANIFEST.replace("+gzip", "");
        let manifest = serde_json::from_str(&plain).unwrap();
        let wrong = CachedImage::read(String::new(), &manifest, config(&more).as_bytes());
        assert!(matches!(wrong, Err(ImageError::DiffId { .. })));
        let odd = serde_json::from_str(&MANIFEST.replace("+gzip", "+lzma")).unwrap();
        let wrong = CachedImage::read(String::new(), &odd, config(&more).as_bytes());
        assert!(matches!(wrong, Err(ImageError::MediaType { .. })));
    }
}
