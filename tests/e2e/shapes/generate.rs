//! Cases from chance.

use super::case::{Action, Case, Dockerfile, Export, Import, Options, Source, Stage};
use super::chance::Chance;
use super::sources::{CONTENTS, RELABELLED};

/// The most builds of a story.
const BUILDS: usize = 8;

/// The most instructions of a stage.
const STEPS: usize = 4;

/// A case of chance.
pub fn case(chance: &mut Chance) -> Case {
    let mut writer = Writer {
        chance,
        stages: Vec::new(),
        unused: Vec::new(),
        bases: Vec::new(),
        copied: None,
        names: 0,
    };
    let dockerfile = writer.dockerfile();
    let mut teller = Teller {
        chance: writer.chance,
        text: dockerfile.to_string(),
        targets: dockerfile
            .stages
            .iter()
            .filter_map(|stage| stage.name.clone())
            .collect(),
        story: Vec::new(),
        builds: 0,
        usual: Options::default(),
    };
    teller.tell();
    let story = teller.story;
    Case { dockerfile, story }
}

// === Dockerfiles ===

/// Writes a Dockerfile, and knows what is in its stages.
struct Writer<'a> {
    chance: &'a mut Chance,
    stages: Vec<Known>,
    /// The stages that nothing is made of yet.
    unused: Vec<String>,
    /// What the stages are based on.
    bases: Vec<(String, Known)>,
    /// The last copy from a stage under the same name: the stage that has it now, and the file.
    copied: Option<(String, String)>,
    /// How many files have a name of their own.
    names: usize,
}

/// What is known of a stage.
#[derive(Clone, Debug, Default)]
struct Known {
    /// How others name it.
    name: String,
    /// How a command is run: `RUN COMMAND` by `/bin/sh`, or by `/sh` alone; or not at all.
    shell: Shell,
    /// Its files. Random content has a name that begins with `x`.
    files: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shell {
    #[default]
    None,
    /// busybox with all its applets.
    Busybox,
    /// A shell without any program.
    Alone,
}

impl Writer<'_> {
    fn dockerfile(&mut self) -> Dockerfile {
        let count = self
            .chance
            .weighed(&[(4, 1), (6, 2), (8, 3), (4, 4), (2, 5), (1, 6)]);
        let last = count - 1;
        let stages = (0..count).map(|number| self.stage(number, number == last));
        let mut stages: Vec<Stage> = stages.collect();
        // The last one is reached by its place alone.
        stages[last].name = None;
        let mut arguments = Vec::new();
        if self.chance.percent(15) {
            arguments.push("BASE={base}".to_owned());
            let on_base = stages.iter_mut().filter(|stage| stage.base == "{base}");
            on_base.for_each(|stage| stage.base = "${BASE}".to_owned());
        }
        Dockerfile { arguments, stages }
    }

    fn stage(&mut self, number: usize, is_last: bool) -> Stage {
        let name = format!("s{number}");
        let (base, mut known) = self.base();
        self.bases.push((base.clone(), known.clone()));
        known.name.clone_from(&name);
        let mut steps = Vec::new();
        let least = usize::from(base == "scratch" || is_last);
        let mut count = self.chance.below(STEPS + 1).max(least);
        if self.copied.is_some() && self.chance.percent(40) {
            // Often it is all that the stage has, and its base is that of the stage before.
            steps.extend(self.hop(&mut known));
            count = self.chance.below(2);
        }
        for place in 0..count {
            // The last stage brings together what the others made.
            let gathers = is_last && place == 0 && !self.unused.is_empty();
            steps.extend(match gathers && self.chance.percent(70) {
                true => self.copy_from_stage(&mut known),
                false => self.step(&mut known),
            });
        }
        self.unused.push(name.clone());
        self.stages.push(known);
        Stage {
            base,
            name: Some(name),
            steps,
        }
    }

    fn base(&mut self) -> (String, Known) {
        let of_image = |file: &str| Known {
            shell: Shell::Busybox,
            files: vec![file.to_owned(), "/etc/passwd".to_owned()],
            ..Known::default()
        };
        let kind = self.chance.weighed(&[
            (8, "{base}"),
            (5, "scratch"),
            (2, "{pinned}"),
            (2, "{tool}"),
            (1, "image"),
            (4 * usize::from(!self.stages.is_empty()), "stage"),
            (6 * usize::from(!self.stages.is_empty()), "again"),
        ]);
        match kind {
            "scratch" => (kind.to_owned(), Known::default()),
            "stage" => {
                let known = self.earlier_stage();
                (known.name.clone(), known)
            }
            // Equal steps on equal bases have one key.
            "again" => self.chance.pick(&self.bases).clone(),
            "{tool}" => (kind.to_owned(), of_image("/tool")),
            _ => (kind.to_owned(), of_image("/base")),
        }
    }

    /// One instruction as a rule; none if the kind of chance is not possible here.
    fn step(&mut self, stage: &mut Known) -> Vec<String> {
        let earlier = !self.stages.is_empty();
        let runs = stage.shell != Shell::None;
        let kind = self.chance.weighed(&[
            (12, "context"),
            (14 * usize::from(earlier), "from stage"),
            (3, "from image"),
            (2, "from context"),
            (2, "archive"),
            (3, "web"),
            (1, "git"),
            (12 * usize::from(runs), "run"),
            (5 * usize::from(runs), "random"),
            (5 * usize::from(runs), "mount"),
            (12 * usize::from(!runs), "shell"),
            (6, "setting"),
            (3 * usize::from(runs), "nothing"),
            (2, "heredoc"),
        ]);
        let step = match kind {
            "context" => self.copy_context(stage),
            "from stage" => return self.copy_from_stage(stage),
            "from image" => {
                let link = self.link();
                let image = *self.chance.pick(&["{base}", "{tool}", "{pinned}"]);
                let own = if image == "{tool}" { "/tool" } else { "/base" };
                let file = *self.chance.pick(&[own, "/etc/passwd"]);
                let to = self.name("i");
                stage.add(&to);
                format!("COPY {link}--from={image} {file} {to}")
            }
            "from context" => {
                let link = self.link();
                stage.add("/e");
                format!("COPY {link}--from=extra e.txt /e")
            }
            "archive" => {
                let link = self.link();
                stage.add("/ar/archived.txt");
                format!("ADD {link}ar.tar /ar/")
            }
            "web" => {
                let link = self.link();
                stage.add("/w");
                format!("ADD {link}{{web}} /w")
            }
            "git" => {
                let link = self.link();
                stage.add("/g/a.txt");
                format!("ADD {link}{{git}} /g")
            }
            "run" => self.run(stage, ""),
            "random" => {
                let to = self.name("x");
                stage.add(&to);
                command(
                    stage,
                    "",
                    &format!("read x </proc/sys/kernel/random/uuid; echo $x >{to}"),
                )
            }
            "mount" => self.mount(stage),
            "shell" => {
                let link = self.link();
                stage.add("/sh");
                stage.shell = Shell::Alone;
                format!("COPY {link}sh /sh")
            }
            "setting" => return self.setting(stage),
            "nothing" => command(stage, "", ["true", ":", "cd /"][self.chance.below(3)]),
            _ => {
                stage.add("/h");
                let content = *self.chance.pick(&["one", "two"]);
                format!("COPY <<EOF /h\n{content}\nEOF")
            }
        };
        vec![step]
    }

    /// A copy from an earlier stage, if there is a file to copy.
    fn copy_from_stage(&mut self, stage: &mut Known) -> Vec<String> {
        let from = self.earlier_stage();
        let Some(file) = self.file_of(&from) else {
            return Vec::new();
        };
        let link = self.link();
        // A hop keeps the name as a rule.
        let to = match self.chance.percent(80) || is_random(&file) {
            true => file.clone(),
            false => self.name("c"),
        };
        stage.add(&to);
        if to == file {
            self.copied = Some((stage.name.clone(), file.clone()));
        }
        vec![format!("COPY {link}--from={} {file} {to}", from.name)]
    }

    /// A copy of what the last one of its kind copied, from where that put it.
    fn hop(&mut self, stage: &mut Known) -> Option<String> {
        let (from, file) = self.copied.take()?;
        let link = if self.chance.percent(15) {
            "--link "
        } else {
            ""
        };
        stage.add(&file);
        self.unused.retain(|name| *name != from);
        self.copied = Some((stage.name.clone(), file.clone()));
        Some(format!("COPY {link}--from={from} {file} {file}"))
    }

    fn copy_context(&mut self, stage: &mut Known) -> String {
        let link = self.link();
        let (what, makes) = self.chance.weighed(&[
            (6, ("a.txt /a.txt", "/a.txt")),
            (3, ("b.txt /b.txt", "/b.txt")),
            (2, ("a.txt b.txt /ab/", "/ab/b.txt")),
            (3, ("dir /dir", "/dir/c.txt")),
            (2, ("dir/*.txt /d/", "/d/c.txt")),
            (2, ("--chmod=600 a.txt /m.txt", "/m.txt")),
            (2, ("--chown=1:1 a.txt /o.txt", "/o.txt")),
            (1, ("--parents dir/sub/e.md /p/", "/p/dir/sub/e.md")),
            (1, ("--exclude=*.md dir /n", "/n/c.txt")),
            (1, (". /all/", "/all/a.txt")),
        ]);
        stage.add(makes);
        format!("COPY {link}{what}")
    }

    /// A command whose output is a function of what it reads.
    fn run(&mut self, stage: &mut Known, mounts: &str) -> String {
        let how = self.chance.weighed(&[
            (4, "constant"),
            (5, "reads"),
            (3, "forgets"),
            (1, "heredoc"),
        ]);
        let file = self.file_of(stage).filter(|_| how != "constant");
        let Some(file) = file else {
            // Of few kinds, so that stages have equal ones.
            let number = self.chance.below(3);
            let to = format!("/k{number}");
            stage.add(&to);
            return command(stage, mounts, &format!("echo {number} >{to}"));
        };
        if how == "forgets" {
            // The content is read, and none of it is left.
            let to = self.name("f");
            stage.add(&to);
            return command(stage, mounts, &format!("read x <{file}; echo read >{to}"));
        }
        let to = self.name(if is_random(&file) { "x" } else { "r" });
        stage.add(&to);
        match how == "heredoc" && stage.shell == Shell::Busybox && mounts.is_empty() {
            true => format!("RUN <<EOF\nread x <{file}\necho $x >{to}\nEOF"),
            false => command(stage, mounts, &format!("read x <{file}; echo $x >{to}")),
        }
    }

    fn mount(&mut self, stage: &mut Known) -> String {
        let kind = self.chance.weighed(&[
            (5 * usize::from(!self.stages.is_empty()), "stage"),
            (4, "context"),
            (1, "image"),
            (1, "cache"),
            (1, "tmpfs"),
            (1, "secret"),
        ]);
        match kind {
            "image" => {
                let to = self.name("r");
                stage.add(&to);
                let mount = "--mount=type=bind,from={tool},target=/mnt ";
                command(stage, mount, &format!("read x </mnt/tool; echo $x >{to}"))
            }
            "stage" => {
                let from = self.earlier_stage();
                let Some(file) = self.file_of(&from) else {
                    return self.run(stage, "");
                };
                let to = self.name(if is_random(&file) { "x" } else { "r" });
                stage.add(&to);
                let how = self.chance.weighed(&[(4, ""), (1, ",rw")]);
                let mount = format!("--mount=type=bind,from={},target=/mnt{how} ", from.name);
                command(stage, &mount, &format!("read x </mnt{file}; echo $x >{to}"))
            }
            "context" => {
                let to = self.name("r");
                stage.add(&to);
                let mount = "--mount=type=bind,target=/src ";
                command(stage, mount, &format!("read x </src/a.txt; echo $x >{to}"))
            }
            "cache" => self.run(stage, "--mount=type=cache,target=/cache "),
            "tmpfs" => self.run(stage, "--mount=type=tmpfs,target=/tmpfs "),
            _ => self.run(stage, "--mount=type=secret,id=s "),
        }
    }

    fn setting(&mut self, stage: &mut Known) -> Vec<String> {
        let kind = self.chance.weighed(&[
            (3, "WORKDIR"),
            (2, "ENV"),
            (3, "ARG"),
            (1, "USER"),
            (2, "LABEL"),
            (1, "SHELL"),
        ]);
        let setting = match kind {
            "WORKDIR" => format!("WORKDIR /w{}", self.chance.below(2)),
            "ENV" => format!("ENV E={}", self.chance.below(2)),
            "ARG" => {
                let argument = "ARG V=0".to_owned();
                if stage.shell == Shell::None || self.chance.percent(50) {
                    return vec![argument];
                }
                stage.add("/v");
                return vec![argument, command(stage, "", "echo $V >/v")];
            }
            "USER" => "USER 0".to_owned(),
            "SHELL" if stage.shell == Shell::Busybox => {
                r#"SHELL ["/bin/busybox","sh","-c"]"#.to_owned()
            }
            _ => format!("LABEL l={}", self.chance.below(2)),
        };
        vec![setting]
    }

    /// A stage before this one; there has to be one.
    fn earlier_stage(&mut self) -> Known {
        let unused = |known: &&Known| self.unused.contains(&known.name);
        let unused: Vec<_> = self.stages.iter().filter(unused).cloned().collect();
        let of = match !unused.is_empty() && self.chance.percent(70) {
            true => &unused,
            false => &self.stages,
        };
        let stage = self.chance.pick(of).clone();
        self.unused.retain(|name| *name != stage.name);
        stage
    }

    /// One of the files that a stage has.
    fn file_of(&mut self, stage: &Known) -> Option<String> {
        (!stage.files.is_empty()).then(|| self.chance.pick(&stage.files).clone())
    }

    fn link(&mut self) -> &'static str {
        if self.chance.percent(35) {
            "--link "
        } else {
            ""
        }
    }

    fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("/{kind}{}", self.names)
    }
}

impl Known {
    fn add(&mut self, file: &str) {
        if !self.files.iter().any(|other| other == file) {
            self.files.push(file.to_owned());
        }
    }
}

fn is_random(file: &str) -> bool {
    file.starts_with("/x")
}

/// A command in a stage's own shell.
fn command(stage: &Known, mounts: &str, command: &str) -> String {
    match stage.shell {
        Shell::Alone => format!(r#"RUN {mounts}["/sh","-c","{command}"]"#),
        Shell::Busybox | Shell::None => format!("RUN {mounts}{command}"),
    }
}

// === stories ===

struct Teller<'a> {
    chance: &'a mut Chance,
    /// The Dockerfile's.
    text: String,
    /// The stages that have a name.
    targets: Vec<String>,
    story: Vec<Action>,
    builds: usize,
    /// How this story builds as a rule.
    usual: Options,
}

impl Teller<'_> {
    fn tell(&mut self) {
        self.usual.two_platforms = self.chance.percent(8);
        self.usual.git = !self.text.contains("ar.tar") && self.chance.percent(4);
        self.usual.keep_times = self.chance.percent(10);
        if self.chance.percent(8) {
            self.usual.compression = Some(
                self.chance
                    .pick(&["uncompressed", "forced", "zstd"])
                    .to_string(),
            );
        }
        if self.text.contains("{base}") && self.chance.percent(20) {
            self.story.push(Action::Pull);
        }
        let usual = self.usual.clone();
        self.build(usual);
        let builds = 2 + self.chance.below(BUILDS - 3);
        while self.builds < builds {
            self.phrase();
        }
    }

    /// A few things that belong together.
    fn phrase(&mut self) {
        let mut next = self.usual.clone();
        let kind = self.chance.weighed(&[
            (3, "warm"),
            (3, "cold"),
            (6, "import"),
            (5, "import and not"),
            (6, "change and back"),
            (4, "change, import"),
            (2, "forget"),
            (2, "restart"),
            (2, "export"),
            (2, "together"),
            (1, "bake"),
            (1, "compression"),
            (2, "two imports"),
            (1, "gone"),
            (2, "target"),
            (1, "without"),
        ]);
        match kind {
            "warm" => {}
            "cold" => self.empty(),
            "import" => {
                self.empty();
                next.imports = vec![self.earlier()];
            }
            "import and not" => {
                self.empty();
                let mut first = next.clone();
                first.imports = vec![self.earlier()];
                self.build(first);
                if self.chance.percent(30) {
                    self.story.push(Action::RestartInlay);
                }
            }
            "change and back" => {
                let Some(source) = self.source() else { return };
                self.change(source.clone());
                self.build(next.clone());
                self.story
                    .push(Action::Change(source, CONTENTS[0].to_owned()));
            }
            "change, import" => {
                let Some(mut source) = self.source() else {
                    return;
                };
                if self.text.contains("{base}") && self.chance.percent(40) {
                    source = Source::Base;
                }
                self.change(source);
                if self.chance.percent(70) {
                    self.empty();
                }
                next.imports = vec![self.earlier()];
                if self.chance.percent(40) {
                    self.build(next.clone());
                    self.empty();
                    next.imports.clear();
                }
            }
            "forget" => {
                let word = *self.chance.pick(&["RUN", "COPY", "--from"]);
                self.story.push(Action::Forget(word.to_owned()));
            }
            "restart" => {
                let restart = self.chance.weighed(&[(1, 0), (1, 1)]);
                self.story
                    .push([Action::Restart, Action::RestartInlay][restart].clone());
            }
            "export" => next.export = *self.chance.pick(&[Export::Twice, Export::Argument]),
            "together" | "bake" => {
                let mut builds = vec![next.clone(), next];
                builds[1].target = self.target();
                self.builds += 2;
                let bake = kind == "bake" && !builds[0].git;
                builds[1].linked =
                    bake && self.text.contains("FROM image") && self.chance.percent(50);
                self.story.push(if bake {
                    Action::Bake(builds)
                } else {
                    Action::Build(builds)
                });
                return;
            }
            "compression" => {
                next.compression = match &next.compression {
                    Some(_) => None,
                    None => Some(self.chance.pick(&["uncompressed", "zstd"]).to_string()),
                };
            }
            "two imports" => {
                self.empty();
                next.imports = vec![self.earlier(), self.earlier()];
            }
            "gone" => {
                self.empty();
                next.imports = vec![Import::Gone, self.earlier()];
                if self.chance.percent(50) {
                    next.imports.reverse();
                }
            }
            "target" => next.target = self.target(),
            _ => next.export = Export::Nothing,
        }
        if self.text.contains("ARG V") && self.chance.percent(30) {
            next.argument = Some(self.chance.below(2).to_string());
        }
        self.build(next);
    }

    fn build(&mut self, options: Options) {
        self.builds += 1;
        self.story.push(Action::Build(vec![options]));
    }

    fn change(&mut self, source: Source) {
        let is_image = matches!(source, Source::Base | Source::Tool);
        let content = match is_image && self.chance.percent(25) {
            true => RELABELLED.to_owned(),
            false => self.content(),
        };
        self.story.push(Action::Change(source, content));
    }

    fn empty(&mut self) {
        let wipe = self.chance.percent(60);
        self.story
            .push(if wipe { Action::Wipe } else { Action::Prune });
    }

    fn earlier(&mut self) -> Import {
        // The last one as a rule.
        match self.chance.percent(60) {
            true => Import::Build(self.builds),
            false => Import::Build(1 + self.chance.below(self.builds)),
        }
    }

    fn target(&mut self) -> Option<String> {
        match self.targets.is_empty() {
            true => None,
            false => Some(self.chance.pick(&self.targets).clone()),
        }
    }

    fn content(&mut self) -> String {
        // The last one is longer, and so is all that is made of it.
        self.chance.pick(&CONTENTS[1..]).to_string()
    }

    /// A source that the Dockerfile reads.
    fn source(&mut self) -> Option<Source> {
        let file = |path: &str| Source::File(path.to_owned());
        let mut sources = Vec::new();
        for (mark, source) in [
            ("a.txt", file("a.txt")),
            ("/src/a.txt", file("a.txt")),
            ("/src/a.txt", file("b.txt")),
            ("b.txt", file("b.txt")),
            ("dir", file("dir/c.txt")),
            (". /all", file("dir/d.txt")),
            ("{web}", Source::Web),
            ("{git}", Source::Git),
            ("{base}", Source::Base),
            ("{tool}", Source::Tool),
        ] {
            if self.text.contains(mark) {
                sources.push(source);
            }
        }
        if self.usual.git {
            sources.push(Source::Git);
        }
        (!sources.is_empty()).then(|| self.chance.pick(&sources).clone())
    }
}
