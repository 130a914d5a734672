//! Imports of several images that share steps: a second one never costs a hit.

use crate::support::{Columns, Project};

/// Targets `dev` and `prod` that share a copy, `more` on top of `prod`, and `other` that shares nothing.
fn project(columns: &Columns) -> Project {
    let base = columns.base("base:1", "");
    let dockerfile = format!(
        "\
FROM {base} AS shared
COPY f /f
FROM shared AS dev
RUN cat /f >/dev-file
FROM shared AS prod
RUN cat /f >/prod-file
FROM prod AS more
RUN cat /prod-file >/more-file
FROM {base} AS other
RUN echo other >/other-file
"
    );
    Project::new().file("f", "text\n").dockerfile(&dockerfile)
}

/// Builds `target` on empty daemons with these imports: inlay runs nothing, whatever plain BuildKit runs.
fn import(columns: &mut Columns, project: &Project, imports: &[&str], target: &str) {
    columns.wipe();
    let build = columns.build(project).opt(&format!("target={target}"));
    let [_, inlay] = columns.compare(target, |column, addr| {
        let mut build = build.clone().addr(addr);
        for import in imports {
            build = build.import_cache(&columns.import(column, import));
        }
        build.run()
    });
    let ran = inlay.steps_ran();
    assert!(
        ran.is_empty(),
        "{imports:?}, {target}: {ran:?} ran\n{inlay}"
    );
}

#[test]
fn a_second_import_costs_no_hit() {
    let mut columns = Columns::start();
    let project = project(&columns);
    for target in ["dev", "prod", "more", "other"] {
        let build = columns.build(&project).opt(&format!("target={target}"));
        columns.push(&build, &format!("{target}:1"));
    }
    for (imports, target) in [
        (&["prod:1", "dev:1"][..], "prod"),
        (&["dev:1", "prod:1"], "prod"),
        (&["prod:1", "dev:1"], "dev"),
        (&["dev:1", "more:1", "other:1", "prod:1"], "more"),
        (&["dev:1", "more:1", "other:1", "prod:1"], "other"),
        (&["prod:1", "more:1"], "prod"),
    ] {
        import(&mut columns, &project, imports, target);
    }
}
