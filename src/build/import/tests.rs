//! What becomes of an import that is refused, for every way to refuse one.

use std::io;

use bytes::Bytes;
use oci_spec::image::{Descriptor, MediaType};

use super::documents::KnownDocuments;
use super::image::ImageError;
use super::memory::ImportMemory;
use super::reading::Documents;
use super::*;
use crate::build::policy::Policy;
use crate::cache::image::manifest::{Document, ManifestError};
use crate::source::{ByteStream, CredentialsError};

/// Every error of a source, and whether the import may be left to the daemon.
fn source_errors() -> Vec<(SourceError, bool)> {
    let what = || "it".to_owned();
    let reason = what;
    let credentials = CredentialsError {
        host: what(),
        reason: reason(),
    };
    let all = vec![
        (SourceError::Missing(what()), true),
        (
            SourceError::Denied {
                what: what(),
                reason: reason(),
            },
            true,
        ),
        (
            SourceError::Several {
                what: what(),
                count: 2,
            },
            true,
        ),
        (SourceError::NotAllowed(what()), true),
        (
            SourceError::Closed {
                what: what(),
                reason: "no",
            },
            true,
        ),
        (
            SourceError::TooLarge {
                what: what(),
                limit: 1,
            },
            false,
        ),
        (
            SourceError::Digest {
                what: what(),
                expected: what(),
                found: what(),
            },
            false,
        ),
        (
            SourceError::Malformed {
                what: what(),
                reason: reason(),
            },
            false,
        ),
        (
            SourceError::Io {
                what: what(),
                error: io::ErrorKind::Other.into(),
            },
            true,
        ),
        (
            SourceError::Unavailable {
                what: what(),
                reason: reason(),
            },
            true,
        ),
        (
            SourceError::NoAnswer {
                what: what(),
                host: what(),
                seconds: 1,
            },
            true,
        ),
        (SourceError::Credentials(credentials), true),
    ];
    let kinds = all.iter().map(|(err, _)| match err {
        SourceError::Missing(_) => 0,
        SourceError::Denied { .. } => 1,
        SourceError::Several { .. } => 2,
        SourceError::NotAllowed(_) => 3,
        SourceError::Closed { .. } => 4,
        SourceError::TooLarge { .. } => 5,
        SourceError::Digest { .. } => 6,
        SourceError::Malformed { .. } => 7,
        SourceError::Io { .. } => 8,
        SourceError::Unavailable { .. } => 9,
        SourceError::NoAnswer { .. } => 10,
        SourceError::Credentials(_) => 11,
    });
    assert!(kinds.eq(0..12), "each kind is there");
    all
}

/// Every error of a reader, and whether the import may be left to the daemon.
fn reading_errors() -> Vec<(ReadingError, bool)> {
    let digest = || "sha256:0".to_owned();
    let missing = || SourceError::Missing("it".to_owned());
    let fetching = source_errors().into_iter();
    let mut all: Vec<_> = fetching
        .map(|(err, passes)| (ReadingError::Source(err), passes))
        .collect();
    let refused = [
        ReadingError::Manifest {
            digest: digest(),
            reason: ManifestError::Ambiguous,
        },
        ReadingError::Incomplete {
            digest: digest(),
            reason: missing(),
        },
        ReadingError::Platform(Vec::new()),
        ReadingError::CacheExport {
            digest: digest(),
            reason: ImageError::Loop,
        },
        ReadingError::Image {
            digest: digest(),
            reason: ImageError::Loop,
        },
        ReadingError::Panicked,
        ReadingError::Layer {
            digest: digest(),
            reason: missing(),
        },
        ReadingError::TooLarge(1),
    ];
    all.extend(refused.into_iter().map(|err| (err, false)));
    let kinds = all.iter().map(|(err, _)| match err {
        ReadingError::Source(_) => 0,
        ReadingError::Manifest { .. } => 1,
        ReadingError::Incomplete { .. } => 2,
        ReadingError::Platform(_) => 3,
        ReadingError::CacheExport { .. } => 4,
        ReadingError::Image { .. } => 5,
        ReadingError::Panicked => 6,
        ReadingError::Layer { .. } => 7,
        ReadingError::TooLarge(_) => 8,
    });
    let mut kinds: Vec<_> = kinds.collect();
    kinds.dedup();
    assert_eq!(kinds, Vec::from_iter(0..9), "each kind is there");
    all
}

#[test]
fn only_what_could_not_be_fetched_may_be_left_to_the_daemon() {
    let second = Duration::from_secs(1);
    let missing = || SourceError::Missing("it".to_owned());
    let location = "App".parse::<Location>().unwrap_err();
    let reading = reading_errors().into_iter();
    let mut all: Vec<_> = reading
        .map(|(err, passes)| (Refusal::Reading(err), passes))
        .collect();
    all.extend([
        (Refusal::Location(location), false),
        (Refusal::TimedOut(second), true),
        (Refusal::Slow(second), false),
        (Refusal::CacheExport, false),
        (Refusal::NoCache, false),
        (Refusal::Document(1), false),
        (Refusal::NoSession, false),
        (Refusal::TooMany, false),
        (Refusal::Image(ImageError::Loop), false),
        (Refusal::Busy, true),
        (Refusal::Full, false),
        (Refusal::Unnamed, false),
        (Refusal::Silent(missing()), false),
    ]);
    let kinds = all.iter().map(|(refusal, _)| match refusal {
        Refusal::Reading(_) => 0,
        Refusal::Location(_) => 1,
        Refusal::TimedOut(_) => 2,
        Refusal::Slow(_) => 3,
        Refusal::CacheExport => 4,
        Refusal::NoCache => 5,
        Refusal::Document(_) => 6,
        Refusal::NoSession => 7,
        Refusal::TooMany => 8,
        Refusal::Image(_) => 9,
        Refusal::Busy => 10,
        Refusal::Full => 11,
        Refusal::Unnamed => 12,
        Refusal::Silent(_) => 13,
    });
    let mut kinds: Vec<_> = kinds.collect();
    kinds.dedup();
    assert_eq!(kinds, Vec::from_iter(0..14), "each kind is there");
    for (refusal, passes) in all {
        assert_eq!(refusal.is_fetching(), passes, "{refusal:?}");
    }
}

/// An image in memory. What it does not have is missing.
#[derive(Debug, Default)]
struct Memory {
    root: Bytes,
    blobs: HashMap<String, Bytes>,
}

impl Memory {
    fn put(&mut self, blob: impl Into<Bytes>) -> (String, usize) {
        let blob = blob.into();
        let digest = Digest::of(&blob).to_string();
        self.blobs.insert(digest.clone(), blob.clone());
        (digest, blob.len())
    }

    /// Why its cache is refused, and whether it may be left to the daemon.
    async fn refusal(&self) -> (String, bool) {
        let platforms = [Platform::parse("linux/amd64").unwrap()];
        let read = async {
            let documents = Documents::fetch(self, &KnownDocuments::default(), &platforms).await?;
            documents.check(&ImportMemory::default()).await
        };
        let err = read.await.unwrap_err();
        (err.to_string(), err.is_fetching())
    }
}

#[tonic::async_trait]
impl Source for Memory {
    async fn root(&self, _: u64) -> Result<(Descriptor, Bytes), SourceError> {
        let digest = Digest::of(&self.root).to_string();
        let digest: oci_spec::image::Digest = digest.parse().unwrap();
        let size = self.root.len() as u64;
        let root = Descriptor::new(MediaType::ImageManifest, size, digest);
        Ok((root, self.root.clone()))
    }

    async fn read(
        &self,
        descriptor: &Descriptor,
        range: std::ops::Range<u64>,
    ) -> Result<ByteStream, SourceError> {
        let digest = descriptor.digest().as_ref();
        let blob = self.blobs.get(digest);
        let blob = blob.ok_or_else(|| SourceError::Missing(digest.to_owned()))?;
        let part = blob.slice(range.start as usize..range.end as usize);
        Ok(stream::iter([Ok(part)]).boxed())
    }

    async fn stat(&self, _: &Descriptor) -> Result<(), SourceError> {
        Ok(())
    }
}

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A manifest whose config is what `config` says.
fn manifest(config: &str) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{config},"layers":[]}}"#)
}

fn descriptor(media_type: &str, (digest, size): (String, usize)) -> String {
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size},
            "platform":{{"os":"linux","architecture":"amd64"}}}}"#
    )
}

#[tokio::test]
async fn documents_that_go_reads_and_inlay_does_not_are_refused() {
    let mut memory = Memory::default();
    let config = memory.put("{}");
    let config = descriptor("application/vnd.oci.image.config.v1+json", config);
    let sound = manifest(&config);
    let sha512 = (format!("sha512:{:0128}", 0), 2);
    let with_type = |media_type: &[u8]| {
        let rest = &sound.as_bytes()[1..];
        let rest = &rest[rest.windows(8).position(|at| at == b"\"config\"").unwrap()..];
        [b"{\"mediaType\":\"", media_type, b"\",", rest].concat()
    };
    let documents = [
        sound
            .replacen('{', &format!(r#"{{"mediaType":"{MANIFEST_TYPE}","#), 1)
            .into_bytes(),
        with_type(b"x\xff"),
        with_type(br"\ud800"),
        manifest(&descriptor("application/octet-stream", sha512)).into_bytes(),
        b"not JSON".to_vec(),
        b"[]".to_vec(),
    ];
    for document in documents {
        // By itself, and in an index.
        let (digest, size) = memory.put(document.clone());
        let entry = descriptor(MANIFEST_TYPE, (digest, size));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
        for root in [document, index.into_bytes()] {
            memory.root = root.into();
            let (refusal, may_pass) = memory.refusal().await;
            assert!(!may_pass, "{refusal}: {:?}", memory.root);
        }
    }
    let twice = format!(r#"{{"manifests":[],"manifests":[{config}]}}"#);
    memory.root = twice.into();
    assert!(!memory.refusal().await.1);
}

#[tokio::test]
async fn an_image_that_lacks_a_part_is_refused() {
    let mut memory = Memory::default();
    let absent = || (Digest::of(b"absent").to_string(), 6);
    let config = descriptor("application/vnd.oci.image.config.v1+json", absent());
    memory.root = manifest(&config).into();
    let (refusal, may_pass) = memory.refusal().await;
    assert!(refusal.contains("is incomplete") && !may_pass, "{refusal}");

    let entry = descriptor(MANIFEST_TYPE, absent());
    memory.root = format!(r#"{{"manifests":[{entry}]}}"#).into();
    let (refusal, may_pass) = memory.refusal().await;
    assert!(refusal.contains("is incomplete") && !may_pass, "{refusal}");
}

#[tokio::test]
async fn a_cache_that_was_exported_by_itself_is_checked() {
    const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
    let digest = |text: &str| Digest::of(text.as_bytes());
    let layer = |media_type: &str| {
        let blob = (digest("layer").to_string(), 5);
        descriptor(media_type, blob)
    };
    let plain = layer("application/vnd.oci.image.layer.v1.tar+gzip");
    let records = |second: usize| {
        format!(
            r#"{{"layers":[{{"blob":"{layer}","parent":-1}},{{"blob":"{layer}","parent":0}}],
                "records":[{{"digest":"{one}","layers":[{{"layer":0}}]}},
                    {{"digest":"{two}","inputs":[[{{"link":0}}]],"layers":[{{"layer":{second}}}]}}]}}"#,
            layer = digest("layer"),
            one = digest("one"),
            two = digest("two"),
        )
    };
    let mut memory = Memory::default();
    let mut read = async |config: &str, layer: &str| {
        let config = memory.put(config.to_owned());
        let config = descriptor(CACHE_CONFIG, config);
        let mut refusals = Vec::new();
        // As BuildKit writes it, and as it did before v0.12.
        for root in [
            manifest(&config).replace("[]", &format!("[{layer}]")),
            format!(r#"{{"manifests":[{layer},{config}]}}"#),
        ] {
            assert!(Document::read(root.as_bytes()).unwrap().is_cache_export());
            memory.root = root.into();
            match Documents::fetch(&memory, &KnownDocuments::default(), &[])
                .await
                .unwrap()
                .check(&ImportMemory::default())
                .await
            {
                Ok(Found::CacheExport(export)) => {
                    assert_eq!((export.records, export.layers.len()), (2, 1));
                    assert_eq!(export.digest, Digest::of(&memory.root).as_str());
                }
                Ok(found) => panic!("{found:?}"),
                Err(err) => {
                    assert!(!err.is_fetching());
                    refusals.push(err.to_string());
                }
            }
        }
        refusals
    };
    assert_eq!(read(&records(1), &plain).await, [""; 0]);
    // A result that is moved to another layer.
    let refusals = read(&records(0), &plain).await;
    assert_eq!(refusals.len(), 2);
    assert!(refusals[0].contains("contradict"), "{refusals:?}");
    assert_eq!(read("{", &plain).await.len(), 2);
    let refusals = read(&records(1), &layer("text/plain")).await;
    assert!(refusals[0].contains("has the media type"), "{refusals:?}");

    // Which of two configs BuildKit reads depends on their order.
    let config = memory.put(records(1));
    let config = descriptor(CACHE_CONFIG, config);
    for more in [
        config.clone(),
        descriptor(CACHE_CONFIG, (format!("sha512:{:0128}", 0), 2)),
    ] {
        memory.root = format!(r#"{{"manifests":[{config},{more}]}}"#).into();
        let (refusal, may_pass) = memory.refusal().await;
        assert!(!may_pass, "{refusal}");
    }
}

#[tokio::test]
async fn a_build_names_no_more_imports_than_are_read() {
    let daemon = Daemon::new(Arc::new("unix:///nowhere".parse().unwrap()));
    // Without an image, they are refused at once.
    let entry = |number: usize| Entry {
        kind: "inline".to_owned(),
        attrs: [("number".to_owned(), number.to_string())].into(),
    };
    let shared = Arc::new(Shared::new(Policy::of_tests()));
    let of_solve = vec![entry(0)];
    let imports = Imports::new(shared, daemon, of_solve, String::new(), Vec::new());
    let entries = |numbers: std::ops::Range<usize>| numbers.map(entry).collect::<Vec<_>>();
    let batches = imports.read(&entries(0..MAX_READ)).await;
    let outcomes = batches.iter().map(|batch| batch.outcomes().len());
    assert_eq!(outcomes.collect::<Vec<_>>(), [1, MAX_READ - 1]);
    let told = batches.iter().map(|batch| batch.is_to_be_told());
    assert_eq!(told.collect::<Vec<_>>(), [true, true]);
    let named = entries(1..2 * MAX_READ);
    let again = imports.read(&named).await;
    assert_eq!((again.len(), left_out(&again, &named)), (1, MAX_READ));
    assert!(!again[0].is_to_be_told());
    assert_eq!(verdict(&again, &entry(MAX_READ)), Verdict::Drop);
}
