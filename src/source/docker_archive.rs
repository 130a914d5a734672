//! Archives that `docker save` writes: a tar with a list of images, `manifest.json`, each a config and the
//! files of its layers.
//!
//! Such an image has no manifest. It gets one of OCI's kind here, which depends on the image alone.
//! The digest of a layer is in its file's name in newer archives. The digest of an uncompressed layer
//! is its diff ID, which the config has. A compressed file of another name is read for its digest.
//! The daemon verifies the layers that it reads.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use oci_spec::image::{Descriptor, Digest as OciDigest, ImageManifestBuilder, MediaType};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::files::{CHUNK, Extent, Files};
use super::location::{Pick, reference};
use super::{ByteStream, MAX_JSON, Source, SourceError, hashed, sha256, within};
use crate::cache::JsonError;

/// The folder of files that are named by their digest.
const BLOBS: &str = "blobs/sha256/";
/// The most layers of an image. Linux can stack fewer.
const MAX_LAYERS: usize = 1024;
/// The most that is hashed for the digests of one image's layers (bytes). A build waits for that.
const MAX_HASHED: u64 = 4 << 30;

/// One image of an archive.
#[derive(Debug)]
pub struct DockerArchive {
    root: Descriptor,
    manifest: Bytes,
    /// The config's and the layers' files, by digest.
    blobs: HashMap<OciDigest, Extent>,
}

/// An image in the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// The part of its config that is needed.
#[derive(Debug, Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<OciDigest>,
}

impl DockerArchive {
    /// Finds the image in the list, and makes its manifest. Blocks. `what` is its name in errors.
    ///
    /// # Errors
    /// Where it is no such archive, does not have that image, or lacks a part of it.
    pub fn open(files: &dyn Files, pick: &Pick, what: &str) -> Result<Self, SourceError> {
        let malformed = |reason: String| SourceError::Malformed {
            what: what.to_owned(),
            reason,
        };
        // Names are from the list, so errors leave them out: the file may be no list, and be secret.
        let file = |name: &str, part: &str| {
            let file = files.open(&normal(name))?;
            file.ok_or_else(|| SourceError::Missing(format!("{part} of an image in {what}")))
        };
        let list = files.open("manifest.json")?.ok_or_else(|| {
            malformed("`docker save` did not write it: it has no manifest.json".to_owned())
        })?;
        let list: Vec<Listed> = serde_json::from_slice(&list.bytes(MAX_JSON)?)
            .map_err(|err| malformed(format!("manifest.json: {}", JsonError::from(err))))?;
        let image = find(&list, pick, what)?;

        let config_file = file(&image.config, "the config")?;
        let config = config_file.bytes(MAX_JSON)?;
        let config_digest = sha256(&config)?;
        let Config { rootfs } = serde_json::from_slice(&config)
            .map_err(|err| malformed(format!("the image config: {}", JsonError::from(err))))?;
        let layers = image.layers.as_deref().unwrap_or_default();
        if layers.len() != rootfs.diff_ids.len() || layers.len() > MAX_LAYERS {
            let ids = rootfs.diff_ids.len();
            let count = layers.len();
            return Err(malformed(format!(
                "it has {count} layers, and their config names {ids}"
            )));
        }
        let mut blobs = HashMap::from([(config_digest.clone(), config_file)]);
        let mut descriptors = Vec::new();
        let mut hashes = Hashes::default();
        for (number, (name, diff_id)) in layers.iter().zip(rootfs.diff_ids).enumerate() {
            let file = file(name, &format!("layer {number}"))?;
            let media_type = compression(&file)?;
            let digest = match normal(name).strip_prefix(BLOBS) {
                Some(hex) => format!("sha256:{hex}")
                    .parse()
                    .map_err(|_| malformed(format!("layer {number} is named by no digest")))?,
                None if media_type == MediaType::ImageLayer => diff_id,
                None => hashes.of(name, &file)?,
            };
            descriptors.push(Descriptor::new(media_type, file.size(), digest.clone()));
            blobs.insert(digest, file);
        }
        let config = Descriptor::new(MediaType::ImageConfig, config.len() as u64, config_digest);
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(descriptors)
            .build()
            .map_err(|err| malformed(err.to_string()))?;
        let manifest = serde_json::to_vec(&manifest).map_err(|err| malformed(err.to_string()))?;
        let root = Descriptor::new(
            MediaType::ImageManifest,
            manifest.len() as u64,
            sha256(&manifest)?,
        );
        Ok(Self {
            root,
            manifest: manifest.into(),
            blobs,
        })
    }
}

fn find<'a>(list: &'a [Listed], pick: &Pick, what: &str) -> Result<&'a Listed, SourceError> {
    let found = match pick {
        Pick::Only if list.len() == 1 => list.first(),
        Pick::Only => {
            // An image that was saved by two names may be listed twice.
            let configs: BTreeSet<&str> = list.iter().map(|image| &*image.config).collect();
            if configs.len() != 1 {
                return Err(SourceError::Several {
                    what: what.to_owned(),
                    count: configs.len(),
                });
            }
            list.first()
        }
        Pick::Nth(number) => list.get(*number),
        Pick::Named(name) => list.iter().find(|image| {
            let tags = image.repo_tags.iter().flatten();
            tags.filter_map(|tag| reference(tag).ok())
                .any(|tag| tag.whole() == *name)
        }),
    };
    found.ok_or_else(|| SourceError::Missing(what.to_owned()))
}

/// A file's name as the archive has it: older writers begin with `./`.
fn normal(name: &str) -> String {
    name.trim_start_matches("./").to_owned()
}

/// The media type of a layer's file, by its first bytes.
fn compression(file: &Extent) -> Result<MediaType, SourceError> {
    let mut start = [0; 4];
    // A shorter file has no compression's magic number.
    if file.size() >= 4 {
        file.read_at(&mut start, 0)?;
    }
    Ok(match start {
        [0x1f, 0x8b, ..] => MediaType::ImageLayerGzip,
        [0x28, 0xb5, 0x2f, 0xfd] => MediaType::ImageLayerZstd,
        _ => MediaType::ImageLayer,
    })
}

/// The digests of files that had to be read for them.
#[derive(Default)]
struct Hashes<'a> {
    by_name: HashMap<&'a str, OciDigest>,
    bytes: u64,
}

impl<'a> Hashes<'a> {
    fn of(&mut self, name: &'a str, file: &Extent) -> Result<OciDigest, SourceError> {
        if let Some(known) = self.by_name.get(name) {
            return Ok(known.clone());
        }
        self.bytes = self.bytes.saturating_add(file.size());
        if self.bytes > MAX_HASHED {
            return Err(SourceError::TooLarge {
                what: file.what().to_owned(),
                limit: MAX_HASHED,
            });
        }
        let digest = hash(file)?;
        self.by_name.insert(name, digest.clone());
        Ok(digest)
    }
}

fn hash(file: &Extent) -> Result<OciDigest, SourceError> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < file.size() {
        // The length is at most `CHUNK`.
        let mut data = vec![0; (file.size() - at).min(CHUNK) as usize];
        file.read_at(&mut data, at)?;
        hasher.update(&data);
        at += data.len() as u64;
    }
    hashed(hasher)
}

#[tonic::async_trait]
impl Source for DockerArchive {
    async fn root(&self, limit: u64) -> Result<(Descriptor, Bytes), SourceError> {
        if self.root.size() > limit {
            return Err(SourceError::TooLarge {
                what: self.root.digest().to_string(),
                limit,
            });
        }
        Ok((self.root.clone(), self.manifest.clone()))
    }

    async fn read(
        &self,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<ByteStream, SourceError> {
        within(descriptor, &range)?;
        if descriptor.digest() == self.root.digest() {
            within(&self.root, &range)?;
            // Within the manifest's length, as was just seen.
            let manifest = self
                .manifest
                .slice(range.start as usize..range.end as usize);
            return Ok(stream::iter([Ok(manifest)]).boxed());
        }
        let file = self.blobs.get(descriptor.digest());
        let file =
            file.ok_or_else(|| SourceError::Missing(format!("blob {}", descriptor.digest())))?;
        file.expect_size(descriptor.size())?;
        Ok(file.clone().stream(range))
    }

    async fn stat(&self, descriptor: &Descriptor) -> Result<(), SourceError> {
        // An empty read finds the file, and reads nothing.
        self.read(descriptor, 0..0).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::archive::Archive;
    use crate::source::fetch;
    use crate::source::files::Allowed;
    use std::path::Path;

    /// An archive as older Docker wrote it: layers as tars, in folders of names that are no digests.
    fn archive(manifest: &str, files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Archive {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("a.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
        for (name, data) in files
            .iter()
            .chain([&("manifest.json", manifest.as_bytes())])
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            tar.append_data(&mut header, name, *data).unwrap();
        }
        for (name, target) in links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, name, Path::new(target))
                .unwrap();
        }
        tar.into_inner().unwrap();
        let allowed = Allowed::new(&[dir.path().to_owned()]).unwrap();
        Archive::index(allowed.file(&path).unwrap()).unwrap()
    }

    fn config(diff_ids: &[&[u8]]) -> Vec<u8> {
        let ids: Vec<_> = diff_ids.iter().map(|data| sha256(data).unwrap()).collect();
        serde_json::to_vec(&serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": ids } }))
            .unwrap()
    }

    fn listed(layers: &[&str]) -> String {
        serde_json::json!([{ "Config": "c.json", "RepoTags": ["app:1", "me/app"], "Layers": layers }])
            .to_string()
    }

    const TAR: &[u8] = b"an uncompressed layer";
    const GZIP: &[u8] = b"\x1f\x8ba compressed one";
    const ZSTD: &[u8] = b"\x28\xb5\x2f\xfdand another";

    #[tokio::test]
    async fn a_manifest_is_made_from_files_of_any_name() {
        let named = format!("{BLOBS}{}", sha256(ZSTD).unwrap().digest());
        let config = config(&[TAR, b"gzip's", TAR, b"zstd's"]);
        let list = listed(&["./1/layer.tar", "2/layer.tar", "3/layer.tar", &named]);
        let files: &[(&str, &[u8])] = &[
            ("c.json", &config),
            ("1/layer.tar", TAR),
            ("2/layer.tar", GZIP),
            (&named, ZSTD),
        ];
        let archive = archive(&list, files, &[("3/layer.tar", "../1/layer.tar")]);
        let open = |pick: &Pick| DockerArchive::open(&archive, pick, "a.tar");
        let image = open(&Pick::Only).unwrap();
        let (root, bytes) = image.root(10_000).await.unwrap();
        assert_eq!(fetch(&image, &root, 10_000).await.unwrap(), bytes);
        let manifest: oci_spec::image::ImageManifest = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            fetch(&image, manifest.config(), 10_000).await.unwrap(),
            config
        );
        let mut kinds = Vec::new();
        for (layer, data) in manifest.layers().iter().zip([TAR, GZIP, TAR, ZSTD]) {
            assert_eq!(fetch(&image, layer, 10_000).await.unwrap(), data);
            kinds.push(layer.media_type().clone());
        }
        use MediaType::{ImageLayer, ImageLayerGzip, ImageLayerZstd};
        assert_eq!(
            kinds,
            [ImageLayer, ImageLayerGzip, ImageLayer, ImageLayerZstd]
        );

        for name in ["docker.io/library/app:1", "docker.io/me/app:latest"] {
            let found = open(&Pick::Named(name.to_owned())).unwrap();
            assert_eq!(found.root, root);
        }
        assert_eq!(open(&Pick::Nth(0)).unwrap().root, root);
        for pick in [
            Pick::Nth(1),
            Pick::Named("docker.io/library/app:2".to_owned()),
        ] {
            assert!(matches!(open(&pick), Err(SourceError::Missing(_))));
        }
        // Not what the list says that it is, and not what it has.
        let larger = Descriptor::new(
            MediaType::ImageManifest,
            root.size() + 1,
            root.digest().clone(),
        );
        assert!(image.read(&larger, 0..larger.size()).await.is_err());
        assert!(matches!(
            image.root(10).await,
            Err(SourceError::TooLarge { .. })
        ));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let config = config(&[TAR]);
        let said = |list: &str, files: &[(&str, &[u8])]| {
            let archive = archive(list, files, &[]);
            let refused = DockerArchive::open(&archive, &Pick::Only, "a.tar");
            refused.unwrap_err().to_string()
        };
        let files: &[(&str, &[u8])] = &[("c.json", &config), ("1", TAR)];
        assert!(said(&listed(&["1", "1"]), files).contains("2 layers, and their config names 1"));
        assert!(
            said(&listed(&["2"]), files).contains("layer 0 of an image in a.tar does not exist")
        );
        assert!(said("[{}]", files).contains("manifest.json: missing field `Config`"));
        assert!(said("[]", files).contains("has 0 images"));
        assert!(said(&listed(&["1"]), &[("c.json", b"{}"), ("1", TAR)]).contains("missing field"));
        let two = r#"[{"Config":"c.json"},{"Config":"d.json"}]"#;
        assert!(said(two, files).contains("has 2 images"));
    }
}
