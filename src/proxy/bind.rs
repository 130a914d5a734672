//! Why a server cannot listen.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::daemon::address::ListenAddress;

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
    /// The lock file, which keeps a second server from listening, cannot be locked.
    #[error("cannot listen on {address}: its lock file {}: {source}", .path.display())]
    Lock {
        /// The address.
        address: ListenAddress,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another server answers there.
    #[error("cannot listen on {0}: another server is live there")]
    Live(ListenAddress),
    /// The path has a file that is no socket.
    #[error("cannot listen on {0}: a file that is no socket is there")]
    NoSocket(ListenAddress),
    /// The address is no loopback address. Everyone on the network could build as the daemon's user.
    #[error("cannot listen on {0}: without TLS only loopback addresses are allowed")]
    NotLoopback(ListenAddress),
}
