//! Outputs of every kind, and none: as without inlay.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use crate::support::{
    Buildctl, Buildkitd, INLINE_CACHE_KEY, Inlay, Layout, Project, Registry, inline_records,
};

const DOCKERFILE: &str = "\
FROM scratch
ADD rootfs.tar /
COPY file /src/
RUN tr a-z A-Z </src/file >/out && ln -s out /link && chmod 4750 /out && chown 7:8 /out
";

fn project() -> Project {
    Project::new()
        .base()
        .dockerfile(DOCKERFILE)
        .file("file", "some text\n")
}

/// A build with inline cache whose times do not depend on when it runs.
fn build(addr: &str, project: &Project) -> Buildctl {
    Buildctl::new(addr)
        .project(project)
        .epoch(1_700_000_000)
        .export_cache("type=inline")
}

/// What is below a directory: of each path its mode, owner, time and contents.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let contents = if metadata.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if metadata.is_dir() {
                directories.push(path.clone());
                String::new()
            } else {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            };
            let time = if metadata.is_dir() {
                0
            } else {
                metadata.mtime()
            };
            let (mode, user, group) = (metadata.mode(), metadata.uid(), metadata.gid());
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, format!("{mode:o} {user}:{group} {time} {contents}"));
        }
    }
    found
}

#[test]
fn a_directory_is_as_without_inlay() {
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    let out = Project::new();
    let trees = [("plain", buildkitd.addr()), ("inlay", inlay.addr())].map(|(name, addr)| {
        let dest = out.path().join(name);
        let built = build(&addr, &project)
            .output(&format!("type=local,dest={}", dest.display()))
            .run_ok();
        assert_eq!(built.warnings, [""; 0], "{built}");
        tree(&dest)
    });
    assert!(trees[0]["out"].contains("SOME TEXT"), "{}", trees[0]["out"]);
    assert!(trees[0].len() > 100, "the base image is there too");
    assert_eq!(trees[0], trees[1]);
    assert_eq!(buildkitd.executed().len(), 1);
}

#[test]
fn a_tar_is_as_without_inlay() {
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    let out = Project::new();
    let tars = [("plain", buildkitd.addr()), ("inlay", inlay.addr())].map(|(name, addr)| {
        let dest = out.path().join(name);
        build(&addr, &project)
            .output(&format!("type=tar,dest={}", dest.display()))
            .run_ok();
        fs::read(dest).unwrap()
    });
    assert!(tars[0].len() > 100_000);
    assert!(tars[0] == tars[1], "the archives differ");
}

#[test]
fn archives_of_images_are_as_without_inlay_but_for_the_cache() {
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    let out = Project::new();
    for kind in ["oci", "docker"] {
        let archive = |name: &str, build: Buildctl| {
            let dest = out.path().join(format!("{kind}-{name}"));
            build
                .output(&format!(
                    "type={kind},name=demo,dest={},rewrite-timestamp=true",
                    dest.display()
                ))
                .run_ok();
            Layout::from_tar(&dest)
        };
        let plain = archive("plain", build(&buildkitd.addr(), &project));
        let inlays = archive("inlay", build(&inlay.addr(), &project));
        let again = archive("again", build(&inlay.addr(), &project));
        let records = inline_records(&inlays.config());
        assert!(!records.is_empty(), "{kind}");
        assert!(
            records
                .iter()
                .all(|record| !record.to_string().contains("createdAt")),
            "{kind}: {records:#?}"
        );
        assert_eq!(inlays.digest(), again.digest(), "{kind}");
        assert_eq!(
            plain.manifest()["layers"],
            inlays.manifest()["layers"],
            "{kind}"
        );
        // Both have a cache; without it they are the same config.
        let [plain, through] = [plain.config(), inlays.config()].map(|config| {
            let mut config: Value = serde_json::from_slice(&config).unwrap();
            let cache = config.as_object_mut().unwrap().remove(INLINE_CACHE_KEY);
            assert!(cache.is_some(), "{kind}");
            config
        });
        assert_eq!(plain, through, "{kind}");
        // Without a request there is no cache, and the archive is the one of plain BuildKit.
        let [plain, through] = [
            ("plain-none", buildkitd.addr()),
            ("inlay-none", inlay.addr()),
        ]
        .map(|(name, addr)| {
            let build = Buildctl::new(addr).project(&project).epoch(1_700_000_000);
            archive(name, build)
        });
        assert_eq!(plain.digest(), through.digest(), "{kind}");
    }
}

#[test]
fn no_output_is_as_without_inlay() {
    let mut buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    let plain = build(&buildkitd.addr(), &project).run_ok();
    // The record of the build, and no layer.
    let blobs = buildkitd.blobs().len();
    buildkitd.wipe();
    let through = build(&inlay.addr(), &project).run_ok();
    assert_eq!(plain.steps_ran().len(), 3, "{plain}");
    let names = |steps: Vec<&str>| {
        let mut names: Vec<_> = steps.into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(plain.steps_ran()), names(through.steps_ran()));
    assert_eq!(plain.warnings, through.warnings);
    assert_eq!(plain.message(), through.message());
    assert_eq!(buildkitd.blobs().len(), blobs);
}

#[test]
fn an_image_beside_other_outputs_and_caches_gets_its_records() {
    let registry = Registry::start();
    let buildkitd = Buildkitd::start();
    let inlay = Inlay::start(&buildkitd, &[]);
    let project = project();
    let out = Project::new();
    let (tree_at, archive, cache) = (
        out.path().join("tree"),
        out.path().join("oci"),
        out.path().join("cache"),
    );
    build(&inlay.addr(), &project)
        .output(&format!("type=local,dest={}", tree_at.display()))
        .output(&format!("type=oci,dest={}", archive.display()))
        .push(&registry.image("demo:several"))
        .export_cache(&format!("type=local,dest={}", cache.display()))
        .export_cache(&format!(
            "type=registry,ref={}",
            registry.image("demo:cache")
        ))
        .run_ok();
    assert!(tree(&tree_at)["out"].contains("SOME TEXT"));
    let pushed = inline_records(&registry.config("demo:several", None));
    assert!(!pushed.is_empty());
    assert_eq!(inline_records(&Layout::from_tar(&archive).config()), pushed);
    assert!(cache.join("index.json").exists());
    assert!(registry.manifest("demo:cache").is_object());
}
