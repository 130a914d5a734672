//! Layers that a cache import serves: 1 GiB of them go from a folder through a session to the
//! daemon and on to a registry. By BuildKit's own `type=local` import, and by inlay's of an image
//! layout. Alternating runs on one daemon, which is wiped before each; the medians and the ratio of
//! the throughputs are printed, and what memory and processor time inlay took.
//!
//! `cargo bench --bench served`, or with `-- N` for N runs of each. It wants 6 GiB in `$TMPDIR`.

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared; this uses a part of it")]
mod support;

mod alternating;

use std::time::Instant;

use alternating::by_turns;
use support::{Buildctl, Buildkitd, Inlay, Project, Registry};

/// 1 GiB of layers that do not compress.
const LAYERS: &str = "\
FROM scratch
ADD rootfs.tar /
RUN head -c 268435456 /dev/urandom >/one
RUN head -c 268435456 /dev/urandom >/two
RUN head -c 268435456 /dev/urandom >/three
RUN head -c 268435456 /dev/urandom >/four
";

fn main() {
    let runs = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let runs = runs.unwrap_or(9);
    let registry = Registry::start();
    let mut buildkitd = Buildkitd::start();
    let images = tempfile::tempdir().expect("a temporary directory");
    let allowed = format!("--allow-path={}", images.path().display());
    let project = Project::new().base().dockerfile(LAYERS);
    let [layout, cache] = ["layout", "cache"].map(|name| images.path().join(name));

    // One build of which both are left, so both imports are of the same layers.
    Buildctl::new(Inlay::start(&buildkitd, &[]).addr())
        .project(&project)
        .output(&format!("type=oci,tar=false,dest={}", layout.display()))
        .export_cache("type=inline")
        .export_cache(&format!("type=local,mode=min,dest={}", cache.display()))
        .run_ok();

    let inlay = Inlay::start(&buildkitd, &[&allowed]);
    let ways = [
        (
            "buildkit",
            buildkitd.addr(),
            format!("type=local,src={}", cache.display()),
        ),
        (
            "inlay",
            inlay.addr(),
            format!("type=inline,ref=oci:{}", layout.display()),
        ),
    ];
    let [buildkit, through] = by_turns(ways.each_ref(), runs, |(who, address, import), run| {
        buildkitd.wipe();
        // A repository that has no layer yet, or none would be read.
        let image = registry.image(&format!("served-{who}-{run}:1"));
        let build = Buildctl::new(address)
            .project(&project)
            .import_cache(import)
            .push(&image);
        let started = Instant::now();
        let built = build.run_ok();
        let taken = started.elapsed();
        assert_eq!(built.steps_ran(), [""; 0], "{built}");
        taken
    });
    println!(
        "{:<24} {:>10} {:>10} {:>7} {:>16} {:>12}",
        "served", "type=local", "inlay", "ratio", "processor time", "peak memory"
    );
    println!(
        "{:<24} {:>7.0} ms {:>7.0} ms {:>7.3} {:>8.0} ms a run {:>8} KiB",
        "1 GiB of layers",
        buildkit.millis(),
        through.millis(),
        buildkit.ratio_to(&through),
        inlay.processor_time().as_millis() / runs as u128,
        inlay.peak_rss() >> 10,
    );
}
