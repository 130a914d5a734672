//! `Control.Solve`: a build begins.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::{Request, Response};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tracing::{Instrument as _, info, info_span, warn};

use super::import::Imports;
use super::registry::Registry;
use super::shared::Shared;
use super::solves::Solves;
use super::{Build, Embedding, drive, report};
use crate::cache::image::Platform;
use crate::daemon::progress::LastWord;
use crate::daemon::{ConnectionError, Daemon};
use crate::protocol::solve::{self, Direct, Plan};
use crate::protocol::wire::WireError;
use crate::proxy::unary::{Call, refusal};
use crate::transport::http2::Body;

/// The timeout for asking a daemon whether it exports caches to sessions. The solve waits for the answer.
/// It is below the 6 s that the daemon waits for the solve when the client calls `Control.Status`
/// (`Get` in `solver/jobs.go`).
const EXPORTS_TIMEOUT: Duration = Duration::from_secs(3);

/// The method's path.
pub const PATH: &str = "/moby.buildkit.v1.Control/Solve";

/// Begins a build: takes out of its solve request what inlay does in the daemon's place, and forwards
/// the request. The build is registered until the solve ends.
pub async fn begin(
    shared: &Arc<Shared>,
    builds: &Registry,
    solves: &Solves,
    daemon: &Daemon,
    call: Call,
    message: &[u8],
) -> Result<Response<Body>, ConnectionError> {
    let plan = match Plan::read(message) {
        Ok(plan) => plan,
        Err(err) => {
            // The daemon may be able to read it. If not, it says why.
            warn!("a solve request passes unread, and its caches are the daemon's: {err}");
            return daemon.connection().forward(call.unchanged()).await;
        }
    };
    let (_in_flight, unsent) = solves.hold(&plan.build);
    let call = call.until_sent(Arc::new(unsent));
    let plan = shared.policy.restrict(plan);
    // Gateway calls name their build in a header. A build whose ref fits no header can have none.
    if let Err(status) = daemon.gateway(&plan.build) {
        info!("the build is left to the daemon: {}", status.message());
        return daemon.connection().forward(call.unchanged()).await;
    }
    let span = info_span!("build", build = %plan.build);
    let begun = async {
        let (build, direct) = Build::begin(shared, daemon, plan).await;
        let request = match build.solve_request(message, direct.is_some()) {
            Ok(Some(request)) => call.with_message(&request),
            Ok(None) => call.unchanged(),
            Err(err) => {
                let text = format!("inlay: the solve request: {err}");
                return Ok(refusal(Status::invalid_argument(text)));
            }
        };
        solve(builds, daemon, request, build, direct).await
    };
    begun.instrument(span).await
}

/// Forwards the request of a build, and drives the build if the client does not.
async fn solve(
    builds: &Registry,
    daemon: &Daemon,
    request: Request<Body>,
    build: Build,
    direct: Option<Direct>,
) -> Result<Response<Body>, ConnectionError> {
    let registration = builds.register(build);
    let build = registration.build();
    let driven = async {
        match direct {
            Some(direct) => drive::drive(build, direct).await,
            None => {
                // Ahead of the client's gateway calls, which name them again.
                build.imports.read_first().await;
                pending().await
            }
        }
    };
    let response = tokio::select! {
        response = daemon.connection().forward(request) => response,
        // As a rule the solve ends first, by the driver's `Return`. The driver ends first only if it
        // cannot call that.
        status = driven => Ok(refusal(status)),
    };
    report::log_moved(build);
    response
}

// === impl Build ===

impl Build {
    /// Begins a build by its plan. Also returns what inlay is to drive: the frontend or definition of
    /// the solve request, if inlay has something to do for the build.
    async fn begin(
        shared: &Arc<Shared>,
        daemon: &Daemon,
        mut plan: Plan,
    ) -> (Self, Option<Direct>) {
        let embedding = embedding(daemon, &plan).await;
        let platforms = plan.platforms.iter();
        let platforms = platforms.filter_map(|name| Platform::parse(name));
        let imports = Imports::new(
            Arc::clone(shared),
            daemon.clone(),
            std::mem::take(&mut plan.imports),
            plan.session.clone(),
            platforms.collect(),
        );
        let is_driven = matches!(embedding, Embedding::Inlay)
            || !imports.is_empty()
            || plan.unreadable_imports > 0;
        let direct = plan.direct.take().filter(|_| is_driven);
        let build = Self {
            shared: Arc::clone(shared),
            daemon: daemon.clone(),
            last_word: match embedding {
                Embedding::Inlay => LastWord::open(daemon, &plan.build),
                Embedding::None | Embedding::LeftToDaemon(_) => None,
            },
            plan,
            embedding,
            imports,
            told_unused: AtomicBool::new(false),
            telling: TaskTracker::new(),
            sources_changed: AtomicBool::new(false),
        };
        (build, direct)
    }

    /// The solve request to forward: without `inline` among its cache exports if inlay embeds the
    /// cache, and without what is solved if inlay drives the build. `None` if it stays as it is.
    fn solve_request(&self, message: &[u8], is_driven: bool) -> Result<Option<Vec<u8>>, WireError> {
        let embeds = matches!(self.embedding, Embedding::Inlay);
        if !embeds && !is_driven {
            return Ok(None);
        }
        solve::forwarded(message, embeds, is_driven).map(Some)
    }
}

/// Who embeds the inline cache of a build.
async fn embedding(daemon: &Daemon, plan: &Plan) -> Embedding {
    if plan.inline.is_none() {
        return Embedding::None;
    }
    let exports = timeout(EXPORTS_TIMEOUT, daemon.exports_to_sessions()).await;
    if !matches!(exports, Ok(Ok(false))) {
        info!("inline cache comes from inlay");
        return Embedding::Inlay;
    }
    let reason = "this daemon cannot export cache to a session \
                  (Docker Engine needs its containerd image store for that)";
    info!("inline cache is left to the daemon: {reason}");
    Embedding::LeftToDaemon(reason.to_owned())
}
