//! Images that a build wrote to a file.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// What an `oci` or `docker` exporter wrote: an OCI layout with a single image.
#[derive(Debug)]
pub struct Layout {
    dir: TempDir,
}

impl Layout {
    /// Reads the archive from `type=oci,dest=…` or `type=docker,dest=…`.
    pub fn from_tar(path: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("inlay-layout-")
            .tempdir()
            .expect("a temporary directory");
        let unpacked = Command::new("tar")
            .arg("-xf")
            .arg(path)
            .arg("-C")
            .arg(dir.path())
            .status();
        assert!(
            unpacked.expect("tar runs").success(),
            "{} is not unpacked",
            path.display()
        );
        Self { dir }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The digest of its image, an index or a manifest.
    pub fn digest(&self) -> String {
        let index: Value = self.json("index.json");
        let digest = index["manifests"][0]["digest"]
            .as_str()
            .expect("the layout has an image");
        digest.to_owned()
    }

    /// Its manifest or index, parsed.
    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&self.blob(&self.digest())).expect("a manifest is JSON")
    }

    /// The bytes of its config.
    pub fn config(&self) -> Vec<u8> {
        let manifest = self.manifest();
        self.blob(
            manifest["config"]["digest"]
                .as_str()
                .expect("an image has a config"),
        )
    }

    /// The bytes of a blob.
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        self.read(&format!("blobs/{}", digest.replace(':', "/")))
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.read(path)).expect("the layout has JSON")
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(path))
            .unwrap_or_else(|error| panic!("{path} in the layout: {error}"))
    }
}
