//! Build contexts: straight to the daemon, and through inlay, which ends the session that carries
//! them; and through a pipe that does nothing but copy bytes, which is what any process in between
//! costs. By turns on one daemon, which is wiped before each; the medians are printed, the ratio of
//! the throughputs, and what memory and processor time inlay took.
//!
//! `cargo bench --bench context`, or with `-- N` for N rounds. It wants 3 GiB in `$TMPDIR`.

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared; this uses a part of it")]
mod support;

mod alternating;

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Instant;

use alternating::by_turns;
use inlay::cache::record::Digest;
use inlay::protocol::proto::pb;
use prost::Message as _;
use support::{Buildctl, Buildkitd, Inlay, Project};

fn main() {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let rounds = rounds.unwrap_or(9);
    println!(
        "{:<24} {:>10} {:>7} {:>16} {:>12}",
        "context", "time", "ratio", "processor time", "peak memory"
    );
    let large = Project::new();
    fill(&large, "large", 1 << 30);
    compare("one file of 1 GiB", &large, rounds);
    drop(large);
    let many = Project::new();
    for number in 0..5000 {
        fill(&many, &number.to_string(), 4 << 10);
    }
    compare("5000 files of 4 KiB", &many, rounds);
    drop(many);
    let small = Project::new().file("file", "text\n");
    compare("one small file", &small, 3 * rounds);
}

/// How a context gets to the daemon.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// With nothing in between.
    Direct,
    /// By inlay.
    Inlay,
    /// By a process that copies bytes.
    Piped,
}

/// Copies bytes between clients and a daemon, as long as this process runs.
fn pipe(at: &Path, daemon: &str) {
    let listener = UnixListener::bind(at).expect("a socket");
    let daemon = daemon.strip_prefix("unix://").expect("a path").to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            let daemon = UnixStream::connect(&daemon).expect("a daemon");
            for (from, to) in [(&client, &daemon), (&daemon, &client)] {
                let [from, mut to] = [from, to].map(|end| end.try_clone().expect("one more"));
                thread::spawn(move || {
                    // However it ends, it ends for the other side too.
                    let _ = io::copy(&mut BufReader::with_capacity(256 << 10, from), &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
}

/// A file of random bytes.
fn fill(project: &Project, name: &str, size: u64) {
    let mut random = File::open("/dev/urandom").expect("random bytes").take(size);
    let mut file = File::create(project.path().join(name)).expect("a file of the context");
    io::copy(&mut random, &mut file).expect("a file of the context");
}

/// A definition of nothing but the context: what takes time is its way to the daemon.
fn context() -> Vec<u8> {
    let source = pb::SourceOp {
        identifier: "local://context".to_owned(),
        ..Default::default()
    };
    let op = pb::Op {
        op: Some(pb::op::Op::Source(source)),
        ..Default::default()
    };
    let op = op.encode_to_vec();
    let input = pb::Input {
        digest: Digest::of(&op).to_string(),
        index: 0,
    };
    let end = pb::Op {
        inputs: vec![input],
        ..Default::default()
    };
    let definition = pb::Definition {
        def: vec![op, end.encode_to_vec()],
        ..Default::default()
    };
    definition.encode_to_vec()
}

fn compare(name: &str, project: &Project, rounds: usize) {
    let ways = [Way::Direct, Way::Inlay, Way::Piped];
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let piped = dir.path().join("pipe.sock");
    pipe(&piped, &buildkitd.addr());
    let local = format!("--local=context={}", project.path().display());
    let times = by_turns(ways, rounds, |way, _| {
        buildkitd.wipe();
        // What the last one wrote is not to go to the disk during this one.
        rustix::fs::sync();
        let addr = match way {
            Way::Direct => buildkitd.addr(),
            Way::Inlay => inlay.addr(),
            Way::Piped => format!("unix://{}", piped.display()),
        };
        let build = Buildctl::new(addr).llb(context()).args([&local]);
        let started = Instant::now();
        build.run_ok();
        started.elapsed()
    });
    println!("{name}");
    for (way, way_times) in ways.iter().zip(&times) {
        let label = match way {
            Way::Direct => "- direct",
            Way::Inlay => "- through inlay",
            Way::Piped => "- through a bare pipe",
        };
        print!(
            "{label:<24} {:>7.0} ms {:>7.3}",
            way_times.millis(),
            times[0].ratio_to(way_times),
        );
        if matches!(way, Way::Inlay) {
            print!(
                " {:>7} ms a run {:>8} KiB",
                inlay.processor_time().as_millis() / rounds as u128,
                inlay.peak_rss() >> 10,
            );
        }
        println!();
    }
}
