//! Where plain BuildKit is wrong, or where what inlay does is for another issue to mend.

use std::collections::BTreeMap;
use std::fmt;

use super::case::Import;
use super::check::{Check, Finding};
use super::story::Pair;

/// A reason why something that is found is no failure.
pub struct Rule {
    /// How the run's report calls it.
    pub name: &'static str,
    /// Where it is in BuildKit v0.34.2.
    pub place: &'static str,
    pub excuses: fn(&Finding, &Pair) -> bool,
}

/// All of them.
pub const RULES: &[Rule] = &[Rule {
    // Issue 17, case 4: of two sources that share steps, which one answers is a race, and the
    // results of the other are not found again further up.
    name: "two-imports",
    place: "solver/combinedcache.go:48",
    excuses: |finding, pair| {
        let images = pair.options.imports.iter();
        let images = images.filter(|import| matches!(import, Import::Build(_)));
        matches!(finding.check, Check::Hits) && images.count() > 1
    },
}];

/// How often each rule was used.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

/// The rule that excuses a finding.
pub fn excuse(finding: &Finding, pair: &Pair) -> Option<&'static str> {
    let rule = RULES.iter().find(|rule| (rule.excuses)(finding, pair));
    rule.map(|rule| rule.name)
}

// === impl Tally ===

impl Tally {
    /// Counts one use.
    pub fn count(&mut self, rule: &'static str) {
        *self.0.entry(rule).or_default() += 1;
    }
}

/// One line a rule.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RULES.iter().try_for_each(|rule| {
            let uses = self.0.get(rule.name).copied().unwrap_or_default();
            writeln!(f, "{uses:>9} {} ({})", rule.name, rule.place)
        })
    }
}
