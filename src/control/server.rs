//! Listens, accepts, and stops without breaking builds off.

use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::num::NonZero;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::thread::available_parallelism;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixStream, lookup_host};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{LocalPoolHandle, TaskTracker};
use tracing::{info, warn};

use super::builds::Builds;
use super::connection::{Connection, serve};
use super::socket::UnixSocket;
use crate::address::ListenAddress;
use crate::daemon::Stream;
use crate::export::Exporter;
use crate::import::Importer;
use crate::plan::Tasks;

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

/// A server in front of one daemon.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    connection: Connection,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixSocket),
    Tcp(TcpListener),
}

/// A client's connection that no runtime waits for yet.
#[derive(Debug)]
enum Accepted {
    Unix(StdUnixStream),
    Tcp(StdTcpStream),
}

// === impl Server ===

impl Server {
    /// Listens on the addresses; nothing is accepted yet.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub async fn bind(
        addresses: &[ListenAddress],
        exporter: Exporter,
        importer: Importer,
        tasks: Tasks,
    ) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            listeners.push(Listener::bind(address).await?);
            info!(%address, "listening");
        }
        let connection = Connection {
            exporter,
            builds: Builds::default(),
            importer,
            tasks,
        };
        Ok(Self {
            listeners,
            connection,
        })
    }

    /// Serves until `stop`; then waits until no call is in flight, at most as long as `grace`, and
    /// until `now`.
    pub async fn run(self, stop: CancellationToken, grace: Duration, now: CancellationToken) {
        let connections = TaskTracker::new();
        let accepting = TaskTracker::new();
        // All of a connection on one thread, which waits for its sockets as well: what one task
        // wakes runs next, and no other processor is taken from the client and the daemon for that.
        let threads = LocalPoolHandle::new(available_parallelism().map_or(1, NonZero::get));
        for listener in self.listeners {
            let connection = self.connection.clone();
            let (connections, stop) = (connections.clone(), stop.clone());
            let threads = threads.clone();
            accepting.spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        () = stop.cancelled() => break,
                        accepted = listener.accept() => accepted,
                    };
                    match accepted {
                        Ok(accepted) => {
                            let tracked = connections.token();
                            let (connection, stop) = (connection.clone(), stop.clone());
                            threads.spawn_pinned(|| async move {
                                match accepted.stream() {
                                    Ok(stream) => serve(stream, connection, stop).await,
                                    Err(err) => warn!("cannot wait for a connection: {err}"),
                                }
                                drop(tracked);
                            });
                        }
                        Err(err) => {
                            // Out of file descriptors, most likely: some may be free again in a
                            // moment.
                            warn!("cannot accept a connection: {err}");
                            sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            });
        }
        accepting.close();
        accepting.wait().await;
        connections.close();
        tokio::select! {
            () = connections.wait() => {}
            () = sleep(grace) => warn!("calls were still in flight after {} s", grace.as_secs()),
            () = now.cancelled() => warn!("calls were still in flight"),
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
            ListenAddress::Unix(path) => UnixSocket::bind(address, path).await.map(Self::Unix),
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

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok(Accepted::Unix(stream.into_std()?))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream.into_std()?))
            }
        }
    }
}

// === impl Accepted ===

impl Accepted {
    /// The connection, waited for by the runtime of the thread that calls this.
    fn stream(self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(stream) => Box::new(UnixStream::from_std(stream)?),
            Self::Tcp(stream) => Box::new(TcpStream::from_std(stream)?),
        })
    }
}
