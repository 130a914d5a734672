//! Imports of indexes of all shapes, on plain BuildKit and through inlay: what plain BuildKit finds in
//! one, inlay finds too.

use serde_json::{Value, json};

use crate::support::{Columns, Project, own_platform};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A project whose image has two steps on a base that the daemons of the columns have not pulled.
fn project(columns: &Columns, name: &str) -> Project {
    let base = columns.base("base:1", "");
    let dockerfile = format!("FROM {base}\nCOPY f /f\nRUN cat /f >/{name}\n");
    Project::new()
        .file("f", format!("text of {name}\n"))
        .dockerfile(&dockerfile)
}

/// The entry of an index that names what a tag points to, with this `platform`.
fn entry(columns: &Columns, image: &str, media_type: &str, platform: Value) -> Value {
    let registry = columns.registry();
    let digest = registry.digest(image);
    let mut entry = json!({
        "mediaType": media_type,
        "size": registry.stored(&digest).len(),
        "digest": digest,
    });
    if !platform.is_null() {
        entry["platform"] = platform;
    }
    entry
}

/// Tags an index of these entries in the repository of each column.
fn tag(columns: &Columns, image: &str, entries: impl Fn(&str) -> Value) {
    for column in Columns::NAMES {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries(column)});
        let index = index.to_string();
        let name = format!("{column}/{image}");
        assert!(columns.registry().tag_index(&name, index.as_bytes()));
    }
}

/// Builds on empty daemons with the import of an index, of which plain BuildKit has all steps.
fn import(columns: &mut Columns, project: &Project, index: &str) {
    columns.wipe();
    let row = columns.push_importing(&columns.build(project), &[index], "again:1");
    for output in [&row.plain.output, &row.inlay.output] {
        let ran = output.steps_ran();
        assert!(ran.is_empty(), "{index}: {ran:?} ran\n{output}");
    }
}

/// Entries that leave open what they are for, or say a variant of it.
#[test]
fn entries_that_do_not_say_their_platform() {
    let mut columns = Columns::start();
    let project = project(&columns, "app");
    columns.push(&columns.build(&project), "app:1");
    let own = own_platform();
    let (os, architecture) = own.split_once('/').unwrap();
    for (index, platform) in [
        ("app:none", Value::Null),
        ("app:empty", json!({"os": "", "architecture": ""})),
        (
            "app:unknown",
            json!({"os": "unknown", "architecture": "unknown"}),
        ),
        (
            "app:variant",
            json!({"os": os, "architecture": architecture, "variant": "v2"}),
        ),
    ] {
        tag(&columns, index, |column| {
            let image = format!("{column}/app:1");
            json!([entry(&columns, &image, MANIFEST, platform.clone())])
        });
        import(&mut columns, &project, index);
    }
}

/// An index of an index of an image.
#[test]
fn an_index_in_an_index() {
    let mut columns = Columns::start();
    let project = project(&columns, "app");
    columns.push(&columns.build(&project), "app:1");
    let own = own_platform();
    let (os, architecture) = own.split_once('/').unwrap();
    let platform = json!({"os": os, "architecture": architecture});
    tag(&columns, "app:inner", |column| {
        let image = format!("{column}/app:1");
        json!([entry(&columns, &image, MANIFEST, platform.clone())])
    });
    for (index, platform) in [("app:outer", Value::Null), ("app:named", platform)] {
        tag(&columns, index, |column| {
            let inner = format!("{column}/app:inner");
            json!([entry(&columns, &inner, INDEX, platform.clone())])
        });
        import(&mut columns, &project, index);
    }
}

/// Images of two projects under one tag, as `docker buildx imagetools create` makes it.
#[test]
fn two_images_of_one_platform() {
    let mut columns = Columns::start();
    let projects = ["one", "two"].map(|name| {
        let project = project(&columns, name);
        columns.push(&columns.build(&project), &format!("app:{name}"));
        project
    });
    let own = own_platform();
    let (os, architecture) = own.split_once('/').unwrap();
    tag(&columns, "app:both", |column| {
        let platform = || json!({"os": os, "architecture": architecture});
        let images = ["one", "two"].map(|name| format!("{column}/app:{name}"));
        let entries = images.map(|image| entry(&columns, &image, MANIFEST, platform()));
        json!(entries)
    });
    for project in &projects {
        import(&mut columns, project, "app:both");
    }
}

/// A manifest without layers, as BuildKit writes it, has no cache: nothing is told of it that plain
/// BuildKit does not tell.
#[test]
fn lists_that_are_null() {
    let mut columns = Columns::start();
    let empty = Project::new().dockerfile("FROM scratch\nENV x=y\n");
    let project = project(&columns, "app");
    columns.compare("empty:1", |column, addr| {
        let image = columns.registry().image(&format!("{column}/empty:1"));
        columns.build(&empty).addr(addr).push(&image).run()
    });
    for column in Columns::NAMES {
        let manifest = columns.registry().manifest(&format!("{column}/empty:1"));
        assert!(manifest["layers"].is_null(), "{manifest}");
    }
    tag(&columns, "null:1", |_| Value::Null);
    for image in ["empty:1", "null:1"] {
        columns.wipe();
        columns.push_importing(&columns.build(&project), &[image], "app:1");
    }
}
