//! What a unary call takes longer through inlay: `Control.ListWorkers` on the daemon itself and through
//! inlay, by turns in blocks, on connections that are open. The median and the 99th percentile of each
//! are printed, and their differences.
//!
//! `cargo bench --bench unary`, or with `-- N` for N calls each way.

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared; this uses a part of it")]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use inlay::daemon::Daemon;
use inlay::protocol::proto::control::ListWorkersRequest;
use support::{Buildkitd, Inlay};

/// How many calls are made one way before the other has its turn.
const BLOCK: usize = 200;

fn main() {
    let calls = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let calls: usize = calls.unwrap_or(20_000);
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let [mut direct, mut through] = runtime.block_on(async {
        let connect = |addr: String| Daemon::new(Arc::new(addr.parse().expect("an address")));
        let daemons = [connect(buildkitd.addr()), connect(inlay.addr())];
        let mut times = [Vec::new(), Vec::new()];
        // The first block of each way connects and warms up.
        for block in 0..=calls.div_ceil(BLOCK) {
            for (daemon, times) in daemons.iter().zip(&mut times) {
                let mut control = daemon.control();
                for _ in 0..BLOCK {
                    let started = Instant::now();
                    let answer = control.list_workers(ListWorkersRequest::default()).await;
                    let taken = started.elapsed();
                    assert_eq!(answer.expect("an answer").into_inner().record.len(), 1);
                    if block > 0 {
                        times.push(taken);
                    }
                }
            }
        }
        times
    });
    println!(
        "{:<24} {:>10} {:>10} {:>10}",
        "unary call", "buildkitd", "inlay", "added"
    );
    for hundredths in [50, 99] {
        let [direct, through] =
            [&mut direct, &mut through].map(|times| percentile(times, hundredths));
        println!(
            "{:<24} {:>7} µs {:>7} µs {:>7} µs",
            format!("p{hundredths} of {calls}"),
            direct.as_micros(),
            through.as_micros(),
            through.saturating_sub(direct).as_micros(),
        );
    }
}

fn percentile(times: &mut [Duration], hundredths: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * hundredths / 100]
}
