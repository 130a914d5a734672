//! The daemon that inlay forwards to: addresses, connections, inlay's own calls, and messages to a build's
//! user.

pub mod address;
mod asked;
mod connect;
mod connection;
mod content;
mod definition;
mod held;
pub mod notice;
pub mod progress;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

pub use connect::{ConnectError, Stream};
pub use connection::{Connection, ConnectionError, hops};
pub use held::HeldCall;
pub use worker::Worker;

use self::address::DaemonAddress;
use self::connection::origin;
use crate::protocol::MAX_MESSAGE;
use crate::protocol::proto::control::control_client::ControlClient;
use crate::protocol::proto::control::{
    CacheOptions, CacheOptionsEntry, SolveRequest, SolveResponse,
};
use crate::protocol::proto::gateway::llb_bridge_client::LlbBridgeClient;
use crate::protocol::proto::gateway::{WarnRequest, WarnResponse};

const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
const WARN: &str = "/moby.buildkit.v1.frontend.LLBBridge/Warn";
/// How a daemon refuses a cache export of a type that it does not have, and one without a destination.
const NO_EXPORTER: &str = "unknown cache exporter";
const NO_DESTINATION: &str = "requires dest";
/// The header that ties a gateway call to the build of a solve.
pub const BUILD_HEADER: &str = "buildkit-controlapi-buildid";

/// The build that a gateway call belongs to.
pub fn build_of(headers: &http::HeaderMap) -> Option<&str> {
    headers.get(BUILD_HEADER)?.to_str().ok()
}

/// A daemon by one connection to it: calls that are forwarded, and calls of inlay's own.
#[derive(Debug, Clone)]
pub struct Daemon {
    connection: Connection,
    exports_to_sessions: Arc<AtomicBool>,
}

/// Ties each call to one build.
#[derive(Debug, Clone)]
pub struct OfBuild(MetadataValue<Ascii>);

/// The gateway of one build.
pub type Gateway = LlbBridgeClient<InterceptedService<Connection, OfBuild>>;

// === impl Daemon ===

impl Daemon {
    /// The daemon at an address; nothing is connected yet.
    pub fn new(address: Arc<DaemonAddress>) -> Self {
        Self {
            connection: Connection::new(address),
            exports_to_sessions: Arc::default(),
        }
    }

    /// The connection of all its calls.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Its control service.
    pub fn control(&self) -> ControlClient<Connection> {
        ControlClient::with_origin(self.connection.clone(), origin())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// A solve whose request is given later. Its stream is open from now on.
    pub fn hold_solve(&self) -> HeldCall<SolveRequest, SolveResponse> {
        HeldCall::open(self.connection.clone(), SOLVE, MetadataMap::new())
    }

    /// A warning in the progress of a build in flight, whose text is given later. Its stream is open from
    /// now on.
    ///
    /// # Errors
    /// Where the ref cannot be a header's value.
    pub fn hold_warning(&self, build: &str) -> Result<HeldCall<WarnRequest, WarnResponse>, Status> {
        let mut headers = MetadataMap::new();
        headers.insert(BUILD_HEADER, header_of(build)?);
        Ok(HeldCall::open(self.connection.clone(), WARN, headers))
    }

    /// The gateway of a build in flight.
    ///
    /// # Errors
    /// Where the ref cannot be a header's value.
    pub fn gateway(&self, build: &str) -> Result<Gateway, Status> {
        let build = OfBuild(header_of(build)?);
        let service = InterceptedService::new(self.connection.clone(), build);
        Ok(LlbBridgeClient::with_origin(service, origin()).max_decoding_message_size(MAX_MESSAGE))
    }

    /// Notes that the daemon cannot export to sessions, if that is what the error of an export says.
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

/// A build's ref as a header has it.
fn header_of(build: &str) -> Result<MetadataValue<Ascii>, Status> {
    let refused = || Status::invalid_argument(format!("ref {build:?} is no header value"));
    build.parse().map_err(|_| refused())
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
