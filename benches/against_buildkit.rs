//! Parsing, selecting and encoding a cache: ours against what BuildKit's own packages take for the
//! same job on the same input, in the same run. Prints a table of times and of memory.
//!
//! - *Time* is the median over the runs within one process, after one to warm up.
//! - *Memory* is how much higher the peak of resident memory is in a process that does the job
//!   once than in one that only reads the input; the median of several.
//! - *Floor* is the time of reading the JSON without keeping any of it, and of hashing once what
//!   the identities of the records are made of; a cache cannot be read and put in order for less.
//!
//! BuildKit's side is `tests/clients/bench`. `cargo bench --bench against_buildkit`.

#[path = "../tests/e2e/differential/generate.rs"]
#[allow(dead_code, reason = "shared; this uses a part of it")]
mod generate;
#[path = "../tests/support/peers.rs"]
#[allow(dead_code, reason = "shared; this uses a part of it")]
mod peers;

use std::{
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use inlay::cache::record::{Limits, Record, RecordSet, select};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const SIZES: [usize; 4] = [200, 1_000, 5_000, 20_000];
const LAYERS: usize = 100;
/// For how long each side repeats the job.
const SECONDS: f64 = 5.0;
/// How often each peak of memory is measured.
const PEAKS: usize = 7;

/// What a process of either side prints.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Report {
    nanoseconds: Option<Vec<u64>>,
    peak_kib: i64,
    records: usize,
    results: usize,
    bytes: usize,
}

/// What one side takes.
struct Cost {
    time: Duration,
    runs: usize,
    memory_kib: i64,
    report: Report,
}

fn main() {
    let mut args = env::args().skip(1);
    if let (Some(mode), Some(config), Some(_)) = (args.next(), args.next(), args.next()) {
        return work(&mode, &fs::read(config).unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    println!(
        "\n{LAYERS} layers    {:^29}   {:^29}   {:^17}   {:^14}",
        "BuildKit", "inlay", "BuildKit / inlay", "inlay / floor"
    );
    println!(
        "records      {:>11} {:>10} {:>6}   {:>11} {:>10} {:>6}   {:>8} {:>8}   {:>14}",
        "time", "memory", "runs", "time", "memory", "runs", "time", "memory", "time"
    );
    let [ours, theirs] = [env::current_exe().unwrap(), peers::Peers::locate().bench()];
    for records in SIZES {
        let (config, layers) = generate::build(records, LAYERS);
        let files = [dir.path().join("config"), dir.path().join("layers")];
        fs::write(&files[0], &config).unwrap();
        fs::write(&files[1], serde_json::to_vec(&layers).unwrap()).unwrap();

        let theirs = Cost::of(&theirs, &files);
        let ours = Cost::of(&ours, &files);
        assert_eq!(
            (ours.report.records, ours.report.results),
            (theirs.report.records, theirs.report.results),
            "both did the same"
        );
        let floor = floor(&config);
        println!(
            "{records:<12} {theirs} {ours}   {:>7.1}x {:>7.1}x   {:>13.1}x",
            theirs.time.as_secs_f64() / ours.time.as_secs_f64(),
            theirs.memory_kib as f64 / ours.memory_kib as f64,
            ours.time.as_secs_f64() / floor.as_secs_f64(),
        );
    }
}

// === one side, as a process of its own ===

impl Cost {
    fn of(program: &Path, files: &[PathBuf; 2]) -> Self {
        let run = |mode: &str| -> Report {
            let mut command = Command::new(program);
            command.arg(mode).args(files).arg(SECONDS.to_string());
            let output = command.stderr(Stdio::inherit()).output().unwrap();
            assert!(output.status.success(), "{command:?}: {}", output.status);
            serde_json::from_slice(&output.stdout).unwrap()
        };
        let growth = |_| run("once").peak_kib - run("read").peak_kib;
        let memory_kib = median((0..PEAKS).map(growth).collect());
        let report = run("time");
        let times = report.nanoseconds.clone().unwrap();
        Self {
            runs: times.len(),
            time: Duration::from_nanos(median(times)),
            memory_kib,
            report,
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let milliseconds = self.time.as_secs_f64() * 1e3;
        let memory = self.memory_kib as f64 / 1024.0;
        write!(
            f,
            "{milliseconds:>8.2} ms {memory:>6.1} MiB {:>6}  ",
            self.runs
        )
    }
}

/// Our side, with the modes of `tests/clients/bench`.
fn work(mode: &str, config: &[u8]) {
    let all = || {
        let set = RecordSet::parse(config, &Limits::default()).unwrap();
        select(&set).unwrap().encode()
    };
    let mut report = Report::default();
    match mode {
        "read" => report.peak_kib = peak_kib(),
        "once" => {
            let encoded = all();
            report.peak_kib = peak_kib();
            report.describe(&encoded);
        }
        "time" => {
            let encoded = all();
            report.nanoseconds = Some(repeated(|| drop(black_box(all()))));
            report.describe(&encoded);
        }
        _ => panic!("no such mode: {mode}"),
    }
    println!("{}", serde_json::to_string(&report).unwrap());
}

impl Report {
    fn describe(&mut self, encoded: &str) {
        let json = BASE64_STANDARD.decode(encoded).unwrap();
        let records: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
        let results = |record: &serde_json::Value| {
            let lists = [&record["layers"], &record["chains"]];
            lists
                .map(|list| list.as_array().map_or(0, Vec::len))
                .iter()
                .sum::<usize>()
        };
        self.records = records.len();
        self.results = records.iter().map(results).sum();
        self.bytes = encoded.len();
    }
}

/// The most resident memory that this process ever had.
fn peak_kib() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().strip_suffix(" kB").unwrap();
    peak.parse().unwrap()
}

// === the floor ===

fn floor(config: &[u8]) -> Duration {
    let set = RecordSet::parse(config, &Limits::default()).unwrap();
    let lengths: Vec<_> = set.records().iter().map(hashed).collect();
    let longest = lengths.iter().max().copied().unwrap_or_default();
    let text = vec![7; longest];
    let floor = || {
        serde_json::from_slice::<serde::de::IgnoredAny>(black_box(config)).unwrap();
        for &length in &lengths {
            black_box(Sha256::digest(&text[..length]));
        }
    };
    floor();
    Duration::from_nanos(median(repeated(floor)))
}

/// How many bytes the identity of a record is a hash of, at the least.
fn hashed(record: &Record) -> usize {
    let links = record.inputs.iter().flatten();
    let links: usize = links.map(|link| link.selector.len() + 32).sum();
    record.digest.as_str().len() + links
}

// === counting ===

fn repeated(job: impl Fn()) -> Vec<u64> {
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < 2 || begun.elapsed().as_secs_f64() < SECONDS {
        let started = Instant::now();
        job();
        times.push(u64::try_from(started.elapsed().as_nanos()).unwrap());
    }
    times
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}
