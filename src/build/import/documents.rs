//! Documents of images in registries that were read before, by repository and digest.
//!
//! A build that imports an image reads its manifest or index from the registry, with its own login. The
//! documents below, which that names by digest, are in the same repository, so the login may read them
//! too. They are taken from here, if they were read before.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use oci_spec::image::Descriptor;

use crate::source::{Source, SourceError, fetch};

/// What is kept (bytes). The least used goes first.
const MAX_BYTES: usize = 16 << 20;
/// The largest document that is kept (bytes).
const MAX_DOCUMENT: usize = 1 << 20;

/// The documents that were read last.
#[derive(Debug)]
pub struct KnownDocuments(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// By repository and digest.
    documents: LruCache<(String, String), Bytes>,
    bytes: usize,
}

// === impl KnownDocuments ===

impl Default for KnownDocuments {
    fn default() -> Self {
        Self(Mutex::new(Known {
            documents: LruCache::unbounded(),
            bytes: 0,
        }))
    }
}

impl KnownDocuments {
    /// A whole document, which matches its descriptor.
    ///
    /// # Errors
    /// As [`fetch`].
    pub async fn fetch(
        &self,
        source: &dyn Source,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, SourceError> {
        let key = source.repository();
        let key = key.map(|name| (name, descriptor.digest().to_string()));
        if let Some(known) = key.as_ref().and_then(|key| self.get(key))
            && known.len() as u64 == descriptor.size()
            && descriptor.size() <= limit
        {
            return Ok(known);
        }
        let data = fetch(source, descriptor, limit).await?;
        if let Some(key) = key {
            self.keep(key, data.clone());
        }
        Ok(data)
    }

    fn get(&self, key: &(String, String)) -> Option<Bytes> {
        self.lock().documents.get(key).cloned()
    }

    fn keep(&self, key: (String, String), data: Bytes) {
        if data.len() > MAX_DOCUMENT {
            return;
        }
        let mut known = self.lock();
        known.bytes += data.len();
        if let Some(before) = known.documents.put(key, data) {
            known.bytes -= before.len();
        }
        while known.bytes > MAX_BYTES {
            let Some((_, oldest)) = known.documents.pop_lru() else {
                return;
            };
            known.bytes -= oldest.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic leaves at most a count that is too high.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(repository: &str, digest: usize) -> (String, String) {
        (repository.to_owned(), digest.to_string())
    }

    #[test]
    fn a_document_is_known_in_its_repository() {
        let known = KnownDocuments::default();
        known.keep(key("a", 1), Bytes::from_static(b"one"));
        assert_eq!(known.get(&key("a", 1)).unwrap(), "one");
        assert_eq!(known.get(&key("b", 1)), None);
        assert_eq!(known.get(&key("a", 2)), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let known = KnownDocuments::default();
        let document = Bytes::from(vec![0; MAX_DOCUMENT]);
        let most = MAX_BYTES / MAX_DOCUMENT;
        for digest in (0..most).chain(0..=most) {
            known.keep(key("a", digest), document.clone());
        }
        assert_eq!(known.lock().bytes, MAX_BYTES);
        assert_eq!(known.get(&key("a", 0)), None);
        assert!(known.get(&key("a", 1)).is_some());
        known.keep(key("a", most + 1), Bytes::from(vec![0; MAX_DOCUMENT + 1]));
        assert_eq!(known.get(&key("a", most + 1)), None);
    }
}
