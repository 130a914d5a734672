//! Build contexts: straight to the daemon, and through inlay, which passes the session that carries
//! them or, for a build that imports, ends it; and through a pipe that does nothing but copy bytes,
//! which is what any process in between costs. Alternating runs on one daemon, which is wiped before
//! each; the medians and their ratio are printed, and what memory and processor time inlay took.
//!
//! `cargo bench --bench context`, or with `-- N` for N runs of each.

#[path = "../tests/support/mod.rs"]
mod support;

mod alternating;

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Instant;

use alternating::{Who, medians, millis};
use inlay::proto::pb;
use inlay::record::Digest;
use prost::Message as _;
use support::{Buildctl, Buildkitd, Inlay, Project};

fn main() {
    let runs = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    println!(
        "{:<24} {:>10} {:>10} {:>7} {:>16} {:>12}",
        "context", "direct", "through", "ratio", "processor time", "peak memory"
    );
    let large = Project::new();
    fill(&large, "large", 1 << 30);
    compare(
        "one file of 1 GiB",
        &large,
        Through::Passed,
        runs.unwrap_or(9),
    );
    compare(
        "- an import as well",
        &large,
        Through::Ended,
        runs.unwrap_or(9),
    );
    compare("- by a bare pipe", &large, Through::Pipe, runs.unwrap_or(9));
    drop(large);
    let many = Project::new();
    for number in 0..5000 {
        fill(&many, &number.to_string(), 4 << 10);
    }
    compare(
        "5000 files of 4 KiB",
        &many,
        Through::Passed,
        runs.unwrap_or(9),
    );
    drop(many);
    let small = Project::new().file("file", "text\n");
    compare(
        "one small file",
        &small,
        Through::Passed,
        3 * runs.unwrap_or(9),
    );
}

/// What a context passes on its way to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    /// inlay, which needs nothing of the session.
    Passed,
    /// inlay, which ends the session: the build imports, though there is nothing.
    Ended,
    /// A process that copies bytes.
    Pipe,
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

fn compare(name: &str, project: &Project, through: Through, runs: usize) {
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let piped = dir.path().join("pipe.sock");
    pipe(&piped, &buildkitd.addr());
    let local = format!("--local=context={}", project.path().display());
    let (direct, between) = medians(runs, |who, _| {
        buildkitd.wipe();
        let build = match (who, through) {
            (Who::BuildKit, _) => Buildctl::new(buildkitd.addr()),
            (Who::Inlay, Through::Passed) => Buildctl::new(inlay.addr()),
            (Who::Inlay, Through::Ended) => {
                Buildctl::new(inlay.addr()).import_cache("type=inline,ref=oci:/nowhere")
            }
            (Who::Inlay, Through::Pipe) => Buildctl::new(format!("unix://{}", piped.display())),
        };
        let build = build.llb(context()).args([&local]);
        let started = Instant::now();
        build.run_ok();
        started.elapsed()
    });
    print!(
        "{name:<24} {:>7.0} ms {:>7.0} ms {:>7.3}",
        millis(direct),
        millis(between),
        direct.as_secs_f64() / between.as_secs_f64(),
    );
    if through == Through::Pipe {
        println!();
        return;
    }
    println!(
        " {:>7.0} ms a run {:>8} KiB",
        millis(inlay.processor_time() / runs as u32),
        inlay.peak_rss() >> 10,
    );
}
