//! The import: an image that a build names as a cache source is read and checked, and the daemon is
//! told where to import it from.
//!
//! As a rule, the daemon imports an image in a registry from there, by the digest of the manifest that
//! was checked. inlay serves all other images, images whose cache the daemon would not find, and images
//! that share steps. It serves them from a registry on a loopback address, or, if the daemon cannot reach
//! that, as a content store on the client's own session.

mod combine;
mod credentials;
pub mod documents;
pub mod image;
pub mod loopback;
pub mod memory;
mod reading;
mod store;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, stream};
use oci_spec::image::Descriptor;
use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use self::combine::{Combination, combine};
use self::credentials::ClientCredentials;
use self::image::{CachedImage, ImageError, MAX_DOCUMENT};
use self::loopback::{InFlight, Offered, Root};
use self::memory::Share;
use self::reading::{Documents, Found, ReadingError, stat_layers};
use self::store::ImportStore;
use super::policy::RegistryImports;
use super::shared::Shared;
use crate::cache::image::{Platform, manifest};
use crate::cache::record::Digest;
use crate::daemon::{Daemon, new_id};
use crate::protocol::imports::{Entry, REF, REGISTRY, Verdict};
use crate::session::Offer;
use crate::source::location::{self, LocationError};
use crate::source::{Location, Source, SourceError};

/// The attribute with the namespace of a containerd image.
const NAMESPACE: &str = "namespace";
/// The daemon looks for the store `local:NAME` where an import says `src=NAME`.
const STORE_PREFIX: &str = "local:";

/// The most imports of a build that are used. Further ones are dropped.
pub const MAX_IMPORTS: usize = 64;
/// The most imports of a build that are read: some have no cache, and are not used.
const MAX_READ: usize = 4 * MAX_IMPORTS;
/// The timeout for fetching an image's documents, which are small. A build waits for it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a registry may take for its first answer to inlay, before inlay has the daemon ask it, too.
const ASKING_DELAY: Duration = Duration::from_secs(1);
/// The same where the daemon can read the image without inlay.
const SHORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The imports of one build.
#[derive(Debug)]
pub struct Imports {
    shared: Arc<Shared>,
    daemon: Daemon,
    session: String,
    platforms: Vec<Platform>,
    batches: Mutex<Vec<Arc<Batch>>>,
    _in_flight: Arc<InFlight>,
}

/// Imports that are named together: those of the solve, or those that a gateway call adds.
#[derive(Debug)]
pub struct Batch {
    entries: Vec<Entry>,
    /// How many imports the build had before.
    before: usize,
    outcomes: OnceCell<Vec<Outcome>>,
    /// Whether the user has been told of them.
    told: AtomicBool,
}

/// What became of an import.
#[derive(Debug)]
pub struct Outcome {
    /// The image, as the user named it.
    pub reference: String,
    /// What the user is told.
    pub note: Note,
    entry: Entry,
    verdict: Verdict,
    images: Arc<[CachedImage]>,
    /// Where their layers are read from.
    source: Option<Arc<dyn Source>>,
    served: Option<Served>,
    /// The memory of its images and of what is served.
    _memory: Option<Share>,
}

/// What a user is told of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Nothing: the daemon says it all.
    Nothing,
    /// What is imported.
    Step(String),
    /// Why it is not used.
    Warning(String),
}

/// An import that inlay serves.
#[derive(Debug)]
struct Served {
    store: Arc<ImportStore>,
    _way: Way,
}

/// The way by which a daemon imports what inlay serves.
#[derive(Debug)]
enum Way {
    /// From a registry. The daemon reads a layer when a step needs it.
    Loopback { _offered: Offered },
    /// From a content store on the client's session.
    Session { _offer: Offer },
}

// === impl Imports ===

impl Imports {
    /// The imports of a build that inlay reads, as its solve names them. Nothing is read yet. `platforms`
    /// are those that the build names; the daemon's own is added.
    pub fn new(
        shared: Arc<Shared>,
        daemon: Daemon,
        entries: Vec<Entry>,
        session: String,
        platforms: Vec<Platform>,
    ) -> Self {
        let in_flight = shared.loopback.enter();
        let imports = Self {
            shared,
            daemon,
            session,
            platforms,
            batches: Mutex::default(),
            _in_flight: in_flight,
        };
        imports.add(entries);
        imports
    }

    /// Whether the build has no import.
    pub fn is_empty(&self) -> bool {
        self.batches().is_empty()
    }

    /// Reads the imports of the solve.
    pub async fn read_first(&self) {
        let first = self.batches().first().cloned();
        if let Some(first) = first {
            self.outcomes(&first).await;
        }
    }

    /// Reads these imports, unless they have been read, and returns the batches that they are in.
    pub async fn read(&self, entries: &[Entry]) -> Vec<Arc<Batch>> {
        self.add(entries.to_vec());
        let mut batches = self.batches().clone();
        batches.retain(|batch| entries.iter().any(|entry| batch.entries.contains(entry)));
        for batch in &batches {
            self.outcomes(batch).await;
        }
        batches
    }

    /// The images of each import that has been read.
    pub fn images(&self) -> Vec<Arc<[CachedImage]>> {
        let batches = self.batches();
        let outcomes = batches.iter().flat_map(|batch| batch.outcomes());
        outcomes
            .map(|outcome| Arc::clone(&outcome.images))
            .collect()
    }

    /// What the daemon has read of each image that inlay serves.
    pub fn served(&self) -> Vec<(String, store::Moved)> {
        let batches = self.batches();
        let outcomes = batches.iter().flat_map(|batch| batch.outcomes());
        let served = outcomes.filter_map(|outcome| {
            let served = outcome.served.as_ref()?;
            Some((outcome.reference.clone(), served.store.moved()))
        });
        served.collect()
    }

    /// Adds the imports that are new, unless the build has [`MAX_READ`] already.
    fn add(&self, mut entries: Vec<Entry>) {
        let mut batches = self.batches();
        entries.retain(|entry| !batches.iter().any(|batch| batch.entries.contains(entry)));
        let before = batches.iter().map(|batch| batch.entries.len()).sum();
        if entries.is_empty() || before >= MAX_READ {
            return;
        }
        batches.push(Arc::new(Batch {
            entries,
            before,
            outcomes: OnceCell::new(),
            told: AtomicBool::new(false),
        }));
    }

    /// How many imports of earlier batches are used.
    fn used_before(&self, batch: &Batch) -> usize {
        let batches = self.batches();
        let earlier = batches.iter().filter(|other| other.before < batch.before);
        let outcomes = earlier.flat_map(|earlier| earlier.outcomes());
        outcomes.filter(|of| of.is_used()).count()
    }

    fn batches(&self) -> MutexGuard<'_, Vec<Arc<Batch>>> {
        // Each change is one call, so a panic elsewhere leaves them whole.
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the imports of a batch. The first call reads them.
    async fn outcomes<'a>(&self, batch: &'a Batch) -> &'a [Outcome] {
        batch
            .outcomes
            .get_or_init(|| async {
                let platforms = self.platforms().await;
                let mut outcomes = Vec::with_capacity(batch.entries.len());
                for (number, entry) in (batch.before..).zip(&batch.entries) {
                    outcomes.push(self.outcome(entry, number < MAX_READ, &platforms));
                }
                let mut outcomes: Vec<_> =
                    stream::iter(outcomes).buffered(MAX_IMPORTS).collect().await;
                let used = outcomes.iter_mut().filter(|of| of.is_used());
                used.skip(MAX_IMPORTS.saturating_sub(self.used_before(batch)))
                    .for_each(|of| of.refuse(&Refusal::TooMany));
                self.combine(&mut outcomes).await;
                outcomes
            })
            .await
    }

    /// The platforms whose images are of use: those that the build is for, and the daemon's own, for
    /// stages that run there.
    async fn platforms(&self) -> Vec<Platform> {
        let mut platforms = self.platforms.clone();
        match self.daemon.worker().await {
            Ok(own) => platforms.push(own.platform.into()),
            Err(status) => warn!("the daemon's platform is unknown: {}", status.message()),
        }
        platforms
    }

    async fn outcome(&self, entry: &Entry, is_read: bool, platforms: &[Platform]) -> Outcome {
        let reference = entry.image().unwrap_or("type=inline").to_owned();
        let mut outcome = Outcome {
            note: Note::Nothing,
            entry: entry.clone(),
            verdict: Verdict::Keep,
            images: Arc::default(),
            source: None,
            served: None,
            _memory: None,
            reference,
        };
        let of_daemon = entry.kind == REGISTRY;
        let limit = if of_daemon { SHORT_TIMEOUT } else { TIMEOUT };
        let judged = match is_read {
            true => self.judge(&mut outcome, platforms, limit).await,
            false => Err(Refusal::TooMany),
        };
        let may_pass = self.may_be_left(entry);
        let reference = &outcome.reference;
        match judged {
            Ok(()) => {}
            // The daemon may be able to read it, and tells the user if not.
            Err(refusal) if may_pass && refusal.is_fetching() => {
                info!(image = reference, "not checked: {refusal}");
                if !refusal.is_missing() {
                    let text = format!("{reference} is left to the daemon, unchecked: {refusal}");
                    outcome.note = Note::Step(text);
                }
            }
            Err(Refusal::NoCache) if of_daemon => {
                outcome.note = Note::Step(format!("{reference} has no inline cache"));
                outcome.drop_import();
            }
            Err(refusal) => outcome.refuse(&refusal),
        }
        outcome
    }

    /// Reads and checks the cache of an import, and decides what is imported in its place. `limit` is
    /// the timeout for fetching it, and again for checking it.
    async fn judge(
        &self,
        outcome: &mut Outcome,
        platforms: &[Platform],
        limit: Duration,
    ) -> Result<(), Refusal> {
        let entry = &outcome.entry;
        let reference = entry.image().ok_or(Refusal::Unnamed)?;
        let location = match entry.kind.as_str() {
            REGISTRY => Location::Registry(location::reference(reference)?),
            _ => reference.parse()?,
        };
        let memory = &self.shared.import_memory;
        let _reading = memory.read().await.ok_or(Refusal::Busy)?;
        let fetch = async {
            let source: Arc<dyn Source> = self.open(entry, &location).await?.into();
            debug!(image = reference, "reading the cache of an image");
            let documents =
                Documents::fetch(&*source, &self.shared.known_documents, platforms).await?;
            Ok::<_, ReadingError>((source, documents))
        };
        let fetch = async {
            let fetched = timeout(limit, fetch).await;
            Ok(fetched.map_err(|_| Refusal::TimedOut(limit))??)
        };
        let (source, documents) = match &location {
            Location::Registry(name) if self.may_be_left(entry) => {
                self.fetch_or_ask(&name.whole(), fetch).await?
            }
            _ => fetch.await?,
        };
        let bytes = documents.bytes;
        let skipped = match documents.skipped {
            0 => String::new(),
            1 => "; an entry of its index is not read".to_owned(),
            many => format!("; {many} entries of its index are not read"),
        };
        // How long this takes is up to the image. If a slow check left it to the daemon, it could avoid
        // the check.
        let checked = timeout(limit, documents.check(memory)).await;
        let found = checked.map_err(|_| Refusal::Slow(limit))??;
        let what = match &found {
            Found::CacheExport(_) if entry.kind != REGISTRY => return Err(Refusal::CacheExport),
            Found::CacheExport(_) => "cache",
            Found::Images(images) if images.is_empty() => return Err(Refusal::NoCache),
            Found::Images(_) => "inline cache",
        };
        let kept = memory.keep(bytes);
        let (records, layers) = (found.records(), found.layers().len());
        let takes_over = self.shared.policy.registry_imports == RegistryImports::Inlay;
        let from = match (&location, found.digests()) {
            (Location::Registry(name), Some(digests)) if !takes_over => {
                let pinned = digests.iter().map(|digest| {
                    let mut attrs = entry.attrs.clone();
                    attrs.remove(NAMESPACE);
                    attrs.insert(REF.to_owned(), pinned(name, digest));
                    Entry {
                        kind: REGISTRY.to_owned(),
                        attrs,
                    }
                });
                outcome.verdict = Verdict::Replace(pinned.collect());
                ""
            }
            _ if kept.is_none() => return Err(Refusal::Full),
            _ => {
                stat_layers(found.images(), &*source).await?;
                let layers = found.layers().into_iter().cloned();
                let layers = layers.map(|layer| (layer, Arc::clone(&source)));
                let (entry, served) = self.serve(found.documents()?, layers).await?;
                outcome.verdict = Verdict::Replace(vec![entry]);
                outcome.served = Some(served);
                ", layers through inlay"
            }
        };
        outcome.note = Note::Step(format!(
            "importing {what} from {reference}: {records} records, {layers} layers ({bytes} bytes read{from}){skipped}",
        ));
        // For a build that rebuilds the image, which then keeps its cache.
        if let (Found::Images(images), Some(_)) = (found, &kept) {
            outcome.images = images.into();
            outcome.source = Some(source);
        }
        outcome._memory = kept;
        Ok(())
    }

    /// Whether the daemon may read an import that inlay cannot fetch.
    fn may_be_left(&self, entry: &Entry) -> bool {
        let policy = self.shared.policy.registry_imports;
        entry.kind == REGISTRY && policy != RegistryImports::Inlay
    }

    /// Fetches an image that the daemon could read itself. If its registry answers neither inlay nor the
    /// daemon, it is not left to the daemon, which would wait for it much longer.
    async fn fetch_or_ask<T>(
        &self,
        image: &str,
        fetch: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let mut fetch = pin!(fetch);
        let mut asked = pin!(async {
            sleep(ASKING_DELAY).await;
            self.daemon.ask_for_image(image, &self.session).await;
        });
        let mut answers_daemon = false;
        loop {
            tokio::select! {
                fetched = &mut fetch => return match fetched {
                    Err(Refusal::Reading(ReadingError::Source(err @ SourceError::NoAnswer { .. })))
                        if !answers_daemon => Err(Refusal::Silent(err)),
                    fetched => fetched,
                },
                () = &mut asked, if !answers_daemon => answers_daemon = true,
            }
        }
    }

    /// Opens the source of an import.
    async fn open(
        &self,
        entry: &Entry,
        location: &Location,
    ) -> Result<Box<dyn Source>, SourceError> {
        let namespace = entry.attrs.get(NAMESPACE).map(String::as_str);
        let credentials = Arc::new(ClientCredentials {
            sessions: self.shared.sessions.clone(),
            session: self.session.clone(),
        });
        let access = &self.shared.policy.access;
        access.open(location, namespace, credentials).await
    }

    /// Makes one import of those that share steps, and drops those that another one contains. What cannot
    /// be combined is imported as it is.
    async fn combine(&self, outcomes: &mut [Outcome]) {
        let images: Vec<_> = outcomes.iter().map(|of| Arc::clone(&of.images)).collect();
        let decide = move || combine(&images.iter().map(|of| &of[..]).collect::<Vec<_>>());
        // A panic leaves the imports as they are.
        let Combination { contained, groups } = spawn_blocking(decide).await.unwrap_or_default();
        for (number, holder) in contained {
            let reference = &outcomes[number].reference;
            let text = format!(
                "{reference} brings no more than {}",
                outcomes[holder].reference
            );
            outcomes[number].note = Note::Step(text);
            outcomes[number].drop_import();
        }
        for group in groups {
            let images = group
                .iter()
                .map(|number| Arc::clone(&outcomes[*number].images));
            let images: Vec<_> = images.collect();
            let write = move || {
                let images = images.iter().flat_map(|images| images.iter());
                image::documents(&images.collect::<Vec<_>>())
            };
            let documents = match spawn_blocking(write).await {
                Ok(Ok(documents)) => documents.into_iter().map(Bytes::from).collect(),
                Ok(Err(err)) => {
                    debug!("imports are not combined: {err}");
                    continue;
                }
                Err(_) => continue,
            };
            if let Err(err) = self.stat_group(outcomes, &group).await {
                debug!("imports are not combined: {err}");
                continue;
            }
            let layers = group.iter().flat_map(|number| {
                let outcome = &outcomes[*number];
                let source = outcome.source.iter().cycle().cloned();
                let layers = outcome.images.iter().flat_map(CachedImage::layers);
                layers.cloned().zip(source)
            });
            let layers: Vec<_> = layers.collect();
            let (entry, served) = match self.serve(documents, layers).await {
                Ok(served) => served,
                Err(refusal) => {
                    debug!("imports are not combined: {refusal}");
                    continue;
                }
            };
            for number in &group {
                outcomes[*number].drop_import();
            }
            let first = &mut outcomes[group[0]];
            first.verdict = Verdict::Replace(vec![entry]);
            first.served = Some(served);
        }
    }

    /// Checks the layers of images that would be served as one.
    async fn stat_group(&self, outcomes: &[Outcome], group: &[usize]) -> Result<(), ReadingError> {
        let stats = group.iter().filter_map(|number| {
            let outcome = &outcomes[*number];
            let source = outcome.source.as_ref()?;
            Some(stat_layers(&outcome.images, &**source))
        });
        try_join_all(stats).await.map(drop)
    }

    /// Offers a checked cache to the daemon: documents, of which the last one is to be imported, and
    /// layers. Returns the import of what is offered.
    async fn serve(
        &self,
        cache: Vec<Bytes>,
        layers: impl IntoIterator<Item = (Descriptor, Arc<dyn Source>)>,
    ) -> Result<(Entry, Served), Refusal> {
        let mut documents = HashMap::new();
        let mut root = String::new();
        let mut media_type = String::new();
        for document in cache {
            if document.len() > MAX_DOCUMENT {
                return Err(Refusal::Document(document.len()));
            }
            root = Digest::of(&document).to_string();
            media_type = manifest::media_type(&document).to_string();
            documents.insert(root.clone(), document);
        }
        let store = Arc::new(ImportStore::new(documents, layers));
        let at = Root {
            digest: root.clone(),
            media_type,
        };
        let loopback = &self.shared.loopback;
        let offered = loopback
            .offer(&self.daemon, Arc::clone(&store) as _, at)
            .await;
        let (kind, attrs, way) = match offered {
            Some(offered) => {
                let attrs = [(REF.to_owned(), offered.name.clone())];
                (REGISTRY, attrs.into(), Way::Loopback { _offered: offered })
            }
            None => {
                let session = self.shared.sessions.get(&self.session).await;
                let session = session.ok_or(Refusal::NoSession)?;
                let name = format!("inlay-{}", new_id());
                let offer =
                    session.offer(&format!("{STORE_PREFIX}{name}"), Arc::clone(&store) as _);
                let attrs = [("src".to_owned(), name), ("digest".to_owned(), root)];
                ("local", attrs.into(), Way::Session { _offer: offer })
            }
        };
        let entry = Entry {
            kind: kind.to_owned(),
            attrs,
        };
        Ok((entry, Served { store, _way: way }))
    }
}

// === impl Batch ===

impl Batch {
    /// What became of them, if they have been read.
    pub fn outcomes(&self) -> &[Outcome] {
        self.outcomes.get().map_or(&[], Vec::as_slice)
    }

    /// Whether the user is still to be told of them. Only the first call returns `true`.
    pub fn is_to_be_told(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether the daemon imports what was checked.
    fn is_used(&self) -> bool {
        matches!(self.verdict, Verdict::Replace(_))
    }

    /// The daemon does not import it. Its images stay known.
    fn drop_import(&mut self) {
        self.verdict = Verdict::Drop;
        self.served = None;
    }

    /// Nothing is imported, and the user is told why.
    fn refuse(&mut self, refusal: &Refusal) {
        self.drop_import();
        let text = format!("no cache is imported from {}: {refusal}", self.reference);
        self.note = Note::Warning(text);
    }
}

/// How many of these imports are in no batch, since the build has too many.
pub fn left_out(batches: &[Arc<Batch>], entries: &[Entry]) -> usize {
    let is_left_out = |entry: &&Entry| !batches.iter().any(|batch| batch.entries.contains(entry));
    entries.iter().filter(is_left_out).count()
}

/// What becomes of an import that inlay reads. One beyond the limit of a build is dropped.
pub fn verdict(batches: &[Arc<Batch>], entry: &Entry) -> Verdict {
    let mut outcomes = batches.iter().flat_map(|batch| batch.outcomes());
    let outcome = outcomes.find(|outcome| outcome.entry == *entry);
    outcome.map_or(Verdict::Drop, |outcome| outcome.verdict.clone())
}

/// The name of an image with a digest.
fn pinned(name: &oci_spec::distribution::Reference, digest: &str) -> String {
    let tag = name.tag().map_or(String::new(), |tag| format!(":{tag}"));
    format!("{}/{}{tag}@{digest}", name.registry(), name.repository())
}

/// Why an import is dropped, or left to the daemon.
#[derive(Debug, Error)]
enum Refusal {
    #[error("it names no image: write type=inline,ref=IMAGE")]
    Unnamed,
    #[error(transparent)]
    Location(#[from] LocationError),
    #[error(transparent)]
    Reading(#[from] ReadingError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("it could not be read within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("it could not be checked within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("it is a cache that was exported by itself: import it with type=registry")]
    CacheExport,
    #[error("it has no inline cache")]
    NoCache,
    #[error(
        "its cache makes a document of {0} bytes, and BuildKit imports none above {MAX_DOCUMENT}"
    )]
    Document(usize),
    #[error("the imports of other builds are read first, and took too long")]
    Busy,
    #[error("what inlay serves to builds takes all the memory there is for it")]
    Full,
    #[error("the build has no session over which inlay could serve it")]
    NoSession,
    #[error("a build may have {MAX_IMPORTS} imports")]
    TooMany,
    #[error("{0}, and does not answer the daemon either")]
    Silent(SourceError),
}

// === impl Refusal ===

impl Refusal {
    /// Whether the image could not be fetched, which says nothing of its cache. Such an import may be
    /// left to the daemon. What was received and is refused may not: an image could avoid the check.
    fn is_fetching(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Busy => true,
            Self::Reading(err) => err.is_fetching(),
            Self::Unnamed
            | Self::Location(_)
            | Self::Image(_)
            | Self::Slow(_)
            | Self::CacheExport
            | Self::NoCache
            | Self::Document(_)
            | Self::Full
            | Self::NoSession
            | Self::TooMany
            | Self::Silent(_) => false,
        }
    }

    /// Whether there is no such image.
    fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Reading(ReadingError::Source(SourceError::Missing(_)))
        )
    }
}

#[cfg(test)]
mod tests;
