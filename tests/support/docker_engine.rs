//! Docker Engine, with an older BuildKit inside.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use super::{Daemon, Layout, Peers};

/// Where Docker Engine keeps images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStore {
    /// The older one. BuildKit has no `local` cache exporter there.
    Classic,
    /// containerd's.
    Containerd,
}

/// A dockerd with a state of its own. Its steps have no network but the host's.
#[derive(Debug)]
pub struct DockerEngine {
    // Before its directory: fields are dropped in order.
    _daemon: Daemon,
    dir: TempDir,
}

impl DockerEngine {
    /// Starts an empty one.
    pub fn start(store: ImageStore) -> Self {
        Peers::locate();
        let dir = tempfile::Builder::new()
            .prefix("inlay-dockerd-")
            .tempdir()
            .expect("a temporary directory");
        let config = serde_json::json!({
            "debug": true,
            "features": { "containerd-snapshotter": store == ImageStore::Containerd },
        });
        fs::write(dir.path().join("daemon.json"), config.to_string())
            .expect("daemon.json is written");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/dockerd.sh");
        let mut command = Command::new(script);
        command.arg(dir.path());
        let mut daemon = Daemon::spawn("dockerd", command, &dir.path().join("log")).isolated();
        let socket = dir.path().join("docker.sock");
        daemon.wait_until(Duration::from_secs(60), |_| {
            UnixStream::connect(&socket).ok()
        });
        Self {
            dir,
            _daemon: daemon,
        }
    }

    /// Its address, as `DOCKER_HOST` takes it.
    pub fn addr(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.path().display())
    }

    /// Its address, as `inlay serve --buildkitd` takes it.
    pub fn buildkitd_addr(&self) -> String {
        format!("docker://{}/docker.sock", self.dir.path().display())
    }

    /// The socket of its containerd, which has the images of its containerd store.
    pub fn containerd_socket(&self) -> PathBuf {
        self.dir.path().join("exec/containerd/containerd.sock")
    }

    /// The config of an image that it has.
    pub fn config(&self, image: &str) -> Vec<u8> {
        let archive = self.dir.path().join("saved.tar");
        let saved = self.docker(&["save", "--output", &archive.to_string_lossy(), image]);
        assert!(
            saved.status.success(),
            "{}",
            String::from_utf8_lossy(&saved.stderr)
        );
        Layout::from_tar(&archive).config()
    }

    /// Runs the `docker` command on it.
    pub fn docker(&self, args: &[&str]) -> Output {
        Command::new(Peers::locate().docker())
            .args(args)
            .env("DOCKER_HOST", self.addr())
            .env("HOME", self.dir.path())
            .output()
            .expect("docker runs")
    }
}
