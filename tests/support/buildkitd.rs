//! BuildKit's daemon.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{Buildctl, Daemon, Peers};

/// Where it has its blobs.
const BLOBS: &str = "root/runc-overlayfs/content/blobs/sha256";

/// A buildkitd with a state of its own, in debug mode so that its log tells what ran.
#[derive(Debug)]
pub struct Buildkitd {
    // Before its directory: fields are dropped in order.
    daemon: Daemon,
    dir: TempDir,
    network: Network,
}

/// The network that it runs in.
#[derive(Clone, Copy, Debug)]
enum Network {
    /// The machine's.
    Host,
    /// One without any way out.
    Own,
}

impl Buildkitd {
    /// Starts an empty one.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// Starts an empty one with more lines at the end of its `buildkitd.toml`.
    pub fn with_config(more: &str) -> Self {
        Self::launched(more, Network::Host)
    }

    /// Starts an empty one in a network of its own, as in a container. It reaches no registry, and
    /// clients reach it by its socket.
    pub fn in_own_network() -> Self {
        Self::launched("", Network::Own)
    }

    fn launched(more: &str, network: Network) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("inlay-buildkitd-")
            .tempdir()
            .expect("a temporary directory");
        let path = dir.path().display();
        let config = format!(
            r#"debug = true
root = "{path}/root"
[grpc]
  address = ["unix://{path}/buildkitd.sock"]
[otel] # by default one path for all daemons, and the second of two that start together ends
  socketPath = "{path}/otel.sock"
[worker.oci]
  enabled = true
  snapshotter = "overlayfs"
  networkMode = "host"
  gc = false
[worker.containerd]
  enabled = false
{more}
"#
        );
        fs::write(dir.path().join("buildkitd.toml"), config).expect("buildkitd.toml is written");
        let daemon = launch(&dir, network);
        Self {
            dir,
            daemon,
            network,
        }
    }

    /// Its address, as `buildctl --addr` takes it. It stays the same over restarts.
    pub fn addr(&self) -> String {
        format!("unix://{}/buildkitd.sock", self.dir.path().display())
    }

    /// Makes it as cold as a new one: stops it, deletes all of its state, starts it.
    pub fn wipe(&mut self) {
        self.daemon.kill();
        let root = self.dir.path().join("root");
        fs::remove_dir_all(&root)
            .unwrap_or_else(|error| panic!("{} is not removed: {error}", root.display()));
        self.daemon = launch(&self.dir, self.network);
    }

    /// Stops it in order and starts it again with the state that it had.
    pub fn restart(&mut self) {
        self.daemon.terminate();
        self.daemon = launch(&self.dir, self.network);
    }

    /// Stops it as it is (SIGSTOP), or has it go on.
    pub fn stop(&mut self, stops: bool) {
        let signal = if stops { Signal::STOP } else { Signal::CONT };
        self.daemon.signal(signal);
    }

    /// Tells it to stop: it drains, and ends when its builds have.
    pub fn drain(&mut self) {
        self.daemon.signal(Signal::TERM);
    }

    /// Kills it and all that it runs, as a crash would. [`restart`](Self::restart) brings it back.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Its log from its first start, over restarts.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// The command lines of all the containers that it has run since its first start, such as
    /// `/bin/sh -c make`. Who asked does not matter: a step that a side solve ran is here too.
    pub fn executed(&self) -> Vec<String> {
        // …level=debug msg="> creating dj07fkcm1975rpvc1fu53vj1u [/bin/sh -c make]" span=…
        self.log()
            .lines()
            .filter_map(|line| {
                let (_, rest) = line.split_once("msg=\"> creating ")?;
                let (_, command) = rest.split_once(" [")?;
                let (command, _) = command.split_once("]\"")?;
                Some(command.replace("\\\"", "\""))
            })
            .collect()
    }

    /// The snapshots that it has, from `buildctl du`: each is an object with `id`, `description`,
    /// `size`, … A step that makes files leaves one behind, whoever asked for it, and also where no
    /// container ran.
    pub fn usage(&self) -> Vec<Value> {
        let output = self.buildctl(&["du", "--format", "{{json .}}"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let records: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
        records.as_array().cloned().unwrap_or_default()
    }

    /// The digests of all the blobs that it holds: layers that it pulled or compressed, configs,
    /// manifests.
    pub fn blobs(&self) -> BTreeSet<String> {
        let blobs = self.dir.path().join(BLOBS);
        let Ok(entries) = fs::read_dir(blobs) else {
            return BTreeSet::new();
        };
        entries
            .map(|entry| format!("sha256:{}", entry.expect("an entry").file_name().display()))
            .collect()
    }

    /// Those of the blobs that are layers, in whatever compression.
    pub fn layer_blobs(&self) -> BTreeSet<String> {
        let mut blobs = self.blobs();
        // The others are manifests, configs and the logs of builds.
        blobs.retain(|digest| {
            let blob = self.blob(digest);
            let (gzip, zstd) = (&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd][..]);
            blob.starts_with(gzip) || blob.starts_with(zstd) || blob.get(257..262) == Some(b"ustar")
        });
        blobs
    }

    /// How many blobs it is writing at the moment.
    pub fn writes(&self) -> usize {
        let ingests = self.dir.path().join(BLOBS).join("../../ingest");
        fs::read_dir(ingests).map_or(0, Iterator::count)
    }

    /// The bytes of a blob that it holds.
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        let name = digest.trim_start_matches("sha256:");
        let blobs = self.dir.path().join(BLOBS);
        fs::read(blobs.join(name)).unwrap_or_else(|error| panic!("blob {digest}: {error}"))
    }

    /// Deletes the results of steps of which `buildctl du` describes with one of these words, and
    /// all that is built on them. What led to them stays known.
    pub fn forget(&self, words: &[&str]) {
        let is_meant = |record: &Value| {
            let description = record["description"].as_str().unwrap_or_default();
            words.iter().any(|word| description.contains(word))
        };
        loop {
            let before = self.usage();
            let meant: Vec<_> = before.iter().filter(|record| is_meant(record)).collect();
            if meant.is_empty() {
                return;
            }
            for record in meant {
                let id = record["id"].as_str().expect("a record has an id");
                let pruned = self.buildctl(&["prune", "--filter", &format!("id=={id}")]);
                assert!(pruned.status.success(), "{pruned:?}");
            }
            // Results that others are built on go after these.
            assert!(self.usage().len() < before.len(), "{before:#?}");
        }
    }

    /// The command lines of the processes that it runs at the moment: its steps, and what runs
    /// them.
    pub fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut parents = vec![self.daemon.pid()];
        while let Some(parent) = parents.pop() {
            let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
                continue; // it has ended meanwhile
            };
            for thread in threads.flatten() {
                let children = fs::read_to_string(thread.path().join("children"));
                let children = children.unwrap_or_default();
                parents.extend(
                    children
                        .split_whitespace()
                        .filter_map(|pid| pid.parse::<u32>().ok()),
                );
            }
            if parent != self.daemon.pid() {
                let line = fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }

    /// How many sessions it has at the moment.
    pub fn sessions(&self) -> usize {
        let log = self.log();
        let since = log.rfind("running server on").unwrap_or(0);
        let count = |what| log[since..].matches(what).count();
        count("msg=\"session started\"") - count("msg=\"session finished: ")
    }

    /// Runs `buildctl` on it, for subcommands other than `build`.
    pub fn buildctl(&self, args: &[&str]) -> Output {
        Buildctl::command(&self.addr(), args)
    }
}

fn launch(dir: &TempDir, network: Network) -> Daemon {
    let peers = Peers::locate();
    let socket = dir.path().join("buildkitd.sock");
    let _ = fs::remove_file(&socket); // a killed daemon leaves its own behind
    let mut command = match network {
        Network::Host => Command::new(peers.buildkitd()),
        Network::Own => {
            let mut command = Command::new("unshare");
            command.args(["--net", "--"]).arg(peers.buildkitd());
            command
        }
    };
    command
        .arg("--config")
        .arg(dir.path().join("buildkitd.toml"))
        .env("PATH", peers.path())
        // What it mounts goes with its directory, also when it is killed.
        .env("TMPDIR", dir.path());
    let mut daemon = Daemon::spawn_isolated("buildkitd", &command, &dir.path().join("log"));
    daemon.wait_until(Duration::from_secs(30), |_| {
        UnixStream::connect(&socket).ok()
    });
    daemon
}
