//! The content that steps read, where records have it beside the keys of what produced it.

use std::collections::{BTreeSet, HashMap};

use super::{Digest, RecordSet};

/// The digests of roots of content, by the identity of a record and by input.
pub type Contents = HashMap<(Digest, usize), BTreeSet<Digest>>;

// === impl RecordSet ===

impl RecordSet {
    /// The set without the content that inputs have beside a link by definition, and that content. Records
    /// keep their numbers. Identities are those of the returned set.
    ///
    /// With it, two caches of one build can be compared if one of them lacks content. `None` where the set
    /// exceeds its limits.
    pub fn without_contents(&self) -> Option<(Self, Contents)> {
        let is_beside = |links: &[_]| links.iter().any(|link| !self.is_content(link));
        let mut records = self.records().to_vec();
        for links in records.iter_mut().flat_map(|record| &mut record.inputs) {
            if is_beside(links) {
                links.retain(|link| !self.is_content(link));
            }
        }
        let without = self.with_records(records).ok()?;
        let mut contents = Contents::new();
        for (record, identity) in self.records().iter().zip(without.identities()) {
            let inputs = record.inputs.iter().enumerate();
            for (input, links) in inputs.filter(|(_, links)| is_beside(links)) {
                let beside = links.iter().filter(|link| self.is_content(link));
                let roots = beside.map(|link| self.records()[link.record].digest.clone());
                let roots: BTreeSet<_> = roots.collect();
                if !roots.is_empty() {
                    let at = (identity.clone(), input);
                    contents.entry(at).or_default().extend(roots);
                }
            }
        }
        Some((without, contents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::record::Limits;

    fn digest(n: usize) -> Digest {
        Digest::parse(&format!("sha256:{n:064}")).unwrap()
    }

    /// A step reads a file of another one, and has these links to it and to two contents.
    fn set(links: &str) -> RecordSet {
        let roots = (0..3).map(|n| format!(r#"{{"digest":"{}"}}"#, digest(n)));
        let step = format!(r#"{{"digest":"{}","inputs":[[{links}]]}}"#, digest(3));
        let records: Vec<_> = roots.chain([step]).collect();
        let json = format!("[{}]", records.join(","));
        RecordSet::parse_inline(json.as_bytes(), &[], &Limits::default()).unwrap()
    }

    #[test]
    fn content_beside_a_definition_is_told_apart() {
        let definition = r#"{"selector":"s"}"#;
        let (plain, none) = set(definition).without_contents().unwrap();
        assert!(none.is_empty());
        let both = format!(r#"{definition},{{"link":1}},{{"link":2}}"#);
        let (without, contents) = set(&both).without_contents().unwrap();
        assert_eq!(without.records(), plain.records());
        let at = (plain.identities()[3].clone(), 0);
        assert_eq!(
            contents,
            Contents::from([(at, BTreeSet::from([digest(1), digest(2)]))])
        );
        // Alone it is the key.
        let alone = r#"{"link":1}"#;
        let (without, contents) = set(alone).without_contents().unwrap();
        assert_eq!(without.records(), set(alone).records());
        assert!(contents.is_empty());
    }
}
