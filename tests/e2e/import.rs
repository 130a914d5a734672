//! A cache is imported from an image, wherever that is, and the user sees what became of it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use inlay::cache::image::config::{self, DEFAULT_LIMIT};
use inlay::cache::record::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::support::{
    BuildOutput, Buildx, Containerd, Direct, DockerEngine, ImageStore, Inlay, Project, Pushed,
    SOON, Stand, assert_one, other_platform, own_platform, wait_for,
};

/// Steps that write other bytes each time they run: an image that is built again tells.
const STAGES: &str = "\
FROM scratch AS base
ADD rootfs.tar /

FROM base AS build
COPY source.txt /src/
RUN head -c 16 /dev/urandom >/random
RUN cat /random /src/source.txt >/out

FROM base
RUN head -c 16 /dev/urandom >/own
COPY --from=build /random /out /app/
RUN cat /app/* /own >/all
";

fn project() -> Project {
    Project::new()
        .base()
        .dockerfile(STAGES)
        .file("source.txt", "some text\n")
}

/// The steps by which inlay says what it imports.
fn said(output: &BuildOutput) -> Vec<&str> {
    let names = output.vertices.iter().map(|vertex| vertex.name.as_str());
    names.filter(|name| name.starts_with("inlay: ")).collect()
}

/// That a build took every step from a cache, and said that it imports `records` of `reference`.
fn assert_imported(built: &BuildOutput, reference: &str) {
    assert_eq!(built.warnings, [""; 0], "{built}");
    assert_eq!(built.steps_ran(), [""; 0], "{built}");
    let begin = format!("inlay: importing inline cache from {reference}: ");
    let said = said(built);
    assert!(said[0].starts_with(&begin), "{said:?}");
    // What inlay serves it counts.
    let counts = format!("inlay: inline cache of {reference}: ");
    let more = said[1..].iter().all(|more| more.starts_with(&counts));
    assert!(more, "{said:?}");
}

/// The manifest of demo:1 with another config, which the registry has then.
fn with_config(stand: &Stand, config: &[u8]) -> String {
    assert!(stand.registry.put("demo", config));
    let mut manifest = stand.registry.manifest("demo:1");
    manifest["config"]["digest"] = Digest::of(config).to_string().into();
    manifest["config"]["size"] = config.len().into();
    manifest.to_string()
}

/// A JSON object with one more member, under a name that it may have already.
fn with_member(object: &str, name: &str, value: &str) -> String {
    let members = object.strip_suffix('}').unwrap();
    format!("{members},{name:?}:{value}}}")
}

/// Builds to `output`, wipes, and imports `reference`.
fn imports_from(stand: &mut Stand, output: &str, reference: &str) {
    let project = project();
    let build = stand.build(&project).export_cache("type=inline");
    build.clone().output(output).run_ok();
    let ran = stand.buildkitd.executed().len();
    stand.buildkitd.wipe();
    let import = format!("type=inline,ref={reference}");
    let built = build
        .import_cache(&import)
        .push(&stand.registry.image("again:1"))
        .run_ok();
    assert_imported(&built, reference);
    assert_eq!(stand.buildkitd.executed().len(), ran, "{built}");
}

#[test]
fn from_a_registry() {
    let mut stand = Stand::start();
    let name = stand.registry.image("demo:1");
    let output = format!("type=image,name={name},push=true");
    imports_from(&mut stand, &output, &name);
    imports_from(&mut stand, &output, &format!("docker://{name}"));
}

#[test]
fn from_an_oci_archive() {
    let images = tempfile::tempdir().unwrap();
    let mut stand = Stand::reading(images.path());
    let path = images.path().join("app.tar");
    let output = format!("type=oci,dest={}", path.display());
    imports_from(
        &mut stand,
        &output,
        &format!("oci-archive:{}", path.display()),
    );
}

#[test]
fn from_an_oci_layout() {
    let images = tempfile::tempdir().unwrap();
    let mut stand = Stand::reading(images.path());
    let path = images.path().join("app");
    let output = format!("type=oci,tar=false,dest={}", path.display());
    imports_from(&mut stand, &output, &format!("oci:{}", path.display()));
}

#[test]
fn from_a_docker_archive() {
    let images = tempfile::tempdir().unwrap();
    let mut stand = Stand::reading(images.path());
    let path = images.path().join("app.tar");
    let output = format!("type=docker,name=app,dest={}", path.display());
    imports_from(
        &mut stand,
        &output,
        &format!("docker-archive:{}", path.display()),
    );
}

/// Layers pass through: four at a time, and however large they are, little of them is held.
#[test]
fn layers_are_served_in_little_memory() {
    const LAYER: u64 = 64 << 20;
    let images = tempfile::tempdir().unwrap();
    let mut stand = Stand::reading(images.path());
    let step = |name| format!("RUN head -c {LAYER} /dev/zero >/{name}\n");
    let steps = ["one", "two", "three", "four"].map(step).concat();
    let dockerfile = format!("FROM scratch\nADD rootfs.tar /\n{steps}");
    let project = Project::new().base().dockerfile(&dockerfile);
    let path = images.path().join("app");
    let build = stand.build(&project);
    let output = "type=oci,tar=false,compression=uncompressed";
    build
        .clone()
        .output(&format!("{output},dest={}", path.display()))
        .export_cache("type=inline")
        .run_ok();
    stand.buildkitd.wipe();
    let before = stand.inlay.peak_rss();
    let reference = format!("oci:{}", path.display());
    // A step on top of them needs them all.
    project.write("Dockerfile", dockerfile + "RUN true\n");
    let built = build
        .import_cache(&format!("type=inline,ref={reference}"))
        .run_ok();
    assert_eq!(built.warnings, [""; 0], "{built}");
    assert_eq!(built.steps_ran(), ["[6/6] RUN true"], "{built}");
    // They have all come, and from nowhere else.
    let layers = stand.buildkitd.layer_blobs();
    let large = layers.iter().filter(|digest| {
        let layer = stand.buildkitd.blob(digest);
        layer.len() as u64 > LAYER
    });
    assert_eq!(large.count(), 4, "{layers:?}");
    let peak = stand.inlay.peak_rss();
    println!("{} KiB, before {} KiB", peak >> 10, before >> 10);
    assert!(peak < LAYER, "{} KiB of memory", peak >> 10);
}

/// The good one is used, and each bad one is told once, by its name.
#[test]
fn seventy_imports_of_all_kinds() {
    let mut stand = Stand::start();
    let project = project();
    let build = stand.build(&project).export_cache("type=inline");
    stand.push(&build, "demo:1", "");
    let good = stand.registry.image("demo:1");
    let empty = Project::new().dockerfile("FROM scratch\nLABEL a=b\n");
    stand.push(&stand.build(&empty), "bad:empty", "");
    let kind = |n: usize| match n % 3 {
        0 => stand.registry.image(&format!("bad:missing{n}")),
        1 => format!("oci-archive:/etc/none{n}.tar"),
        _ => format!("oci:relative{n}"),
    };
    let mut bad: Vec<_> = (0..69).map(kind).collect();
    bad[7] = stand.registry.image("bad:empty");
    for place in [0, 30, 63] {
        let mut references = bad.clone();
        references.insert(place, good.clone());
        let imports = references.iter().map(|of| format!("type=inline,ref={of}"));
        let build = imports.fold(build.clone(), |build, of| build.import_cache(&of));
        stand.buildkitd.wipe();
        let built = build.run_ok();
        assert_eq!(built.steps_ran(), [""; 0], "{place}: {built}");
        assert_eq!(built.warnings.len(), bad.len(), "{built}");
        for reference in &references {
            let begin = format!("inlay: no cache is imported from {reference}: ");
            let told = built.warnings.iter().filter(|of| of.starts_with(&begin));
            assert_eq!(told.count(), usize::from(*reference != good), "{reference}");
        }
    }
}

#[test]
fn a_missing_image_is_told_and_the_build_goes_on() {
    let images = tempfile::tempdir().unwrap();
    let stand = Stand::reading(images.path());
    let project = project();
    let build = stand.build(&project);
    let missing = stand.registry.image("missing:1");
    let archive = format!("oci-archive:{}/none.tar", images.path().display());
    let elsewhere = "oci-archive:/etc/passwd".to_owned();
    let nonsense = "oci:relative".to_owned();
    for reference in [missing, archive, elsewhere, nonsense] {
        let import = format!("type=inline,ref={reference}");
        let built = build.clone().import_cache(&import).run_ok();
        let begin = format!("inlay: no cache is imported from {reference}: ");
        let [warning] = &built.warnings[..] else {
            panic!("{reference}: warns once: {built}")
        };
        println!("{warning}");
        assert!(warning.starts_with(&begin), "{warning}");
        assert_eq!(said(&built), [warning.as_str()]);
    }
    // With `type=registry` it is the daemon that says so.
    let built = build.import_cache(&stand.import("missing:1")).run_ok();
    assert_eq!(built.warnings, [""; 0], "{built}");
    let step = built.vertex("importing cache manifest from");
    assert!(
        step.error.as_deref().unwrap().contains("not found"),
        "{built}"
    );
}

/// Builds through inlay, three times on an empty daemon: from `first`, and each from the one before.
fn generations(stand: &mut Stand, project: &Project, first: &str) -> Vec<Pushed> {
    let mut from = stand.import(first);
    let mut generations = Vec::new();
    for generation in 1..=3 {
        let image = format!("generation:{generation}");
        stand.buildkitd.wipe();
        let build = stand.build(project).import_cache(&from);
        generations.push(stand.push(&build, &image, ""));
        from = stand.import(&image);
    }
    generations
}

/// What a daemon with its own inline cache made stays as it is, dates and all.
#[test]
fn an_image_of_plain_buildkit_stays_as_it_is() {
    let mut stand = Stand::start();
    let project = project();
    let name = stand.registry.image("plain:1");
    let plain = stand.build_plain(&project).export_cache("type=inline");
    plain.push(&name).run_ok();
    let mut images = vec![stand.pushed("plain:1")];
    images.extend(generations(&mut stand, &project, "plain:1"));
    assert_one("of plain BuildKit", &images);
}

/// The same of a daemon that has built other sources, and of one that imported and exported again:
/// their caches have too much, or too little.
#[test]
fn of_any_image_of_plain_buildkit_comes_one_image() {
    let mut stand = Stand::start();
    let project = project();
    for text in ["one\n", "two\n", "one\n"] {
        project.write("source.txt", text);
        let build = stand.build_plain(&project).export_cache("type=inline");
        build.push(&stand.registry.image("busy:1")).run_ok();
    }
    stand.buildkitd.wipe();
    let busy = stand.import("busy:1");
    let build = stand.build_plain(&project).export_cache("type=inline");
    let again = build.import_cache(&busy);
    again.push(&stand.registry.image("again:1")).run_ok();
    for first in ["busy:1", "again:1"] {
        println!("{first}: {:?}", stand.pushed(first));
        let images = generations(&mut stand, &project, first);
        assert_one(first, &images);
    }
}

#[test]
fn twenty_generations_are_one_image() {
    let mut stand = Stand::start();
    let project = project();
    let mut generations = vec![stand.push(&stand.build(&project), "demo:0", "")];
    for generation in 1..=20 {
        stand.buildkitd.wipe();
        // It remembers nothing either.
        stand.inlay = Inlay::start(&stand.buildkitd, &[]);
        let from = stand.import(&format!("demo:{}", generation - 1));
        let build = stand.build(&project).import_cache(&from);
        generations.push(stand.push(&build, &format!("demo:{generation}"), ""));
    }
    assert_one("generations", &generations);
}

/// A build that has all of its steps in the registry that it pushes to reads no layer there.
#[test]
fn a_cached_build_downloads_no_layer() {
    let mut stand = Stand::start();
    let project = project();
    stand.push(&stand.build(&project), "demo:1", "");
    let layers = stand.registry.layers("demo:1", None);
    let directly = stand.build_plain(&project).export_cache("type=inline");
    let through = stand.build(&project).export_cache("type=inline");
    let serving = Inlay::start(&stand.buildkitd, &["--registry-imports=inlay"]);
    let served = through.clone().addr(serving.addr());
    for (build, image) in [
        (directly, "demo:2"),
        (through, "demo:3"),
        (served, "demo:4"),
    ] {
        stand.buildkitd.wipe();
        let before = stand.registry.blob_gets().len();
        let build = build.import_cache(&stand.import("demo:1"));
        let built = build.push(&stand.registry.image(image)).run_ok();
        assert_eq!(built.steps_ran(), [""; 0], "{built}");
        let read = stand.registry.blob_gets().split_off(before);
        let read: Vec<_> = read.iter().filter(|blob| layers.contains(blob)).collect();
        assert_eq!(read, [""; 0], "{image}");
    }
}

/// The key that was proposed first: BuildKit does not look there, and inlay does.
#[test]
fn a_cache_under_the_proposed_key_is_found() {
    let mut stand = Stand::start();
    let project = project();
    stand.push(&stand.build(&project), "demo:1", "");
    let whole = stand.registry.config("demo:1", None);
    let records = config::cache_of(&whole, DEFAULT_LIMIT).unwrap().unwrap();
    let mut older = config::strip(&whole, DEFAULT_LIMIT).unwrap();
    let end = older.iter().rposition(|byte| *byte == b'}').unwrap();
    let records = BASE64_STANDARD.encode(records);
    let member = format!(",\"{}\":\"{records}\"", config::PROPOSED_KEY);
    older.splice(end..end, member.into_bytes());
    let manifest = with_config(&stand, &older);
    assert!(stand.registry.tag("demo:older", manifest.as_bytes()));

    let ran = stand.buildkitd.executed().len();
    stand.buildkitd.wipe();
    let build = stand
        .build(&project)
        .import_cache(&stand.import("demo:older"));
    let built = build.push(&stand.registry.image("demo:2")).run_ok();
    assert_imported(&built, &stand.registry.image("demo:older"));
    assert!(said(&built)[0].contains("layers through inlay"), "{built}");
    assert_eq!(stand.buildkitd.executed().len(), ran);
    // Where the operator leaves these imports to the daemon, it finds nothing.
    stand.buildkitd.wipe();
    stand.inlay = Inlay::start(&stand.buildkitd, &["--registry-imports=daemon"]);
    let build = stand
        .build(&project)
        .import_cache(&stand.import("demo:older"));
    assert_eq!(build.run_ok().steps_cached(), [""; 0]);
}

/// An image whose config says nothing of its layers' history: buildkitd v0.34.2 dies of it.
#[test]
fn an_image_without_a_history_harms_nobody() {
    let mut stand = Stand::start();
    let project = project();
    stand.push(&stand.build(&project), "demo:1", "");
    let ran = stand.buildkitd.executed().len();
    let whole = stand.registry.config("demo:1", None);
    let mut config: Value = serde_json::from_slice(&whole).unwrap();
    config.as_object_mut().unwrap().remove("history").unwrap();
    let manifest = with_config(&stand, config.to_string().as_bytes());
    assert!(stand.registry.tag("demo:bare", manifest.as_bytes()));
    stand.buildkitd.wipe();
    let build = stand
        .build(&project)
        .import_cache(&stand.import("demo:bare"));
    let built = build.push(&stand.registry.image("demo:2")).run_ok();
    assert_imported(&built, &stand.registry.image("demo:bare"));

    // Nor does it get at the daemon behind the back of one that is sound: Go takes the last of two
    // names that differ in case.
    let sound = stand.registry.manifest("demo:1").to_string();
    let bare: Value = serde_json::from_str(&manifest).unwrap();
    let both = with_member(&sound, "Config", &bare["config"].to_string());
    assert!(stand.registry.tag("demo:both", both.as_bytes()));
    stand.buildkitd.wipe();
    let build = stand
        .build(&project)
        .import_cache(&stand.import("demo:both"));
    let built = build.run_ok();
    let warnings = built.warnings.join("\n");
    assert!(
        warnings.contains("demo:both") && warnings.contains("which BuildKit reads as"),
        "{built}"
    );
    assert_eq!(stand.buildkitd.executed().len(), 2 * ran, "{built}");
}

/// Documents that Go reads and inlay does not, of an image with a short history: if it were left to
/// it, unchecked, buildkitd v0.34.2 would die of it.
#[test]
fn no_image_avoids_the_check() {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let mut stand = Stand::start();
    let project = project();
    stand.push(&stand.build(&project), "demo:1", "");
    let ran = stand.buildkitd.executed().len();
    let whole = stand.registry.config("demo:1", None);
    let mut short: Value = serde_json::from_slice(&whole).unwrap();
    short["history"].as_array_mut().unwrap().truncate(1);
    let short = short.to_string();
    let manifest = with_config(&stand, short.as_bytes());
    let quoted = |text: &str| format!("{text:?}");

    let twice = with_member(&manifest, "mediaType", &quoted(MANIFEST));
    assert!(stand.registry.tag("demo:twice", twice.as_bytes()));
    let hash = Sha512::digest(short.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut named: Value = serde_json::from_str(&manifest).unwrap();
    let digest = format!("sha512:{hash}");
    assert!(stand.registry.put_as("demo", &digest, short.as_bytes()));
    named["config"]["digest"] = digest.into();
    let named = named.to_string();
    assert!(stand.registry.tag("demo:sha512", named.as_bytes()));
    assert!(stand.registry.tag("demo:short", manifest.as_bytes()));
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
        "mediaType": MANIFEST,
        "digest": stand.registry.digest("demo:short"),
        "size": manifest.len(),
        "platform": {"os": "linux", "architecture": "amd64"},
    }]});
    let index = with_member(&index.to_string(), "mediaType", &quoted(INDEX));
    assert!(stand.registry.tag_index("demo:index", index.as_bytes()));

    let mut builds = 1;
    for registry_imports in ["checked", "inlay"] {
        let who = format!("--registry-imports={registry_imports}");
        stand.inlay = Inlay::start(&stand.buildkitd, &[&who]);
        for image in ["demo:twice", "demo:sha512", "demo:index"] {
            stand.buildkitd.wipe();
            let import = stand.import(image);
            let built = stand.build(&project).import_cache(&import).run_ok();
            builds += 1;
            let [warning] = &built.warnings[..] else {
                panic!("{image}: warns once: {built}")
            };
            let reference = stand.registry.image(image);
            let begin = format!("inlay: no cache is imported from {reference}: ");
            assert!(warning.starts_with(&begin), "{warning}");
            assert_eq!(stand.buildkitd.executed().len(), builds * ran, "{built}");
        }
    }
    // Nor is one that does not exist left to the daemon, where nothing may be.
    let missing = stand.import("missing:1");
    let built = stand.build(&project).import_cache(&missing).run_ok();
    let names = built.vertices.iter().map(|vertex| vertex.name.as_str());
    let left = names.filter(|name| name.starts_with("importing cache manifest"));
    assert_eq!(left.collect::<Vec<_>>(), [""; 0], "{built}");
}

#[test]
fn an_import_without_a_name_says_what_to_write() {
    let stand = Stand::start();
    let built = stand.build(&project()).import_cache("type=inline").run_ok();
    let warning = "inlay: no cache is imported from type=inline: it names no image: write type=inline,ref=IMAGE";
    assert_eq!(built.warnings, [warning], "{built}");
}

/// A cache that was exported by itself is checked as well, and imported by its digest.
#[test]
fn a_cache_that_was_exported_by_itself_is_checked() {
    let mut stand = Stand::start();
    let project = project();
    let cache = stand.registry.image("cache:1");
    let export = format!("type=registry,ref={cache},mode=max");
    stand.build_plain(&project).export_cache(&export).run_ok();
    let ran = stand.buildkitd.executed().len();
    for registry_imports in ["checked", "inlay"] {
        stand.buildkitd.wipe();
        let who = format!("--registry-imports={registry_imports}");
        stand.inlay = Inlay::start(&stand.buildkitd, &[&who]);
        let build = stand.build(&project).import_cache(&stand.import("cache:1"));
        let built = build.push(&stand.registry.image("demo:1")).run_ok();
        assert_eq!(built.warnings, [""; 0], "{built}");
        assert_eq!(built.steps_ran(), [""; 0], "{built}");
        let begin = format!("inlay: importing cache from {cache}: ");
        assert!(said(&built)[0].starts_with(&begin), "{built}");
        assert_eq!(stand.buildkitd.executed().len(), ran, "{built}");
    }
    let digest = stand.registry.digest("cache:1");
    stand.inlay = Inlay::start(&stand.buildkitd, &[]);
    let build = stand.build(&project).import_cache(&stand.import("cache:1"));
    let name = &build
        .run_ok()
        .vertex("importing cache manifest from")
        .name
        .clone();
    assert!(name.ends_with(&digest), "{name}");

    // Go takes the last of two lists of layers.
    let manifest = stand.registry.manifest("cache:1");
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = String::from_utf8(stand.registry.stored(config)).unwrap();
    let twice = with_member(&config, "layers", "[]");
    assert!(stand.registry.put("cache", twice.as_bytes()));
    let mut manifest = manifest.clone();
    manifest["config"]["digest"] = Digest::of(twice.as_bytes()).to_string().into();
    manifest["config"]["size"] = twice.len().into();
    let manifest = manifest.to_string();
    assert!(stand.registry.tag("cache:twice", manifest.as_bytes()));
    stand.buildkitd.wipe();
    let import = stand.import("cache:twice");
    let built = stand.build(&project).import_cache(&import).run_ok();
    let [warning] = &built.warnings[..] else {
        panic!("warns once: {built}")
    };
    assert!(warning.contains("no cache is imported"), "{warning}");
    assert_eq!(stand.buildkitd.executed().len(), 2 * ran, "{built}");
}

/// Of an index, only what the build is for is read.
#[test]
fn an_index_is_read_for_the_platforms_of_the_build() {
    let mut stand = Stand::start();
    let project = Project::new()
        .file("source.txt", "some text\n")
        .dockerfile("FROM scratch\nCOPY source.txt /\n");
    let (own, other) = (own_platform(), other_platform());
    let for_own = format!("platform={own}");
    let for_other = format!("platform={other}");
    let both = stand.build(&project).opt(&format!("{for_own},{other}"));
    stand.push(&both, "demo:1", "");
    stand.buildkitd.wipe();
    let index = stand.registry.image("demo:1");
    let import = format!("type=inline,ref={index}");
    let build = stand.build(&project).import_cache(&import);
    let read_by_inlay = |stand: &Stand| -> usize {
        let requests = stand.registry.requests();
        let read = requests.iter().filter(|request| {
            request.method == "GET"
                && request.user_agent.starts_with("inlay")
                && request.path.contains("/blobs/")
        });
        read.count()
    };
    let built = build.clone().opt(&for_own).run_ok();
    assert_imported(&built, &index);
    assert_eq!(read_by_inlay(&stand), 1, "one config");
    // What the daemon reads is that manifest, and not the index, of which it would read all.
    let registry = stand.build(&project).opt(&for_own);
    let built = registry.import_cache(&stand.import("demo:1")).run_ok();
    let images = stand.registry.image_digests("demo:1");
    let name = &built.vertex("importing cache manifest from").name;
    assert!(name.ends_with(&images[&own]), "{name}");
    // And that for stages that run on the daemon's own.
    let built = build.clone().opt(&for_other).run_ok();
    assert_imported(&built, &index);
    let why = "one more, since that of the daemon's own platform was read before";
    assert_eq!(read_by_inlay(&stand), 2, "{why}");
    let only = stand.build(&project).opt(&for_other);
    stand.push(&only, "demo:other", "");
    let manifest = stand.registry.manifest("demo:other");
    let (os, architecture) = other.split_once('/').unwrap();
    let manifest = manifest.to_string();
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": stand.registry.digest("demo:other"),
        "size": manifest.len(),
        "platform": {"os": os, "architecture": architecture},
    }]});
    assert!(
        stand
            .registry
            .tag_index("demo:index", index.to_string().as_bytes())
    );
    let import = format!("type=inline,ref={}", stand.registry.image("demo:index"));
    let built = stand.build(&project).import_cache(&import).run_ok();
    let [warning] = &built.warnings[..] else {
        panic!("warns once: {built}")
    };
    assert!(
        warning.ends_with(&format!("it has no image for {own}")),
        "{warning}"
    );
}

#[test]
fn from_containerd() {
    let containerd = Containerd::start();
    let images = tempfile::tempdir().unwrap();
    let path = images.path().join("app.tar");
    let mut stand = Stand::start();
    let address = format!("--containerd-address={}", containerd.socket().display());
    let namespaces = ["default", "some"].map(|of| format!("--containerd-namespace={of}"));
    let args = [&*address, &*namespaces[0], &*namespaces[1]];
    stand.inlay = Inlay::start(&stand.buildkitd, &args);
    let project = project();
    let build = stand.build(&project).export_cache("type=inline");
    let output = format!("type=oci,name=app:1,dest={}", path.display());
    build.clone().output(&output).run_ok();
    containerd.import("some", &path);
    let ran = stand.buildkitd.executed().len();
    stand.buildkitd.wipe();
    let build = build.push(&stand.registry.image("again:1"));
    let import = "type=inline,ref=containerd:app:1";
    // In another namespace it is not.
    let elsewhere = build.clone().import_cache(import).run_ok();
    let [warning] = &elsewhere.warnings[..] else {
        panic!("warns once: {elsewhere}")
    };
    assert!(
        warning.contains("namespace default does not exist"),
        "{warning}"
    );
    let more = stand.buildkitd.executed().len();
    stand.buildkitd.wipe();
    let built = build
        .clone()
        .import_cache(&format!("{import},namespace=some"))
        .run_ok();
    assert_imported(&built, "containerd:app:1");
    assert_eq!(stand.buildkitd.executed().len(), more);
    let closed = build.import_cache(&format!("{import},namespace=k8s.io"));
    let closed = closed.run_ok();
    let [warning] = &closed.warnings[..] else {
        panic!("warns once: {closed}")
    };
    assert!(warning.ends_with("no --containerd-namespace names its namespace"));
    assert!(more > ran);
}

/// From Docker Engine's own image store, into which the build put it, and which nobody pushed.
#[test]
fn from_the_store_of_docker_engine() {
    let engine = DockerEngine::start(ImageStore::Containerd);
    let address = engine.containerd_socket();
    let address = format!("--containerd-address={}", address.display());
    let args = [address.as_str(), "--containerd-namespace=moby"];
    let inlay = Inlay::in_front_of(&engine.buildkitd_addr(), &args);
    let project = project();
    let buildx = Buildx::remote(&inlay.addr());
    let build = buildx
        .build(&project)
        .args([
            "--network=host",
            "--provenance=false",
            "--output=type=image,name=docker.io/library/app:1",
        ])
        .cache_to("type=inline");
    let first = build.run_ok();
    assert_eq!(first.steps_ran().len(), 7, "{first}");
    let digest = |engine: &DockerEngine| {
        let output = engine.docker(&["image", "inspect", "--format", "{{.Id}}", "app:1"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let image = digest(&engine);
    let pruned = engine.docker(&["builder", "prune", "--all", "--force"]);
    assert!(pruned.status.success(), "{pruned:?}");
    let again = build
        .cache_from("type=inline,ref=containerd:app:1")
        .run_ok();
    assert_imported(&again, "containerd:app:1");
    assert_eq!(digest(&engine), image);
}

/// Only the client knows the password.
#[test]
fn from_a_registry_that_wants_a_password() {
    let mut stand = Stand::start();
    let door = stand.registry.with_password();
    let project = project();
    stand.push(&stand.build(&project), "demo:1", "");
    let login = Project::new().file("config.json", door.docker_config());
    let ran = stand.buildkitd.executed().len();
    for registry_imports in ["checked", "inlay"] {
        stand.buildkitd.wipe();
        let who = format!("--registry-imports={registry_imports}");
        stand.inlay = Inlay::start(&stand.buildkitd, &[&who]);
        let build = stand.build(&project).push(&stand.registry.image("demo:2"));
        let import = format!("type=registry,ref={}", door.image("demo:1"));
        let built = build
            .import_cache(&import)
            .env("DOCKER_CONFIG", login.path().to_str().unwrap())
            .run_ok();
        assert_imported(&built, &door.image("demo:1"));
        assert_eq!(stand.buildkitd.executed().len(), ran, "{built}");
    }
    // Without it, nothing is imported and nothing fails.
    stand.buildkitd.wipe();
    let nobody = Project::new();
    let import = format!("type=inline,ref={}", door.image("demo:1"));
    let built = stand
        .build(&project)
        .import_cache(&import)
        .env("DOCKER_CONFIG", nobody.path().to_str().unwrap())
        .run_ok();
    let [warning] = &built.warnings[..] else {
        panic!("warns once: {built}")
    };
    assert!(warning.ends_with("the user has none for it"), "{warning}");
}

/// The login of one build is of no use to another, neither while that one runs nor afterwards.
#[test]
fn a_login_is_for_its_own_build() {
    let mut stand = Stand::start();
    let door = stand.registry.with_password();
    let project = project();
    stand.push(&stand.build(&project), "demo:1", "");
    stand.buildkitd.wipe();
    stand.inlay = Inlay::start(&stand.buildkitd, &["--registry-imports=inlay"]);
    let login = Project::new().file("config.json", door.docker_config());
    let nobody = Project::new();
    let import = format!("type=registry,ref={}", door.image("demo:1"));
    let build = |user: &Project| {
        let build = stand.build(&project).import_cache(&import);
        build.env("DOCKER_CONFIG", user.path().to_str().unwrap())
    };

    let dockerfile = std::fs::read_to_string(project.path().join("Dockerfile")).unwrap();
    project.write("Dockerfile", format!("{dockerfile}RUN sleep 300\n"));
    let mut first = build(&login).spawn();
    let sleeps = wait_for(6 * SOON, || {
        let processes = stand.buildkitd.processes();
        let sleeps = processes.iter().any(|line| line.contains("sleep 300"));
        (sleeps || !first.is_running()).then_some(sleeps)
    });
    assert_eq!(sleeps, Some(true));
    assert!(stand.inlay.log().contains("importing inline cache"));
    project.write("Dockerfile", &*dockerfile);

    let refused = || {
        let built = build(&nobody).run_ok();
        let [warning] = &built.warnings[..] else {
            panic!("warns once: {built}")
        };
        assert!(warning.ends_with("the user has none for it"), "{warning}");
    };
    refused();
    first.kill();
    refused();
}

/// A client that solves by itself, and has no gateway: inlay is its gateway then.
#[test]
fn for_a_client_without_a_gateway() {
    let mut stand = Stand::start();
    let project = project();
    stand.push(&stand.build(&project), "demo:1", "");
    let ran = stand.buildkitd.executed().len();
    let import = format!("type=inline,ref={}", stand.registry.image("demo:1"));
    for export in [true, false] {
        stand.buildkitd.wipe();
        let name = stand.registry.image("demo:2");
        let direct = Direct::frontend(stand.inlay.addr(), &project);
        let direct = direct.import_cache(&import).push(&name);
        let direct = if export {
            direct.export_cache("type=inline")
        } else {
            direct
        };
        direct.run_ok();
        assert_eq!(stand.buildkitd.executed().len(), ran);
    }
}

/// A client of the gateway may name its imports in a call of it alone. They are read and checked, too.
#[test]
fn that_a_gateway_call_names() {
    let mut stand = Stand::start();
    let project = Project::new().base().file("file", "some text\n");
    let name = stand.registry.image("demo:1");
    let command = "head -c 16 /dev/urandom >/random";
    let solve = |stand: &Stand| {
        let solve = Direct::gateway(stand.inlay.addr(), &project).command(command);
        solve.push(&stand.registry.image("demo:2"))
    };
    let first = solve(&stand).export_cache("type=inline").push(&name);
    first.run_ok();
    let ran = stand.buildkitd.executed().len();
    assert_eq!(ran, 1);
    let layers = stand.registry.layers("demo:1", None);
    for (policy, kind) in [
        ("checked", "inline"),
        ("checked", "registry"),
        ("inlay", "registry"),
    ] {
        let policy = format!("--registry-imports={policy}");
        stand.inlay = Inlay::start(&stand.buildkitd, &[&policy]);
        for exports in [false, true] {
            stand.buildkitd.wipe();
            let mut solve = solve(&stand).import_cache(&format!("type={kind},ref={name}"));
            if exports {
                solve = solve.export_cache("type=inline");
            }
            let built = solve.run_ok();
            assert_imported(&built, &name);
            assert_eq!(stand.buildkitd.executed().len(), ran, "{built}");
            assert_eq!(stand.registry.layers("demo:2", None), layers);
        }
    }
    assert_eq!(stand.pushed("demo:1"), stand.pushed("demo:2"));
}

/// Two builds in one session, each with its import: what is offered for one is in nobody's way.
#[test]
fn for_builds_that_share_a_session() {
    let mut stand = Stand::start();
    stand.inlay = Inlay::start(&stand.buildkitd, &["--registry-imports=inlay"]);
    let project = Project::new().base().file("file", "some text\n");
    let command = "head -c 16 /dev/urandom >/random";
    let name = stand.registry.image("demo:1");
    Direct::definition(stand.inlay.addr(), &project)
        .command(command)
        .push(&name)
        .export_cache("type=inline")
        .run_ok();
    let ran = stand.buildkitd.executed().len();
    assert_eq!(ran, 1);
    stand.buildkitd.wipe();
    let built = Direct::twice(stand.inlay.addr(), &project)
        .command(command)
        .import_cache(&format!("type=inline,ref={name}"))
        .push(&stand.registry.image("demo:2"))
        .run_ok();
    assert_imported(&built, &name);
    assert_eq!(stand.buildkitd.executed().len(), ran, "{built}");
    assert_eq!(
        stand.registry.layers("demo:1", None),
        stand.registry.layers("demo:2", None)
    );
}
