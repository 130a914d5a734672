//! What the benches share: ways to do one thing, by turns, and what is told of them.

use std::array;
use std::time::Duration;

/// How long one way took in each round.
#[derive(Debug)]
pub struct Times(Vec<Duration>);

/// Times all ways, by turns: in each round every one of them. `run` gets the way and the number of
/// the round.
pub fn by_turns<W: Copy, const N: usize>(
    ways: [W; N],
    rounds: usize,
    mut run: impl FnMut(W, usize) -> Duration,
) -> [Times; N] {
    let mut times = array::from_fn(|_| Times(Vec::with_capacity(rounds)));
    for round in 0..rounds {
        // Each goes first as often as the others: a machine that gets slower or faster favours
        // none.
        for turn in 0..N {
            let way = (round + turn) % N;
            times[way].0.push(run(ways[way], round));
        }
    }
    times
}

impl Times {
    /// The median, in milliseconds.
    pub fn millis(&self) -> f64 {
        let times = self.0.iter().map(|time| time.as_secs_f64() * 1000.0);
        median(times.collect())
    }

    /// The median of the ratios to another way's times, each within one round: what the machine
    /// does meanwhile is in both.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        let pairs = self.0.iter().zip(&other.0);
        median(
            pairs
                .map(|(time, other)| time.as_secs_f64() / other.as_secs_f64())
                .collect(),
        )
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
