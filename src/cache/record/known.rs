//! Whether a cache is one that is known already.
//!
//! A daemon may tell less of a build than it imported: it leaves out results that it has in another
//! compression, and the content that a step read where it found the step by its definition.

use std::collections::{BTreeSet, HashMap};

use super::{Digest, InlineCache, Limits, Link, RecordSet, select};

/// What a cache tells of the content of results that steps read.
type Contents = HashMap<(Digest, usize), BTreeSet<Digest>>;

// === impl InlineCache ===

impl InlineCache {
    /// Whether this is a known cache, of an image with the same layers, or a part of it: it has the same
    /// records, and may lack results, and contents beside definitions where only one is known.
    pub fn is_part_of(&self, known: &RecordSet) -> bool {
        // To the last link: what is not of this build, another build must not have from it.
        let Ok(all) = select(known) else {
            return false;
        };
        if !all.is_all_of(known) {
            return false;
        }
        all.extends(self)
            || match (split(&all), split(self)) {
                (Some((all, known)), Some((own, told))) => {
                    all.extends(&own) && is_told(&told, &known)
                }
                _ => false,
            }
    }

    /// Whether it has as many records, links and results as the set that it was selected from.
    fn is_all_of(&self, set: &RecordSet) -> bool {
        let links = |inputs: &Vec<Vec<Link>>| inputs.iter().map(Vec::len).sum::<usize>();
        let own = self.records().iter();
        let own = own.map(|of| (links(&of.inputs), usize::from(of.result.is_some())));
        let all = set.records().iter();
        let all = all.map(|of| (links(&of.inputs), of.results.len()));
        let sum = |(a, b), (c, d)| (a + c, b + d);
        self.records().len() == set.records().len()
            && own.fold((0, 0), sum) == all.fold((0, 0), sum)
    }

    /// Whether it has the records of another cache and no others, and of each the result that the other
    /// one has. It may have more results.
    fn extends(&self, other: &Self) -> bool {
        let mut pairs = self.records().iter().zip(other.records());
        self.layers() == other.layers()
            && self.records().len() == other.records().len()
            && pairs.all(|(own, other)| {
                own.digest == other.digest
                    && own.inputs == other.inputs
                    && (other.result.is_none() || own.result == other.result)
            })
    }
}

/// A cache without the contents that inputs have beside their definitions, and those.
fn split(cache: &InlineCache) -> Option<(InlineCache, Contents)> {
    let layers: Vec<_> = (0..cache.layers())
        .map(|layer| Digest::of(&layer.to_be_bytes()))
        .collect();
    let set = RecordSet::parse_inline(&cache.to_json(), &layers, &Limits::default()).ok()?;
    let mut records = set.records().to_vec();
    for links in records.iter_mut().flat_map(|record| &mut record.inputs) {
        if links.iter().any(|link| !set.is_content(link)) {
            links.retain(|link| !set.is_content(link));
        }
    }
    let without = set.with_records(records).ok()?;
    let identities = without.identities();
    let mut contents = Contents::new();
    for (number, record) in set.records().iter().enumerate() {
        for (input, links) in record.inputs.iter().enumerate() {
            if links.len() > without.records()[number].inputs[input].len() {
                let beside = links.iter().filter(|link| set.is_content(link));
                let roots = beside.map(|link| set.records()[link.record].digest.clone());
                let at = (identities[number].clone(), input);
                contents.entry(at).or_default().extend(roots);
            }
        }
    }
    Some((select(&without).ok()?, contents))
}

/// Whether the known contents are the told ones, and single ones where none are told.
fn is_told(told: &Contents, known: &Contents) -> bool {
    let is_known = |at| known.contains_key(at);
    let mut pairs = known.iter();
    told.keys().all(is_known)
        && pairs.all(|(at, roots)| match told.get(at) {
            Some(told) => told == roots,
            None => roots.len() == 1,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step reads a file of another one, and has these links to it and to so many contents.
    fn set(links: &str, contents: usize) -> RecordSet {
        let record = |n: usize| format!(r#"{{"digest":"sha256:{n:064}"}}"#);
        let mut records: Vec<_> = (0..=contents).map(record).collect();
        records.push(format!(
            r#"{{"digest":"sha256:{:064}","inputs":[[{links}]],"layers":[{{}}]}}"#,
            9
        ));
        let json = format!("[{}]", records.join(","));
        let layers = [Digest::of(b"layer")];
        RecordSet::parse_inline(json.as_bytes(), &layers, &Limits::default()).unwrap()
    }

    fn is_part(told: &str, known: &str) -> bool {
        let set = |links: &str| set(links, links.matches("link").count());
        select(&set(told)).unwrap().is_part_of(&set(known))
    }

    #[test]
    fn a_cache_may_lack_the_content_beside_a_definition() {
        let definition = r#"{"selector":"s"}"#;
        let one = format!(r#"{definition},{{"link":1}}"#);
        let two = format!(r#"{one},{{"link":2}}"#);
        assert!(is_part(definition, definition));
        assert!(is_part(definition, &one));
        assert!(is_part(&one, &one));
        assert!(is_part(&two, &two));
        assert!(!is_part(&one, definition), "it tells more");
        assert!(!is_part(&one, &two), "another one is known");
        assert!(!is_part(definition, &two), "it may be either");
        let other = r#"{"selector":"t"},{"link":1}"#;
        assert!(!is_part(definition, other), "it is another step");
    }
}
