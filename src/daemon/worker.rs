//! What the daemon says of itself: its version, and the platform of builds that name none.

use tonic::Status;

use super::Daemon;
use crate::cache::image::normalized;
use crate::protocol::proto::control::ListWorkersRequest;
use crate::protocol::proto::pb;

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Its id, which it keeps when the daemon is restarted.
    pub id: String,
    /// The platform that it builds for unless it is told otherwise.
    pub platform: pb::Platform,
    /// Its version of BuildKit, major and minor; `None` where what it says is no version.
    pub version: Option<(u64, u64)>,
}

impl Daemon {
    /// The daemon's own platform and version.
    ///
    /// # Errors
    /// Where it does not say.
    pub async fn worker(&self) -> Result<Worker, Status> {
        let mut control = self.control();
        let workers = control.list_workers(ListWorkersRequest::default()).await?;
        let worker = workers.into_inner().record.into_iter().next();
        let worker = worker.unwrap_or_default();
        let version = worker.buildkit_version.unwrap_or_default().version;
        let machine = self
            .connection()
            .address()
            .is_local()
            .then_some(std::env::consts::ARCH);
        let platform = own_platform(worker.platforms, machine)
            .ok_or_else(|| Status::not_found("the daemon has no worker"))?;
        Ok(Worker {
            id: worker.id,
            platform,
            version: version_of(&version),
        })
    }
}

impl Worker {
    /// Whether the daemon's only key of an image is that of its manifest. Up to v0.32 BuildKit also has a
    /// key of the image's layers (`source/containerimage/pull.go`).
    pub fn keys_images_by_manifest(&self) -> bool {
        self.version.is_some_and(|version| version >= (0, 34))
    }
}

/// Reads a version such as `v0.34.2` or `v0.34.2-moby`.
fn version_of(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The platform of a worker's list that is the machine's, if that is known, else the first one. The
/// first one is the machine's unless the worker is told otherwise. `machine` is an architecture in Rust's
/// terms.
fn own_platform(platforms: Vec<pb::Platform>, machine: Option<&str>) -> Option<pb::Platform> {
    // Go has names of its own for some; the others differ by what containerd normalizes.
    let machine = machine.map(|machine| match machine {
        "x86" => "386".to_owned(),
        "powerpc64" => "ppc64le".to_owned(),
        "loongarch64" => "loong64".to_owned(),
        other => normalized(other, "").0,
    });
    let of_machine = platforms
        .iter()
        .find(|platform| Some(&platform.architecture) == machine.as_ref());
    of_machine.or(platforms.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_daemons_write_them() {
        assert_eq!(version_of("v0.34.2"), Some((0, 34)));
        assert_eq!(version_of("0.13.2-moby"), Some((0, 13)));
        assert_eq!(version_of("v1.0"), Some((1, 0)));
        for text in ["", "unknown", "v0", "v0.x"] {
            assert_eq!(version_of(text), None, "{text}");
        }
    }

    #[test]
    fn the_machines_platform_is_found_wherever_it_is_listed() {
        let platforms = ["arm64", "amd64"].map(|architecture| pb::Platform {
            architecture: architecture.to_owned(),
            ..Default::default()
        });
        let own = |machine| {
            own_platform(platforms.to_vec(), machine)
                .unwrap()
                .architecture
        };
        assert_eq!(own(Some("x86_64")), "amd64");
        assert_eq!(own(Some("s390x")), "arm64");
        assert_eq!(own(None), "arm64");
        assert!(own_platform(Vec::new(), Some("x86_64")).is_none());
    }
}
