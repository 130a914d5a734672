//! What the benches share: BuildKit and inlay by turns, and what is told of it.

use std::time::Duration;

/// Times both, by turns, and gives the medians: BuildKit's, and inlay's.
pub fn medians(runs: usize, mut run: impl FnMut(Who, usize) -> Duration) -> (Duration, Duration) {
    let (mut buildkit, mut inlay) = (Vec::new(), Vec::new());
    for number in 0..runs {
        let mut pair = [(Who::BuildKit, &mut buildkit), (Who::Inlay, &mut inlay)];
        // Each goes first as often as the other: a machine that gets slower or faster favours
        // neither.
        if number % 2 == 1 {
            pair.reverse();
        }
        for (who, times) in pair {
            times.push(run(who, number));
        }
    }
    (median(buildkit), median(inlay))
}

/// Which of the two is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// BuildKit by itself.
    BuildKit,
    /// BuildKit behind inlay.
    Inlay,
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// In milliseconds, to be printed.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
