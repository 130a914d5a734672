//! The daemon behind inlay: connections to it and inlay's own calls; nothing of what is asked.

pub mod address;
mod connect;
mod content;
pub mod notice;
pub mod progress;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper_util::rt::TokioIo;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::service_fn;

pub use connect::{ConnectError, Stream, connect};
pub use worker::Worker;

use crate::daemon::address::DaemonAddress;
use crate::protocol::proto::control::control_client::ControlClient;
use crate::protocol::proto::control::{CacheOptions, CacheOptionsEntry, SolveRequest};
use crate::protocol::proto::gateway::llb_bridge_client::LlbBridgeClient;
use crate::transport::http2::MAX_HEADER_LIST;

/// What a message from the daemon may have at most: the limit of BuildKit's own clients.
const MAX_MESSAGE: usize = 16 << 20;
/// How a daemon refuses a cache export of a type that it does not have, and one to nowhere.
const NO_EXPORTER: &str = "unknown cache exporter";
const NO_DESTINATION: &str = "requires dest";
/// The header that ties a gateway call to the build of a solve.
pub const BUILD_HEADER: &str = "buildkit-controlapi-buildid";

/// inlay's own calls to the daemon, on a connection of their own that is made when first needed.
#[derive(Debug, Clone)]
pub struct Daemon {
    address: Arc<DaemonAddress>,
    channel: Channel,
    exports_to_sessions: Arc<AtomicBool>,
}

/// Ties each call to one build.
#[derive(Debug, Clone)]
pub struct OfBuild(MetadataValue<Ascii>);

/// The gateway of one build.
pub type Gateway = LlbBridgeClient<InterceptedService<Channel, OfBuild>>;

// === impl Daemon ===

impl Daemon {
    /// The daemon at an address; nothing is connected yet.
    pub fn new(address: DaemonAddress) -> Self {
        let address = Arc::new(address);
        let connector = {
            let address = Arc::clone(&address);
            service_fn(move |_| {
                let address = Arc::clone(&address);
                async move { connect(&address).await.map(TokioIo::new) }
            })
        };
        // The connector does not look at the name. An error whose headers do not fit comes without
        // a word of what it is.
        let channel = Endpoint::from_static("http://localhost")
            .http2_max_header_list_size(MAX_HEADER_LIST)
            .connect_with_connector_lazy(connector);
        Self {
            address,
            channel,
            exports_to_sessions: Arc::default(),
        }
    }

    /// Where it is.
    pub fn address(&self) -> Arc<DaemonAddress> {
        Arc::clone(&self.address)
    }

    /// Its control service.
    pub fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The gateway of a build in flight.
    ///
    /// # Errors
    /// Where the ref cannot be a header's value.
    pub fn gateway(&self, build: &str) -> Result<Gateway, Status> {
        let build = build
            .parse()
            .map_err(|_| Status::invalid_argument(format!("ref {build:?} is no header value")))?;
        Ok(
            LlbBridgeClient::with_interceptor(self.channel.clone(), OfBuild(build))
                .max_decoding_message_size(MAX_MESSAGE),
        )
    }

    /// Takes it from an error of an export that the daemon is another one now, and cannot do that.
    pub fn cannot_export_to_sessions(&self, status: &Status) {
        if status.message().contains(NO_EXPORTER) {
            self.exports_to_sessions.store(false, Ordering::Relaxed);
        }
    }

    /// Whether it can export cache to a session (`type=local`). Docker Engine's classic image store
    /// cannot.
    ///
    /// Asks for such an export without a destination, which each daemon refuses before it does
    /// anything: the refusal tells whether it is for the type. A daemon that can is not asked again,
    /// until an export tells [otherwise](Self::cannot_export_to_sessions).
    ///
    /// # Errors
    /// Where the daemon cannot be asked, or says something else.
    pub async fn exports_to_sessions(&self) -> Result<bool, Status> {
        if self.exports_to_sessions.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let export = CacheOptionsEntry {
            r#type: "local".to_owned(),
            attrs: HashMap::new(),
        };
        let request = SolveRequest {
            r#ref: new_id(),
            internal: true,
            cache: Some(CacheOptions {
                exports: vec![export],
                ..Default::default()
            }),
            ..Default::default()
        };
        match self.control().solve(request).await {
            Err(status) if status.message().contains(NO_EXPORTER) => Ok(false),
            Err(status) if status.message().contains(NO_DESTINATION) => {
                self.exports_to_sessions.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Err(status) => Err(status),
            Ok(_) => Ok(true),
        }
    }
}

/// A new id for a solve or a session, of the form that BuildKit's tools use: 25 characters of base
/// 36.
pub fn new_id() -> String {
    let mut number = uuid::Uuid::new_v4().as_u128();
    (0..25)
        .map(|_| {
            // A remainder by 36 is a digit of base 36.
            let digit = char::from_digit((number % 36) as u32, 36).unwrap_or('0');
            number /= 36;
            digit
        })
        .collect()
}

// === impl OfBuild ===

impl Interceptor for OfBuild {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(BUILD_HEADER, self.0.clone());
        Ok(request)
    }
}
