//! The daemon's own platform: what builds are for that name none.

use tonic::Status;

use super::Daemon;
use crate::image::default::Platform;
use crate::proto::control::ListWorkersRequest;
use crate::proto::pb;

impl Daemon {
    /// The platform that the daemon builds for unless it is told otherwise.
    ///
    /// # Errors
    /// Where it does not say.
    pub async fn platform(&self) -> Result<pb::Platform, Status> {
        let mut control = self.control();
        let workers = control.list_workers(ListWorkersRequest::default()).await?;
        let worker = workers.into_inner().record.into_iter().next();
        let platforms = worker.map_or_else(Vec::new, |worker| worker.platforms);
        let machine = self.address.is_local().then_some(std::env::consts::ARCH);
        own_platform(platforms, machine)
            .ok_or_else(|| Status::not_found("the daemon has no worker"))
    }
}

impl From<pb::Platform> for Platform {
    fn from(platform: pb::Platform) -> Self {
        let pb::Platform {
            architecture,
            os,
            variant,
            os_version,
            os_features,
        } = platform;
        Self {
            architecture,
            os,
            variant,
            os_version,
            os_features,
        }
    }
}

/// Of a worker's platforms the one of the machine, if that is known: the first one listed is that
/// unless the worker is told otherwise. `machine` is an architecture in Rust's terms.
fn own_platform(platforms: Vec<pb::Platform>, machine: Option<&str>) -> Option<pb::Platform> {
    // As Go calls them.
    let machine = machine.map(|machine| match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    });
    let of_machine = platforms
        .iter()
        .find(|platform| Some(platform.architecture.as_str()) == machine);
    of_machine.or(platforms.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
