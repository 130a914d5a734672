//! A week of CI: four projects, built as a pipeline builds them from Monday to Saturday. BuildKit with
//! its inline cache, BuildKit with a registry cache of `mode=max`, and BuildKit through inlay build the
//! same, each with a daemon of its own and with its own images to import.
//!
//! No build through inlay runs more steps than with BuildKit's inline cache, and each image has one
//! digest. `make week` prints all of it; a few builds are a test.

mod projects;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs;
use std::time::Instant;

use projects::{PLANS, Plan};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    BuildOutput, Buildctl, Buildkitd, Buildx, INLINE_CACHE_KEY, Inlay, Project, Registry,
    instruction,
};

/// The date of all images.
const EPOCH: u64 = 1_700_000_000;

/// What a pipeline builds, and where.
struct Event {
    when: &'static str,
    /// What was done to the project since the event before.
    change: Change,
    /// The content of the base image's tag.
    base: usize,
    tag: &'static str,
    imports: &'static [&'static str],
    /// The daemon is a new one, or the one of the event before.
    is_cold: bool,
}

#[derive(Clone, Copy)]
enum Change {
    None,
    Source,
    OtherSource,
    Dependencies,
    /// All is as it was on Monday.
    Revert,
}

const fn cold(
    when: &'static str,
    change: Change,
    base: usize,
    tag: &'static str,
    imports: &'static [&'static str],
) -> Event {
    Event {
        when,
        change,
        base,
        tag,
        imports,
        is_cold: true,
    }
}

const fn warm(
    when: &'static str,
    change: Change,
    tag: &'static str,
    imports: &'static [&'static str],
) -> Event {
    Event {
        is_cold: false,
        ..cold(when, change, 1, tag, imports)
    }
}

/// Its own image is not there yet.
const FIRST_PULL_REQUEST: &str = "Thursday, pull request";

const WEEK: [Event; 17] = [
    cold("Monday, first build", Change::None, 1, "main", &["main"]),
    cold("Monday, same commit", Change::None, 1, "main", &["main"]),
    cold("Tuesday, source", Change::Source, 1, "main", &["main"]),
    warm("Tuesday, source, warm", Change::Source, "main", &["main"]),
    cold(
        "Wednesday, dependency",
        Change::Dependencies,
        1,
        "main",
        &["main"],
    ),
    warm("Wednesday, again, warm", Change::None, "main", &["main"]),
    cold(
        FIRST_PULL_REQUEST,
        Change::OtherSource,
        1,
        "pr",
        &["pr", "main"],
    ),
    cold(
        "Thursday, pushed again",
        Change::OtherSource,
        1,
        "pr",
        &["pr", "main"],
    ),
    cold("Thursday, merged", Change::None, 1, "main", &["main", "pr"]),
    cold("Friday, new base", Change::None, 2, "main", &["main"]),
    cold("Friday, old base", Change::None, 1, "main", &["main", "pr"]),
    cold(
        "Friday, source",
        Change::Source,
        1,
        "main",
        &["main", "pr", "none"],
    ),
    cold("Saturday, reverted", Change::Revert, 1, "main", &["main"]),
    warm("Saturday, no import, warm", Change::None, "release", &[]),
    cold("Saturday, no import", Change::None, 1, "release", &[]),
    cold(
        "Saturday, release",
        Change::None,
        1,
        "other",
        &["release", "main"],
    ),
    warm("Saturday, release, warm", Change::None, "last", &["other"]),
];

/// How a column caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cache {
    Inline,
    Max,
    Inlay,
}

/// A daemon, and how it is built with.
struct Column {
    cache: Cache,
    inlay: Option<Inlay>,
    buildkitd: Buildkitd,
}

/// What a build ran and left.
struct Outcome {
    /// The steps, as the client tells them. Of those that several targets share it tells one or another
    /// thing, so where there are several it is what the daemon tells: the commands of containers.
    ran: Vec<String>,
    cached: usize,
    warnings: Vec<String>,
    /// The digests of its images, by what they are without cache.
    images: Vec<(String, String)>,
}

/// A whole run.
struct Week {
    registry: Registry,
    columns: Vec<Column>,
    ran: BTreeMap<(&'static str, Cache), usize>,
    /// By project, by what an image is without cache, and by the files that it was built of: an image
    /// that does not show a change has the keys of the change in its cache.
    digests: BTreeMap<(Cache, &'static str, String, String), BTreeSet<String>>,
    /// Builds through inlay that ran more than with the inline cache.
    worse: Vec<String>,
}

/// Ten builds of the week, on one project: those that have at most one image to import, on one base.
#[test]
fn ten_builds() {
    let mut week = Week::start(&[Cache::Inline, Cache::Inlay]);
    let [.., binaries, _] = &PLANS;
    let has_one = |event: &&Event| event.imports.len() < 2 || event.when == FIRST_PULL_REQUEST;
    let events = WEEK.iter().filter(has_one).filter(|event| event.base == 1);
    let events: Vec<_> = events.take(10).collect();
    assert_eq!(events.len(), 10);
    week.build(binaries, &events);
    week.end();
}

#[test]
#[ignore = "it takes a quarter of an hour: `make week` runs it"]
fn whole() {
    let mut week = Week::start(&[Cache::Inline, Cache::Max, Cache::Inlay]);
    let chosen = env::var("INLAY_WEEK_PROJECTS").unwrap_or_default();
    let events: Vec<_> = WEEK.iter().collect();
    for plan in &PLANS {
        if chosen.is_empty() || chosen.split_whitespace().any(|name| name == plan.name) {
            week.build(plan, &events);
        }
    }
    week.end();
}

// === impl Week ===

impl Week {
    /// Starts the daemons, and pushes both contents of the base image.
    fn start(caches: &[Cache]) -> Self {
        let registry = Registry::start();
        let columns: Vec<_> = caches.iter().map(|cache| Column::start(*cache)).collect();
        for content in 1..=2 {
            let dockerfile = "FROM scratch\nADD rootfs.tar /\nCOPY version /etc/version\n";
            let project = Project::new().base().dockerfile(dockerfile);
            Buildctl::new(columns[0].buildkitd.addr())
                .project(&project.file("version", content.to_string()))
                .push(&registry.image(&format!("base:{content}")))
                .run_ok();
        }
        Self {
            registry,
            columns,
            ran: BTreeMap::new(),
            digests: BTreeMap::new(),
            worse: Vec::new(),
        }
    }

    /// Builds a project, event by event, and prints what ran.
    fn build(&mut self, plan: &'static Plan, events: &[&Event]) {
        let project = Project::new().dockerfile(plan.dockerfile);
        plan.restore(&project);
        for (number, event) in events.iter().enumerate() {
            let append = |path: &str| {
                let text = fs::read_to_string(project.path().join(path)).unwrap();
                project.write(path, format!("{text}more{number}\n"));
            };
            match event.change {
                Change::None => {}
                Change::Source => append(plan.source),
                Change::OtherSource => append(plan.other_source),
                Change::Dependencies => append(plan.dependencies),
                Change::Revert => plan.restore(&project),
            }
            let started = Instant::now();
            let outcomes = self.columns.iter_mut().map(|column| {
                if event.is_cold {
                    column.empty();
                }
                (
                    column.cache,
                    column.build(&self.registry, plan, &project, event),
                )
            });
            let outcomes: BTreeMap<_, _> = outcomes.collect();
            print!("{:9} {:27}", plan.name, event.when);
            for (cache, outcome) in &outcomes {
                print!("{:>9} {outcome}", format!("{cache:?}"));
            }
            println!(" {:.0?}", started.elapsed());
            let files = plan.files.iter().map(|(path, _)| project.path().join(path));
            let files: Vec<_> = files
                .map(|path| fs::read_to_string(path).unwrap())
                .collect();
            self.note(plan, event, &files.join("\n"), &outcomes);
        }
    }

    fn note(
        &mut self,
        plan: &'static Plan,
        event: &Event,
        files: &str,
        outcomes: &BTreeMap<Cache, Outcome>,
    ) {
        for (cache, outcome) in outcomes {
            *self.ran.entry((plan.name, *cache)).or_default() += outcome.ran.len();
            for (without_cache, digest) in &outcome.images {
                let of_image = (*cache, plan.name, without_cache.clone(), files.to_owned());
                self.digests
                    .entry(of_image)
                    .or_default()
                    .insert(digest.clone());
            }
        }
        let [inline, inlay] = [Cache::Inline, Cache::Inlay].map(|cache| &outcomes[&cache]);
        let of = |outcome: &Outcome| -> BTreeSet<String> {
            let images = outcome.images.iter().map(|(without, _)| without.clone());
            images.collect()
        };
        assert_eq!(
            of(inline),
            of(inlay),
            "{}, {}: the images",
            plan.name,
            event.when
        );
        assert_eq!(
            inline.warnings, inlay.warnings,
            "{}, {}",
            plan.name, event.when
        );
        if inlay.ran.len() > inline.ran.len() {
            let more = inlay.ran.iter().filter(|step| !inline.ran.contains(step));
            let more: Vec<_> = more.collect();
            let worse = format!("{}, {}: {more:?}", plan.name, event.when);
            println!("more than with the inline cache: {worse}");
            self.worse.push(worse);
        }
    }

    fn end(self) {
        for ((project, cache), ran) in &self.ran {
            println!("{project:9} {:>9} {ran:3} ran", format!("{cache:?}"));
        }
        let several = self
            .digests
            .iter()
            .filter(|((cache, ..), digests)| *cache == Cache::Inlay && digests.len() > 1);
        let several: Vec<_> = several.collect();
        assert!(
            several.is_empty(),
            "images with several digests: {several:#?}"
        );
        assert!(self.worse.is_empty(), "{:#?}", self.worse);
    }
}

// === impl Column ===

impl Column {
    fn start(cache: Cache) -> Self {
        let buildkitd = Buildkitd::start();
        let inlay = (cache == Cache::Inlay).then(|| Inlay::start(&buildkitd, &[]));
        Self {
            cache,
            inlay,
            buildkitd,
        }
    }

    /// Makes it a new runner.
    fn empty(&mut self) {
        self.buildkitd.wipe();
        if self.inlay.take().is_some() {
            self.inlay = Some(Inlay::start(&self.buildkitd, &[]));
        }
    }

    fn build(&self, registry: &Registry, plan: &Plan, project: &Project, event: &Event) -> Outcome {
        let column = format!("{:?}", self.cache).to_lowercase();
        let part = |target: &str| if target.is_empty() { "app" } else { target }.to_owned();
        let image = |target: &str, tag: &str| {
            let part = part(target);
            format!("{column}/{}/{part}:{tag}", plan.name)
        };
        let targets = plan.targets.iter().map(|target| {
            let own = registry.image(&image(target, event.tag));
            let cache = |tag: &str| {
                let cache = if self.cache == Cache::Max {
                    "cache-"
                } else {
                    ""
                };
                let name = registry.image(&image(target, &format!("{cache}{tag}")));
                format!("type=registry,ref={name}")
            };
            let cache_to = match self.cache {
                Cache::Max => cache(event.tag) + ",mode=max",
                Cache::Inline | Cache::Inlay => "type=inline".to_owned(),
            };
            let imports: Vec<_> = event.imports.iter().map(|tag| cache(tag)).collect();
            let described = json!({
                "context": project.path(),
                "target": target,
                "args": {
                    "SOURCE_DATE_EPOCH": EPOCH.to_string(),
                    "BASE": registry.image(&format!("base:{}", event.base)),
                },
                "output": [format!("type=image,name={own},push=true,rewrite-timestamp=true")],
                "cache-from": imports,
                "cache-to": [cache_to],
                "attest": ["type=provenance,disabled=true"],
            });
            (part(target), described)
        });
        let targets: serde_json::Map<String, Value> = targets.collect();
        let names: Vec<_> = targets.keys().cloned().collect();
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("bake.json");
        fs::write(&file, json!({"target": targets}).to_string()).unwrap();
        let addr = match &self.inlay {
            Some(inlay) => inlay.addr(),
            None => self.buildkitd.addr(),
        };
        let executed = self.buildkitd.executed().len();
        let buildx = Buildx::remote(&addr);
        let mut command = buildx.command();
        command.env("BUILDX_BAKE_ENTITLEMENTS_FS", "0");
        command.args(["bake", "--builder=remote", "--progress=rawjson", "--file"]);
        let output = BuildOutput::of(command.arg(&file).args(names));
        assert!(output.status.success(), "{}: {output}", event.when);
        let images = plan.targets.iter().map(|target| {
            let image = image(target, event.tag);
            (without_cache(registry, &image), registry.digest(&image))
        });
        let instructions = |names: Vec<&str>| -> Vec<String> {
            let instructions = names.into_iter().filter_map(instruction);
            instructions.map(str::to_owned).collect()
        };
        Outcome {
            ran: match plan.targets.len() {
                1 => instructions(output.steps_ran()),
                _ => self.buildkitd.executed().split_off(executed),
            },
            cached: instructions(output.steps_cached()).len(),
            warnings: output.warnings,
            images: images.collect(),
        }
    }
}

/// An image as text, but for its cache.
fn without_cache(registry: &Registry, image: &str) -> String {
    let config = registry.config(image, None);
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config.as_object_mut().unwrap().remove(INLINE_CACHE_KEY);
    format!("{config} {:?}", registry.layers(image, None))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:2} ran {:2} cached", self.ran.len(), self.cached)
    }
}

// === impl Plan ===

impl Plan {
    /// Has all files of the project as they were at first.
    fn restore(&self, project: &Project) {
        for (path, content) in self.files {
            project.write(path, content);
        }
    }
}
