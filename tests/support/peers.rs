//! Where the real programs are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory that `make peers` fills.
#[derive(Clone, Debug)]
pub struct Peers {
    dir: PathBuf,
}

impl Peers {
    /// Finds the peers where `dev/lib.sh` puts them, and panics if one is missing.
    pub fn locate() -> Self {
        let dir = match (env::var_os("INLAY_PEERS"), env::var_os("XDG_CACHE_HOME")) {
            (Some(peers), _) => PathBuf::from(peers),
            (None, Some(cache)) => Path::new(&cache).join("inlay/peers"),
            (None, None) => {
                Path::new(&env::var_os("HOME").expect("HOME is set")).join(".cache/inlay/peers")
            }
        };
        let peers = Self { dir };
        for wanted in [
            peers.buildkitd(),
            peers.buildctl(),
            peers.buildx(),
            peers.direct(),
            peers.descriptors(),
            peers.oracle(),
            peers.bench(),
            peers.runc(),
            peers.docker_registry(),
            peers.rootfs_tar(),
            peers.busybox(),
            peers.docker(),
        ] {
            let name = wanted.strip_prefix(&peers.dir).unwrap_or(&wanted).display();
            assert!(
                wanted.exists(),
                "run `make peers`: missing {name} in {}",
                peers.dir.display()
            );
        }
        peers
    }

    /// BuildKit's daemon.
    pub fn buildkitd(&self) -> PathBuf {
        self.bin().join("buildkitd")
    }

    /// BuildKit's own client.
    pub fn buildctl(&self) -> PathBuf {
        self.bin().join("buildctl")
    }

    /// Docker's client of BuildKit, which runs without Docker.
    pub fn buildx(&self) -> PathBuf {
        self.bin().join("buildx")
    }

    /// The descriptors of the protocols, `tests/clients/descriptors`.
    pub fn descriptors(&self) -> PathBuf {
        self.bin().join("descriptors")
    }

    /// Our own client over BuildKit's Go client, `tests/clients/direct`.
    pub fn direct(&self) -> PathBuf {
        self.bin().join("direct")
    }

    /// BuildKit's own reader of caches, `tests/clients/oracle`.
    pub fn oracle(&self) -> PathBuf {
        self.bin().join("oracle")
    }

    /// BuildKit's own packages at the job of our record set, `tests/clients/bench`.
    pub fn bench(&self) -> PathBuf {
        self.bin().join("bench")
    }

    /// What buildkitd runs steps with; it looks for it in `PATH`.
    pub fn runc(&self) -> PathBuf {
        self.bin().join("runc")
    }

    /// The registry.
    pub fn docker_registry(&self) -> PathBuf {
        self.bin().join("docker-registry")
    }

    /// The client of [`DockerEngine`](super::DockerEngine).
    pub fn docker(&self) -> PathBuf {
        self.dir.join("docker-engine/usr/bin/docker")
    }

    /// A program of [`DockerEngine`](super::DockerEngine)'s tree, with the libraries there: it may
    /// be of another Debian than this machine.
    pub fn of_docker_engine(&self, program: &str) -> Command {
        let tree = self.dir.join("docker-engine/usr");
        let libraries = tree.join(format!("lib/{}-linux-gnu", env::consts::ARCH));
        let loader = fs::read_dir(&libraries)
            .unwrap_or_else(|error| panic!("{}: {error}", libraries.display()))
            .map(|entry| entry.expect("an entry").path())
            .find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("ld-linux")
            });
        let mut command = Command::new(loader.expect("a loader of programs"));
        command
            .arg("--library-path")
            .arg(libraries)
            .arg(tree.join("bin").join(program));
        command
    }

    /// The base image: busybox and links for its applets.
    pub fn rootfs_tar(&self) -> PathBuf {
        self.dir.join("rootfs.tar")
    }

    /// The program of the base image. It is static, and is what it is called.
    pub fn busybox(&self) -> PathBuf {
        self.dir.join("debian/bin/busybox")
    }

    /// `PATH` with the peers first.
    pub fn path(&self) -> String {
        format!(
            "{}:{}",
            self.bin().display(),
            env::var("PATH").unwrap_or_default()
        )
    }

    fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }
}
