//! Listens, accepts, and stops without breaking builds off.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener, lookup_host};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::builds::Builds;
use super::connection::{Connection, serve};
use crate::address::{DaemonAddress, ListenAddress};
use crate::daemon::{Daemon, Stream};

/// Who may connect to a socket of inlay's: its owner and group, as with buildkitd's.
const SOCKET_MODE: u32 = 0o660;

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// The system refuses it.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: ListenAddress,
        /// What the system says.
        source: io::Error,
    },
    /// Another server answers there.
    #[error("cannot listen on {0}: another server is live there")]
    Live(ListenAddress),
    /// Something that is no socket has the socket's name.
    #[error("cannot listen on {0}: a file that is no socket is there")]
    NoSocket(ListenAddress),
    /// Everybody on the network could build as the daemon's user.
    #[error("cannot listen on {0}: without TLS only loopback addresses are allowed")]
    NotLoopback(ListenAddress),
}

/// When inlay embeds the cache that a build asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InlineExport {
    /// Whenever a build asks.
    OnRequest,
    /// Never: the daemon embeds its own.
    Never,
}

/// A server in front of one daemon.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    connection: Connection,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

// === impl Server ===

impl Server {
    /// Listens on the addresses; nothing is accepted yet.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub async fn bind(
        addresses: &[ListenAddress],
        daemon: DaemonAddress,
        inline_export: InlineExport,
    ) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            listeners.push(Listener::bind(address).await?);
            info!(%address, "listening");
        }
        let connection = Connection {
            daemon: Daemon::new(daemon),
            recall: Arc::default(),
            builds: Builds::default(),
            inline_export,
        };
        Ok(Self {
            listeners,
            connection,
        })
    }

    /// Serves until `stop`; then waits until no call is in flight, at most as long as `grace`.
    pub async fn run(self, stop: CancellationToken, grace: Duration) {
        let connections = TaskTracker::new();
        let accepting = TaskTracker::new();
        for listener in self.listeners {
            let connection = self.connection.clone();
            let (connections, stop) = (connections.clone(), stop.clone());
            accepting.spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        () = stop.cancelled() => break,
                        accepted = listener.accept() => accepted,
                    };
                    match accepted {
                        Ok(stream) => {
                            connections.spawn(serve(stream, connection.clone(), stop.clone()));
                        }
                        Err(err) => {
                            // Out of file descriptors, most likely: some may be free again in a
                            // moment.
                            warn!("cannot accept a connection: {err}");
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            });
        }
        accepting.close();
        accepting.wait().await;
        connections.close();
        if timeout(grace, connections.wait()).await.is_err() {
            warn!("calls were still in flight after {} s", grace.as_secs());
        }
    }
}

// === impl Listener ===

impl Listener {
    async fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        let failed = |source| BindError::Listen {
            address: address.clone(),
            source,
        };
        match address {
            ListenAddress::Unix(path) => {
                if let Some(dir) = path.parent() {
                    fs::create_dir_all(dir).map_err(failed)?;
                }
                remove_stale(address, path)?;
                let listener = UnixListener::bind(path).map_err(failed)?;
                fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
                    .map_err(failed)?;
                Ok(Self::Unix(listener, path.clone()))
            }
            ListenAddress::Tcp(host) => {
                let all: Vec<SocketAddr> = lookup_host(host).await.map_err(failed)?.collect();
                if !all.iter().all(|address| address.ip().is_loopback()) {
                    return Err(BindError::NotLoopback(address.clone()));
                }
                Ok(Self::Tcp(
                    TcpListener::bind(&all[..]).await.map_err(failed)?,
                ))
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // What is gone already need not go.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a socket that a server left behind, and no other file.
fn remove_stale(address: &ListenAddress, path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NoSocket(address.clone()));
    }
    match StdUnixStream::connect(path) {
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| BindError::Listen {
                address: address.clone(),
                source,
            }),
        _ => Err(BindError::Live(address.clone())),
    }
}
