//! A process that runs beside a test and ends with it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// How long a daemon may take to end after SIGTERM before SIGKILL follows.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Lines of a log that a failing test prints.
const LOG_LINES: usize = 60;

/// A running process, its log in a file.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    /// `child` is `unshare`, and the daemon the one child of that.
    isolated: bool,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Starts `command`; its output is appended to the file `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("log file opens");
        let err = out.try_clone().expect("log file clones");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {command:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            isolated: false,
            log: log.to_owned(),
            ended: None,
        }
    }

    /// Starts `command` in mount and process namespaces of its own. What it mounts or
    /// starts ends with it, also when it is killed.
    pub fn spawn_isolated(name: &str, command: &Command, log: &Path) -> Self {
        let mut isolated = Command::new("unshare");
        isolated
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--propagation",
                "private",
                "--",
            ])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            isolated.env(key, value.unwrap_or(OsStr::new("")));
        }
        Self::spawn(name, isolated, log).isolated()
    }

    /// For a command that ends in `exec unshare --fork` by itself.
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// The process id of the daemon itself, to be asked once it is ready.
    pub fn pid(&self) -> u32 {
        let outer = self.child.id();
        if !self.isolated {
            return outer;
        }
        let children =
            fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
        children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
            .unwrap_or(outer)
    }

    /// All that it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Waits until `ready` gives something; panics with the log if the daemon ends
    /// before that, or after `limit`.
    pub fn wait_until<T>(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let value = wait_for(limit, || match ready(self) {
            Some(value) => Some(Ok(value)),
            None => self.ended().map(Err),
        });
        match value {
            Some(Ok(value)) => value,
            Some(Err(status)) => panic!(
                "{} ended at its start ({status}):\n{}",
                self.name,
                self.log()
            ),
            None => panic!(
                "{} is not ready after {limit:?}:\n{}",
                self.name,
                self.log()
            ),
        }
    }

    /// SIGTERM, then a bounded wait, then SIGKILL. Gives how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        match wait_for(STOP_LIMIT, || self.ended()) {
            Some(status) => status,
            None => {
                eprintln!("{} is still there {STOP_LIMIT:?} after SIGTERM", self.name);
                self.kill()
            }
        }
    }

    /// SIGKILL: no chance to clean up.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        // `unshare` ends once the daemon and all in its namespaces are gone: only then are its
        // files at rest.
        if wait_for(STOP_LIMIT, || self.ended()).is_none() {
            let _ = self.child.kill(); // it may end meanwhile
        }
        let status = self.child.wait().expect("a child can be waited for");
        self.ended = Some(status);
        status
    }

    /// Sends a signal to the daemon, if it is still there.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id");
            let _ = kill_process(pid, signal); // it may end meanwhile
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.terminate();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!(
                "--- log of {}, last {} of {} lines\n{}",
                self.name,
                tail.len(),
                lines.len(),
                tail.join("\n")
            );
        }
    }
}
