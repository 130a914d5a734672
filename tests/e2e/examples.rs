//! The examples do what they say, on an image that was built and pushed. They are built of the pure
//! core alone.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Project, STAGES, Stand, inline_records};

/// What an example writes for a config.
fn example(name: &str, args: &[&Path], config: &[u8]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["run", "--quiet", "--locked", "--no-default-features"])
        .args(["--example", name, "--"])
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut running = command.spawn().expect("cargo runs");
    let mut stdin = running.stdin.take().expect("a pipe");
    stdin.write_all(config).expect("the config is read");
    drop(stdin);
    let output = running.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{name}: {}", output.status);
    output.stdout
}

#[test]
fn each_example_does_its_job_on_a_real_image() {
    let stand = Stand::start();
    let project = Project::new()
        .base()
        .dockerfile(STAGES)
        .file("source.txt", "some text\n");
    let build = stand.build(&project).epoch(1_700_000_000);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let local = dir.path().join("cache");
    build
        .clone()
        .push(&stand.registry.image("app:cached"))
        .export_cache("type=inline")
        .export_cache(&format!(
            "type=local,image-manifest=true,dest={}",
            local.display()
        ))
        .run_ok();
    build.push(&stand.registry.image("app:plain")).run_ok();
    let cached = stand.registry.config("app:cached", None);
    let plain = stand.registry.config("app:plain", None);
    let records = inline_records(&cached);

    let read = example("read_cache", &[], &cached);
    assert_eq!(
        serde_json::from_slice::<Vec<Value>>(&read).expect("JSON"),
        records
    );
    let listed = String::from_utf8(example("list_cache", &[], &cached)).expect("text");
    assert!(
        listed.starts_with(&format!("{} records over 3 layers", records.len())),
        "{listed}"
    );
    assert_eq!(listed.lines().count(), records.len() + 1, "{listed}");
    assert!(example("strip_cache", &[], &cached) == plain);
    // The exporter sorts a config by name and the example does not, but what is in it is the same.
    let definition = Path::new("examples/image/definition.pb");
    let embedded = example("embed_cache", &[&local, definition], &plain);
    assert!(example("read_cache", &[], &embedded) == read);
    assert!(example("strip_cache", &[], &embedded) == plain);
}
