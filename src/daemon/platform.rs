//! The daemon's own platform: what builds are for that name none.

use tonic::Status;

use super::Daemon;
use crate::cache::image::normalized;
use crate::protocol::proto::control::ListWorkersRequest;
use crate::protocol::proto::pb;

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
        let machine = self
            .connection()
            .address()
            .is_local()
            .then_some(std::env::consts::ARCH);
        own_platform(platforms, machine)
            .ok_or_else(|| Status::not_found("the daemon has no worker"))
    }
}

/// Of a worker's platforms the one of the machine, if that is known: the first one listed is that
/// unless the worker is told otherwise. `machine` is an architecture in Rust's terms.
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
