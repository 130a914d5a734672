//! Locations of images as users write them: with the transports of containers/image, or `containerd:`.
//! Parses and prints them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::distribution::Reference;
use thiserror::Error;

/// The transports' names, as they are spelled.
const DOCKER: &str = "docker";
const CONTAINERD: &str = "containerd";
const OCI_LAYOUT: &str = "oci";
const OCI_ARCHIVE: &str = "oci-archive";
const DOCKER_ARCHIVE: &str = "docker-archive";

/// Why a location cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LocationError {
    /// It is no name of an image by Docker's grammar.
    #[error("{reference:?} is no image name: {reason}")]
    Reference {
        /// The name as it was written.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A registry's image needs its two slashes.
    #[error("{0:?} has no slashes: write docker://NAME, or NAME alone")]
    Slashes(String),
    /// The path is not absolute. Paths are on inlay's machine, where the user has no current directory.
    #[error("{0:?} needs an absolute path, as in oci:/images/app or oci:/images/app:TAG")]
    Path(String),
    /// What follows `@` is no number.
    #[error("{0:?} ends in no number: write @0 for the first image")]
    Number(String),
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a registry: `docker://NAME`, or a bare name.
    Registry(Reference),
    /// In an image store of containerd: `containerd:NAME`. The name is kept as it is spelled, since
    /// containerd allows any string.
    Containerd(String),
    /// In a folder of OCI's image layout: `oci:PATH[:REF]`.
    OciLayout {
        /// The folder.
        path: PathBuf,
        /// Which image of it.
        pick: Pick,
    },
    /// In a tar of such a folder: `oci-archive:PATH[:REF]`.
    OciArchive {
        /// The tar.
        path: PathBuf,
        /// Which image of it.
        pick: Pick,
    },
    /// In what `docker save` writes: `docker-archive:PATH[:NAME]`.
    DockerArchive {
        /// The tar.
        path: PathBuf,
        /// Which image of it, by its full name.
        pick: Pick,
    },
}

/// Which of the images in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The only one.
    Only,
    /// The one of this name.
    Named(String),
    /// The one at this place of the list: `@0` is the first.
    Nth(usize),
}

/// Reads an image's name as Docker does: `busybox` is `docker.io/library/busybox:latest`.
///
/// # Errors
/// Where it is no such name.
pub fn reference(name: &str) -> Result<Reference, LocationError> {
    let wrong = |reason: String| LocationError::Reference {
        reference: name.to_owned(),
        reason,
    };
    let Some((host, rest)) = unknown_host(name) else {
        return name.parse().map_err(|err| wrong(format!("{err}")));
    };
    if !is_ipv6(host) && !is_label(host) {
        return Err(wrong(format!("{host} is no host and no IPv6 address")));
    }
    let parsed: Reference = format!("localhost{rest}")
        .parse()
        .map_err(|err| wrong(format!("{err}")))?;
    let (host, repository) = (host.to_owned(), parsed.repository().to_owned());
    Ok(match (parsed.tag(), parsed.digest()) {
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(host, repository, tag.to_owned(), digest.to_owned())
        }
        (_, Some(digest)) => Reference::with_digest(host, repository, digest.to_owned()),
        (tag, None) => {
            let tag = tag.unwrap_or("latest").to_owned();
            Reference::with_tag(host, repository, tag)
        }
    })
}

/// A host that the parser of references does not recognize, and the rest of the name. It is an IPv6 address,
/// or a single word with capitals, which no repository has.
fn unknown_host(name: &str) -> Option<(&str, &str)> {
    let (host, _) = name.split_once('/')?;
    let is_known = host.contains(['.', ':']) || !host.contains(|c: char| c.is_ascii_uppercase());
    (host.starts_with('[') || !is_known).then(|| name.split_at(host.len()))
}

/// A single word of a host's name.
fn is_label(host: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    host.starts_with(is_word)
        && host.ends_with(is_word)
        && host.chars().all(|c| is_word(c) || c == '-')
}

/// `[ADDRESS]` or `[ADDRESS]:PORT`.
fn is_ipv6(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    host.is_some_and(|(address, port)| {
        let port = port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|port| port.parse::<u16>().is_ok());
        port && address.parse::<std::net::Ipv6Addr>().is_ok()
    })
}

// === impl Location ===

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(location: &str) -> Result<Self, LocationError> {
        // A name whose first part is none of the transports has no transport: localhost:5000/app.
        match location.split_once(':') {
            Some((DOCKER, rest)) => match rest.strip_prefix("//") {
                Some(name) => Ok(Self::Registry(reference(name)?)),
                None => Err(LocationError::Slashes(location.to_owned())),
            },
            Some((CONTAINERD, name)) if name.trim().is_empty() => Err(LocationError::Reference {
                reference: location.to_owned(),
                reason: "it is empty".to_owned(),
            }),
            Some((CONTAINERD, name)) => Ok(Self::Containerd(name.to_owned())),
            Some((OCI_LAYOUT, rest)) => {
                let (path, pick) = path_and_pick(location, rest)?;
                Ok(Self::OciLayout { path, pick })
            }
            Some((OCI_ARCHIVE, rest)) => {
                let (path, pick) = path_and_pick(location, rest)?;
                Ok(Self::OciArchive { path, pick })
            }
            Some((DOCKER_ARCHIVE, rest)) => {
                let (path, pick) = path_and_pick(location, rest)?;
                let pick = match pick {
                    Pick::Named(name) => Pick::Named(reference(&name)?.whole()),
                    pick => pick,
                };
                Ok(Self::DockerArchive { path, pick })
            }
            _ => Ok(Self::Registry(reference(location)?)),
        }
    }
}

/// `PATH`, `PATH:REF` or `PATH:@NUMBER`; a path has no colon, as in containers/image.
fn path_and_pick(location: &str, rest: &str) -> Result<(PathBuf, Pick), LocationError> {
    let (path, pick) = rest.split_once(':').unwrap_or((rest, ""));
    if !Path::new(path).is_absolute() {
        return Err(LocationError::Path(location.to_owned()));
    }
    let pick = match pick.strip_prefix('@') {
        Some(number) => Pick::Nth(
            number
                .parse()
                .map_err(|_| LocationError::Number(location.to_owned()))?,
        ),
        None if pick.is_empty() => Pick::Only,
        None => Pick::Named(pick.to_owned()),
    };
    Ok((PathBuf::from(path), pick))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{reference}"),
            Self::Containerd(name) => write!(f, "{CONTAINERD}:{name}"),
            Self::OciLayout { path, pick } => write!(f, "{OCI_LAYOUT}:{}{pick}", path.display()),
            Self::OciArchive { path, pick } => write!(f, "{OCI_ARCHIVE}:{}{pick}", path.display()),
            Self::DockerArchive { path, pick } => {
                write!(f, "{DOCKER_ARCHIVE}:{}{pick}", path.display())
            }
        }
    }
}

// === impl Pick ===

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => Ok(()),
            Self::Named(name) => write!(f, ":{name}"),
            Self::Nth(number) => write!(f, ":@{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    fn read(location: &str) -> Location {
        location.parse().unwrap()
    }

    #[test]
    fn names_without_transport_are_read_as_docker_does() {
        for (spelled, whole) in [
            ("busybox", "docker.io/library/busybox:latest"),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest",
            ),
            ("docker://me/app:1", "docker.io/me/app:1"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("registry.example/a/b:1", "registry.example/a/b:1"),
            ("[::1]:5000/app:1", "[::1]:5000/app:1"),
            ("docker://[::1]/app", "[::1]/app:latest"),
            ("MyHost/app:1", "MyHost/app:1"),
            ("MyHost:5000/app", "MyHost:5000/app:latest"),
            // A name like a transport, made plain.
            ("docker://oci:1", "docker.io/library/oci:1"),
        ] {
            let location = read(spelled);
            assert_eq!(location.to_string(), whole, "{spelled}");
            assert!(matches!(location, Location::Registry(_)), "{spelled}");
        }
        for host in ["", "[::1]:5000/"] {
            let by_digest = format!("{host}app@{DIGEST}");
            let Location::Registry(reference) = read(&by_digest) else {
                panic!("{by_digest}")
            };
            assert_eq!(reference.digest(), Some(DIGEST));
            assert_eq!(reference.tag(), None);
        }
    }

    #[test]
    fn transports_are_written_as_they_are_read() {
        for spelled in [
            "containerd:docker.io/library/app:1",
            "containerd:any string",
            "oci:/images/app",
            "oci:/images/app:1.0",
            "oci:/images/app:@2",
            "oci-archive:/images/app.tar:registry.example/app:1",
            "docker-archive:/images/app.tar",
            "docker-archive:/images/app.tar:@0",
            "docker-archive:/images/app.tar:docker.io/library/app:latest",
        ] {
            assert_eq!(read(spelled).to_string(), spelled);
        }
        let path = PathBuf::from("/images/app");
        let pick = Pick::Named("a:b".to_owned());
        let layout = Location::OciLayout { path, pick };
        assert_eq!(read("oci:/images/app:a:b"), layout);
        let named = read("docker-archive:/a.tar:app").to_string();
        assert_eq!(named, "docker-archive:/a.tar:docker.io/library/app:latest");
        assert_eq!(read("oci:/a:").to_string(), "oci:/a");
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (spelled, said) in [
            ("", "is no image name"),
            ("App", "is no image name"),
            ("app@sha256:ff", "is no image name"),
            ("docker:app", "docker://NAME"),
            ("docker://", "is no image name"),
            ("[::g]/app", "no IPv6 address"),
            ("My_Host/app", "no host"),
            ("[::1]", "is no image name"),
            ("containerd:", "it is empty"),
            ("oci:images/app", "an absolute path"),
            ("oci-archive:", "an absolute path"),
            ("oci:/images/app:@x", "@0 for the first"),
            ("docker-archive:/a.tar:App", "is no image name"),
        ] {
            let refusal = spelled.parse::<Location>().unwrap_err().to_string();
            assert!(refusal.contains(said), "{spelled}: {refusal}");
        }
    }
}
