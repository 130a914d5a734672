//! The content store of an import that inlay serves: documents in memory, and layers that are read
//! from their images' sources when the daemon needs them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci_spec::image::Descriptor;

use crate::session::{Chunks, ReadError, Store};
use crate::source::Source;

/// Blobs of one import.
#[derive(Debug)]
pub struct ImportStore {
    documents: HashMap<String, Bytes>,
    layers: HashMap<String, (Descriptor, Arc<dyn Source>)>,
    moved: Arc<Mutex<Moved>>,
}

/// What the daemon has read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// The layers, each once.
    pub layers: HashSet<String>,
    /// The bytes of layers.
    pub bytes: u64,
}

// === impl ImportStore ===

impl ImportStore {
    /// Offers `documents`, by their digests, and layers, each of its source.
    pub fn new(
        documents: HashMap<String, Bytes>,
        layers: impl IntoIterator<Item = (Descriptor, Arc<dyn Source>)>,
    ) -> Self {
        let layers = layers.into_iter();
        Self {
            documents,
            layers: layers.map(|of| (of.0.digest().to_string(), of)).collect(),
            moved: Arc::default(),
        }
    }

    /// What the daemon has read by now.
    pub fn moved(&self) -> Moved {
        let moved = self.moved.lock();
        moved.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tonic::async_trait]
impl Store for ImportStore {
    async fn info(&self, digest: &str) -> Result<Option<u64>, ReadError> {
        let document = self.documents.get(digest);
        let document = document.map(|document| document.len() as u64);
        let layer = self.layers.get(digest).map(|(layer, _)| layer.size());
        Ok(document.or(layer))
    }

    async fn read(&self, digest: &str, range: Range<u64>) -> Result<Chunks, ReadError> {
        if let Some(document) = self.documents.get(digest) {
            let size = document.len() as u64;
            let out_of_range = || ReadError::OutOfRange {
                digest: digest.to_owned(),
                size,
            };
            if range.start > range.end || range.end > size {
                return Err(out_of_range());
            }
            // Within the length of what is in memory.
            let part = document.slice(range.start as usize..range.end as usize);
            return Ok(stream::iter([Ok(part)]).boxed());
        }
        let not_found = || ReadError::NotFound(digest.to_owned());
        let (layer, source) = self.layers.get(digest).ok_or_else(not_found)?;
        let broken = {
            let digest = digest.to_owned();
            move |err| ReadError::Broken {
                digest: digest.clone(),
                source: Box::new(err),
            }
        };
        let chunks = source.read(layer, range).await.map_err(&broken)?;
        let (moved, digest) = (Arc::clone(&self.moved), digest.to_owned());
        let counted = chunks.map_err(broken).inspect_ok(move |chunk| {
            // Each change is whole, so a panic elsewhere leaves the numbers as they were.
            let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
            moved.bytes += chunk.len() as u64;
            if !moved.layers.contains(&digest) {
                moved.layers.insert(digest.clone());
            }
        });
        Ok(counted.boxed())
    }
}
