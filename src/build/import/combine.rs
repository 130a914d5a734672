//! Several imports as one: which of them are contained in another, and which share steps.
//!
//! BuildKit asks all caches for a step and goes on with the first that answers, in which the steps above
//! have to be, too (`solver/combinedcache.go`, `getIDFromDeps` in `solver/cachemanager.go`, v0.34.2). So
//! where two caches share a step, one of them hides what only the other one has above it, by chance. One
//! cache that has the records of both hides nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::image::CachedImage;
use crate::cache::record::{Digest, RecordSet};

/// The most records of all imports together. If they have more, no imports are combined.
const MAX_RECORDS: usize = 100_000;

/// What becomes of the imports of a build, by their numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Combination {
    /// Imports whose records and results another import has too, each with that one.
    pub contained: Vec<(usize, usize)>,
    /// Imports that the daemon is to import as one, in groups.
    pub groups: Vec<Vec<usize>>,
}

/// Decides which imports to combine. Each import is given by its images.
pub fn combine(imports: &[&[CachedImage]]) -> Combination {
    let sets = imports.iter().copied().flatten().map(CachedImage::set);
    if sets.map(|set| set.records().len()).sum::<usize>() > MAX_RECORDS {
        return Combination::default();
    }
    let mut left: Vec<usize> = (0..imports.len()).collect();
    left.retain(|number| !imports[*number].is_empty());
    let contained = drop_contained(imports, &mut left);
    let groups = groups(imports, &left);
    Combination { contained, groups }
}

/// Takes out the imports whose records and results another import has too.
fn drop_contained(imports: &[&[CachedImage]], left: &mut Vec<usize>) -> Vec<(usize, usize)> {
    let records = imports.iter().map(|images| {
        let sets = images.iter().map(CachedImage::set);
        sets.map(RecordSet::by_identity).collect::<Vec<_>>()
    });
    let records: Vec<_> = records.collect();
    let holds = |one: usize, other: usize| {
        records[other].iter().all(|other| {
            records[one].iter().any(|one| {
                let mut other = other.iter();
                other.all(|(id, results)| one.get(id).is_some_and(|of| results.is_subset(of)))
            })
        })
    };
    let mut contained = Vec::new();
    // Of equal ones the first stays.
    for number in left.clone().into_iter().rev() {
        let mut others = left.iter().filter(|other| **other != number);
        if let Some(&holder) = others.find(|other| holds(**other, number)) {
            contained.push((number, holder));
            left.retain(|of| *of != number);
        }
    }
    contained
}

/// Groups the imports whose images share steps.
fn groups(imports: &[&[CachedImage]], left: &[usize]) -> Vec<Vec<usize>> {
    // By import, the first one that it shares a step with.
    let mut group_of: BTreeMap<usize, usize> = left.iter().map(|n| (*n, *n)).collect();
    let mut sharing = HashSet::new();
    // By step, the first image that has it.
    let mut first: HashMap<&Digest, (usize, usize)> = HashMap::new();
    for &number in left {
        for (position, image) in imports[number].iter().enumerate() {
            let steps = image.set().records().iter().filter(|of| !of.is_root());
            for step in steps {
                let own = (number, position);
                let known = *first.entry(&step.digest).or_insert(own);
                if known == own {
                    continue;
                }
                let (other, _) = known;
                sharing.insert(number);
                let (from, to) = (group_of[&number], group_of[&other]);
                for group in group_of.values_mut().filter(|group| **group == from) {
                    *group = to;
                }
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, group) in group_of {
        groups.entry(group).or_default().push(number);
    }
    let groups = groups.into_values();
    let shared = groups.filter(|group| group.iter().any(|number| sharing.contains(number)));
    shared.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::import::image::tests::image;

    /// A record of a step on the root 0, with the image's layer.
    fn step(n: usize) -> String {
        format!(r#"{{"digest":"sha256:{n:064x}","inputs":[[{{"link":0}}]],"layers":[{{}}]}}"#)
    }

    fn import(steps: &[usize]) -> Vec<CachedImage> {
        let root = format!(r#"{{"digest":"sha256:{:064x}"}}"#, 0xa);
        let steps: Vec<_> = [root]
            .into_iter()
            .chain(steps.iter().map(|n| step(*n)))
            .collect();
        vec![image(&format!("[{}]", steps.join(",")))]
    }

    fn combined(imports: &[Vec<CachedImage>]) -> Combination {
        combine(&imports.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    #[test]
    fn what_another_one_has_is_not_imported() {
        let found = combined(&[import(&[1]), import(&[1, 2]), import(&[1, 2])]);
        assert_eq!(found.contained, [(2, 1), (0, 1)]);
        assert!(found.groups.is_empty());
    }

    #[test]
    fn imports_that_share_a_step_are_one() {
        let found = combined(&[import(&[1, 2]), import(&[3]), import(&[1, 4]), Vec::new()]);
        assert!(found.contained.is_empty());
        assert_eq!(found.groups, [[0, 2]]);
    }

    #[test]
    fn imports_that_share_no_step_stay_as_they_are() {
        let found = combined(&[import(&[1]), import(&[2])]);
        assert_eq!(found, Combination::default());
    }
}
