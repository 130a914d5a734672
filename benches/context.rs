//! Build contexts: straight to the daemon, and through inlay, which ends the session that carries
//! them. Alternating runs on one daemon, which is wiped before each; the medians and their ratio
//! are printed, and what memory and processor time inlay took.
//!
//! `cargo bench --bench context`, or with `-- N` for N runs of each.

#[path = "../tests/support/mod.rs"]
mod support;

mod alternating;

use std::fs::File;
use std::io::{self, Read as _};
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
        "context", "direct", "inlay", "ratio", "processor time", "peak memory"
    );
    let large = Project::new();
    fill(&large, "large", 1 << 30);
    compare("one file of 1 GiB", &large, runs.unwrap_or(9));
    drop(large);
    let many = Project::new();
    for number in 0..5000 {
        fill(&many, &number.to_string(), 4 << 10);
    }
    compare("5000 files of 4 KiB", &many, runs.unwrap_or(9));
    drop(many);
    let small = Project::new().file("file", "text\n");
    compare("one small file", &small, 3 * runs.unwrap_or(9));
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

fn compare(name: &str, project: &Project, runs: usize) {
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let local = format!("--local=context={}", project.path().display());
    let (direct, through) = medians(runs, |who, _| {
        buildkitd.wipe();
        let address = match who {
            Who::BuildKit => buildkitd.addr(),
            Who::Inlay => inlay.addr(),
        };
        let build = Buildctl::new(address).llb(context()).args([&local]);
        let started = Instant::now();
        build.run_ok();
        started.elapsed()
    });
    println!(
        "{name:<24} {:>7.0} ms {:>7.0} ms {:>7.3} {:>8.0} ms a run {:>8} KiB",
        millis(direct),
        millis(through),
        direct.as_secs_f64() / through.as_secs_f64(),
        millis(inlay.processor_time() / runs as u32),
        inlay.peak_rss() >> 10,
    );
}
