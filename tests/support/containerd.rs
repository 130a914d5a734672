//! containerd, with image stores of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::{Daemon, Peers};

/// A containerd with a state of its own, from the tree of Docker Engine. It only stores images.
#[derive(Debug)]
pub struct Containerd {
    // Before its directory: fields are dropped in order.
    _daemon: Daemon,
    dir: TempDir,
}

// === impl Containerd ===

impl Containerd {
    /// Starts an empty one.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("inlay-containerd-")
            .tempdir()
            .expect("a temporary directory");
        let path = dir.path().display();
        // What is disabled would write to the system's directories.
        let config = format!(
            r#"version = 2
root = "{path}/root"
state = "{path}/state"
disabled_plugins = [
    "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
    "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri",
]
[grpc]
address = "{path}/containerd.sock"
"#
        );
        fs::write(dir.path().join("config.toml"), config).expect("config.toml is written");
        let mut command = Peers::locate().of_docker_engine("containerd");
        command.arg("--config").arg(dir.path().join("config.toml"));
        let mut daemon = Daemon::spawn_isolated("containerd", &command, &dir.path().join("log"));
        let socket = dir.path().join("containerd.sock");
        daemon.wait_until(Duration::from_secs(30), |_| {
            UnixStream::connect(&socket).ok()
        });
        Self {
            _daemon: daemon,
            dir,
        }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }

    /// Takes the images of an archive into a namespace, all platforms.
    pub fn import(&self, namespace: &str, archive: &Path) {
        let mut command = Peers::locate().of_docker_engine("ctr");
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace, "images", "import"])
            .args(["--all-platforms", "--no-unpack"])
            .arg(archive);
        let output = command.output().expect("ctr runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
