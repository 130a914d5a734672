//! The same story in two columns: plain BuildKit, and through inlay, each on a daemon of its own.
//!
//! What has to hold of any story is asserted as it goes on: whatever plain BuildKit had from its
//! cache inlay has too, whatever plain BuildKit does without a word inlay does too, and the image
//! is the same one but for its cache.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;

use inlay::cache::record::Digest;
use serde_json::Value;

use super::{
    BuildOutput, Buildctl, Buildkitd, INLINE_CACHE_KEY, Inlay, Project, Pushed, Registry,
    assert_one, inline_records,
};

/// The two columns, and a third daemon that takes no part in the story.
#[derive(Debug)]
pub struct Columns {
    // First, so that it ends before its daemon.
    inlay: Inlay,
    behind_inlay: Buildkitd,
    plain: Buildkitd,
    /// Makes base images, so that no daemon of a column has their layers, and imports what the
    /// columns pushed.
    aside: Buildkitd,
    registry: Registry,
}

/// One build of a story, as it went in each column.
#[derive(Debug)]
pub struct Row {
    /// Of plain BuildKit.
    pub plain: Built,
    /// Through inlay.
    pub inlay: Built,
}

/// What a build said, and what it left in the registry.
#[derive(Debug)]
pub struct Built {
    /// What it said.
    pub output: BuildOutput,
    /// What it left.
    pub pushed: Pushed,
}

/// The name of a column, and of the repositories of its images.
const PLAIN: &str = "plain";
const INLAY: &str = "inlay";

// === impl Columns ===

impl Columns {
    /// The columns, as images are named by them.
    pub const NAMES: [&str; 2] = [PLAIN, INLAY];

    /// `SOURCE_DATE_EPOCH` of the builds.
    pub const EPOCH: u64 = 1_700_000_000;

    /// What [`tell_contents`](Self::tell_contents) has sources contain.
    pub const CONTENTS: [&str; 4] = ["one", "two", "six", "one"];

    /// Starts all daemons, empty.
    pub fn start() -> Self {
        let behind_inlay = Buildkitd::start();
        Self {
            inlay: Inlay::start(&behind_inlay, &[]),
            behind_inlay,
            plain: Buildkitd::start(),
            aside: Buildkitd::start(),
            registry: Registry::start(),
        }
    }

    /// The registry of the images. Those of a column are in repositories below its name.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Pushes busybox and `lines` of a Dockerfile as an image of the registry, and returns its full
    /// name. To the daemons of the columns it is lazy: they have none of its layers.
    pub fn base(&self, image: &str, lines: &str) -> String {
        let name = self.registry.image(image);
        let dockerfile = format!("FROM scratch\nADD rootfs.tar /\n{lines}\n");
        let project = Project::new().base().dockerfile(&dockerfile);
        Buildctl::new(self.aside.addr())
            .project(&project)
            .push(&name)
            .run_ok();
        name
    }

    /// A build of a project on neither daemon yet.
    pub fn build(&self, project: &Project) -> Buildctl {
        Buildctl::new("").project(project).epoch(Self::EPOCH)
    }

    /// The same of a context that the daemons fetch, and that has the Dockerfile.
    pub fn build_of(&self, context: &str) -> Buildctl {
        Buildctl::new("")
            .args(["--frontend=dockerfile.v0"])
            .opt(&format!("context={context}"))
            .epoch(Self::EPOCH)
    }

    /// Runs a build in both columns; each pushes `image` with its inline cache.
    pub fn push(&self, build: &Buildctl, image: &str) -> Row {
        self.push_importing(build, &[], image)
    }

    /// The same with the inline cache of these images, each column of its own ones.
    pub fn push_importing(&self, build: &Buildctl, imports: &[&str], image: &str) -> Row {
        self.push_with(build, imports, image, "")
    }

    /// The same with more attributes of the image exporter.
    pub fn push_with(
        &self,
        build: &Buildctl,
        imports: &[&str],
        image: &str,
        attributes: &str,
    ) -> Row {
        // A build that gets no cache fails.
        let build = build.clone().export_cache("type=inline,ignore-error=false");
        self.run(image, |column, addr, name| {
            let mut build = build.clone().addr(addr);
            for import in imports {
                build = build.import_cache(&self.import(column, import));
            }
            let attributes = format!("rewrite-timestamp=true{attributes}");
            build.push_with(name, &attributes).run()
        })
    }

    /// Runs anything that builds in both columns: it is given the column, the address of its daemon
    /// or inlay, and the full name of its image.
    pub fn run(&self, image: &str, build: impl Fn(&str, &str, &str) -> BuildOutput) -> Row {
        let own = |column: &str| format!("{column}/{image}");
        let [plain, inlay] = self.compare(image, |column, addr| {
            build(column, addr, &self.registry.image(&own(column)))
        });
        self.assert_same_image(image);
        let [plain, inlay] = [(PLAIN, plain), (INLAY, inlay)]
            .map(|(column, output)| Built::new(&self.registry, &own(column), output));
        Row { plain, inlay }
    }

    /// The same of what gives several images, or none.
    pub fn compare(
        &self,
        what: &str,
        build: impl Fn(&str, &str) -> BuildOutput,
    ) -> [BuildOutput; 2] {
        let [plain, inlay] = self.compare_commands(what, build).map(|(output, _)| output);
        assert_no_more_than_plain(what, &plain, &inlay);
        [plain, inlay]
    }

    /// The same of what the client does not tell the steps of. Returns what was said, and the command
    /// lines of the containers that ran: those of steps that are none of the client's are there, too.
    pub fn compare_commands(
        &self,
        what: &str,
        build: impl Fn(&str, &str) -> BuildOutput,
    ) -> [(BuildOutput, Vec<String>); 2] {
        let columns = [
            (PLAIN, self.plain.addr(), &self.plain),
            (INLAY, self.inlay.addr(), &self.behind_inlay),
        ];
        let outputs = columns.map(|(column, addr, buildkitd)| {
            let before = buildkitd.executed().len();
            let output = build(column, &addr);
            assert!(output.status.success(), "{what} by {column}: {output}");
            (output, buildkitd.executed().split_off(before))
        });
        let [(plain, plain_ran), (inlay, inlay_ran)] = &outputs;
        assert_eq!(
            inlay.warnings, plain.warnings,
            "{what}: warnings\nplain BuildKit:\n{plain}\ninlay:\n{inlay}"
        );
        assert_within(what, "commands", plain_ran, inlay_ran);
        outputs
    }

    /// That an image is the same in both columns but for its cache, and that the cache of each is one
    /// of its layers.
    pub fn assert_same_image(&self, image: &str) {
        let [plain, inlay] = [PLAIN, INLAY].map(|column| format!("{column}/{image}"));
        for platform in self.registry.image_digests(&plain).keys() {
            assert_eq!(
                self.without_cache(&inlay, platform),
                self.without_cache(&plain, platform),
                "{image}: one image but for its cache"
            );
            for image in [&plain, &inlay] {
                self.assert_sound(image, platform);
            }
        }
    }

    /// Has an empty plain BuildKit import the image of each column and build on it, and returns what
    /// it said of that of inlay.
    pub fn import_aside(&mut self, build: &Buildctl, image: &str) -> BuildOutput {
        let [(plain, plain_files), (inlay, inlay_files)] = [PLAIN, INLAY].map(|column| {
            self.aside.wipe();
            let out = Project::new();
            let output = build
                .clone()
                .addr(self.aside.addr())
                .import_cache(&self.import(column, image))
                .output(&format!("type=local,dest={}", out.path().display()))
                .run_ok();
            assert_eq!(output.steps_failed(), [], "{image}, {column}: {output}");
            assert_eq!(output.warnings, [""; 0], "{image}, {column}: {output}");
            (output, files(out.path()))
        });
        assert_no_more_than_plain(&format!("{image}, imported"), &plain, &inlay);
        assert_eq!(inlay_files, plain_files, "{image}");
        inlay
    }

    /// Builds twice on one daemon, on an empty one, and on an empty one with the import of what the
    /// first one left; imports that aside. All has to be one image with one cache.
    pub fn tell(&mut self, what: &str, build: &Buildctl) {
        let mut rows = vec![self.push(build, "app:1"), self.push(build, "app:2")];
        self.wipe();
        rows.push(self.push(build, "app:3"));
        self.wipe();
        rows.push(self.push_importing(build, &["app:1"], "app:4"));
        self.import_aside(build, "app:1");
        let pushed: Vec<_> = rows.into_iter().map(|row| row.inlay.pushed).collect();
        assert_one(what, &pushed);
    }

    /// Builds with one content, with two others, and with the first one again, on one daemon; and with
    /// the first one on an empty one. `write` makes a source have a content, each of the same length;
    /// what the image has of it is to be the same for all.
    pub fn tell_contents(&mut self, what: &str, build: &Buildctl, write: impl Fn(&Self, &str)) {
        let rows = Self::CONTENTS.map(|content| {
            write(self, content);
            self.push(build, "app:1")
        });
        // A cache says nothing of earlier builds: there is nothing by which it could grow.
        let records = rows.each_ref().map(|row| row.inlay.pushed.records);
        self.wipe();
        let cold = self.push(build, "app:2");
        self.import_aside(build, "app:1");
        let [first, _, _, last] = rows.map(|row| row.inlay.pushed);
        assert_one(what, &[first, last, cold.inlay.pushed]);
        assert_eq!(records, [records[0]; 4], "{what}");
    }

    /// The daemons of both columns, plain BuildKit's first.
    pub fn daemons(&self) -> [&Buildkitd; 2] {
        [&self.plain, &self.behind_inlay]
    }

    /// Deletes all state of the daemons of both columns.
    pub fn wipe(&mut self) {
        thread::scope(|scope| {
            scope.spawn(|| self.plain.wipe());
            self.behind_inlay.wipe();
        });
    }

    /// Starts another inlay, which has seen no build yet.
    pub fn replace_inlay(&mut self) {
        self.inlay = Inlay::start(&self.behind_inlay, &[]);
    }

    /// Restarts the daemons of both columns with the state that they have.
    pub fn restart(&mut self) {
        self.plain.restart();
        self.behind_inlay.restart();
    }

    /// The cache import of an image of a column.
    pub fn import(&self, column: &str, image: &str) -> String {
        let name = self.registry.image(&format!("{column}/{image}"));
        format!("type=registry,ref={name}")
    }

    /// That the cache of an image names layers that the image has.
    fn assert_sound(&self, image: &str, platform: &str) {
        let platform = some(platform);
        let layers = self.registry.layers(image, platform).len() as u64;
        let records = inline_records(&self.registry.config(image, platform));
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for record in &records {
            let results = list(&record["layers"]);
            let mut named: Vec<_> = results
                .iter()
                .map(|result| result["layer"].clone())
                .collect();
            for chain in list(&record["chains"]) {
                named.extend(list(&chain["layers"]));
            }
            // A number that is not written is 0.
            let exists = |layer: &Value| layer.as_u64().unwrap_or_default() < layers;
            assert!(
                named.iter().all(exists),
                "{image} has {layers} layers, and this record is of others: {record:#}\n\
                 of {records:#?}"
            );
        }
    }

    /// The layers of an image, and its config without the cache.
    fn without_cache(&self, image: &str, platform: &str) -> (Vec<String>, Value) {
        let platform = some(platform);
        let layers = self.registry.layers(image, platform);
        let config = self.registry.config(image, platform);
        let mut config: Value = serde_json::from_slice(&config).expect("a config is JSON");
        let members = config.as_object_mut().expect("a config is an object");
        members.remove(INLINE_CACHE_KEY);
        (layers, config)
    }
}

// === impl Row ===

impl Row {
    /// One build in both columns, which inlay warns of nothing in and runs nothing for that plain
    /// BuildKit does not.
    pub fn new(what: &str, plain: Built, inlay: Built) -> Self {
        assert_no_more_than_plain(what, &plain.output, &inlay.output);
        Self { plain, inlay }
    }
}

// === impl Built ===

impl Built {
    /// What a build said, which has to have succeeded, and what it left under a name of the registry.
    pub fn new(registry: &Registry, image: &str, output: BuildOutput) -> Self {
        assert!(output.status.success(), "{image} is built: {output}");
        let pushed = Pushed::under(registry, image);
        Self { output, pushed }
    }
}

/// The platform as the registry takes it, of one that is "" for an image that has no index.
fn some(platform: &str) -> Option<&str> {
    (!platform.is_empty()).then_some(platform)
}

/// Of a build in both columns: inlay warns of nothing and runs nothing that plain BuildKit does not.
fn assert_no_more_than_plain(what: &str, plain: &BuildOutput, inlay: &BuildOutput) {
    assert_eq!(
        inlay.warnings, plain.warnings,
        "{what}: warnings\nplain BuildKit:\n{plain}\ninlay:\n{inlay}"
    );
    let both = format!("{what}\nplain BuildKit:\n{plain}\ninlay:\n{inlay}\n");
    let [plain, inlay] = [plain, inlay].map(|output| {
        let steps = output.steps_ran();
        steps.into_iter().map(without_platform).collect::<Vec<_>>()
    });
    assert_within(&both, "steps", &plain, &inlay);
}

/// The name of a step without its platform: one that is equal on two platforms runs on either.
fn without_platform(step: &str) -> String {
    match step
        .strip_prefix("[linux/")
        .and_then(|rest| rest.split_once(' '))
    {
        Some((_platform, rest)) => format!("[{rest}"),
        None => step.to_owned(),
    }
}

/// Of what was run in both columns, as often as it was: inlay ran no more than plain BuildKit.
fn assert_within<T: AsRef<str>>(what: &str, of: &str, plain: &[T], inlay: &[T]) {
    let count = |list: &[T]| {
        let mut counts = BTreeMap::<String, usize>::new();
        for one in list {
            *counts.entry(one.as_ref().to_owned()).or_default() += 1;
        }
        counts
    };
    let (plain, inlay) = (count(plain), count(inlay));
    let more: Vec<_> = inlay
        .iter()
        .filter(|(one, times)| *times > plain.get(*one).unwrap_or(&0))
        .collect();
    assert!(
        more.is_empty(),
        "{what}: {of} that ran through inlay alone: {more:#?}\nplain BuildKit ran {plain:#?}"
    );
}

/// The files below a directory: kind, mode, and content.
fn files(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory is read") {
            let path = entry.expect("an entry").path();
            let metadata = path.symlink_metadata().expect("the entry is there");
            let what = if metadata.is_symlink() {
                format!("to {}", path.read_link().expect("a link is read").display())
            } else if metadata.is_dir() {
                directories.push(path.clone());
                "directory".to_owned()
            } else {
                Digest::of(&fs::read(&path).expect("a file is read")).to_string()
            };
            let name = path.strip_prefix(root).expect("it is below the root");
            let mode = metadata.permissions().mode();
            found.insert(name.display().to_string(), format!("{mode:o} {what}"));
        }
    }
    found
}
