//! Stories, told by plain BuildKit and through inlay.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::case::{Action, Case, Export, Import, Options};
use super::sources::{Scene, Sources};
use crate::support::{
    BuildOutput, Buildctl, Buildkitd, Buildx, INLINE_CACHE_KEY, Inlay, Project, Registry,
    inline_records,
};

/// The date of all images.
const EPOCH: u64 = 1_700_000_000;

/// What the names of steps begin with, beside those of sources and of the frontend's own.
const INSTRUCTIONS: [&str; 5] = ["ADD ", "COPY ", "LINK ", "RUN ", "WORKDIR "];

/// Where a story is told: a daemon that builds, by plain BuildKit or through inlay.
#[derive(Debug)]
pub struct Column {
    name: &'static str,
    inlay: Option<Inlay>,
    buildkitd: Buildkitd,
    buildx: Option<Buildx>,
    /// How many containers the daemon has run.
    containers: usize,
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
    pub built: [Told; 2],
    /// The same build on an empty plain BuildKit that imports that image, if it has a cache, and
    /// the one through inlay is new.
    pub imported: Option<[Told; 2]>,
}

/// What one build did and left.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub succeeded: bool,
    /// The instructions that ran, sorted.
    pub ran: Vec<String>,
    /// Those that came from a cache, sorted.
    pub cached: Vec<String>,
    pub warnings: Vec<String>,
    /// What went wrong with each import that failed.
    pub bad_imports: Vec<String>,
    /// The client's own message.
    pub message: String,
    /// By platform; "" is the only one.
    pub images: BTreeMap<String, Image>,
    /// How many containers the daemon ran for all that was built at once.
    pub containers: usize,
    /// How many of these the clients were told of.
    pub containers_told: usize,
}

/// An image in the registry.
#[derive(Clone, Debug)]
pub struct Image {
    pub digest: String,
    /// The digests of its layers, base first.
    pub layers: Vec<String>,
    /// Its config without the inline cache.
    pub stripped: String,
    pub records: usize,
}

// === telling ===

/// Tells a case from its beginning, and gives each build to `seen`, until that has seen enough.
/// `importers`, if there are any, import each image that is new.
pub fn tell(
    sources: &Sources,
    case: &Case,
    columns: &mut [Column; 2],
    importers: Option<&[Importer; 2]>,
    seen: &mut dyn FnMut(&Scene<'_>, Pair) -> ControlFlow<()>,
) {
    static TOLD: AtomicUsize = AtomicUsize::new(1);
    let id = format!("t{}", TOLD.fetch_add(1, Ordering::Relaxed));
    let mut scene = sources.scene(id, case);
    let mut number = 0;
    let mut imported = BTreeSet::new();
    for action in &case.story {
        let builds = match action {
            Action::Build(builds) | Action::Bake(builds) => &builds[..],
            Action::Change(source, content) => {
                scene.change(source, content);
                continue;
            }
            _ => &[],
        };
        let first = number + 1;
        number += builds.len();
        let [plain, inlay] = in_both(columns.each_mut(), |column| {
            column.act(&scene, action, first)
        });
        for (place, built) in plain.into_iter().zip(inlay).enumerate() {
            let options = &builds[place];
            let number = first + place;
            let built = [built.0, built.1];
            let identity = format!(
                "{}{}{}",
                case.dockerfile,
                scene.state(),
                options.of_the_image()
            );
            let is_new = options.export != Export::Nothing
                && built.iter().all(|told| told.succeeded)
                && imported.insert((identity.clone(), built[1].digests()));
            let pair = Pair {
                number,
                identity,
                imported: importers.filter(|_| is_new).map(|importers| {
                    let images = columns
                        .each_ref()
                        .map(|column| scene.image(column.name, number));
                    in_both([0, 1], |place| {
                        importers[place].import(&scene, options, &images[place])
                    })
                }),
                options: options.clone(),
                built,
            };
            if seen(&scene, pair).is_break() {
                return;
            }
        }
    }
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
        match action {
            Action::Build(builds) => return self.build(scene, builds, first),
            Action::Bake(builds) => return self.bake(scene, builds, first),
            Action::Wipe => self.buildkitd.wipe(),
            Action::Prune => prune(&self.buildkitd),
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
                self.containers += 1;
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
        let output = BuildOutput::of(&mut command);
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
        let containers = self.buildkitd.executed().len();
        let ran = containers - self.containers;
        self.containers = containers;
        let mut told: Vec<_> = outputs.iter().map(|output| Told::of(output)).collect();
        let is_run = |step: &&String| step.starts_with("RUN ");
        let runs = told
            .iter()
            .flat_map(|told| &told.ran)
            .filter(is_run)
            .count();
        for (place, told) in told.iter_mut().enumerate() {
            told.containers = ran;
            told.containers_told = runs;
            if told.succeeded {
                let image = scene.image(self.name, first + place);
                told.images = images(scene.registry(), &image);
            }
        }
        told
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
    fn import(&self, scene: &Scene<'_>, options: &Options, image: &str) -> Told {
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
    let mut build = Buildctl::new(addr).epoch(EPOCH);
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
        Export::Inline => 1,
        Export::Twice => 2,
        Export::Argument | Export::Nothing => 0,
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
            let image = Image {
                digest,
                layers: layers.into_iter().flatten().map(digest_of).collect(),
                records: inline_records(&config).len(),
                stripped: stripped(&String::from_utf8(config).unwrap()),
            };
            (platform, image)
        });
    images.collect()
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

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "build {}:{}", self.number, self.options)?;
        let of = ["plain", "inlay", "plain's imported", "inlay's imported"];
        let told = self.built.iter().chain(self.imported.iter().flatten());
        of.iter().zip(told).try_for_each(|(of, told)| {
            writeln!(f, "  {of}: {told}")?;
            told.images.iter().try_for_each(|(platform, image)| {
                let (digest, records) = (&image.digest[..19], image.records);
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

    fn of(output: &BuildOutput) -> Self {
        let steps = |names: Vec<&str>| {
            // Which of several stages with this step it is told for is chance.
            let steps = names
                .into_iter()
                .filter_map(|name| Some(name.split_once("] ")?.1));
            let steps = steps.filter(|step| INSTRUCTIONS.iter().any(|it| step.starts_with(it)));
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
