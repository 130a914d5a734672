//! OCI's image layout: `index.json`, and blobs by digest. In a folder or in a tar, it is the same.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageIndex};

use super::files::{Extent, Files, blocking};
use super::location::Pick;
use super::{ByteStream, MAX_JSON, Source, SourceError, verify, within};
use crate::cache::JsonError;

/// The name of an image in a layout. Some tools write a tag, others a full name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Its full name, where containerd, Docker or BuildKit wrote the layout.
const FULL_NAME: &str = "io.containerd.image.name";

/// One image of a layout.
#[derive(Debug)]
pub struct Layout {
    files: Arc<dyn Files>,
    root: Descriptor,
}

impl Layout {
    /// Finds the image in `index.json`. Blocks. `what` is its name in errors.
    ///
    /// # Errors
    /// Where it is no layout, or does not have that image.
    pub fn open(files: Arc<dyn Files>, pick: &Pick, what: &str) -> Result<Self, SourceError> {
        let list = files
            .open("index.json")?
            .ok_or_else(|| SourceError::Malformed {
                what: what.to_owned(),
                reason: "it is no OCI image layout: it has no index.json".to_owned(),
            })?;
        let index: ImageIndex = serde_json::from_slice(&list.bytes(MAX_JSON)?).map_err(|err| {
            SourceError::Malformed {
                what: list.what().to_owned(),
                reason: JsonError::from(err).to_string(),
            }
        })?;
        let images = index.manifests();
        let missing = || SourceError::Missing(what.to_owned());
        let root = match pick {
            Pick::Nth(number) => images.get(*number).ok_or_else(missing)?,
            Pick::Named(name) => {
                let found = images.iter().find(|image| is_named(image, name));
                found.ok_or_else(missing)?
            }
            Pick::Only => {
                // An image with two names is listed twice.
                let digests: BTreeSet<&str> =
                    images.iter().map(|image| image.digest().as_ref()).collect();
                match images.first() {
                    Some(image) if digests.len() == 1 => image,
                    _ => {
                        return Err(SourceError::Several {
                            what: what.to_owned(),
                            count: digests.len(),
                        });
                    }
                }
            }
        };
        Ok(Self {
            root: root.clone(),
            files,
        })
    }

    /// The file of a blob, which has the descriptor's size. Blocks.
    fn blob(files: &dyn Files, descriptor: &Descriptor) -> Result<Extent, SourceError> {
        let digest = descriptor.digest();
        let name = format!("blobs/{}/{}", digest.algorithm(), digest.digest());
        let file = files
            .open(&name)?
            .ok_or_else(|| SourceError::Missing(format!("blob {digest}")))?;
        file.expect_size(descriptor.size())?;
        Ok(file)
    }
}

fn is_named(image: &Descriptor, name: &str) -> bool {
    let annotations = image.annotations().as_ref();
    [REF_NAME, FULL_NAME].iter().any(|key| {
        annotations.is_some_and(|annotations| annotations.get(*key).is_some_and(|is| is == name))
    })
}

#[tonic::async_trait]
impl Source for Layout {
    async fn root(&self, limit: u64) -> Result<(Descriptor, Bytes), SourceError> {
        let (files, root) = (Arc::clone(&self.files), self.root.clone());
        blocking(move || {
            let data = Self::blob(&*files, &root)?.bytes(limit)?;
            verify(root.digest(), &data)?;
            Ok((root, data))
        })
        .await
    }

    async fn read(
        &self,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<ByteStream, SourceError> {
        within(descriptor, &range)?;
        let (files, descriptor) = (Arc::clone(&self.files), descriptor.clone());
        let file = blocking(move || Self::blob(&*files, &descriptor)).await?;
        Ok(file.stream(range))
    }

    async fn stat(&self, descriptor: &Descriptor) -> Result<(), SourceError> {
        // An empty read finds the file, and reads nothing.
        self.read(descriptor, 0..0).await.map(drop)
    }
}
