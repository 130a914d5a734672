//! The smallest case that shows the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::case::{Action, Case, Export, Import, Options, Source};

/// Makes a case smaller for as long as `shows` is true of it, or until `limit` has passed.
pub fn shrink(case: &Case, limit: Duration, mut shows: impl FnMut(&Case) -> bool) -> Case {
    let deadline = Instant::now() + limit;
    let mut smallest = case.clone();
    let mut tried = BTreeSet::new();
    loop {
        let next = smaller(&smallest)
            .into_iter()
            .filter(|case| tried.insert(case.clone()))
            .take_while(|_| Instant::now() < deadline)
            .find(|case| shows(case));
        match next {
            Some(case) => smallest = case,
            None => return smallest,
        }
    }
}

/// Cases that are a little smaller, those that leave out most first. Some of them are no build.
fn smaller(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(without_unused_stages(case));
    if !case.dockerfile.arguments.is_empty() {
        // A stage that is based on one is based on the image itself.
        let mut less = case.clone();
        less.dockerfile.arguments.clear();
        for stage in &mut less.dockerfile.stages {
            stage.base = stage.base.replace("${BASE}", "{base}");
        }
        cases.push(less);
    }
    let length = case.story.len();
    let mut chunk = length / 2;
    while chunk > 0 {
        let first = (0..=length - chunk).rev().step_by(chunk);
        cases.extend(first.filter_map(|first| without_actions(case, first, chunk)));
        chunk /= 2;
    }
    for place in 0..case.dockerfile.stages.len() {
        cases.extend(without_stage(case, place));
    }
    for (place, stage) in case.dockerfile.stages.iter().enumerate() {
        if stage.steps.len() > 1 {
            let mut less = case.clone();
            less.dockerfile.stages[place].steps.clear();
            cases.push(less);
        }
        for step in (0..stage.steps.len()).rev() {
            let mut less = case.clone();
            less.dockerfile.stages[place].steps.remove(step);
            cases.push(less);
        }
    }
    for (place, stage) in case.dockerfile.stages.iter().enumerate() {
        for base in ["scratch", "{base}"] {
            if stage.base != base && !(base == "{base}" && stage.base == "scratch") {
                let mut less = case.clone();
                less.dockerfile.stages[place].base = base.to_owned();
                cases.push(less);
            }
        }
        for (number, step) in stage.steps.iter().enumerate() {
            for simpler in simpler_steps(step) {
                let mut less = case.clone();
                less.dockerfile.stages[place].steps[number] = simpler;
                cases.push(less);
            }
        }
    }
    for (place, action) in case.story.iter().enumerate() {
        for simpler in simpler_actions(action) {
            let mut less = case.clone();
            less.story[place] = simpler;
            let before = case.story[..place].iter().map(builds_of).sum::<usize>();
            let gone = builds_of(action) - builds_of(&less.story[place]);
            less.forget_builds(before + 2, gone);
            cases.push(less);
        }
    }
    cases
}

fn builds_of(action: &Action) -> usize {
    match action {
        Action::Build(builds) | Action::Bake(builds) => builds.len(),
        _ => 0,
    }
}

/// The case without so many actions from `first` on, if it still builds anything.
fn without_actions(case: &Case, first: usize, count: usize) -> Option<Case> {
    let mut less = case.clone();
    let gone: Vec<_> = less.story.drain(first..first + count).collect();
    let before = case.story[..first].iter().map(builds_of).sum::<usize>();
    less.forget_builds(before + 1, gone.iter().map(builds_of).sum());
    let builds = less.builds().count();
    (builds > 0).then_some(less)
}

/// The case without the stages that nothing is made of.
fn without_unused_stages(case: &Case) -> Option<Case> {
    let mut less = case.clone();
    loop {
        let text = less.to_string();
        let before = less.dockerfile.stages.len();
        less.dockerfile.stages.retain(|stage| match &stage.name {
            None => true,
            Some(name) => {
                let mentions = ["FROM ", "from=", "target="].map(|what| format!("{what}{name}"));
                mentions.iter().any(|mention| text.contains(mention))
            }
        });
        if less.dockerfile.stages.len() == before {
            return (less != *case).then_some(less);
        }
    }
}

/// The case without one stage, and what is made of that made of its base.
fn without_stage(case: &Case, place: usize) -> Option<Case> {
    let mut less = case.clone();
    if case.dockerfile.stages.len() == 1 {
        return None;
    }
    let gone = less.dockerfile.stages.remove(place);
    let Some(name) = gone.name else {
        // The last one: the one before it takes its place.
        let last = less.dockerfile.stages.last_mut()?;
        last.name = None;
        return Some(less);
    };
    for stage in &mut less.dockerfile.stages {
        if stage.base == name {
            stage.base.clone_from(&gone.base);
        }
        let from = [format!("from={name} "), format!("from={name},")];
        stage
            .steps
            .retain(|step| !from.iter().any(|from| step.contains(from)));
    }
    Some(less)
}

/// A step with less to it.
fn simpler_steps(step: &str) -> Vec<String> {
    let mut simpler = Vec::new();
    for flag in [
        "--link ",
        "--chmod=600 ",
        "--chown=1:1 ",
        "--parents ",
        "--exclude=*.md ",
    ] {
        if step.contains(flag) {
            simpler.push(step.replacen(flag, "", 1));
        }
    }
    if let Some(rest) = step.strip_prefix("RUN --mount=")
        && let Some((_, rest)) = rest.split_once(' ')
    {
        simpler.push(format!("RUN {rest}"));
    }
    let shell = step.starts_with("RUN ");
    if shell && step != "RUN echo 1 >/k1" && !step.contains("/sh") {
        simpler.push("RUN echo 1 >/k1".to_owned());
    }
    simpler
}

/// An action with less to it.
fn simpler_actions(action: &Action) -> Vec<Action> {
    match action {
        Action::Build(builds) if builds.len() > 1 => {
            let alone = builds
                .iter()
                .map(|options| Action::Build(vec![options.clone()]));
            alone.collect()
        }
        Action::Build(builds) => {
            let simpler = simpler_options(&builds[0]).into_iter();
            simpler
                .map(|options| Action::Build(vec![options]))
                .collect()
        }
        // Only a bake file has linked targets.
        Action::Bake(builds) if builds.iter().any(|options| options.linked) => Vec::new(),
        Action::Bake(builds) => vec![Action::Build(builds.clone())],
        Action::Prune | Action::Restart => vec![Action::Wipe],
        Action::Change(Source::File(path), content) if path != "a.txt" => {
            vec![Action::Change(
                Source::File("a.txt".to_owned()),
                content.clone(),
            )]
        }
        _ => Vec::new(),
    }
}

fn simpler_options(options: &Options) -> Vec<Options> {
    let mut simpler = Vec::new();
    let mut push = |change: fn(&mut Options)| {
        let mut less = options.clone();
        change(&mut less);
        if less != *options {
            simpler.push(less);
        }
    };
    push(|it| it.target = None);
    push(|it| it.imports.truncate(it.imports.len().saturating_sub(1)));
    push(|it| it.imports = it.imports.split_off(usize::from(!it.imports.is_empty())));
    push(|it| it.export = Export::Inline);
    push(|it| it.compression = None);
    push(|it| it.two_platforms = false);
    push(|it| it.git = false);
    push(|it| it.keep_times = false);
    push(|it| it.argument = None);
    simpler
}

impl Case {
    /// Takes the imports of so many builds from `first` on out, and counts the later ones anew.
    fn forget_builds(&mut self, first: usize, gone: usize) {
        for action in &mut self.story {
            let (Action::Build(builds) | Action::Bake(builds)) = action else {
                continue;
            };
            for options in builds {
                let imports = options.imports.iter().filter_map(|import| match import {
                    Import::Build(number) if *number < first => Some(*import),
                    Import::Build(number) if *number < first + gone => None,
                    Import::Build(number) => Some(Import::Build(number - gone)),
                    Import::Gone => Some(*import),
                });
                options.imports = imports.collect();
            }
        }
    }
}
