//! Cases told one after the other.

use std::ops::ControlFlow;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::case::Case;
use super::check::{Check, Finding, Judge};
use super::rules::Tally;
use super::shrink::shrink;
use super::sources::Sources;
use super::story::{self, Column, Importer};

/// What the cases of a run share.
pub struct Run {
    sources: Sources,
    importers: [Importer; 2],
    /// The daemons of the next case start while this one is told.
    next: Option<JoinHandle<[Column; 2]>>,
    start: fn() -> [Column; 2],
    builds: usize,
    /// Print each build.
    prints: bool,
}

// === impl Run ===

impl Run {
    /// Starts what all cases share. Each build is printed if it `prints`.
    pub fn start(prints: bool) -> Self {
        Self::of_columns(prints, Column::start_both)
    }

    /// The same with columns that `start` starts.
    pub fn of_columns(prints: bool, start: fn() -> [Column; 2]) -> Self {
        let next = Some(thread::spawn(start));
        Self {
            sources: Sources::start(),
            importers: [Importer::start(), Importer::start()],
            next,
            start,
            builds: 0,
            prints,
        }
    }

    /// How many builds of stories there were, those of both columns counted once.
    pub fn builds(&self) -> usize {
        self.builds
    }

    /// Tells a case; gives what is wrong, and counts what a rule excuses.
    pub fn tell(&mut self, case: &Case, tally: &mut Tally) -> Vec<Finding> {
        self.tell_until(case, None, tally)
    }

    /// How often this check fails again in so many more tellings of a case.
    pub fn again(&mut self, case: &Case, check: Check, times: usize) -> usize {
        (0..times)
            .filter(|_| self.shows(case, check).is_some())
            .count()
    }

    /// The last thing that is wrong by this check.
    fn shows(&mut self, case: &Case, check: Check) -> Option<Finding> {
        let found = self.tell_until(case, Some(check), &mut Tally::default());
        found.into_iter().rfind(|found| found.check == check)
    }

    /// Tells a case until it has shown `wanted`.
    fn tell_until(
        &mut self,
        case: &Case,
        wanted: Option<Check>,
        tally: &mut Tally,
    ) -> Vec<Finding> {
        let next = self.next.replace(thread::spawn(self.start));
        let mut columns = next.unwrap().join().unwrap();
        let mut judge = Judge::default();
        let (builds, prints) = (&mut self.builds, self.prints);
        let with_imports = matches!(wanted, None | Some(Check::Importable | Check::Files));
        let importers = with_imports.then_some(&mut self.importers);
        let (sources, columns) = (&self.sources, &mut columns);
        story::tell(sources, case, columns, importers, &mut |scene, pair| {
            *builds += 1;
            if prints {
                println!("{pair}");
            }
            judge.see(scene, &pair, tally);
            let plain_fails = !pair.built[0].succeeded;
            let shown = judge
                .findings
                .iter()
                .any(|found| Some(found.check) == wanted);
            match wanted.is_some() && (plain_fails || shown) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        judge.findings
    }

    /// The smallest case with a finding of the same check, and that finding.
    pub fn shrink(&mut self, case: &Case, finding: &Finding, limit: Duration) -> String {
        let mut last = None;
        let until = case.until(finding.build);
        let smallest = shrink(&until, limit, |case| {
            let found = self.shows(case, finding.check);
            let shows = found.is_some();
            last = found.or(last.take());
            shows
        });
        let what = last.as_ref().unwrap_or(finding);
        format!("{smallest}=> {what}\n")
    }
}

impl Drop for Run {
    /// Waits for the daemons that no case has got, so that they end.
    fn drop(&mut self) {
        if let Some(next) = self.next.take() {
            let _ = next.join();
        }
    }
}
