//! The rooms of `src/`, and what each may use.

use std::collections::BTreeSet;
use std::path::Path;

use crate::imports::Import;

/// Every room with what it may import beside itself: other rooms, or one module of them. A room may
/// use those below it, and these never use it. Where it is fewer than all below, that is to keep it
/// apart: `cache` is pure and works without the server; `proxy` is given a service, and has no part
/// in what that does.
const ROOMS: [(&str, &[&str]); 9] = [
    ("protocol", &[]),
    ("transport", &[]),
    ("cache", &["protocol::proto::pb"]),
    ("daemon", &["protocol", "transport", "cache"]),
    ("source", &["protocol", "transport", "cache", "daemon"]),
    ("proxy", &["protocol", "transport", "daemon", "source"]),
    (
        "session",
        &[
            "protocol",
            "transport",
            "cache",
            "daemon",
            "source",
            "proxy",
        ],
    ),
    (
        "build",
        &[
            "protocol",
            "transport",
            "cache",
            "daemon",
            "source",
            "proxy",
            "session",
        ],
    ),
    (
        "cli",
        &[
            "protocol",
            "transport",
            "cache",
            "daemon",
            "source",
            "proxy",
            "session",
            "build",
        ],
    ),
];

/// Imports that a room must not have. `lib.rs` is in no room.
pub fn check(imports: &BTreeSet<Import>) -> Vec<String> {
    let mut findings = Vec::new();
    for import in imports {
        let Some(room) = room(&import.file) else {
            continue;
        };
        let at = format!("src/{}:{}", import.file.display(), import.line);
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            findings.push(format!("{at}: {room} is no room that dev/check knows"));
            continue;
        };
        let whole = import.path.join("::");
        let is_within = |place: &str| {
            let rest = whole.strip_prefix(place);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if !is_within(room) && !allowed.iter().any(|place| is_within(place)) {
            let may = match allowed {
                [] => "nothing of other rooms".to_owned(),
                some => format!("only {}", some.join(", ")),
            };
            findings.push(format!(
                "{at}: {room} imports {whole}, and may import {may}"
            ));
        }
    }
    findings
}

/// The room of a file: the folder below `src/`, or a file of its name.
fn room(file: &Path) -> Option<&str> {
    let mut parts = file.iter().filter_map(|part| part.to_str());
    let first = parts.next()?;
    match parts.next() {
        Some(_) => Some(first),
        None => first.strip_suffix(".rs").filter(|name| *name != "lib"),
    }
}
