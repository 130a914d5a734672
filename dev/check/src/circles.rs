//! Files that import each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use crate::imports::Import;

/// What each file imports, with the first line that does.
type Edges<'a> = BTreeMap<&'a Path, BTreeMap<&'a Path, usize>>;

/// For each file that is on a circle the shortest one, once for all files that are on it.
pub fn check(imports: &BTreeSet<Import>) -> Vec<String> {
    let mut edges = Edges::new();
    for import in imports {
        let from = edges.entry(&import.file).or_default();
        from.entry(&import.from).or_insert(import.line);
    }
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for file in edges.keys() {
        let Some(circle) = shortest(&edges, file) else {
            continue;
        };
        if seen.insert(circle.iter().copied().collect::<BTreeSet<_>>()) {
            findings.push(said(&edges, &circle));
        }
    }
    findings
}

/// The shortest way from a file back to it, without its end.
fn shortest<'a>(edges: &Edges<'a>, file: &'a Path) -> Option<Vec<&'a Path>> {
    // By which file each was reached.
    let mut reached: BTreeMap<&Path, &Path> = BTreeMap::new();
    let mut next = VecDeque::from([file]);
    while let Some(at) = next.pop_front() {
        for to in edges.get(at).into_iter().flat_map(BTreeMap::keys) {
            if *to == file {
                let mut circle = vec![at];
                let mut last = at;
                while last != file {
                    last = reached[last];
                    circle.push(last);
                }
                circle.reverse();
                return Some(circle);
            }
            if !reached.contains_key(to) {
                reached.insert(to, at);
                next.push_back(to);
            }
        }
    }
    None
}

fn said(edges: &Edges, circle: &[&Path]) -> String {
    let mut said = String::from("circle: ");
    for (number, file) in circle.iter().enumerate() {
        let to = circle[(number + 1) % circle.len()];
        let line = edges[file][to];
        said += &format!("src/{}:{line} -> ", file.display());
    }
    said + &format!("src/{}", circle[0].display())
}
