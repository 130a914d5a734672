//! Listens, accepts, and stops once no call is in flight.

use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::num::NonZero;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream, lookup_host};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{LocalPoolHandle, TaskTracker};
use tracing::{info, warn};

use super::bind::BindError;
use super::connection::{Service, serve};
use super::unix::UnixSocket;
use crate::daemon::Stream;
use crate::daemon::address::{DaemonAddress, ListenAddress};
use crate::transport::tcp;

/// The sockets on which clients are accepted.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixSocket),
    Tcp(TcpListener),
}

/// A client's connection that is not registered with a runtime yet.
#[derive(Debug)]
enum Accepted {
    Unix(StdUnixStream),
    Tcp(StdTcpStream),
}

// === impl Server ===

impl Server {
    /// Listens on the addresses. [`run`](Self::run) accepts connections.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub async fn bind(addresses: &[ListenAddress]) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            listeners.push(Listener::bind(address).await?);
            info!(%address, "listening");
        }
        Ok(Self { listeners })
    }

    /// Has `service` answer the calls of all clients, each with a connection to `daemon`, until
    /// `stop`. Then waits until no call is in flight, at most for `grace`, and at most until `now`.
    pub async fn run(
        self,
        service: impl Service,
        daemon: Arc<DaemonAddress>,
        stop: CancellationToken,
        grace: Duration,
        now: CancellationToken,
    ) {
        let connections = TaskTracker::new();
        let accepting = TaskTracker::new();
        // Each connection has all its tasks and sockets on one thread. A task that another one wakes
        // runs next there, and takes no other processor from the client and the daemon.
        let threads = LocalPoolHandle::new(available_parallelism().map_or(1, NonZero::get));
        for listener in self.listeners {
            let (service, daemon) = (service.clone(), Arc::clone(&daemon));
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
                            let (service, stop) = (service.clone(), stop.clone());
                            let daemon = Arc::clone(&daemon);
                            threads.spawn_pinned(|| async move {
                                match accepted.stream() {
                                    Ok(stream) => serve(stream, service, daemon, stop).await,
                                    Err(err) => warn!("cannot wait for a connection: {err}"),
                                }
                                drop(tracked);
                            });
                        }
                        Err(err) => {
                            // Most likely it is out of file descriptors. Some may be free in a moment.
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
                tcp::of_client(&stream)?;
                Ok(Accepted::Tcp(stream.into_std()?))
            }
        }
    }
}

// === impl Accepted ===

impl Accepted {
    /// Registers the connection with the runtime of the calling thread.
    fn stream(self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(stream) => Box::new(UnixStream::from_std(stream)?),
            Self::Tcp(stream) => Box::new(TcpStream::from_std(stream)?),
        })
    }
}
