//! Builds of many shapes, by plain BuildKit and through inlay.
//!
//! Each case is a Dockerfile and a story of builds of it, of chance. The story is told on a daemon
//! of its own by plain BuildKit, and on another through inlay, and after each build the checks of
//! [`check::Check`] have to hold. Where plain BuildKit itself is wrong, a rule of [`rules::RULES`]
//! says so. A case that fails is told again, since builds have races. If it fails again it is made as
//! small as it can be, and printed as text for [`cases::CASES`], which are told each time.
//!
//! `make shapes` tells cases for `SECONDS` from the one with the number `FROM`, or `CASE` alone. They
//! depend on `SEED` and their number. With `STATE`, a file, it goes on from where the run of that file
//! ended. Or it tells the case in the file `TEXT`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod case;
mod cases;
pub mod chance;
mod check;
pub mod files;
mod generate;
mod report;
mod rules;
mod run;
mod shrink;
mod sources;
mod story;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use case::Case;
use chance::Chance;
use check::{Check, Finding};
use report::{Found, Report};
use rules::Tally;
use run::Run;
use story::Column;

use crate::support::seed;

/// How long generated cases are told, where the environment does not say it.
const SECONDS: u64 = 30;

/// How often a case that fails is told again, and how often it has to fail again to be a finding. What
/// does not is a race, of which the run tells how often it came.
const AGAIN: (usize, usize) = (2, 3);

/// How long one finding may be made smaller.
const SHRINKING: Duration = Duration::from_secs(120);

/// How many findings of one kind are made smaller.
const SHRUNK: usize = 3;

#[test]
fn generated_builds() {
    let number = |name| variable(name).map(|value| value.parse::<u64>().unwrap());
    let limit = Duration::from_secs(number("SECONDS").unwrap_or(SECONDS));
    let alone = number("CASE");
    let first = alone.or(number("FROM")).unwrap_or(1);
    let state = variable("STATE").map(PathBuf::from);
    let kept = state.as_deref().and_then(Report::load);
    let mut report = kept.unwrap_or_else(|| Report::new(seed(), first));
    println!("SEED={} FROM={}", report.seed, report.next);

    let mut run = Run::start(alone.is_some());
    while report.took < limit {
        let (started, builds) = (Instant::now(), run.builds());
        tell_one(&mut run, &mut report, alone.is_some());
        report.took += started.elapsed();
        report.builds += run.builds() - builds;
        if let Some(file) = &state {
            report.save(file);
        }
        if alone.is_some() {
            break;
        }
    }
    drop(run);
    println!("{report}");
    let kinds: Vec<_> = report.findings.keys().collect();
    assert!(kinds.is_empty(), "SEED={}: {kinds:#?}", report.seed);
}

/// Tells the next case.
fn tell_one(run: &mut Run, report: &mut Report, prints: bool) {
    let (seed, number) = (report.seed, report.next);
    report.next += 1;
    let case = generate::case(&mut Chance::of_case(seed, number));
    if prints {
        println!("{case}");
    }
    // Later findings may come of the first one.
    let found = run.tell(&case, &mut report.rules);
    let Some(finding) = found.first() else {
        return;
    };
    println!("SEED={seed} CASE={number}: {finding}");
    let (least, of) = AGAIN;
    let until = case.until(finding.build);
    let again = run.again(&until, finding.check, of);
    let found = |shown| Found {
        case: number,
        again,
        of,
        shown,
    };
    if again < least {
        println!("it came again {again} of {of} times");
        report.races.push(found(format!("{until}=> {finding}\n")));
        return;
    }
    let of_this_kind = report.findings.entry(finding.kind()).or_default();
    let shown = match of_this_kind.len() < SHRUNK {
        true => run.shrink(&until, finding, SHRINKING),
        false => format!("=> {finding}\n"),
    };
    println!("{shown}");
    of_this_kind.push(found(shown));
}

/// What the environment says, if that is not empty.
fn variable(name: &str) -> Option<String> {
    let value = env::var(format!("INLAY_SHAPES_{name}")).ok()?;
    (!value.is_empty()).then_some(value)
}

#[test]
fn known_cases() {
    let cases = match variable("TEXT") {
        Some(file) => vec![(file.clone(), fs::read_to_string(file).unwrap())],
        None => cases::CASES
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .to_vec(),
    };
    let mut run = Run::start(cases.len() == 1);
    let mut failed = Vec::new();
    for (name, text) in cases {
        let case: Case = text.parse().unwrap_or_else(|bad| panic!("{name}: {bad}"));
        if let Some(finding) = run.tell(&case, &mut Tally::default()).first() {
            println!("{name}:\n{case}=> {finding}\n");
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
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
        no_more: true,
        steps_ran: false,
    };
    let found = run.tell(&case, &mut Tally::default());
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
