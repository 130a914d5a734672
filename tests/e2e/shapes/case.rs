//! A case: a Dockerfile, and a story of builds of it. It is written as text, which is how a finding
//! is printed and how a test has it:
//!
//! ```text
//! FROM {base} AS deps
//! RUN echo x >/m
//! FROM {base}
//! COPY --from=deps /m /m
//! ---
//! build
//! wipe
//! build import=1
//! ```
//!
//! Names in braces are the sources of [`Sources`](super::sources::Sources); the files of the context
//! are listed there, too.

use std::fmt;
use std::str::FromStr;

/// A Dockerfile and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub dockerfile: Dockerfile,
    pub story: Vec<Action>,
}

/// Lines of a Dockerfile by stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dockerfile {
    /// The arguments before the first stage, as `NAME=VALUE`.
    pub arguments: Vec<String>,
    pub stages: Vec<Stage>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stage {
    /// What follows `FROM`, without a name.
    pub base: String,
    /// The name by which other stages know it.
    pub name: Option<String>,
    /// Its instructions; one with a heredoc has several lines.
    pub steps: Vec<String>,
}

/// One thing that happens in a story.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Builds, all at once if there are several.
    Build(Vec<Options>),
    /// The same by one `docker buildx bake`.
    Bake(Vec<Options>),
    /// The daemon starts with an empty state.
    Wipe,
    /// All that the daemon has is pruned.
    Prune,
    /// The daemon ends and starts again with the state that it had.
    Restart,
    /// inlay ends and starts again.
    RestartInlay,
    /// The results of steps with this word in their text are pruned.
    Forget(String),
    /// The daemon pulls the base image.
    Pull,
    /// A source changes.
    Change(Source, String),
}

/// What can change, and its new content follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A file of the context.
    File(String),
    /// What `{web}` serves.
    Web,
    /// What `{git}` has on its branch.
    Git,
    /// Which base image the tag in `{base}` names.
    Base,
    /// Which image the tag in `{tool}` names.
    Tool,
}

/// How something is built.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Options {
    /// A stage other than the last.
    pub target: Option<String>,
    /// Imports, in order.
    pub imports: Vec<Import>,
    pub export: Export,
    /// Of the image: `uncompressed`, `forced` (the same, also of layers that are there), or `zstd`.
    pub compression: Option<String>,
    /// For two platforms.
    pub two_platforms: bool,
    /// The context is the git repository.
    pub git: bool,
    /// Without `rewrite-timestamp`.
    pub keep_times: bool,
    /// The build argument `V`.
    pub argument: Option<String>,
    /// In a bake file: the named context `image` is what the first target builds.
    pub linked: bool,
}

/// A cache to import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Import {
    /// The image of a build of this story, counted from 1.
    Build(usize),
    /// An image that is not there.
    Gone,
}

/// How the inline cache is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Export {
    /// Once.
    #[default]
    Inline,
    /// By two equal entries.
    Twice,
    /// Once, and by the build argument, as buildx does for that.
    Argument,
    /// Not at all.
    Nothing,
}

/// What is wrong with the text of a case.
#[derive(Debug)]
pub struct BadCase(String);

// === impl Case ===

impl Case {
    /// The case up to a build, counted from 1.
    pub fn until(&self, build: usize) -> Self {
        let mut until = self.clone();
        until.story.clear();
        for action in &self.story {
            if until.builds().count() < build {
                until.story.push(action.clone());
            }
        }
        until
    }

    /// All builds of the story, in the order in which they are counted.
    pub fn builds(&self) -> impl Iterator<Item = &Options> {
        self.story.iter().flat_map(|action| match action {
            Action::Build(builds) | Action::Bake(builds) => &builds[..],
            _ => &[],
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}---", self.dockerfile)?;
        self.story
            .iter()
            .try_for_each(|action| writeln!(f, "{action}"))
    }
}

impl FromStr for Case {
    type Err = BadCase;

    fn from_str(text: &str) -> Result<Self, BadCase> {
        let (dockerfile, story) = text
            .split_once("\n---\n")
            .ok_or_else(|| BadCase(format!("no line of dashes in {text:?}")))?;
        let lines = story.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(Self {
            dockerfile: dockerfile.parse()?,
            story: lines.map(str::parse).collect::<Result<_, _>>()?,
        })
    }
}

// === impl Dockerfile ===

impl fmt::Display for Dockerfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for argument in &self.arguments {
            writeln!(f, "ARG {argument}")?;
        }
        for stage in &self.stages {
            write!(f, "FROM {}", stage.base)?;
            if let Some(name) = &stage.name {
                write!(f, " AS {name}")?;
            }
            writeln!(f)?;
            stage
                .steps
                .iter()
                .try_for_each(|step| writeln!(f, "{step}"))?;
        }
        Ok(())
    }
}

impl FromStr for Dockerfile {
    type Err = BadCase;

    fn from_str(text: &str) -> Result<Self, BadCase> {
        let mut arguments = Vec::new();
        let mut stages: Vec<Stage> = Vec::new();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        while let Some(line) = lines.next() {
            if let Some(from) = line.strip_prefix("FROM ") {
                let (base, name) = match from.split_once(" AS ") {
                    Some((base, name)) => (base, Some(name.to_owned())),
                    None => (from, None),
                };
                stages.push(Stage {
                    base: base.to_owned(),
                    name,
                    steps: Vec::new(),
                });
                continue;
            }
            if stages.is_empty()
                && let Some(argument) = line.strip_prefix("ARG ")
            {
                arguments.push(argument.to_owned());
                continue;
            }
            let mut step = line.to_owned();
            if line.contains("<<EOF") {
                for line in lines.by_ref() {
                    step = format!("{step}\n{line}");
                    if line == "EOF" {
                        break;
                    }
                }
            }
            let stage = stages.last_mut();
            let stage = stage.ok_or_else(|| BadCase(format!("{line:?} is before any FROM")))?;
            stage.steps.push(step);
        }
        Ok(Self { arguments, stages })
    }
}

// === impl Action ===

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let together = |builds: &[Options]| {
            let builds = builds.iter().map(Options::to_string);
            builds.collect::<Vec<_>>().join(" &")
        };
        match self {
            Self::Build(builds) => write!(f, "build{}", together(builds)),
            Self::Bake(builds) => write!(f, "bake{}", together(builds)),
            Self::Wipe => f.write_str("wipe"),
            Self::Prune => f.write_str("prune"),
            Self::Restart => f.write_str("restart"),
            Self::RestartInlay => f.write_str("restart inlay"),
            Self::Forget(word) => write!(f, "forget {word}"),
            Self::Pull => f.write_str("pull"),
            Self::Change(source, content) => match source {
                Source::File(path) => write!(f, "write {path} {content}"),
                Source::Web => write!(f, "web {content}"),
                Source::Git => write!(f, "git {content}"),
                Source::Base => write!(f, "base {content}"),
                Source::Tool => write!(f, "tool {content}"),
            },
        }
    }
}

impl FromStr for Action {
    type Err = BadCase;

    fn from_str(line: &str) -> Result<Self, BadCase> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let together = || rest.split('&').map(str::parse).collect::<Result<_, _>>();
        let change = |source| Ok(Self::Change(source, rest.to_owned()));
        match (verb, rest) {
            ("build", _) => Ok(Self::Build(together()?)),
            ("bake", _) => Ok(Self::Bake(together()?)),
            ("wipe", "") => Ok(Self::Wipe),
            ("prune", "") => Ok(Self::Prune),
            ("restart", "") => Ok(Self::Restart),
            ("restart", "inlay") => Ok(Self::RestartInlay),
            ("forget", word) => Ok(Self::Forget(word.to_owned())),
            ("pull", "") => Ok(Self::Pull),
            ("web", _) => change(Source::Web),
            ("git", _) => change(Source::Git),
            ("base", _) => change(Source::Base),
            ("tool", _) => change(Source::Tool),
            ("write", _) => match rest.split_once(' ') {
                Some((path, content)) => Ok(Self::Change(
                    Source::File(path.to_owned()),
                    content.to_owned(),
                )),
                None => Err(BadCase(format!("{line:?} has no content"))),
            },
            _ => Err(BadCase(format!("{line:?} is no action"))),
        }
    }
}

// === impl Options ===

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(target) = &self.target {
            write!(f, " target={target}")?;
        }
        for import in &self.imports {
            match import {
                Import::Build(number) => write!(f, " import={number}")?,
                Import::Gone => f.write_str(" import=gone")?,
            }
        }
        f.write_str(match self.export {
            Export::Inline => "",
            Export::Twice => " export=twice",
            Export::Argument => " export=argument",
            Export::Nothing => " export=nothing",
        })?;
        if let Some(compression) = &self.compression {
            write!(f, " compression={compression}")?;
        }
        if let Some(argument) = &self.argument {
            write!(f, " argument={argument}")?;
        }
        for (flag, word) in [
            (self.two_platforms, "two-platforms"),
            (self.git, "git"),
            (self.keep_times, "keep-times"),
            (self.linked, "linked"),
        ] {
            if flag {
                write!(f, " {word}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Options {
    type Err = BadCase;

    fn from_str(text: &str) -> Result<Self, BadCase> {
        let mut options = Self::default();
        for word in text.split_whitespace() {
            let bad = || BadCase(format!("{word:?} is no option of a build"));
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match (name, value) {
                ("target", target) => options.target = Some(target.to_owned()),
                ("import", "gone") => options.imports.push(Import::Gone),
                ("import", number) => {
                    let number = number.parse().map_err(|_| bad())?;
                    options.imports.push(Import::Build(number));
                }
                ("export", "twice") => options.export = Export::Twice,
                ("export", "argument") => options.export = Export::Argument,
                ("export", "nothing") => options.export = Export::Nothing,
                ("compression", kind) => options.compression = Some(kind.to_owned()),
                ("argument", value) => options.argument = Some(value.to_owned()),
                ("two-platforms", "") => options.two_platforms = true,
                ("git", "") => options.git = true,
                ("keep-times", "") => options.keep_times = true,
                ("linked", "") => options.linked = true,
                _ => return Err(bad()),
            }
        }
        Ok(options)
    }
}

// === impl BadCase ===

impl fmt::Display for BadCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
