//! The files of images.

use std::collections::BTreeMap;
use std::io::Read as _;

use sha2::{Digest as _, Sha256};

use crate::support::Registry;

/// What a path is: its kind, mode, owner and content.
pub type Files = BTreeMap<String, String>;

/// The files of layers that were read, by digest.
#[derive(Debug, Default)]
pub struct Layers(BTreeMap<String, Files>);

impl Layers {
    /// The files of an image of these layers.
    pub fn files(&mut self, registry: &Registry, layers: &[String]) -> Files {
        let mut files = Files::new();
        for digest in layers {
            let layer = self.0.entry(digest.clone());
            let layer = layer.or_insert_with(|| read(&registry.stored(digest)));
            for path in layer.keys() {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                match name.strip_prefix(".wh.") {
                    Some(".wh..opq") => remove(&mut files, parent, false),
                    Some(name) => remove(&mut files, &join(parent, name), true),
                    None => {}
                }
            }
            let here = layer
                .iter()
                .filter(|(path, _)| !path.contains("/.wh.") && !path.starts_with(".wh."));
            files.extend(here.map(|(path, what)| (path.clone(), what.clone())));
        }
        files
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    }
}

/// Removes what is below a path, and perhaps itself.
fn remove(files: &mut Files, path: &str, itself: bool) {
    let below = join(path, "");
    files.retain(|file, _| !(file.starts_with(&below) || (itself && file == path)));
}

/// The entries of a layer, whiteouts among them.
fn read(blob: &[u8]) -> Files {
    let mut tar = Vec::new();
    if blob.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(blob)
            .read_to_end(&mut tar)
            .unwrap();
    } else if blob.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut frames = blob;
        while !frames.is_empty() {
            let mut frame = ruzstd::decoding::StreamingDecoder::new(&mut frames).unwrap();
            frame.read_to_end(&mut tar).unwrap();
        }
    } else {
        tar.extend_from_slice(blob);
    }
    let mut archive = tar::Archive::new(&tar[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let path = path
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let link = entry
            .link_name()
            .unwrap()
            .map(|link| link.to_string_lossy().into_owned());
        let what = format!(
            "{:?} {:o} {}:{} {} {:x?}",
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            link.unwrap_or_default(),
            &Sha256::digest(&content)[..8],
        );
        (path, what)
    });
    entries.collect()
}
