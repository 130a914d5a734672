//! Builds of many shapes, by plain BuildKit and through inlay.
//!
//! Each case is a Dockerfile and a story of builds of it, of chance. The story is told on a daemon
//! of its own by plain BuildKit, and on another through inlay, and after each build the checks of
//! [`check::Check`] have to hold. Where plain BuildKit itself is wrong, a rule of [`rules::RULES`]
//! says so. A case that fails is made as small as it can be, and printed as text for
//! [`CASES`], which are told each time.
//!
//! `make shapes` tells cases for `SECONDS` from the one with the number `FROM`, or `CASE` alone. They
//! depend on `SEED` and their number. Or it tells the one in the file `TEXT`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod case;
pub mod chance;
mod check;
pub mod files;
mod generate;
mod rules;
mod run;
mod shrink;
mod sources;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use case::Case;
use chance::Chance;
use check::{Check, Finding};
use run::Run;
use story::Column;

/// How long one finding may be made smaller.
const SHRINKING: Duration = Duration::from_secs(120);

/// How many findings of one kind are made smaller.
const SHRUNK: usize = 3;

/// Cases that failed once.
const CASES: [(&str, &str); 0] = [];

#[test]
#[ignore = "what it finds is being mended: `make shapes` runs it"]
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
    let mut run = Run::start(alone.is_some());
    let mut findings = BTreeMap::new();
    let mut number = first;
    loop {
        let case = generate::case(&mut Chance::of_case(seed, number));
        if alone.is_some() {
            println!("{case}");
        }
        if number % 10 == 0 {
            println!("SEED={seed} FROM={number}: {:.0?}", started.elapsed());
        }
        // Later findings may come of the first one.
        if let Some(finding) = run.tell(&case, None).first() {
            println!("SEED={seed} CASE={number}: {finding}");
            let kind = finding.kind();
            let of_this_kind = findings.entry(kind).or_insert_with(Vec::new);
            if of_this_kind.len() < SHRUNK {
                let shown = run.shrink(&case, finding, SHRINKING);
                println!("{shown}");
                of_this_kind.push((number, shown));
            } else {
                of_this_kind.push((number, String::new()));
            }
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
    for (kind, found) in &findings {
        let cases: Vec<_> = found.iter().map(|(number, _)| number).collect();
        println!("--- {kind}, cases {cases:?}");
        for shown in found
            .iter()
            .map(|(_, shown)| shown)
            .collect::<BTreeSet<_>>()
        {
            println!("{shown}");
        }
    }
    drop(run);
    assert!(
        findings.is_empty(),
        "SEED={seed}: {} kinds of findings",
        findings.len()
    );
}

#[test]
fn known_cases() {
    let mut cases: Vec<_> = CASES
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    let told = env::var("INLAY_SHAPES_TEXT").unwrap_or_default();
    if !told.is_empty() {
        cases = vec![(told.clone(), fs::read_to_string(told).unwrap())];
    }
    let mut run = Run::start(cases.len() == 1);
    for (name, text) in cases {
        let case: Case = text.parse().unwrap_or_else(|bad| panic!("{name}: {bad}"));
        let found = run.tell(&case, None);
        assert!(found.is_empty(), "{name}:\n{case}\n{found:#?}");
    }
}

/// Plain BuildKit has what inlay is there to mend, so it does not pass for it.
#[test]
fn the_checks_see_what_plain_buildkit_does_wrong() {
    let case: Case = "FROM {base}\nRUN echo 1 >/k1\n---\nbuild\nwipe\nbuild\n"
        .parse()
        .unwrap();
    let mut run = Run::of_columns(false, Column::start_plain);
    let finding = Finding {
        check: Check::OneDigest,
        build: 2,
        what: String::new(),
    };
    let found = run.tell(&case, None);
    assert!(
        found
            .iter()
            .any(|found| found.check == finding.check && found.build == finding.build),
        "{found:#?}"
    );
    // What does not matter goes.
    let larger: Case =
        "FROM {base} AS s0\nCOPY a.txt /a.txt\nFROM {base}\nRUN echo 1 >/k1\nENV E=1\n\
        ---\nbuild\nrestart\nwrite a.txt two\nwipe\nbuild\nbuild\n"
            .parse()
            .unwrap();
    let shown = run.shrink(&larger, &finding, SHRINKING);
    let small = "\n---\nbuild\nwipe\nbuild\n";
    assert!(shown.contains(small) && !shown.contains("COPY"), "{shown}");
}
