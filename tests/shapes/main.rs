//! Builds of many shapes, by plain BuildKit and through inlay.
//!
//! Each case is a Dockerfile and a story of builds of it, of chance. The story is told on a daemon
//! of its own by plain BuildKit, and on another through inlay, and after each build the checks of
//! [`check::Check`] have to hold. Where plain BuildKit itself is wrong, a rule of [`rules::RULES`]
//! says so. A case that fails is made as small as it can be, and printed as text for
//! [`CASES`], which are told each time.
//!
//! `make shapes` tells cases for `SECONDS` from the one with the number `FROM`, or `CASE` alone. They
//! depend on `SEED` and their number.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod case;
mod chance;
mod check;
mod files;
mod generate;
mod rules;
mod run;
mod shrink;
mod sources;
mod story;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant, SystemTime};

use case::Case;
use chance::Chance;
use run::Run;

/// How long one finding may be made smaller.
const SHRINKING: Duration = Duration::from_secs(120);

/// Cases that failed once.
const CASES: [(&str, &str); 0] = [];

#[test]
fn generated_builds() {
    let variable = |name: &str| {
        let value = env::var(format!("INLAY_SHAPES_{name}")).ok()?;
        (!value.is_empty()).then(|| value.parse::<u64>().unwrap())
    };
    let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = variable("SEED").unwrap_or_else(clock);
    let limit = Duration::from_secs(variable("SECONDS").unwrap_or(120));
    let alone = variable("CASE");
    let first = alone.or(variable("FROM")).unwrap_or(1);
    println!("SEED={seed} FROM={first}");

    let started = Instant::now();
    let mut run = Run::start();
    let mut findings = BTreeMap::new();
    let mut number = first;
    loop {
        let case = generate::case(&mut Chance::of_case(seed, number));
        if alone.is_some() {
            println!("{case}");
        }
        let mut found = run.tell(&case, None);
        found.dedup_by_key(|finding| finding.check);
        for finding in found {
            println!("SEED={seed} CASE={number}: {finding}");
            let shown = run.shrink(&case, &finding, SHRINKING);
            println!("{shown}");
            let which = findings
                .entry((finding.check, shown))
                .or_insert_with(Vec::new);
            which.push(number);
        }
        number += 1;
        if alone.is_some() || started.elapsed() >= limit {
            break;
        }
    }
    println!(
        "SEED={seed}: {} cases, {} builds in {:.0?}; go on with FROM={number}",
        number - first,
        run.builds(),
        started.elapsed()
    );
    println!("rules:\n{}", run.tally());
    for ((check, shown), cases) in &findings {
        println!("--- {check:?}, cases {cases:?}\n{shown}");
    }
    drop(run);
    assert!(
        findings.is_empty(),
        "SEED={seed}: {} findings",
        findings.len()
    );
}

#[test]
fn known_cases() {
    let mut run = Run::start();
    for (name, text) in CASES {
        let case: Case = text.parse().unwrap_or_else(|bad| panic!("{name}: {bad}"));
        let found = run.tell(&case, None);
        assert!(found.is_empty(), "{name}:\n{case}\n{found:#?}");
    }
}
