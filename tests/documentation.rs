//! The documentation against the source: each message that a user can see is explained, and no others, so is
//! each flag, each command is run by something or says why not, each test that a page names exists, and each
//! link leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Calls whose texts are no message: logs below the default level, proofs, help.
const NO_MESSAGE: [&str; 7] = [
    "debug!",
    "info_span!",
    "expect",
    "cfg_attr",
    "command",
    "arg",
    "cfg",
];

/// Texts that do not reach a user by themselves, with the reason.
const NOT_SHOWN: [(&str, &str); 35] = [
    ("a field's name", EXPECTED),
    ("a value or null", EXPECTED),
    ("an array", EXPECTED),
    ("an object", EXPECTED),
    ("links and results", COUNTED),
    ("layers in results", COUNTED),
    ("layers in one result", COUNTED),
    ("too many", "is replaced by the error with the limit"),
    ("manifest or index", NAME),
    ("config and index", NAME),
    ("the config", NAME),
    ("a step", NAME),
    ("inline cache", NAME),
    ("the daemon", NAME),
    ("the client", NAME),
    ("of an unknown version", NAME),
    ("a token for … of …", NAME),
    ("… of an image in …", NAME),
    ("containerd at …, namespace …", NAME),
    ("a layer and the config: …", NAME),
    (
        "moby.buildu…it.cache.v0",
        "is a field's name in another case",
    ),
    ("repository:…:pull", "is the scope of a token"),
    ("to the user's login", NAME),
    ("to the token that the client fetched", NAME),
    (", layers through inlay", "is part of the step of an import"),
    (
        "; an entry of its index is not read",
        "is part of the step of an import",
    ),
    (
        "unknown cache exporter",
        "is what a daemon says that inlay compares with",
    ),
    (
        "requires dest",
        "is what a daemon says that inlay compares with",
    ),
    ("this store is only read", TO_DAEMON),
    ("no write … is under way", TO_DAEMON),
    ("an empty write", TO_DAEMON),
    ("… is here", TO_DAEMON),
    ("proxying to", "is the log line of a start that succeeds"),
    ("unix:///PATH or tcp://HOST:PORT", NAME),
    (
        "unix:///PATH, tcp://HOST:PORT or docker:///var/run/docker.sock",
        NAME,
    ),
];
const EXPECTED: &str = "says to the JSON parser what was expected; its errors are shown without it";
const COUNTED: &str = "is the thing that a limit counts";
const NAME: &str = "is a name within other messages";
const TO_DAEMON: &str = "is an answer to the daemon, which does what it answers to";

#[test]
fn each_message_is_in_troubleshooting() {
    let page = read("docs/troubleshooting.md");
    let explained: BTreeSet<String> = page.lines().filter_map(first_cell).collect();
    let not_shown: BTreeMap<&str, &str> = NOT_SHOWN.into();
    let mut messages = BTreeMap::new();
    for file in files("src", "rs") {
        if file.ends_with("tests.rs") {
            continue;
        }
        for text in messages_of(&read(&file)) {
            messages.insert(text, file.clone());
        }
    }
    assert!(messages.len() > 200, "only {} messages", messages.len());

    let missing: Vec<_> = messages
        .iter()
        .filter(|(text, _)| !explained.contains(*text) && !not_shown.contains_key(text.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/troubleshooting.md: {missing:#?}"
    );
    let stale: Vec<_> = (explained.iter().map(String::as_str))
        .chain(not_shown.into_keys())
        .filter(|text| !messages.contains_key(*text))
        .collect();
    assert!(stale.is_empty(), "no message of inlay: {stale:#?}");
}

/// The flags of `inlay serve`, by its help.
fn flags() -> BTreeSet<String> {
    let help = Command::new(env!("CARGO_BIN_EXE_inlay"))
        .args(["serve", "--help"])
        .output()
        .unwrap();
    assert!(help.status.success(), "{help:?}");
    let help = String::from_utf8(help.stdout).unwrap();
    let lines = help.lines().map(str::trim_start);
    let first =
        lines.filter_map(|line| line.strip_prefix("-h, ").unwrap_or(line).split(' ').next());
    let flags = first.filter(|word| word.starts_with("--"));
    flags.map(str::to_owned).collect()
}

/// Also in commands that no test runs, such as that of a systemd unit.
#[test]
fn each_flag_in_a_command_exists() {
    let flags = flags();
    let mut used = 0;
    for page in pages() {
        let text = read(&page).replace("\\\n", " ");
        for command in text.lines().filter(|line| line.contains("inlay serve --")) {
            let words = command.split([' ', '=', '`']);
            for flag in words.filter(|word| word.starts_with("--")) {
                assert!(flags.contains(flag), "{}: {command}", page.display());
                used += 1;
            }
        }
    }
    assert!(used > 10, "only {used} flags are used");
}

#[test]
fn each_flag_has_its_row() {
    let flags = flags();
    let page = read("docs/command-line.md");
    let cells: Vec<_> = page.lines().filter_map(first_cell).collect();
    let rows = cells.iter().filter_map(|cell| cell.split(' ').next());
    let rows = rows.filter(|word| word.starts_with("--"));
    let rows: BTreeSet<_> = rows.map(str::to_owned).collect();
    assert_eq!(flags, rows);
}

/// The line above a fenced block says who runs it: `<!-- run by: WHAT, WHAT -->` with tests and targets of
/// `make`, `<!-- not run: WHY -->`, or `<!-- no command -->`.
#[test]
fn each_command_is_run_or_says_why_not() {
    let makefile = read("Makefile");
    let mut commands = 0;
    for page in pages() {
        let text = read(&page);
        let mut above = "";
        let mut is_open = false;
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.starts_with("```") {
                is_open = !is_open;
                if is_open && line != "```mermaid" {
                    let place = format!("{}:{}", page.display(), number + 1);
                    let mark = above.strip_prefix("<!-- ");
                    let mark = mark.and_then(|rest| rest.strip_suffix(" -->"));
                    check_mark(mark.unwrap_or_default(), &makefile, &place);
                    commands += usize::from(mark != Some(NO_COMMAND));
                }
            }
            above = line;
        }
        assert!(!is_open, "{}: a block has no end", page.display());
    }
    assert!(commands > 10, "only {commands} blocks have commands");
}

/// What stands above a block that is output, a file or a picture.
const NO_COMMAND: &str = "no command";

fn check_mark(mark: &str, makefile: &str, place: &str) {
    match mark.split_once(": ") {
        Some(("run by", names)) => {
            for name in names.split(", ") {
                match name.strip_prefix("make ") {
                    Some(target) => {
                        let is_target = makefile.contains(&format!("\n{target}:"));
                        assert!(is_target, "{place}: no target {target}");
                    }
                    None => assert!(is_test(name), "{place}: {name} is no test"),
                }
            }
        }
        Some(("not run", why)) => assert!(!why.is_empty(), "{place}: no reason"),
        _ => assert_eq!(mark, NO_COMMAND, "{place}: who runs it?"),
    }
}

#[test]
fn each_test_that_a_page_names_exists() {
    let mut named = 0;
    for page in pages() {
        // Every second span is code.
        for span in read(&page).split('`').skip(1).step_by(2) {
            if span.starts_with("tests/") && span.contains("::") {
                assert!(is_test(span), "{}: {span} is no test", page.display());
                named += 1;
            }
        }
    }
    assert!(named > 20, "only {named} tests are named");
}

#[test]
fn each_link_leads_somewhere() {
    for page in pages() {
        let text = read(&page);
        let targets = text.split("](").skip(1);
        for target in targets.filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.clone(),
                file => page.with_file_name("").join(file),
            };
            let place = format!("{}: {target}", page.display());
            assert!(root().join(&path).exists(), "{place}: no such file");
            if !anchor.is_empty() {
                let text = read(&path);
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|heading| anchor_of(heading) == anchor);
                assert!(found, "{place}: no such heading");
            }
        }
    }
}

// === pages ===

/// The pages of the documentation, as paths from the root.
fn pages() -> Vec<PathBuf> {
    let mut pages = files("docs", "md");
    pages.extend(
        [
            "README.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
            "dev/README.md",
        ]
        .map(PathBuf::from),
    );
    pages
}

/// Whether a test has this name, as `FILE::FUNCTION`.
fn is_test(name: &str) -> bool {
    let Some((file, function)) = name.split_once("::") else {
        return false;
    };
    let code = fs::read_to_string(root().join(file)).unwrap_or_default();
    code.contains(&format!("fn {function}("))
}

/// The anchor of a heading, as GitHub makes it.
fn anchor_of(heading: &str) -> String {
    let title = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = title
        .chars()
        .filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// The files below a folder with an extension, as paths from the root.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The code that the first cell of a table's row is, if it is code alone.
fn first_cell(line: &str) -> Option<String> {
    let cell = line.strip_prefix("| ")?.split(" | ").next()?;
    let code = match cell.strip_prefix("`` ") {
        Some(rest) => rest.strip_suffix(" ``")?,
        None => cell.strip_prefix('`')?.strip_suffix('`')?,
    };
    Some(code.to_owned())
}

// === messages ===

/// The messages in a file of Rust: its texts of two words and more, with `…` for what is put in.
fn messages_of(code: &str) -> BTreeSet<String> {
    let code = code
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    texts_of(code)
        .into_iter()
        .filter(|(calls, _)| !calls.iter().any(|call| NO_MESSAGE.contains(&call.as_str())))
        .map(|(_, text)| with_ellipses(&text))
        .filter(|text| {
            let words = text.split([' ', '…']).filter(|word| {
                word.chars().filter(|char| char.is_alphabetic()).count() > 1
                    || matches!(*word, "a" | "A")
            });
            words.count() > 1
        })
        .collect()
}

/// Replaces what `format!` puts in.
fn with_ellipses(text: &str) -> String {
    let mut found = String::new();
    let mut depth = 0;
    for char in text.chars() {
        match char {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                found.push('…');
            }
            _ if depth == 0 => found.push(char),
            _ => {}
        }
    }
    found.trim().to_owned()
}

/// The string literals of a file that are no byte strings, each with the calls, macros and attributes
/// that it stands in. Comments have none.
fn texts_of(code: &str) -> Vec<(Vec<String>, String)> {
    let mut texts = Vec::new();
    let mut calls: Vec<String> = Vec::new();
    let mut name = String::new();
    let mut rest = code;
    while let Some(char) = rest.chars().next() {
        let after = &rest[char.len_utf8()..];
        let next = after.chars().next();
        rest = match char {
            '/' if next == Some('/') => after.split_once('\n').map_or("", |(_, below)| below),
            // A raw string: no message of inlay is one.
            'r' if name.is_empty() && (next == Some('"') || after.starts_with("#\"")) => {
                let hash = if next == Some('"') { "" } else { "#" };
                let body = &after[hash.len() + 1..];
                body.split_once(&format!("\"{hash}")).unwrap().1
            }
            '"' => {
                let (text, below) = literal(after);
                if name != "b" {
                    texts.push((calls.clone(), text));
                }
                below
            }
            // A character, and no lifetime.
            '\'' if next == Some('\\') => {
                let end = after[2..].find('\'').unwrap();
                &after[end + 3..]
            }
            '\'' if next.is_some_and(|next| after[next.len_utf8()..].starts_with('\'')) => {
                &after[next.unwrap().len_utf8() + 1..]
            }
            _ => {
                match char {
                    '(' | '[' | '{' => calls.push(std::mem::take(&mut name)),
                    ')' | ']' | '}' => drop(calls.pop()),
                    _ => {}
                }
                after
            }
        };
        if char.is_alphanumeric() || matches!(char, '_' | '!') {
            name.push(char);
        } else {
            name.clear();
        }
    }
    texts
}

/// The text that begins here, and what is after it.
fn literal(code: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = code;
    loop {
        let char = rest.chars().next().expect("a string has an end");
        rest = &rest[char.len_utf8()..];
        match char {
            '"' => return (text, rest),
            '\\' => {
                let escaped = rest.chars().next().expect("an escape has a character");
                rest = &rest[escaped.len_utf8()..];
                match escaped {
                    '\n' => rest = rest.trim_start(),
                    'n' => text.push('\n'),
                    other => text.push(other),
                }
            }
            other => text.push(other),
        }
    }
}
