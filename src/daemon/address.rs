//! Addresses of listeners and daemons, as BuildKit's tools spell them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// Why an address cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// No scheme, or one that is not known here.
    #[error("address {0:?} has no known scheme: write {1}")]
    Scheme(String, &'static str),
    /// A socket path that is not absolute.
    #[error("address {0:?} needs an absolute path, as in unix:///run/inlay/inlay.sock")]
    Path(String),
    /// A TCP address without a port.
    #[error("address {0:?} needs a host and a port, as in tcp://127.0.0.1:1234")]
    Port(String),
}

/// Where inlay listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// Where a daemon with BuildKit listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonAddress {
    /// buildkitd's unix socket.
    Unix(PathBuf),
    /// buildkitd's `host:port`.
    Tcp(String),
    /// The API socket of Docker Engine, which serves its BuildKit behind an upgrade of `POST
    /// /grpc`.
    Docker(PathBuf),
}

// === impl ListenAddress ===

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        match address.split_once("://") {
            Some(("unix", path)) => Ok(Self::Unix(absolute(address, path)?)),
            Some(("tcp", host)) => Ok(Self::Tcp(with_port(address, host)?)),
            _ => Err(AddressError::Scheme(
                address.to_owned(),
                "unix:///PATH or tcp://HOST:PORT",
            )),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

// === impl DaemonAddress ===

impl DaemonAddress {
    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Docker(_) => true,
            Self::Tcp(_) => false,
        }
    }

    /// The first of the usual places of buildkitd's socket where `exists` finds something: the
    /// system's, then that of a rootless buildkitd, whose runtime directory is the user's.
    pub fn usual(runtime_dir: Option<&Path>, exists: impl Fn(&Path) -> bool) -> Option<Self> {
        let system = PathBuf::from("/run/buildkit/buildkitd.sock");
        let rootless = runtime_dir.map(|dir| dir.join("buildkit/buildkitd.sock"));
        [Some(system), rootless]
            .into_iter()
            .flatten()
            .find(|path| exists(path))
            .map(Self::Unix)
    }
}

impl FromStr for DaemonAddress {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        match address.split_once("://") {
            Some(("unix", path)) => Ok(Self::Unix(absolute(address, path)?)),
            Some(("docker", path)) => Ok(Self::Docker(absolute(address, path)?)),
            Some(("tcp", host)) => Ok(Self::Tcp(with_port(address, host)?)),
            _ => Err(AddressError::Scheme(
                address.to_owned(),
                "unix:///PATH, tcp://HOST:PORT or docker:///var/run/docker.sock",
            )),
        }
    }
}

impl fmt::Display for DaemonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
            Self::Docker(path) => write!(f, "docker://{}", path.display()),
        }
    }
}

fn absolute(address: &str, path: &str) -> Result<PathBuf, AddressError> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(AddressError::Path(address.to_owned()))
    }
}

fn with_port(address: &str, host: &str) -> Result<String, AddressError> {
    let is_port = |(name, port): (&str, &str)| !name.is_empty() && port.parse::<u16>().is_ok();
    if host.rsplit_once(':').is_some_and(is_port) {
        Ok(host.to_owned())
    } else {
        Err(AddressError::Port(address.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_as_buildkit_spells_them() {
        for address in [
            "unix:///run/x.sock",
            "tcp://127.0.0.1:1234",
            "tcp://[::1]:1234",
        ] {
            assert_eq!(
                address.parse::<ListenAddress>().unwrap().to_string(),
                address
            );
            assert_eq!(
                address.parse::<DaemonAddress>().unwrap().to_string(),
                address
            );
        }
        let docker = "docker:///var/run/docker.sock";
        assert_eq!(docker.parse::<DaemonAddress>().unwrap().to_string(), docker);
    }

    #[test]
    fn refusals_say_what_to_write() {
        let refusal = |address: &str| address.parse::<ListenAddress>().unwrap_err().to_string();
        assert!(refusal("/run/x.sock").contains("unix:///PATH"));
        assert!(refusal("docker:///x").contains("no known scheme"));
        assert!(refusal("unix://x.sock").contains("absolute path"));
        assert!(refusal("tcp://localhost").contains("a port"));
        assert!(refusal("tcp://:80").contains("a host"));
    }

    #[test]
    fn the_usual_places_are_tried_in_order() {
        let run = Path::new("/run/user/7");
        let at = |present: &'static str| {
            DaemonAddress::usual(Some(run), |path| path == Path::new(present))
        };
        let system = "/run/buildkit/buildkitd.sock";
        let rootless = "/run/user/7/buildkit/buildkitd.sock";
        assert_eq!(at(system), Some(DaemonAddress::Unix(system.into())));
        assert_eq!(at(rootless), Some(DaemonAddress::Unix(rootless.into())));
        assert_eq!(at("/elsewhere"), None);
    }
}
