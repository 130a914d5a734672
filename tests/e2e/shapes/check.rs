//! What has to hold after each build of a story.

use std::collections::BTreeMap;
use std::fmt;

use super::case::Export;
use super::files::{Files, Layers};
use super::rules::{self, Tally};
use super::sources::Scene;
use super::story::{Image, Pair, Told, more};

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// 1. The image without its cache is the image of a build without inline cache.
    Stripped,
    /// 2. One build has one digest if its layers are equal.
    OneDigest,
    /// 3. No step runs through inlay that does not run on plain BuildKit.
    Hits,
    /// 4. An empty plain BuildKit imports the image, and runs no step of it that it does not run
    ///    when it imports plain BuildKit's.
    Importable,
    /// 4. The files are right.
    Files,
    /// 5. No warning and no failure where plain BuildKit has neither.
    Quiet,
    /// 6. inlay's own solves run nothing that plain BuildKit did not run.
    OwnSolves,
}

/// A check that does not hold.
#[derive(Clone, Debug)]
pub struct Finding {
    pub check: Check,
    /// The number of the build.
    pub build: usize,
    pub what: String,
    /// Of caches that are not one: this one has no more records, links and results.
    pub no_more: bool,
    /// Nothing but steps that ran.
    pub steps_ran: bool,
}

/// What is found of one build, its number left open.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

/// Checks the builds of one story.
#[derive(Debug, Default)]
pub struct Judge {
    pub findings: Vec<Finding>,
    pub layers: Layers,
    /// The images through inlay, and the builds that had them: of each kind the first one, and others
    /// that a rule excuses.
    images: BTreeMap<Built, Vec<(Image, usize)>>,
    /// Configs without cache, however they were built, and what had them first.
    stripped: BTreeMap<Built, (String, String)>,
}

/// What has one digest, see [`Pair::built_as`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Built {
    /// The definition and the contents of its sources.
    identity: String,
    platform: String,
    layers: Vec<String>,
}

// === impl Pair ===

impl Pair {
    fn built_as(&self, platform: &str, image: &Image) -> Built {
        Built {
            identity: self.identity.clone(),
            platform: platform.to_owned(),
            layers: image.layers.clone(),
        }
    }
}

// === impl Judge ===

impl Judge {
    /// Checks a build, and counts what a rule excuses.
    pub fn see(&mut self, scene: &Scene<'_>, pair: &Pair, tally: &mut Tally) {
        let mut found = Findings::default();
        self.quiet(pair, &mut found);
        if pair.built.iter().all(|told| told.succeeded) {
            self.digests(pair, &mut found);
            hits(pair, &mut found);
            self.files(scene, pair, &mut found);
            self.importable(scene, pair, &mut found);
        }
        for mut finding in found.0 {
            finding.build = pair.number;
            match rules::excuse(&finding, pair) {
                Some(rule) => {
                    tally.count(rule);
                    if finding.check == Check::OneDigest {
                        self.allow(pair);
                    }
                }
                None => self.findings.push(finding),
            }
        }
    }

    /// Takes the images of a build for as good as the first ones of their kind.
    fn allow(&mut self, pair: &Pair) {
        for (platform, image) in &pair.built[1].images {
            let images = self
                .images
                .entry(pair.built_as(platform, image))
                .or_default();
            images.push((image.clone(), pair.number));
        }
    }

    fn quiet(&self, pair: &Pair, found: &mut Findings) {
        let [plain, inlay] = &pair.built;
        if pair.plain_hangs() {
            found.push(Check::Quiet, "plain BuildKit hangs".to_owned());
        }
        if plain.succeeded && !inlay.succeeded {
            found.push(Check::Quiet, format!("fails: {}", inlay.message));
        }
        let warnings = more(&inlay.warnings, &plain.warnings);
        for warning in warnings {
            found.push(Check::Quiet, format!("warns: {warning}"));
        }
        if plain.bad_imports.is_empty() && !inlay.bad_imports.is_empty() {
            let bad = format!("bad imports: {:?}", inlay.bad_imports);
            found.push(Check::Quiet, bad);
        }
        // Of builds that share a step, which one is told that it ran is chance.
        let spared = more(&plain.ran_at_once, &inlay.ran_at_once);
        let untold = more(&more(&inlay.untold, &plain.untold), &spared);
        if !untold.is_empty() {
            found.push(Check::OwnSolves, format!("{untold:?}"));
        }
    }

    fn digests(&mut self, pair: &Pair, found: &mut Findings) {
        for (column, told) in ["plain", "inlay"].into_iter().zip(&pair.built) {
            for (platform, image) in &told.images {
                let here = format!("{column} build {}", pair.number);
                let first = (image.stripped.clone(), here);
                let first = self
                    .stripped
                    .entry(pair.built_as(platform, image))
                    .or_insert(first);
                let (stripped, of) = first;
                if *stripped != image.stripped {
                    let what = format!(
                        "{column}: without cache, {platform} differs from {of}:\n{stripped}\n{}",
                        image.stripped
                    );
                    found.push(Check::Stripped, what);
                }
            }
        }
        if pair.options.export == Export::Nothing {
            return;
        }
        for (platform, image) in &pair.built[1].images {
            let images = self
                .images
                .entry(pair.built_as(platform, image))
                .or_default();
            let Some((first, build)) = images.first() else {
                // What is forgotten of it, others of its kind have.
                if !pair.forgotten {
                    images.push((image.clone(), pair.number));
                }
                continue;
            };
            if images.iter().any(|(known, _)| known.digest == image.digest) {
                continue;
            }
            let (ours, theirs) = (&image.records, &first.records);
            let what = format!(
                "{platform} has {} records and another digest than build {build}; here alone {:#?}, \
                 there alone {:#?}",
                ours.len(),
                more(ours, theirs),
                more(theirs, ours),
            );
            found.0.push(Finding {
                no_more: image.size <= first.size,
                ..Finding::new(Check::OneDigest, what)
            });
        }
    }

    fn files(&mut self, scene: &Scene<'_>, pair: &Pair, found: &mut Findings) {
        let [plain, inlay] = &pair.built;
        for (platform, image) in &inlay.images {
            let other = &plain.images[platform];
            self.same_files(scene, "plain BuildKit's image", image, other, found);
        }
    }

    fn importable(&mut self, scene: &Scene<'_>, pair: &Pair, found: &mut Findings) {
        let Some([plain, inlay]) = &pair.imported else {
            return;
        };
        let ran = more(&inlay.ran, &plain.ran);
        if !ran.is_empty() {
            found.0.push(Finding {
                steps_ran: true,
                ..Finding::new(Check::Importable, format!("imported, these run: {ran:?}"))
            });
        }
        let mut bad = |what: String| found.push(Check::Importable, what);
        if plain.bad_imports.is_empty() && !inlay.bad_imports.is_empty() {
            bad(format!("{:?}", inlay.bad_imports));
        }
        if plain.succeeded && !inlay.succeeded {
            bad(format!("imported, it fails: {}", inlay.message));
        }
        if !plain.succeeded || !inlay.succeeded {
            return;
        }
        for (platform, image) in &inlay.images {
            let built = &pair.built[1].images[platform];
            self.same_files(scene, "the image that it imported", image, built, found);
        }
    }

    fn same_files(
        &mut self,
        scene: &Scene<'_>,
        of: &str,
        image: &Image,
        other: &Image,
        found: &mut Findings,
    ) {
        if image.layers == other.layers {
            return;
        }
        let mut files = |image: &Image| self.layers.files(scene.registry(), &image.layers);
        let (ours, theirs) = (files(image), files(other));
        let different = different(&ours, &theirs);
        if !different.is_empty() {
            found.push(Check::Files, format!("not as in {of}: {different:#?}"));
        }
    }
}

/// Steps that ran through inlay and not on plain BuildKit.
fn hits(pair: &Pair, found: &mut Findings) {
    let [plain, inlay]: &[Told; 2] = &pair.built;
    let ran = more(&inlay.ran_at_once, &plain.ran_at_once);
    if !ran.is_empty() {
        found.push(Check::Hits, format!("{ran:?}"));
    }
}

/// Paths that differ. Those whose name begins with `x` are of random content.
fn different(these: &Files, those: &Files) -> Vec<String> {
    let same = |path: &str, ours: &str, theirs: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        ours == theirs
            || (name.starts_with('x') && ours.split(' ').next() == theirs.split(' ').next())
    };
    let paths = these
        .keys()
        .chain(those.keys().filter(|path| !these.contains_key(*path)));
    let different = paths.filter_map(|path| match (these.get(path), those.get(path)) {
        (Some(ours), Some(theirs)) if same(path, ours, theirs) => None,
        (ours, theirs) => Some(format!("{path}: {ours:?}, there {theirs:?}")),
    });
    different.collect()
}

// === impl Findings ===

impl Findings {
    fn push(&mut self, check: Check, what: String) {
        self.0.push(Finding::new(check, what));
    }
}

// === impl Finding ===

impl Finding {
    fn new(check: Check, what: String) -> Self {
        Self {
            check,
            build: 0,
            what,
            no_more: false,
            steps_ran: false,
        }
    }

    /// What it has in common with others that may have the same cause.
    pub fn kind(&self) -> String {
        match self.check {
            Check::Quiet => format!("Quiet: {}", self.what),
            check => format!("{check:?}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, build {}: {}", self.check, self.build, self.what)
    }
}
