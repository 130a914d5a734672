//! Solves beside a client's build, for one image each: the export of its cache, and the probe that
//! tells what the export leaves open.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::Status;
use tracing::{debug, info};

use super::committed;
use super::error::ExportError;
use crate::build::import::Imports;
use crate::build::shared::Shared;
use crate::cache::embed::{ImageCache, ImageCacheError, ImportedContents, Note};
use crate::cache::export::{self, Exported};
use crate::cache::llb::{self, Assumptions, Graph, probe::Probe};
use crate::cache::record::{Digest, ImageLayer, InlineCache, select};
use crate::daemon::{Daemon, HeldCall, Worker, new_id};
use crate::protocol::proto::control::{
    CacheOptions, CacheOptionsEntry, Exporter, SolveRequest, SolveResponse,
};
use crate::protocol::result::Image;
use crate::protocol::solve::{Inline, Plan};
use crate::session::Session;

/// The timeout for a probe. It takes some 30 ms if the daemon has the sources of the build. If not, the
/// daemon waits for a client that sends them, and none comes.
const MAX_PROBE: Duration = Duration::from_secs(10);

/// inlay's own solves beside a client's build, with its entitlements and source policies.
///
/// While the client's build is open, the daemon shares its steps with these solves: nothing runs again.
pub struct Side<'a> {
    /// What all builds share.
    pub shared: &'a Arc<Shared>,
    /// The daemon that the build is on.
    pub daemon: &'a Daemon,
    /// The client's solve request.
    pub plan: &'a Plan,
    /// The inline cache that it asks for.
    pub inline: &'a Inline,
    /// What it imports.
    pub imports: &'a Imports,
    /// How many images the result has.
    pub images: usize,
    /// Where the daemon exports to.
    pub session: &'a Session,
}

/// The solves that the cache of one image takes. They are open, and wait for their requests.
pub struct Solves {
    export: HeldCall<SolveRequest, SolveResponse>,
    probe: HeldCall<SolveRequest, SolveResponse>,
}

/// The cache of an image.
pub struct Made {
    /// As the image config has it.
    pub cache: String,
    /// What the user is to be told of it.
    pub note: Option<String>,
    /// Why inlay does not know how the daemon derives keys, if so.
    pub unknown_keys: Option<String>,
}

/// What a side solve gave.
struct Solved {
    /// The cache; `None` where the daemon has no records.
    exported: Option<Exported>,
    /// The layers of the image, where the daemon tells.
    image: Option<Vec<ImageLayer>>,
}

// === impl Solves ===

impl Solves {
    /// Opens them.
    pub fn open(daemon: &Daemon) -> Self {
        Self {
            export: daemon.hold_solve(),
            probe: daemon.hold_solve(),
        }
    }
}

// === impl Side ===

impl Side<'_> {
    /// The cache of an image; `None` if there is nothing to cache.
    pub async fn cache(
        &self,
        number: usize,
        image: &Image<'_>,
        solves: Solves,
        worker: &Worker,
    ) -> Result<Option<Made>, ExportError> {
        let definition = image.definition;
        if !has_cache(definition) {
            info!("inline cache: there is nothing to cache");
            return Ok(None);
        }
        let store = format!("{number}");
        debug!(image = number, "side solve: the daemon exports the cache");
        let limit = self.shared.policy.export_timeout;
        let exported = timeout(
            limit,
            self.solve(
                solves.export,
                definition.clone(),
                &store,
                &self.inline.compression,
                true,
            ),
        )
        .await;
        let exported = exported.map_err(|_| ExportError::TimedOut(limit))?;
        let exported = exported.inspect_err(|err| {
            if let ExportError::Solve(status) = err {
                self.daemon.cannot_export_to_sessions(status);
            }
        });
        let Solved { exported, image } = exported?;
        let assumptions = Assumptions {
            platform: Some(worker.platform.clone()),
            images_by_manifest: worker.keys_images_by_manifest(),
            imports: !self.imports.is_empty(),
            // One budget a build, in equal parts, so that the images of a build do not depend on which
            // of them is first.
            steps: Assumptions::default().steps / self.images,
        };
        let is_exported = exported.is_some();
        let read = {
            let definition = definition.clone();
            move || {
                let cache = ImageCache::read(exported.as_ref(), &definition, assumptions)?;
                let probe = cache.probe(&definition, &new_id());
                Ok::<_, ImageCacheError>((cache, probe))
            }
        };
        let (mut cache, probe) = computed(read).await??;
        let mut unanswered = None;
        if let Some(probe) = probe {
            let store = format!("{number}-probe");
            match self.ask(solves.probe, &probe, &store).await {
                Ok(Some(answer)) => {
                    let learn = move || cache.learn(&probe, &answer).map(|()| cache);
                    cache = computed(learn).await??;
                }
                Ok(None) => debug!("a probe had no answer"),
                Err(err) => {
                    debug!("no answer to a probe: {err}");
                    unanswered = Some(err);
                }
            }
        }
        let of = cache.exported();
        let diff_ids = image.as_ref().map_or_else(
            || cache.layers(),
            |image| Some(image.iter().map(|layer| layer.diff_id.clone()).collect()),
        );
        let shared = Arc::clone(self.shared);
        let imports = self.imports.images();
        let finish = move || {
            let images = imports.iter().flat_map(|images| images.iter());
            let told: Vec<_> = images
                .filter_map(|image| ImportedContents::of(image.set()))
                .collect();
            let recall = |name: &Digest| shared.recall.get(name);
            let embedded = cache.finish(image.as_deref(), &told, recall)?;
            shared.recall.remember(embedded.memory);
            Ok::<_, ImageCacheError>((embedded.cache, embedded.notes))
        };
        let finished = computed(finish).await?;
        let (cache, notes) = finished.map_err(|err| match is_exported {
            true => err.into(),
            false => ExportError::NoRecords,
        })?;
        for note in &notes {
            debug!("inline cache: {note}");
        }
        // A cache with records of other builds is sound. But the next build may embed another one.
        let is_larger = |note: &Note| match note {
            Note::Content(_) | Note::Sources(_) => true,
            Note::Definition(_) | Note::Lineage(_) | Note::Operations(_) => false,
        };
        let unanswered = unanswered.filter(|_| notes.iter().any(is_larger));
        let note = unanswered.map(|err| {
            let why = err.logged();
            format!("records of earlier builds stay in the inline cache: {why}")
        });
        let mut unknown = notes.iter().filter(|note| !is_larger(note));
        let unknown_keys = unknown.next().map(ToString::to_string);
        let (records, layers) = (cache.records().len(), cache.layers());
        info!("inline cache: {records} of {of} exported records, for {layers} layers");
        let imported = diff_ids.and_then(|layers| self.imported(&layers, &cache));
        let cache = imported.unwrap_or_else(|| cache.encode());
        Ok(Some(Made {
            cache,
            note,
            unknown_keys,
        }))
    }

    /// The cache of an imported image, as it was written there, if the build has rebuilt that image, and
    /// `cache` has the same records. The daemon may have exported fewer results than it imported.
    fn imported(&self, layers: &[Digest], cache: &InlineCache) -> Option<String> {
        let images = self.imports.images();
        let same = images
            .iter()
            .flat_map(|images| images.iter())
            .find(|image| {
                // It may have no other link: one of another build would be passed on by this image.
                image.diff_ids() == layers
                    && select(image.set())
                        .is_ok_and(|known| known.is_all_of(image.set()) && known.extends(cache))
            })?;
        debug!("the cache is that of an imported image");
        Some(same.encoded())
    }

    /// Solves a probe. If the daemon does not have the sources of the build, this ends with a timeout.
    async fn ask(
        &self,
        solve: HeldCall<SolveRequest, SolveResponse>,
        probe: &Probe,
        store: &str,
    ) -> Result<Option<Exported>, ExportError> {
        // Nobody reads its layer, so it need not be compressed.
        let compression = [("compression".to_owned(), "uncompressed".to_owned())].into();
        let definition = Bytes::copy_from_slice(probe.definition());
        let solved = self.solve(solve, definition, store, &compression, false);
        let answer = timeout(MAX_PROBE, solved).await.map_err(|_| {
            ExportError::Solve(Status::deadline_exceeded("no answer to a probe in time"))
        })??;
        Ok(answer.exported)
    }

    /// Has the daemon export the cache of a definition to the session's store, and commit its image.
    async fn solve(
        &self,
        solve: HeldCall<SolveRequest, SolveResponse>,
        definition: Bytes,
        store: &str,
        compression: &HashMap<String, String>,
        commit: bool,
    ) -> Result<Solved, ExportError> {
        let mut attrs = compression.clone();
        for (name, value) in [
            ("dest", store),
            ("mode", "min"),
            ("oci-mediatypes", "true"),
            ("image-manifest", "true"),
        ] {
            attrs.insert(name.to_owned(), value.to_owned());
        }
        let export = CacheOptionsEntry {
            r#type: "local".to_owned(),
            attrs,
        };
        // Without a name nothing is tagged or pushed. Docker Engine would make up one.
        let mut image = compression.clone();
        image.insert("dangling-name-prefix".to_owned(), String::new());
        let image = Exporter {
            r#type: "image".to_owned(),
            attrs: image,
        };
        let terms = &self.plan.terms;
        let request = SolveRequest {
            r#ref: new_id(),
            definition: Some(definition),
            session: self.session.id().to_owned(),
            internal: true,
            exporters: commit.then_some(image).into_iter().collect(),
            cache: Some(CacheOptions {
                exports: vec![export],
                ..Default::default()
            }),
            entitlements: terms.entitlements.clone(),
            source_policy: terms.source_policy.clone().into(),
            source_policy_session: terms.source_policy_session.clone(),
            compatibility_version: terms.compatibility_version,
            proxy_network: terms.proxy_network,
            ..Default::default()
        };
        let response = solve.send(request).await.map_err(ExportError::Solve)?;
        let response = response.exporter_response;
        let blobs = self.session.blobs();
        let exported = response.get("cache.manifest").map(|manifest| {
            export::read(manifest, |digest| {
                blobs.get(&format!("local:{store}"), digest)
            })
        });
        Ok(Solved {
            exported: exported.transpose()?,
            image: committed::layers(self.daemon, &response).await,
        })
    }
}

/// Computes something on a thread for such, since it would hold up the connections of this one.
async fn computed<T: Send + 'static>(
    compute: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ExportError> {
    Ok(tokio::task::spawn_blocking(compute).await?)
}

/// Whether there is something to cache in the result of an encoded definition; `true` where it cannot
/// be read.
fn has_cache(definition: &[u8]) -> bool {
    Graph::parse(definition, &llb::GraphLimits::default()).map_or(true, |graph| graph.has_cache())
}
