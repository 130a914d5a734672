//! The program under test.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use super::{Buildkitd, Daemon, wait_for};

/// An `inlay serve` in front of a daemon.
#[derive(Debug)]
pub struct Inlay {
    // Before its directory: fields are dropped in order.
    daemon: Daemon,
    dir: TempDir,
    /// All arguments.
    args: Vec<String>,
}

/// What a process has of the system at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Open files and sockets.
    pub descriptors: usize,
    /// Its threads.
    pub threads: u64,
    /// Resident and its own, without its program, in kB.
    pub memory: u64,
}

impl Inlay {
    /// Starts it in front of `buildkitd`, with more arguments to `inlay serve`.
    pub fn start(buildkitd: &Buildkitd, args: &[&str]) -> Self {
        Self::in_front_of(&buildkitd.addr(), args)
    }

    /// Starts it in front of any address that `--buildkitd` takes.
    pub fn in_front_of(addr: &str, args: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("inlay-serve-")
            .tempdir()
            .expect("a temporary directory");
        let socket = dir.path().join("inlay.sock");
        let own = [
            "serve".to_owned(),
            format!("--addr=unix://{}", socket.display()),
            format!("--buildkitd={addr}"),
        ];
        let args = own
            .into_iter()
            .chain(args.iter().map(|arg| (*arg).to_owned()));
        let args: Vec<_> = args.chain(["--log=inlay=debug".to_owned()]).collect();
        let daemon = launch(&dir, &args);
        Self { daemon, dir, args }
    }

    /// Stops it, with SIGKILL if `is_abrupt`, and starts it again at the same address.
    pub fn restart(&mut self, is_abrupt: bool) {
        if is_abrupt {
            self.daemon.kill();
        } else {
            self.daemon.terminate();
        }
        self.daemon = launch(&self.dir, &self.args);
    }

    /// The program itself, without arguments.
    pub fn command() -> Command {
        // Not `env!`: without the feature `server` there is no binary, and tests that need none
        // still build.
        let Some(program) = option_env!("CARGO_BIN_EXE_inlay") else {
            panic!("needs the feature `server`")
        };
        Command::new(program)
    }

    /// Its address, as `buildctl --addr` takes it.
    pub fn addr(&self) -> String {
        format!("unix://{}/inlay.sock", self.dir.path().display())
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// The most memory that it has had resident so far, in bytes.
    pub fn peak_rss(&self) -> u64 {
        self.status("VmHWM") * 1024
    }

    /// What it has at the moment.
    pub fn usage(&self) -> Usage {
        let files = fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).expect("inlay runs");
        Usage {
            descriptors: files.count(),
            threads: self.status("Threads"),
            memory: self.status("RssAnon"),
        }
    }

    /// A number that the kernel tells of it.
    fn status(&self, name: &str) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).expect("inlay runs");
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = value.unwrap_or_else(|| panic!("{name} in {status}"));
        let number = value.trim().trim_end_matches(" kB");
        number.parse().expect("a number")
    }

    /// What it has had of the processors so far.
    #[allow(dead_code, reason = "for benches, which compile this module too")]
    pub fn processor_time(&self) -> Duration {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.daemon.pid())).expect("inlay runs");
        // After the name, which is in parentheses: the 12th and 13th are ticks of 10 ms.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|tick| tick.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(10 * ticks)
    }

    /// How many sockets it has open: those that it listens on, its clients', and those to the
    /// daemon.
    pub fn sockets(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).expect("inlay runs");
        let targets = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok());
        targets
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }

    /// How many of them stay when nothing runs: those of a client that just left take a moment to
    /// close.
    pub fn idle_sockets(&self) -> usize {
        let settled = wait_for(Duration::from_secs(30), || {
            let sockets = self.sockets();
            sleep(Duration::from_millis(500));
            (self.sockets() == sockets).then_some(sockets)
        });
        settled.expect("sockets that stay")
    }

    /// The daemon, for signals and waits.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

fn launch(dir: &TempDir, args: &[String]) -> Daemon {
    let socket = dir.path().join("inlay.sock");
    let mut command = Inlay::command();
    command.args(args);
    let mut daemon = Daemon::spawn("inlay", command, &dir.path().join("log"));
    daemon.wait_until(Duration::from_secs(10), |_| {
        UnixStream::connect(&socket).ok()
    });
    daemon
}
