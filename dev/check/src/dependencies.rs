//! What the crate depends on: licenses, and crates that come in two versions.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, Package};
use spdx::{Expression, LicenseReq, ParseMode};

/// inlay runs on Linux. What its dependencies need elsewhere is not built.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The licenses that dependencies may have, and why. Of those that a dependency gives to choose from,
/// one of these is enough.
const LICENSES: [(&str, &str); 6] = [
    ("Apache-2.0", "inlay's own"),
    (
        "BSD-3-Clause",
        "as MIT, and the authors' names are not for advertising",
    ),
    ("ISC", "as MIT"),
    ("MIT", "its text goes with copies"),
    ("Unicode-3.0", "as MIT; of Unicode's tables"),
    ("Zlib", "as MIT, for copies of the source"),
];

/// The crates that come in several versions, and which crate it is that needs an older one.
const SEVERAL: [(&str, &str); 8] = [
    ("base64", "tonic"),
    ("bit-vec", "yasna, for tests: of rcgen"),
    ("getrandom", "ring"),
    ("hashbrown", "petgraph, for builds: of prost-build"),
    ("itertools", "criterion, for benches"),
    ("prettyplease", "tonic-build, for builds"),
    (
        "syn",
        "prost-derive, tracing-attributes and other macros, for builds",
    ),
    ("synstructure", "asn1-rs-derive, for tests: of rcgen"),
];

/// Which packages there are, and what is not as it should be.
pub fn check() -> Result<Vec<String>, Box<dyn Error>> {
    let metadata = MetadataCommand::new()
        .features(CargoOpt::AllFeatures)
        .other_options(["--locked", "--filter-platform", PLATFORM].map(String::from))
        .exec()?;
    let packages = used(&metadata);
    let mut findings = licenses(&packages, &LICENSES);
    findings.extend(unneeded(&packages, &LICENSES));
    findings.extend(several(&packages, &SEVERAL));
    println!("dependencies: {} packages", packages.len());
    Ok(findings)
}

/// The packages that are built, for tests too.
fn used(metadata: &Metadata) -> Vec<Used> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let ids: BTreeSet<_> = nodes.map(|node| &node.id).collect();
    let packages = metadata.packages.iter();
    packages
        .filter(|package| ids.contains(&package.id))
        .map(Used::from)
        .collect()
}

/// What there is to check of a package.
struct Used {
    name: String,
    version: String,
    license: Option<String>,
}

// === impl Used ===

impl From<&Package> for Used {
    fn from(package: &Package) -> Self {
        Self {
            name: package.name.to_string(),
            version: package.version.to_string(),
            license: package.license.clone(),
        }
    }
}

/// Packages without a license of the list.
fn licenses(packages: &[Used], list: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages {
        let Used { name, version, .. } = package;
        let Some(license) = &package.license else {
            findings.push(format!("{name} {version} names no license"));
            continue;
        };
        match Expression::parse_mode(license, ParseMode::LAX) {
            Ok(expression) if expression.evaluate(|wanted| is_in(list, wanted)) => {}
            Ok(_) => findings.push(format!(
                "{name} {version} has the license {license}, which is not in dev/check's list"
            )),
            Err(err) => findings.push(format!("{name} {version} has the license {license}: {err}")),
        }
    }
    findings
}

/// An exception allows more than the license alone.
fn is_in(list: &[(&str, &str)], wanted: &LicenseReq) -> bool {
    let id = wanted.license.id();
    id.is_some_and(|id| list.iter().any(|(name, _)| *name == id.name))
}

/// Licenses of the list without which all packages would do.
fn unneeded(packages: &[Used], list: &[(&str, &str)]) -> Vec<String> {
    let whole = licenses(packages, list).len();
    let mut findings = Vec::new();
    for (name, _) in list {
        let without: Vec<_> = list
            .iter()
            .copied()
            .filter(|(other, _)| other != name)
            .collect();
        if licenses(packages, &without).len() == whole {
            findings.push(format!(
                "no dependency needs the license {name}, which is in dev/check's list"
            ));
        }
    }
    findings
}

/// Crates in several versions that are not in the list, and those of the list that are in one.
fn several(packages: &[Used], list: &[(&str, &str)]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let all = versions.entry(&package.name).or_default();
        all.insert(&package.version);
    }
    versions.retain(|_, all| all.len() > 1);
    let mut findings = Vec::new();
    for (name, all) in &versions {
        if !list.iter().any(|(listed, _)| listed == name) {
            let all = all.iter().copied().collect::<Vec<_>>().join(" and ");
            findings.push(format!(
                "{name} comes as {all}, and is not in dev/check's list: see `cargo tree --duplicates`"
            ));
        }
    }
    let gone = list.iter().filter(|(name, _)| !versions.contains_key(name));
    findings.extend(gone.map(|(name, _)| format!("{name} comes once, and is in dev/check's list")));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(name: &str, version: &str, license: &str) -> Used {
        Used {
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some(license.to_owned()).filter(|license| !license.is_empty()),
        }
    }

    #[test]
    fn a_license_is_allowed_by_what_the_package_needs_of_it() {
        let list = [("MIT", ""), ("Apache-2.0", "")];
        for (license, is_allowed) in [
            ("MIT", true),
            ("MIT OR GPL-3.0-only", true),
            ("MIT/GPL-3.0", true),
            ("MIT AND GPL-3.0-only", false),
            ("(MIT OR GPL-3.0-only) AND Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-3.0-only", false),
            ("LicenseRef-Own", false),
            ("no license at all", false),
            ("", false),
        ] {
            let findings = licenses(&[used("one", "1.0.0", license)], &list);
            assert_eq!(findings.is_empty(), is_allowed, "{license}: {findings:?}");
            assert!(findings.iter().all(|said| said.starts_with("one 1.0.0 ")));
        }
    }

    #[test]
    fn the_lists_have_what_is_needed_and_no_more() {
        let packages = [
            used("one", "1.0.0", "MIT"),
            used("one", "2.0.0", "MIT OR Zlib"),
        ];
        assert!(unneeded(&packages, &[("MIT", "")]).is_empty());
        let unneeded = unneeded(&packages, &[("MIT", ""), ("Zlib", "")]);
        assert_eq!(unneeded.len(), 1);
        assert!(unneeded[0].contains("Zlib"));

        let found = several(&packages, &[]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("one comes as 1.0.0 and 2.0.0"));
        assert!(several(&packages, &[("one", "")]).is_empty());
        let gone = several(&packages[..1], &[("one", "")]);
        assert_eq!(gone, ["one comes once, and is in dev/check's list"]);
    }
}
