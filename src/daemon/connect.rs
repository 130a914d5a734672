//! One connection to a daemon, ready for HTTP/2.

use std::io;
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::daemon::address::DaemonAddress;
use crate::transport::tcp;

/// The timeout for a connection: that of gRPC.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Why a daemon cannot be reached.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// It does not accept in time, or does not begin with HTTP/2.
    #[error("cannot reach the daemon at {address}: no answer for {} s", TIMEOUT.as_secs())]
    TimedOut {
        /// The address.
        address: DaemonAddress,
    },
    /// Nothing answers at the address.
    #[error("cannot reach the daemon at {address}: {source}")]
    Connect {
        /// The address.
        address: DaemonAddress,
        /// What the system says.
        source: io::Error,
    },
    /// The connection to Docker Engine broke before the upgrade.
    #[error("{address} does not speak HTTP: {source}")]
    Http {
        /// The address.
        address: DaemonAddress,
        /// What broke.
        source: hyper::Error,
    },
    /// It speaks another protocol than HTTP/2.
    #[error("{address} does not speak HTTP/2: {source}")]
    Http2 {
        /// The address.
        address: DaemonAddress,
        /// What broke.
        source: h2::Error,
    },
    /// It closed the connection before its first frame.
    #[error("{address} closed the connection without a word of HTTP/2")]
    Closed {
        /// The address.
        address: DaemonAddress,
    },
    /// It refused the upgrade, so it is no Docker Engine with BuildKit.
    #[error("{address} does not offer BuildKit (POST /grpc answered {status})")]
    NoBuildKit {
        /// The address.
        address: DaemonAddress,
        /// Its answer.
        status: StatusCode,
    },
}

/// A stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects, with a timeout.
///
/// # Errors
/// Where the daemon cannot be reached.
pub async fn connect(address: &DaemonAddress) -> Result<Box<dyn Stream>, ConnectError> {
    match timeout(TIMEOUT, open(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::TimedOut {
            address: address.clone(),
        }),
    }
}

async fn open(address: &DaemonAddress) -> Result<Box<dyn Stream>, ConnectError> {
    let failed = |source| ConnectError::Connect {
        address: address.clone(),
        source,
    };
    match address {
        DaemonAddress::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        DaemonAddress::Tcp(host) => {
            let stream = TcpStream::connect(host).await.map_err(failed)?;
            tcp::of_daemon(&stream).map_err(failed)?;
            Ok(Box::new(stream))
        }
        DaemonAddress::Docker(path) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            upgrade(address, stream).await
        }
    }
}

/// Asks Docker Engine for the gRPC services of its BuildKit.
async fn upgrade(
    address: &DaemonAddress,
    stream: UnixStream,
) -> Result<Box<dyn Stream>, ConnectError> {
    let broken = |source| ConnectError::Http {
        address: address.clone(),
        source,
    };
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // It ends with the upgrade, or when this gives up.
    let connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/grpc");
    for (name, value) in [
        (header::HOST, "docker"),
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "h2c"),
    ] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let response = requests.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(ConnectError::NoBuildKit {
            address: address.clone(),
            status: response.status(),
        });
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    drop(connection.detach());
    Ok(Box::new(TokioIo::new(upgraded)))
}
