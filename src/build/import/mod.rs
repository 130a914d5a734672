//! The import: an image that a build names as a cache source is read and checked, and the daemon is
//! told where to import it from.
//!
//! Top to bottom: which imports are of images, what each of them is, and what goes on in its place.
//! An image in a registry stays where it is, and the daemon reads it there, by the digest of what
//! was checked. Every other image, and one whose cache the daemon would not find, is offered to it
//! as a content store on the client's own session.
//!
//! It knows the order of things, and leaves reading, checking and requests to their modules.

mod credentials;

pub mod image;
mod reading;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::credentials::OfSession;
use self::image::{CachedImage, MAX_DOCUMENT};
use self::reading::{Found, ReadingError};
use self::store::ImportStore;
use super::policy::RegistryImports;
use super::shared::Shared;
use crate::cache::image::Platform;
use crate::cache::record::Digest;
use crate::daemon::new_id;
use crate::protocol::imports::{Entry, REF, REGISTRY, Verdict};
use crate::session::Offer;
use crate::source::location::{self, LocationError};
use crate::source::{Location, Source, SourceError};

/// The attribute with the namespace of a containerd image.
const NAMESPACE: &str = "namespace";
/// The daemon looks for the store `local:NAME` where an import says `src=NAME`.
const STORE_PREFIX: &str = "local:";

/// How many imports of a build are looked at. The others go on as they are, or do not go on.
const MAX_IMPORTS: usize = 64;
/// How many of them are read at a time.
const AT_A_TIME: usize = 4;
/// How long an image may take: it is some small documents. A build waits for it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take where the daemon can do without inlay.
const SHORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The imports of one build.
#[derive(Debug)]
pub struct Imports {
    shared: Arc<Shared>,
    entries: Vec<Entry>,
    session: String,
    platforms: Vec<Platform>,
    outcomes: OnceCell<Vec<Outcome>>,
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
    images: Vec<CachedImage>,
    served: Option<Served>,
}

/// What a user is told of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Nothing: the daemon says it all.
    Nothing,
    /// What it is.
    Step(String),
    /// Why it is not used.
    Warning(String),
}

/// An import that inlay serves.
#[derive(Debug)]
struct Served {
    store: Arc<ImportStore>,
    _offered: Offer,
}

// === impl Imports ===

impl Imports {
    /// The imports of a build, those that inlay looks at; nothing is read yet. `platforms` are the
    /// build's, or none for the daemon's own.
    pub fn new(
        shared: Arc<Shared>,
        entries: Vec<Entry>,
        session: String,
        platforms: Vec<Platform>,
    ) -> Self {
        Self {
            shared,
            entries,
            session,
            platforms,
            outcomes: OnceCell::new(),
        }
    }

    /// Those that inlay looks at.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What became of them; reads them if that is still to be done.
    pub async fn outcomes(&self) -> &[Outcome] {
        self.outcomes
            .get_or_init(|| async {
                let platforms = self.platforms().await;
                let mut outcomes = Vec::with_capacity(self.entries.len());
                for (number, entry) in self.entries.iter().enumerate() {
                    outcomes.push(self.outcome(entry, number < MAX_IMPORTS, &platforms));
                }
                stream::iter(outcomes).buffered(AT_A_TIME).collect().await
            })
            .await
    }

    /// The images that they are, as far as they have been read.
    pub fn images(&self) -> impl Iterator<Item = &CachedImage> {
        let outcomes = self.outcomes.get().into_iter().flatten();
        outcomes.flat_map(|outcome| &outcome.images)
    }

    /// What inlay has given to the daemon of each image that it serves.
    pub fn served(&self) -> impl Iterator<Item = (&str, store::Moved)> {
        let outcomes = self.outcomes.get().into_iter().flatten();
        outcomes.filter_map(|outcome| {
            let served = outcome.served.as_ref()?;
            Some((outcome.reference.as_str(), served.store.moved()))
        })
    }

    /// The platforms whose images may be of use: those that the build is for, and the daemon's own,
    /// for stages that run there.
    async fn platforms(&self) -> Vec<Platform> {
        let mut platforms = self.platforms.clone();
        match self.shared.daemon.worker().await {
            Ok(own) => platforms.push(own.platform.into()),
            Err(status) => warn!("the daemon's platform is unknown: {}", status.message()),
        }
        platforms
    }

    async fn outcome(&self, entry: &Entry, is_read: bool, platforms: &[Platform]) -> Outcome {
        let reference = entry.image().unwrap_or_default().to_owned();
        let mut outcome = Outcome {
            note: Note::Nothing,
            entry: entry.clone(),
            verdict: Verdict::Keep,
            images: Vec::new(),
            served: None,
            reference,
        };
        let of_daemon = entry.kind == REGISTRY;
        let limit = if of_daemon { SHORT_TIMEOUT } else { TIMEOUT };
        let judged = match is_read {
            true => timeout(limit, self.judge(&mut outcome, platforms)).await,
            false => Ok(Err(Refusal::TooMany)),
        };
        let reference = &outcome.reference;
        match judged.unwrap_or(Err(Refusal::TimedOut(limit))) {
            Ok(()) => {}
            // The daemon may get at it where inlay does not, and says so if not.
            Err(refusal) if of_daemon && refusal.is_of_inlay() => {
                info!(image = reference, "not checked: {refusal}");
                if !refusal.is_missing() {
                    let text = format!("{reference} is left to the daemon, unchecked: {refusal}");
                    outcome.note = Note::Step(text);
                }
            }
            Err(refusal) => {
                outcome.verdict = Verdict::Drop;
                outcome.note = match refusal {
                    Refusal::NoCache if of_daemon => {
                        Note::Step(format!("{reference} has no inline cache"))
                    }
                    _ => Note::Warning(format!("no cache is imported from {reference}: {refusal}")),
                };
            }
        }
        outcome
    }

    /// Reads an image and decides what is imported in its place.
    async fn judge(&self, outcome: &mut Outcome, platforms: &[Platform]) -> Result<(), Refusal> {
        let entry = &outcome.entry;
        let location = match entry.kind.as_str() {
            REGISTRY => Location::Registry(location::reference(&outcome.reference)?),
            _ => outcome.reference.parse()?,
        };
        let namespace = entry.attrs.get(NAMESPACE).map(String::as_str);
        let credentials = Arc::new(OfSession {
            sessions: self.shared.sessions.clone(),
            id: self.session.clone(),
        });
        let access = &self.shared.policy.access;
        let source = access.open(&location, namespace, credentials).await;
        let source = source.map_err(ReadingError::from)?;
        debug!(image = outcome.reference, "reading the cache of an image");
        let (images, bytes) = match reading::read(&*source, platforms).await? {
            // `type=registry` is of those as well, and the daemon knows them.
            Found::CacheExport if entry.kind == REGISTRY => return Ok(()),
            Found::CacheExport => return Err(Refusal::CacheExport),
            Found::Images { images, bytes } => (images, bytes),
        };
        let records: usize = images.iter().map(|image| image.set().records().len()).sum();
        let layers: usize = images.iter().map(|image| image.layers().len()).sum();
        if images.is_empty() {
            return Err(Refusal::NoCache);
        }
        let importable = images.iter().all(CachedImage::is_importable);
        let takes_over = self.shared.policy.registry_imports == RegistryImports::Inlay;
        let in_place = match &location {
            Location::Registry(name) if importable && !takes_over => Some(name),
            _ => None,
        };
        let from = match in_place {
            Some(name) => {
                // By the manifests, and not by an index: of that the daemon reads every image.
                let pinned = images.iter().map(|image| {
                    let mut attrs = entry.attrs.clone();
                    attrs.remove(NAMESPACE);
                    attrs.insert(REF.to_owned(), pinned(name, image.digest()));
                    Entry {
                        kind: REGISTRY.to_owned(),
                        attrs,
                    }
                });
                outcome.verdict = Verdict::Replace(pinned.collect());
                ""
            }
            None => {
                let (entry, served) = self.serve(&images, source.into()).await?;
                outcome.verdict = Verdict::Replace(vec![entry]);
                outcome.served = Some(served);
                ", layers through inlay"
            }
        };
        outcome.images = images;
        outcome.note = Note::Step(format!(
            "importing inline cache from {}: {records} records, {layers} layers ({bytes} bytes read{from})",
            outcome.reference
        ));
        Ok(())
    }

    /// Offers images to the daemon; gives the import of what is offered.
    async fn serve(
        &self,
        images: &[CachedImage],
        source: Arc<dyn Source>,
    ) -> Result<(Entry, Served), Refusal> {
        let session = self.shared.sessions.get(&self.session).await;
        let session = session.ok_or(Refusal::NoSession)?;
        let mut documents = HashMap::new();
        let mut root = String::new();
        for document in image::documents(images) {
            if document.len() > MAX_DOCUMENT {
                return Err(Refusal::Document(document.len()));
            }
            root = Digest::of(&document).to_string();
            documents.insert(root.clone(), Bytes::from(document));
        }
        let layers = images.iter().flat_map(CachedImage::layers).cloned();
        let store = Arc::new(ImportStore::new(documents, layers, source));
        let name = format!("inlay-{}", new_id());
        let offered = session.offer(&format!("{STORE_PREFIX}{name}"), Arc::clone(&store) as _);
        let attrs = [("src".to_owned(), name), ("digest".to_owned(), root)];
        let entry = Entry {
            kind: "local".to_owned(),
            attrs: attrs.into(),
        };
        let served = Served {
            store,
            _offered: offered,
        };
        Ok((entry, served))
    }
}

/// What becomes of an import, by what became of those that were read.
pub fn verdict(outcomes: &[Outcome], entry: &Entry) -> Verdict {
    let mut outcomes = outcomes.iter();
    let outcome = outcomes.find(|outcome| outcome.entry == *entry);
    outcome.map_or(Verdict::Keep, |outcome| outcome.verdict.clone())
}

/// The name of an image with the digest that it has now.
fn pinned(name: &oci_spec::distribution::Reference, digest: &str) -> String {
    let tag = name.tag().map_or(String::new(), |tag| format!(":{tag}"));
    format!("{}/{}{tag}@{digest}", name.registry(), name.repository())
}

/// Why an import does not go on, or goes on as it is.
#[derive(Debug, Error)]
enum Refusal {
    #[error(transparent)]
    Location(#[from] LocationError),
    #[error(transparent)]
    Reading(#[from] ReadingError),
    #[error("it could not be read within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("it is a cache that was exported by itself: import it with type=registry")]
    CacheExport,
    #[error("it has no inline cache")]
    NoCache,
    #[error(
        "its cache makes a document of {0} bytes, and BuildKit imports none above {MAX_DOCUMENT}"
    )]
    Document(usize),
    #[error("the build has no session over which inlay could serve it")]
    NoSession,
    #[error("a build may have {MAX_IMPORTS} imports")]
    TooMany,
}

// === impl Refusal ===

impl Refusal {
    /// Whether inlay cannot do it, which says nothing of the image.
    fn is_of_inlay(&self) -> bool {
        match self {
            Self::Location(_) | Self::TimedOut(_) | Self::NoSession | Self::TooMany => true,
            Self::Reading(err) => err.is_of_source(),
            Self::CacheExport | Self::NoCache | Self::Document(_) => false,
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
