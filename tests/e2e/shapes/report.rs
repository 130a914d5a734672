//! What a run has found. It can be kept in a file, from which a later run goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rules::Tally;

/// The state of a run between two cases.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    /// The number of the first case.
    pub first: u64,
    /// The number of the next one.
    pub next: u64,
    /// How many builds of stories there were, those of both columns counted once.
    pub builds: usize,
    /// How long all of it took.
    pub took: Duration,
    pub rules: Tally,
    /// What came again when its case was told again, by kind.
    pub findings: BTreeMap<String, Vec<Found>>,
    /// What did not.
    pub races: Vec<Found>,
}

/// Something that was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// The number of its case.
    pub case: u64,
    /// How often it came again.
    pub again: usize,
    /// How often its case was told again.
    pub of: usize,
    /// The smallest case that shows it, or just what it is.
    pub shown: String,
}

// === impl Report ===

impl Report {
    /// That of a run that begins here.
    pub fn new(seed: u64, first: u64) -> Self {
        Self {
            seed,
            first,
            next: first,
            ..Self::default()
        }
    }

    /// The one in a file, if that is there.
    pub fn load(file: &Path) -> Option<Self> {
        match fs::read(file) {
            Ok(text) => Some(serde_json::from_slice(&text).unwrap()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => panic!("{}: {error}", file.display()),
        }
    }

    /// Puts it into a file. One who stops the run meanwhile finds the state before.
    pub fn save(&self, file: &Path) {
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(self).unwrap()).unwrap();
        fs::rename(new, file).unwrap();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, cases) = (self.seed, self.next - self.first);
        writeln!(
            f,
            "SEED={seed}: {cases} cases, {} builds in {:.0?}; go on with FROM={}",
            self.builds, self.took, self.next
        )?;
        writeln!(f, "rules:\n{}", self.rules)?;
        for race in &self.races {
            writeln!(f, "--- race, {race}")?;
        }
        for (kind, found) in &self.findings {
            writeln!(f, "--- {kind}")?;
            found.iter().try_for_each(|found| writeln!(f, "{found}"))?;
        }
        Ok(())
    }
}

// === impl Found ===

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            case, again, of, ..
        } = self;
        writeln!(f, "CASE={case}, came again {again} of {of} times:")?;
        f.write_str(&self.shown)
    }
}
