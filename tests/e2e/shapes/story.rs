//! Stories, told by plain BuildKit and through inlay.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use inlay::cache::record::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::case::{Action, Case, Export, Import, Options};
use super::rules::RANDOM;
use super::sources::{Scene, Sources};
use crate::support::{
    BuildOutput, Buildctl, Buildkitd, Buildx, INLINE_CACHE_KEY, Inlay, Project, Registry,
    inline_records, instruction, limited,
};

/// The date of all images.
const EPOCH: u64 = 1_700_000_000;

/// Where a story is told: a daemon that builds, by plain BuildKit or through inlay.
#[derive(Debug)]
pub struct Column {
    name: &'static str,
    inlay: Option<Inlay>,
    buildkitd: Buildkitd,
    buildx: Option<Buildx>,
    /// How many containers the daemon has run.
    containers: usize,
    /// The ids of the results that it has had.
    results: BTreeSet<String>,
    /// A build has had an import since the daemon was empty.
    has_imported: bool,
}

/// A plain BuildKit that imports what others built, and is empty before that.
#[derive(Debug)]
pub struct Importer(Buildkitd);

/// One build in both columns, plain BuildKit's first.
#[derive(Debug)]
pub struct Pair {
    /// Its number in the story, from 1.
    pub number: usize,
    pub options: Options,
    /// What is built: the definition and the contents of its sources.
    pub identity: String,
    /// How many builds there are at once.
    pub at_once: usize,
    /// How many different images inlay's column imports, for all builds at once.
    pub imports: usize,
    /// Plain BuildKit imports an image of another build that has keys which that through inlay has not.
    pub earlier_builds: bool,
    /// An earlier build had a step from an import through inlay, and ran it on plain BuildKit, so that
    /// only plain BuildKit's daemon has its result, and the results that the step read.
    pub spared: bool,
    /// Its daemon has results of an import, and it imports nothing. It was not built since then.
    pub unseen: bool,
    /// It is unseen, or inlay restarted when its daemon had results of an import, and that has them still.
    /// Or this build imports, or its daemon has imported, what was built so.
    pub forgotten: bool,
    /// A step that gives another result each time ran again in the story.
    pub random_again: bool,
    pub built: [Told; 2],
    /// The same build on an empty plain BuildKit that imports that image, if it has a cache, and
    /// the one through inlay is new.
    pub imported: Option<[Told; 2]>,
}

/// What one build did and left.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub succeeded: bool,
    /// It did not end in time.
    pub hangs: bool,
    /// The instructions that ran, sorted.
    pub ran: Vec<String>,
    /// Those that ran for any of the builds at once, sorted: which of them is told is chance.
    pub ran_at_once: Vec<String>,
    /// Those that came from a cache, sorted.
    pub cached: Vec<String>,
    pub warnings: Vec<String>,
    /// What went wrong with each import that failed.
    pub bad_imports: Vec<String>,
    /// The client's own message.
    pub message: String,
    /// By platform; "" is the only one.
    pub images: BTreeMap<String, Image>,
    /// What the daemon ran for all that was built at once, and told no client of.
    pub untold: Vec<String>,
}

/// An image in the registry.
#[derive(Clone, Debug)]
pub struct Image {
    pub digest: String,
    /// The digests of its layers, base first.
    pub layers: Vec<String>,
    /// Its config without the inline cache.
    pub stripped: String,
    /// What its cache says, a line a record.
    pub records: Vec<String>,
    /// How many records, links and results there are.
    pub size: usize,
}

/// What a story has told so far.
#[derive(Default)]
struct Past {
    /// The builds by number.
    builds: BTreeMap<usize, Before>,
    /// The images that were imported on an empty daemon, by what they are of.
    imported: BTreeSet<(String, Vec<String>)>,
    /// inlay's daemon has results of an import.
    has_imported: bool,
    /// As in [`Pair`], of builds since the daemons were empty.
    spared: bool,
    /// What was built since then.
    seen: BTreeSet<String>,
    /// As in [`Pair`].
    forgotten: bool,
    /// As in [`Pair`].
    random_again: bool,
    /// The steps that ran and give another result each time.
    random: BTreeSet<String>,
}

/// A build of the past.
struct Before {
    identity: String,
    built: [Told; 2],
    forgotten: bool,
}

/// How long a build may take. Then its client is killed, and the story ends.
const LIMIT: Duration = Duration::from_secs(120);

/// How often more the image through inlay is imported where its build has several platforms and a step
/// runs. BuildKit finds a step that the platforms share in the image of one of them, by chance, and does
/// not find there what the others built upon it (`solver/combinedcache.go:48`).
const INDEX_IMPORTS: usize = 8;

// === telling ===

/// Tells a case from its beginning, and gives each build to `seen`, until that has seen enough.
/// `importers`, if there are any, import each image that is new.
pub fn tell(
    sources: &Sources,
    case: &Case,
    columns: &mut [Column; 2],
    mut importers: Option<&mut [Importer; 2]>,
    seen: &mut dyn FnMut(&Scene<'_>, Pair) -> ControlFlow<()>,
) {
    static TOLD: AtomicUsize = AtomicUsize::new(1);
    let id = format!("t{}", TOLD.fetch_add(1, Ordering::Relaxed));
    let mut scene = sources.scene(id, case);
    let mut past = Past::default();
    let mut number = 0;
    for action in &case.story {
        let builds = match action {
            Action::Build(builds) | Action::Bake(builds) => &builds[..],
            Action::Change(source, content) => {
                scene.change(source, content);
                continue;
            }
            _ => &[],
        };
        past.act(action);
        let first = number + 1;
        number += builds.len();
        let [plain, inlay] = in_both(columns.each_mut(), |column| {
            column.act(&scene, action, first)
        });
        for (place, built) in plain.into_iter().zip(inlay).enumerate() {
            let options = &builds[place];
            let number = first + place;
            let definition = (&case.dockerfile, options.of_the_image());
            let mut identity = format!("{}{}{}", definition.0, scene.state(), definition.1);
            if options.linked {
                identity += &builds[0].of_the_image();
            }
            let (mut pair, is_new) = past.build(number, place, builds, identity, built.into());
            // The importers build one target.
            let imported = is_new && !options.linked;
            let importers = importers.as_deref_mut().filter(|_| imported);
            pair.imported = importers.map(|[plain, inlay]| {
                let columns = columns.each_ref();
                let [of_plain, of_inlay] = columns.map(|column| scene.image(column.name, number));
                let mut told = in_both(
                    [(plain, &of_plain), (&mut *inlay, &of_inlay)],
                    |(importer, image)| importer.import(&scene, options, image),
                );
                for _ in 0..INDEX_IMPORTS {
                    if !options.two_platforms || more(&told[1].ran, &told[0].ran).is_empty() {
                        break;
                    }
                    told[1] = inlay.import(&scene, options, &of_inlay);
                }
                told
            });
            let ends = pair.plain_hangs() || pair.built[1].hangs;
            if seen(&scene, pair).is_break() || ends {
                return;
            }
        }
    }
}

// === impl Past ===

impl Past {
    fn act(&mut self, action: &Action) {
        match action {
            Action::Wipe | Action::Prune => {
                (self.has_imported, self.forgotten) = (false, false);
                self.spared = false;
                self.seen.clear();
            }
            Action::RestartInlay => self.forgotten |= self.has_imported,
            _ => {}
        }
    }

    /// Adds one of some builds at once, and tells whether its image through inlay is new.
    fn build(
        &mut self,
        number: usize,
        place: usize,
        at_once: &[Options],
        identity: String,
        built: [Told; 2],
    ) -> (Pair, bool) {
        let options = &at_once[place];
        let is_new = options.export != Export::Nothing
            && built.iter().all(|told| told.succeeded)
            && self.imported.insert((identity.clone(), built[1].digests()));
        // Builds at once have their imports in common, as far as they have steps in common.
        let imports = at_once.iter().flat_map(|options| &options.imports);
        let imports = imports.filter_map(|import| match import {
            Import::Build(number) => self.builds.get(number),
            Import::Gone => None,
        });
        let imports: Vec<_> = imports
            .filter(|it| !it.built[1].images.is_empty())
            .collect();
        let images = imports.iter().map(|it| it.built[1].digests());
        let images = images.collect::<BTreeSet<_>>().len();
        let of_others = imports.iter().filter(|it| it.identity != identity);
        let earlier_builds = of_others
            .map(|it| &it.built)
            .any(|[plain, inlay]| !plain.keys().is_subset(&inlay.keys()));
        self.forgotten |= imports.iter().any(|it| it.forgotten);
        self.has_imported |= images > 0;
        let is_new_here = self.seen.insert(identity.clone());
        let unseen = self.has_imported && images == 0 && is_new_here;
        let forgotten = self.forgotten || unseen;
        let ran = built.each_ref().map(|told| &told.ran_at_once[..]);
        let spared = self.spared;
        self.spared |= images > 0 && !more(ran[0], ran[1]).is_empty();
        let random = built[1].ran_at_once.iter();
        let random: Vec<_> = random.filter(|step| step.contains(RANDOM)).collect();
        self.random_again |= random.iter().any(|step| self.random.contains(*step));
        self.random.extend(random.into_iter().cloned());
        let this = Before {
            identity: identity.clone(),
            built: built.clone(),
            forgotten,
        };
        self.builds.insert(number, this);
        let pair = Pair {
            number,
            options: options.clone(),
            identity,
            at_once: at_once.len(),
            imports: images,
            earlier_builds,
            spared,
            unseen,
            forgotten,
            random_again: self.random_again,
            built,
            imported: None,
        };
        (pair, is_new)
    }
}

/// What is in `these` more often than in `those`.
pub fn more(these: &[String], those: &[String]) -> Vec<String> {
    let mut those = those.to_vec();
    let mut left = these.to_vec();
    left.retain(|it| match those.iter().position(|other| other == it) {
        Some(place) => {
            those.swap_remove(place);
            false
        }
        None => true,
    });
    left
}

/// Does something in both columns at once.
fn in_both<C: Send, T: Send>(columns: [C; 2], act: impl Fn(C) -> T + Sync) -> [T; 2] {
    let act = &act;
    thread::scope(|scope| {
        let running = columns.map(|column| scope.spawn(move || act(column)));
        running.map(|running| running.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

// === impl Column ===

impl Column {
    /// Starts the one of plain BuildKit and the one through inlay.
    pub fn start_both() -> [Self; 2] {
        [Self::start("plain", false), Self::start("inlay", true)]
    }

    /// Starts two of plain BuildKit, of which the second passes for one through inlay.
    pub fn start_plain() -> [Self; 2] {
        [Self::start("plain", false), Self::start("inlay", false)]
    }

    /// Starts one.
    pub fn start(name: &'static str, through_inlay: bool) -> Self {
        let buildkitd = Buildkitd::start();
        Self {
            name,
            inlay: through_inlay.then(|| Inlay::start(&buildkitd, &[])),
            buildkitd,
            buildx: None,
            containers: 0,
            results: BTreeSet::new(),
            has_imported: false,
        }
    }

    fn addr(&self) -> String {
        match &self.inlay {
            Some(inlay) => inlay.addr(),
            None => self.buildkitd.addr(),
        }
    }

    /// Does one thing of a story; gives what was built, of which the first has this number.
    fn act(&mut self, scene: &Scene<'_>, action: &Action, first: usize) -> Vec<Told> {
        if let Action::Build(builds) | Action::Bake(builds) = action {
            self.has_imported |= builds.iter().any(|options| !options.imports.is_empty());
        }
        match action {
            Action::Build(builds) => return self.build(scene, builds, first),
            Action::Bake(builds) => return self.bake(scene, builds, first),
            Action::Wipe => {
                self.buildkitd.wipe();
                self.has_imported = false;
            }
            Action::Prune => {
                prune(&self.buildkitd);
                self.has_imported = false;
            }
            Action::Restart => self.buildkitd.restart(),
            Action::RestartInlay => {
                if self.inlay.take().is_some() {
                    self.inlay = Some(Inlay::start(&self.buildkitd, &[]));
                    self.buildx = None;
                }
            }
            Action::Forget(word) => forget(&self.buildkitd, word),
            Action::Pull => {
                let dockerfile = format!("FROM {}\nRUN true # pull\n", scene.base());
                let project = Project::new().dockerfile(&dockerfile);
                Buildctl::new(self.buildkitd.addr())
                    .project(&project)
                    .run_ok();
                self.untold(&[]);
            }
            Action::Change(..) => unreachable!("sources change for both columns"),
        }
        Vec::new()
    }

    fn build(&mut self, scene: &Scene<'_>, builds: &[Options], first: usize) -> Vec<Told> {
        let running: Vec<_> = builds
            .iter()
            .enumerate()
            .map(|(place, options)| {
                let imports = self.imports(scene, options);
                let image = scene.image(self.name, first + place);
                buildctl(&self.addr(), scene, options, &imports, &image).spawn()
            })
            .collect();
        let outputs: Vec<_> = running.into_iter().map(|running| running.wait()).collect();
        self.told(scene, &outputs.iter().collect::<Vec<_>>(), first)
    }

    /// Builds all of them by one bake file.
    fn bake(&mut self, scene: &Scene<'_>, builds: &[Options], first: usize) -> Vec<Told> {
        let targets = builds.iter().enumerate().map(|(place, options)| {
            let number = first + place;
            let image = scene.image(self.name, number);
            let mut target = json!({
                "context": scene.context.path(),
                "dockerfile": "Dockerfile",
                "args": {"SOURCE_DATE_EPOCH": EPOCH.to_string()},
                "output": [output(scene.registry(), &image, options)],
                "cache-from": self.imports(scene, options),
                "attest": ["type=provenance,disabled=true"],
            });
            if options.export != Export::Nothing {
                target["cache-to"] = json!(["type=inline"]);
            }
            if let Some(stage) = &options.target {
                target["target"] = json!(stage);
            }
            if let Some(value) = &options.argument {
                target["args"]["V"] = json!(value);
            }
            if options.two_platforms {
                target["platforms"] = json!(["linux/amd64", "linux/arm64"]);
            }
            let contexts = scene.named_contexts();
            target["contexts"] = contexts.into_iter().collect();
            if options.linked {
                target["contexts"]["image"] = json!(format!("target:t{first}"));
            }
            if scene.has_secret() {
                target["secret"] = json!([format!("id=s,src={}", scene.secret().display())]);
            }
            (format!("t{number}"), target)
        });
        let targets: serde_json::Map<String, Value> = targets.collect();
        let names: Vec<_> = targets.keys().cloned().collect();
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("docker-bake.json");
        std::fs::write(&file, json!({"target": targets}).to_string()).unwrap();
        let addr = self.addr();
        let buildx = self.buildx.get_or_insert_with(|| Buildx::remote(&addr));
        let mut command = buildx.command();
        command
            .env("BUILDX_BAKE_ENTITLEMENTS_FS", "0")
            .args(["bake", "--builder=remote", "--progress=rawjson", "--file"])
            .arg(&file)
            .args(names);
        let output = BuildOutput::of(&mut limited(&command, LIMIT));
        self.told(scene, &vec![&output; builds.len()], first)
    }

    /// The cache sources of a build, as clients name them.
    fn imports(&self, scene: &Scene<'_>, options: &Options) -> Vec<String> {
        let images = options.imports.iter().map(|import| match import {
            Import::Build(number) => scene.image(self.name, *number),
            Import::Gone => scene.image(self.name, 0),
        });
        let names =
            images.map(|image| format!("type=registry,ref={}", scene.registry().image(&image)));
        names.collect()
    }

    /// What was built at once, and the first of it had this number.
    fn told(&mut self, scene: &Scene<'_>, outputs: &[&BuildOutput], first: usize) -> Vec<Told> {
        let mut told: Vec<_> = outputs.iter().map(|output| Told::of(output)).collect();
        let untold = self.untold(&told);
        let mut at_once: Vec<String> = Vec::new();
        for told in &told {
            at_once.extend(more(&told.ran, &at_once));
            at_once.sort();
        }
        for (place, told) in told.iter_mut().enumerate() {
            told.untold.clone_from(&untold);
            told.ran_at_once.clone_from(&at_once);
            if told.succeeded {
                let image = scene.image(self.name, first + place);
                told.images = images(scene.registry(), &image);
            }
        }
        told
    }

    /// What the daemon ran since the last time and what none of these builds was told of: containers
    /// by its log, and steps of all kinds by the results that they left.
    fn untold(&mut self, told: &[Told]) -> Vec<String> {
        let mut untold = Vec::new();
        let ran: Vec<_> = told.iter().flat_map(|told| &told.ran).collect();
        let containers = self.buildkitd.executed().len();
        let new = containers - self.containers;
        self.containers = containers;
        let runs = ran.iter().filter(|step| step.starts_with("RUN ")).count();
        if new > runs {
            untold.push(format!("{new} containers, and {runs} RUN steps"));
        }
        let mut ran = ran;
        // The daemon has a result of its own of what it loads from an import, now or later.
        let cached = told.iter().flat_map(|told| &told.cached);
        let loaded: BTreeSet<_> = cached.filter(|_| self.has_imported).collect();
        for result in self.buildkitd.usage() {
            let id = result["id"].as_str().unwrap().to_owned();
            let description = result["description"].as_str().unwrap_or_default();
            let is_new = self.results.insert(id);
            // Containers have other descriptions, and what was pulled or imported has none of a stage.
            let Some(step) = instruction(description).filter(|_| is_new) else {
                continue;
            };
            match ran.iter().position(|told| *told == step) {
                Some(place) => drop(ran.swap_remove(place)),
                None if loaded.contains(&step.to_owned()) => {}
                None => untold.push(step.to_owned()),
            }
        }
        untold
    }
}

impl Drop for Column {
    /// Its state goes with it: nothing is there to end in order.
    fn drop(&mut self) {
        self.buildkitd.kill();
    }
}

// === impl Importer ===

impl Importer {
    /// Starts one.
    pub fn start() -> Self {
        Self(Buildkitd::start())
    }

    /// Imports the image of a build, and builds the same.
    fn import(&mut self, scene: &Scene<'_>, options: &Options, image: &str) -> Told {
        prune(&self.0);
        let import = format!("type=registry,ref={}", scene.registry().image(image));
        let without = Options {
            export: Export::Nothing,
            ..options.clone()
        };
        let image = format!("{image}-imported");
        let build = buildctl(&self.0.addr(), scene, &without, &[import], &image);
        let output = build.run();
        let mut told = Told::of(&output);
        if told.succeeded {
            told.images = images(scene.registry(), &image);
        }
        if told.hangs {
            self.0.kill();
            self.0.restart();
        }
        told
    }
}

/// A build with these imports that pushes this image.
fn buildctl(
    addr: &str,
    scene: &Scene<'_>,
    options: &Options,
    imports: &[String],
    image: &str,
) -> Buildctl {
    let mut build = Buildctl::new(addr).epoch(EPOCH).limit(LIMIT);
    build = match options.git {
        true => build
            .args(["--frontend=dockerfile.v0"])
            .opt(&format!("context={}", scene.git())),
        false => build.project(&scene.context),
    };
    for (name, place) in scene.named_contexts() {
        build = match place.strip_prefix('/') {
            Some(_) => build
                .args([format!("--local={name}={place}")])
                .opt(&format!("context:{name}=local:{name}")),
            None => build.opt(&format!("context:{name}={place}")),
        };
    }
    if scene.has_secret() {
        build = build.args([format!("--secret=id=s,src={}", scene.secret().display())]);
    }
    if let Some(target) = &options.target {
        build = build.opt(&format!("target={target}"));
    }
    if let Some(value) = &options.argument {
        build = build.opt(&format!("build-arg:V={value}"));
    }
    if options.two_platforms {
        build = build.opt("platform=linux/amd64,linux/arm64");
    }
    let exports = match options.export {
        Export::Inline | Export::Argument => 1,
        Export::Twice => 2,
        Export::Nothing => 0,
    };
    for _ in 0..exports {
        build = build.export_cache("type=inline");
    }
    if options.export == Export::Argument {
        build = build.opt("build-arg:BUILDKIT_INLINE_CACHE=1");
    }
    for import in imports {
        build = build.import_cache(import);
    }
    build.output(&output(scene.registry(), image, options))
}

/// The exporter of a build.
fn output(registry: &Registry, image: &str, options: &Options) -> String {
    let name = registry.image(image);
    let times = if options.keep_times {
        ""
    } else {
        ",rewrite-timestamp=true"
    };
    let compression = match options.compression.as_deref() {
        None => String::new(),
        Some("forced") => ",compression=uncompressed,force-compression=true".to_owned(),
        Some(kind) => format!(",compression={kind}"),
    };
    format!("type=image,name={name},push=true{times}{compression}")
}

fn prune(buildkitd: &Buildkitd) {
    let pruned = buildkitd.buildctl(&["prune", "--all"]);
    assert!(pruned.status.success(), "{pruned:?}");
}

/// Prunes the results of steps with this word in their text, as far as nothing else is made of them.
fn forget(buildkitd: &Buildkitd, word: &str) {
    let filter = format!("description~={word}");
    let mut left = usize::MAX;
    while buildkitd.usage().len() < left {
        left = buildkitd.usage().len();
        let pruned = buildkitd.buildctl(&["prune", "--filter", &filter]);
        assert!(pruned.status.success(), "{pruned:?}");
    }
}

/// The images under a name, by platform.
fn images(registry: &Registry, name: &str) -> BTreeMap<String, Image> {
    let repository = name.split(':').next().unwrap();
    let images = registry
        .image_digests(name)
        .into_iter()
        .map(|(platform, digest)| {
            let manifest = registry.manifest(&format!("{repository}@{digest}"));
            let digest_of = |value: &Value| value["digest"].as_str().unwrap().to_owned();
            let config = registry.stored(&digest_of(&manifest["config"]));
            let layers = manifest["layers"].as_array();
            let records = inline_records(&config);
            let image = Image {
                digest,
                layers: layers.into_iter().flatten().map(digest_of).collect(),
                records: told_records(&records),
                size: size(&records),
                stripped: stripped(&String::from_utf8(config).unwrap()),
            };
            (platform, image)
        });
    images.collect()
}

/// The items of an array; none of what is no array.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// How many records, links and results there are.
fn size(records: &[Value]) -> usize {
    let parts = records.iter().map(|record| {
        let links = list(&record["inputs"])
            .iter()
            .map(|links| list(links).len());
        let results = ["layers", "chains"].map(|results| list(&record[results]).len());
        1 + links.chain(results).sum::<usize>()
    });
    parts.sum()
}

/// Records as text: a name that stands for the record and all that it is made of, its digest, the names
/// and selectors of its inputs, and its results.
fn told_records(records: &[Value]) -> Vec<String> {
    fn name(records: &[Value], number: usize) -> String {
        let text = inputs(records, number) + records[number]["digest"].as_str().unwrap();
        Digest::of(text.as_bytes()).as_str()[7..13].to_owned()
    }
    fn inputs(records: &[Value], number: usize) -> String {
        let inputs = list(&records[number]["inputs"]).iter().map(|links| {
            let links = list(links).iter().map(|link| {
                let of = link["link"].as_u64().unwrap_or_default();
                let selector = link["selector"].as_str().unwrap_or_default();
                name(records, usize::try_from(of).unwrap()) + selector
            });
            let mut links: Vec<_> = links.collect();
            links.sort();
            format!("{links:?}")
        });
        inputs.collect::<Vec<_>>().join(" ")
    }
    let told = records.iter().enumerate().map(|(number, record)| {
        let digest = &record["digest"].as_str().unwrap()[7..15];
        let results = [&record["layers"], &record["chains"]]
            .map(Value::to_string)
            .join(" ");
        let (name, inputs) = (name(records, number), inputs(records, number));
        format!("{name}: {digest} of {inputs}, results {results}")
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}

/// A config without its inline cache, all other bytes as they are.
fn stripped(config: &str) -> String {
    let key = format!("\"{INLINE_CACHE_KEY}\":\"");
    let Some((before, rest)) = config.split_once(&key) else {
        return config.to_owned();
    };
    let (_, after) = rest.split_once('"').unwrap();
    match after.strip_prefix(',') {
        Some(after) => format!("{before}{after}"),
        None => format!("{}{after}", before.trim_end_matches(',')),
    }
}

// === impl Pair ===

impl Pair {
    /// Whether a build of plain BuildKit did not end.
    pub fn plain_hangs(&self) -> bool {
        let mut imported = self.imported.iter().flatten();
        self.built[0].hangs || imported.any(|told| told.hangs)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "build {}:{}", self.number, self.options)?;
        let of = ["plain", "inlay", "plain's imported", "inlay's imported"];
        let told = self.built.iter().chain(self.imported.iter().flatten());
        of.iter().zip(told).try_for_each(|(of, told)| {
            writeln!(f, "  {of}: {told}")?;
            told.images.iter().try_for_each(|(platform, image)| {
                let (digest, records) = (&image.digest[..19], image.records.len());
                let layers: Vec<_> = image.layers.iter().map(|it| &it[7..15]).collect();
                writeln!(f, "    {platform} {digest} {records} records {layers:?}")
            })
        })
    }
}

// === impl Told ===

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ran {:?}, cached {:?}", self.ran, self.cached)?;
        for text in self.warnings.iter().chain(&self.bad_imports) {
            write!(f, ", {text}")?;
        }
        match self.succeeded {
            true => Ok(()),
            false => write!(f, ", FAILED: {}", self.message),
        }
    }
}

impl Told {
    /// The digests of its images, by platform.
    fn digests(&self) -> Vec<String> {
        self.images
            .values()
            .map(|image| image.digest.clone())
            .collect()
    }

    /// The names of the records in its images.
    fn keys(&self) -> BTreeSet<&str> {
        let records = self.images.values().flat_map(|image| &image.records);
        records
            .filter_map(|record| record.split(':').next())
            .collect()
    }

    fn of(output: &BuildOutput) -> Self {
        let steps = |names: Vec<&str>| {
            // Which of several stages with an instruction it is told for is chance.
            let steps = names.into_iter().filter_map(instruction);
            let mut steps: Vec<_> = steps.map(str::to_owned).collect();
            steps.sort();
            steps
        };
        let bad_imports = output.vertices.iter().filter_map(|vertex| {
            let error = vertex.error.as_deref()?;
            vertex
                .name
                .contains("importing cache")
                .then(|| error.to_owned())
        });
        let mut warnings = output.warnings.clone();
        warnings.sort();
        Self {
            succeeded: output.status.success(),
            hangs: output.is_killed(),
            ran: steps(output.steps_ran()),
            cached: steps(output.steps_cached()),
            warnings,
            bad_imports: bad_imports.collect(),
            message: output.message(),
            ..Self::default()
        }
    }
}

// === impl Options ===

impl Options {
    /// What of it is in the image.
    fn of_the_image(&self) -> String {
        let image = Self {
            imports: Vec::new(),
            export: Export::default(),
            ..self.clone()
        };
        image.to_string()
    }
}
