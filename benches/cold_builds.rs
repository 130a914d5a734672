//! Cold builds with inline cache: by BuildKit itself, and through inlay. Alternating runs on one
//! daemon, which is wiped before each; the medians, their difference and the ratio are printed.
//!
//! `cargo bench --bench cold_builds`, or with `-- N` for N runs of each.

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared; this uses a part of it")]
mod support;

mod alternating;

use std::time::Instant;

use alternating::by_turns;
use support::{Buildctl, Buildkitd, Inlay, Project, Registry, STAGES, inline_records};

/// 500 MB of layers that do not compress.
const LARGE: &str = "\
FROM scratch
ADD rootfs.tar /
RUN head -c 250000000 /dev/urandom >/one
RUN head -c 250000000 /dev/urandom >/two
";

fn main() {
    let runs = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let project = |dockerfile| {
        Project::new()
            .base()
            .dockerfile(dockerfile)
            .file("source.txt", "some text\n")
    };
    println!(
        "{:<24} {:>10} {:>10} {:>10} {:>7}",
        "cold build", "BuildKit", "inlay", "longer", "ratio"
    );
    // The stages are about half a second of work.
    compare("small", &project(STAGES), runs.unwrap_or(15));
    compare("500 MB of layers", &project(LARGE), runs.unwrap_or(9));
}

fn compare(name: &str, project: &Project, runs: usize) {
    let registry = Registry::start();
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let addresses = [buildkitd.addr(), inlay.addr()];
    let [plain, through] = by_turns(addresses.each_ref(), runs, |address, _| {
        buildkitd.wipe();
        let build = Buildctl::new(address)
            .project(project)
            .push(&registry.image("bench:cold"))
            .export_cache("type=inline");
        let started = Instant::now();
        build.run_ok();
        let taken = started.elapsed();
        assert!(!inline_records(&registry.config("bench:cold", None)).is_empty());
        taken
    });
    println!(
        "{name:<24} {:>7.0} ms {:>7.0} ms {:>7.0} ms {:>7.3}",
        plain.millis(),
        through.millis(),
        through.millis() - plain.millis(),
        through.ratio_to(&plain),
    );
}
