//! Checks of `make lint`: which file imports which, and what the dependencies are.
//!
//! `check layout src` holds the rooms of `src/` to their order, and refuses files that import each
//! other. `check dependencies` holds the licenses of all dependencies to a list, and refuses a crate
//! that comes in two versions for no known reason. Both print what they find, and end with 1 then.

mod circles;
mod dependencies;
mod imports;
mod modules;
mod rooms;

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use modules::Modules;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match *args {
        ["layout", src] => layout(Path::new(src)),
        ["dependencies"] => dependencies::check(),
        _ => Err("usage: check layout SRC | check dependencies".into()),
    };
    match outcome {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in findings {
                eprintln!("{finding}");
            }
            ExitCode::FAILURE
        }
        Err(err) => {
            eprintln!("check: {err}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong with the imports of the crate in a folder.
fn layout(src: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let files = modules::read(src).map_err(|err| format!("{}: {err}", src.display()))?;
    let modules = Modules::of(&files)?;
    println!(
        "layout: {} files; tests in them (cfg(test)) may import all, and are left out",
        modules.files().count()
    );
    Ok(findings(&modules))
}

fn findings(modules: &Modules) -> Vec<String> {
    let imports = imports::of(modules);
    let mut findings = rooms::check(&imports);
    findings.extend(circles::check(&imports));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::Files;

    /// The crate that this is part of.
    fn inlay() -> Files {
        modules::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../src"))).unwrap()
    }

    fn found(files: &Files) -> Vec<String> {
        findings(&Modules::of(files).unwrap())
    }

    /// What is found in the crate with a line more at the end of a file.
    fn planted(file: &str, line: &str) -> Vec<String> {
        let mut files = inlay();
        let text = files.get_mut(Path::new(file)).expect(file);
        let number = text.lines().count() + 1;
        *text += line;
        let mut found = found(&files);
        let at = format!("src/{file}:{number}");
        found.retain(|said| said.contains(&at));
        found
    }

    fn small(files: &[(&str, &str)]) -> Files {
        let own = |(file, text): &(&str, &str)| (file.into(), (*text).to_owned());
        files.iter().map(own).collect()
    }

    #[test]
    fn inlay_is_laid_out_as_it_should_be() {
        assert_eq!(found(&inlay()), Vec::<String>::new());
    }

    #[test]
    fn no_room_imports_what_it_must_not() {
        for (file, line, named) in [
            ("cache/export.rs", "use crate::daemon::Daemon;", "daemon"),
            (
                "cache/llb/mod.rs",
                "use crate::protocol::solve;",
                "protocol::solve",
            ),
            (
                "cache/record/set.rs",
                "use crate::protocol::proto::control;",
                "proto::control",
            ),
            (
                "protocol/wire.rs",
                "use crate::cache::record;",
                "cache::record",
            ),
            (
                "protocol/mod.rs",
                "pub use crate::cache::record::Limits;",
                "cache::record",
            ),
            (
                "transport/http2/mod.rs",
                "use crate::daemon::Daemon;",
                "daemon",
            ),
            (
                "proxy/unary.rs",
                "use crate::build::Policy;",
                "build::policy::Policy",
            ),
            ("proxy/mod.rs", "use crate::cache::record;", "cache::record"),
            ("session/client.rs", "use crate::build::*;", "build"),
            (
                "source/location.rs",
                "use crate::build::Router;",
                "build::router",
            ),
            (
                "source/registry/mod.rs",
                "use crate::session::Session;",
                "session",
            ),
            ("daemon/progress.rs", "use crate::{source, build};", "build"),
            ("daemon/mod.rs", "use crate::session as other;", "session"),
            (
                "daemon/address.rs",
                "use crate::source::Location;",
                "source",
            ),
            ("build/mod.rs", "use crate::cli;", "cli"),
            // Not by `use`.
            (
                "cache/export.rs",
                "fn f(_: crate::daemon::Daemon) {}",
                "daemon",
            ),
            (
                "cache/export.rs",
                "fn f() { super::super::daemon::new_id(); }",
                "daemon",
            ),
            (
                "cache/export.rs",
                "fn f() { use crate::daemon::new_id; }",
                "daemon",
            ),
            (
                "cache/export.rs",
                "fn f() { vec![crate::daemon::new_id()]; }",
                "daemon",
            ),
            (
                "cache/export.rs",
                "mod inner { use super::super::super::daemon; }",
                "daemon",
            ),
        ] {
            let found = planted(file, line);
            let rules = found
                .iter()
                .filter(|said| said.contains(", and may import"));
            let named: Vec<_> = rules.filter(|said| said.contains(named)).collect();
            assert_eq!(named.len(), 1, "{file}: {line}: {found:#?}");
        }
    }

    #[test]
    fn what_a_room_may_import_and_what_tests_do_is_left_alone() {
        for (file, line) in [
            (
                "cache/export.rs",
                "use crate::protocol::proto::pb::Op as _;",
            ),
            (
                "cache/export.rs",
                "#[cfg(test)] mod more { use crate::daemon::Daemon; }",
            ),
            (
                "cache/export.rs",
                "#[cfg(all(test, unix))] use crate::daemon::Daemon;",
            ),
            ("proxy/bind.rs", "use crate::transport::Batched as _;"),
            ("proxy/bind.rs", "use std::io as _; use tokio::net as _;"),
            ("build/router.rs", "/// [`crate::cli`]\nstruct Documented;"),
        ] {
            assert_eq!(planted(file, line), Vec::<String>::new(), "{file}: {line}");
        }
    }

    #[test]
    fn a_room_that_no_rule_is_for_is_refused() {
        let files = small(&[
            ("lib.rs", "mod utils; mod cache;"),
            ("utils.rs", "use crate::cache;"),
            ("cache/mod.rs", ""),
        ]);
        assert_eq!(
            found(&files),
            ["src/utils.rs:1: utils is no room that dev/check knows"]
        );
    }

    #[test]
    fn files_that_import_each_other_are_found() {
        let found = planted(
            "transport/batched.rs",
            "use super::http2::MAX_HEADER_LIST as _;",
        );
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].starts_with("circle: src/transport/batched.rs:"),
            "{found:#?}"
        );
        assert!(
            found[0].contains("-> src/transport/http2/mod.rs:"),
            "{found:#?}"
        );

        let lib = ("lib.rs", "mod cache;");
        for (files, circle) in [
            // A child's name in its parent, and the other way round.
            (
                [
                    ("cache/mod.rs", "mod a; use a::A;\npub struct M;"),
                    ("cache/a.rs", "pub struct A; use super::M;"),
                    ("cache/b.rs", ""),
                    ("cache/c.rs", ""),
                ],
                "circle: src/cache/a.rs:1 -> src/cache/mod.rs:1 -> src/cache/a.rs",
            ),
            // By the name of a re-export, which its own module uses too.
            (
                [
                    ("cache/mod.rs", "mod a; pub use a::A;\npub struct M(A);"),
                    ("cache/a.rs", "pub struct A;\nfn f(_: super::M) {}"),
                    ("cache/b.rs", ""),
                    ("cache/c.rs", ""),
                ],
                "circle: src/cache/a.rs:2 -> src/cache/mod.rs:2 -> src/cache/a.rs",
            ),
            // Three, two of them by re-exports.
            (
                [
                    (
                        "cache/mod.rs",
                        "mod a; mod b; mod c;\npub use {a::A, b::*}; pub use c::C as D;",
                    ),
                    ("cache/a.rs", "use super::B; pub struct A;"),
                    ("cache/b.rs", "\nuse crate::cache::D; pub struct B;"),
                    (
                        "cache/c.rs",
                        "use super::a; pub struct C; fn f() { a::f() }",
                    ),
                ],
                "circle: src/cache/a.rs:1 -> src/cache/b.rs:2 -> src/cache/c.rs:1 -> src/cache/a.rs",
            ),
        ] {
            let files = small(&[&[lib], &files[..]].concat());
            assert_eq!(super::tests::found(&files), [circle]);
        }
    }

    #[test]
    fn a_re_export_alone_is_no_circle() {
        let files = small(&[
            ("lib.rs", "mod cache;"),
            (
                "cache/mod.rs",
                "mod a; mod b; pub use a::A; pub(crate) use b::B;",
            ),
            ("cache/a.rs", "pub struct A; use super::B;"),
            (
                "cache/b.rs",
                "pub struct B; #[cfg(test)] mod tests { use super::super::A; }",
            ),
        ]);
        assert_eq!(found(&files), Vec::<String>::new());
    }
}
