//! Where plain BuildKit is wrong, or where what inlay does is for another issue to mend.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::check::{Check, Finding};
use super::story::Pair;

/// A reason why something that is found is no failure.
pub struct Rule {
    /// How the run's report calls it.
    pub name: &'static str,
    /// Where it is in BuildKit v0.34.2.
    pub place: &'static str,
    /// What takes the rule out, or where it is told to users.
    pub until: &'static str,
    pub excuses: fn(&Finding, &Pair) -> bool,
}

/// All of them.
pub const RULES: &[Rule] = &[
    // The scheduler turns in a circle where two platforms share steps, and a build never ends.
    Rule {
        name: "plain-hangs",
        place: "solver/scheduler.go:125",
        until: "stays: a race in plain BuildKit",
        excuses: |_, pair| pair.plain_hangs(),
    },
    // Of two sources that share steps, the first to answer wins, and the results of the other are not
    // found again further up. The sources of one build are one through inlay; those of builds at once
    // that share steps are not.
    Rule {
        name: "imports-at-once",
        place: "solver/combinedcache.go:48",
        until: "stays: builds have sources of their own",
        excuses: |finding, pair| {
            finding.check == Check::Hits
                && pair.at_once > 1
                && pair.imports > 1
                && !pair.identity.contains(RANDOM)
        },
    },
    // An index has the cache of each platform, and a step that platforms share is found in the cache of
    // one of them: what another built on it is not found there. It is tried several times, and may still
    // be so for one of them.
    Rule {
        name: "index",
        place: "solver/combinedcache.go:48",
        until: "stays: inlay combines them, and plain BuildKit imports here",
        excuses: |finding, pair| {
            finding.check == Check::Importable && finding.steps_ran && pair.options.two_platforms
        },
    },
    // The two have different results of one step. BuildKit takes the newer one, and those of inlay
    // have no dates.
    Rule {
        name: "two-results",
        place: "solver/exporter.go:334",
        until: "until issue 19",
        excuses: |finding, pair| {
            finding.check == Check::Hits && pair.imports > 1 && pair.identity.contains(RANDOM)
        },
    },
    // BuildKit exports what earlier builds of a daemon left, too, and a build finds its steps in an image of
    // another one. Through inlay an image has what its own build determines.
    Rule {
        name: "earlier-builds",
        place: "solver/exporter.go:260",
        until: "stays: it is what inlay is for",
        excuses: |finding, pair| finding.check == Check::Hits && pair.earlier_builds,
    },
    // A daemon keeps what it imported for builds with that import, and drops it in one without, unless it
    // had to load it. So where plain BuildKit ran a step, or loaded a result, that the import through inlay
    // spared, it has the result a build longer.
    Rule {
        name: "spared",
        place: "worker/base/worker.go:345",
        until: "stays: plain BuildKit did more before",
        excuses: |finding, pair| finding.check == Check::Hits && (pair.spared || pair.unseen),
    },
    // A step gave other content when it ran again, and what is in the image is equal. The cache tells what
    // the step gave, by which BuildKit finds what reads it, unless the daemon remembers both.
    Rule {
        name: "random-content",
        place: "solver/edge.go:862",
        until: "stays: the stages are not equal",
        excuses: |finding, pair| finding.check == Check::OneDigest && pair.random_again,
    },
    // A daemon that found a step in an import, by its definition, does not read the content that the
    // step reads, and does not know it when the import is gone. inlay remembers it until it ends, of what
    // it saw built since the import. Two records that differ by such content are one without it, with the
    // results of both.
    Rule {
        name: "forgotten-content",
        place: "solver/edge.go:862",
        until: "stays: docs/limits.md",
        excuses: |finding, pair| {
            finding.check == Check::OneDigest && finding.no_more && pair.forgotten
        },
    },
];

/// What steps read that give another result each time.
pub const RANDOM: &str = "/random/uuid";

/// How often each rule was used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally(BTreeMap<String, u64>);

/// The rule that excuses a finding.
pub fn excuse(finding: &Finding, pair: &Pair) -> Option<&'static str> {
    let rule = RULES.iter().find(|rule| (rule.excuses)(finding, pair));
    rule.map(|rule| rule.name)
}

// === impl Tally ===

impl Tally {
    /// Counts one use.
    pub fn count(&mut self, rule: &str) {
        *self.0.entry(rule.to_owned()).or_default() += 1;
    }
}

/// One line a rule.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RULES.iter().try_for_each(|rule| {
            let uses = self.0.get(rule.name).copied().unwrap_or_default();
            let Rule {
                name, place, until, ..
            } = rule;
            writeln!(f, "{uses:>9} {name} ({place}; {until})")
        })
    }
}
