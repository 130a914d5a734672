//! Each step that a cache takes through the record set, and all of them, at several sizes.
//!
//! `cargo bench --bench records`, with criterion's options behind `--`.

#[path = "../tests/e2e/differential/generate.rs"]
#[allow(dead_code, reason = "shared; this uses a part of it")]
mod generate;

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use inlay::cache::record::{Limits, RecordSet, select};

fn steps(criterion: &mut Criterion) {
    for records in [200, 1_000, 5_000, 20_000] {
        let (config, _) = generate::build(records, 100);
        let parse = || RecordSet::parse(&config, &Limits::default()).unwrap();
        let set = parse();
        let cache = select(&set).unwrap();

        let mut group = criterion.benchmark_group("records");
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::new("parse", records), |b| b.iter(parse));
        group.bench_function(BenchmarkId::new("select", records), |b| {
            b.iter(|| select(black_box(&set)).unwrap());
        });
        group.bench_function(BenchmarkId::new("encode", records), |b| {
            b.iter(|| black_box(&cache).encode());
        });
        group.bench_function(BenchmarkId::new("all", records), |b| {
            b.iter(|| select(&parse()).unwrap().encode());
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    targets = steps
}
criterion_main!(benches);
