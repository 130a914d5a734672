//! Content keys: what content a build's steps read, as a cache once told it.
//!
//! BuildKit finds a step by the definition of what it reads or by its content, and links both. A
//! step that was found by its definition alone, in an imported cache, leaves a daemon without the
//! content: the next export of the same image lacks those links. [`Contents`] holds them, so that
//! they can be [added](RecordSet::add_contents) again. Knows one record set, or two of one image;
//! which sets are of one image is for the caller to know.

use std::collections::{BTreeMap, BTreeSet};

use super::identity::{Id, ids_by};
use super::{Digest, Link, RecordSet};

/// The content that the steps of a build read, beside its definition.
///
/// ```
/// use inlay::cache::record::{Contents, Limits, RecordSet};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let export = std::fs::read("examples/image/cache.json")?;
/// let set = RecordSet::parse(&export, &Limits::default())?;
/// let known = Contents::of(&set);
/// assert_eq!(known.len(), 1);
///
/// // The same build, exported by a daemon that found its steps by their definitions alone.
/// let mut later = set.clone();
/// later.retain_links(|record, input, link| {
///     set.records()[record].inputs[input].len() == 1 || !set.is_content(link)
/// });
/// assert!(Contents::of(&later).is_empty());
/// assert_eq!(later.add_contents(&known), 1);
/// assert_eq!(Contents::of(&later), known);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// What the build ends in.
    finals: BTreeSet<Id>,
    /// Digests of roots, by record and input.
    read: BTreeMap<(Id, usize), BTreeSet<Digest>>,
}

// === impl Contents ===

impl Contents {
    /// What `set` tells.
    pub fn of(set: &RecordSet) -> Self {
        let ids = ids(set);
        let mut read: BTreeMap<(Id, usize), BTreeSet<Digest>> = BTreeMap::new();
        for (record, id) in set.records().iter().zip(&ids) {
            for (input, links) in record.inputs.iter().enumerate() {
                let (content, definition) = split(set, links);
                if !content.is_empty() && !definition.is_empty() {
                    let digests = content
                        .iter()
                        .map(|link| &set.records()[link.record].digest);
                    let known = read.entry((*id, input)).or_default();
                    known.extend(digests.cloned());
                }
            }
        }
        let finals = set.finals().into_iter().map(|record| ids[record]).collect();
        Self { finals, read }
    }

    /// Whether both are of builds that end in the same.
    pub fn is_of_one_build_with(&self, other: &Self) -> bool {
        self.finals == other.finals
    }

    /// How many links it holds.
    pub fn len(&self) -> usize {
        self.read.values().map(BTreeSet::len).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty()
    }
}

impl RecordSet {
    /// Adds the links to content that `known` has for an input of a record of this set, where the
    /// input has none, and returns how many. Nothing is added to a set with another end, or beyond
    /// the limits of the set. Equal records become one before that, and records are numbered anew.
    ///
    /// It is for the caller to know that both are of images with the same layers: then content
    /// that led to the one leads to the other.
    pub fn add_contents(&mut self, known: &Contents) -> usize {
        // Else it would be one of several equal roots that is linked.
        self.unite_equal();
        let ids = ids(self);
        let finals: BTreeSet<_> = self
            .finals()
            .into_iter()
            .map(|record| ids[record])
            .collect();
        if finals != known.finals {
            return 0;
        }
        let mut added = Vec::new();
        for (number, record) in self.records().iter().enumerate() {
            for (input, links) in record.inputs.iter().enumerate() {
                let (content, definition) = split(self, links);
                if let Some(digests) = known.read.get(&(ids[number], input))
                    && content.is_empty()
                    && !definition.is_empty()
                {
                    added.extend(digests.iter().map(|digest| (number, input, digest.clone())));
                }
            }
        }
        let links: usize = self
            .records()
            .iter()
            .map(|record| record.sources().count())
            .sum();
        let limits = self.limits();
        if links + added.len() > limits.links || self.records().len() + added.len() > limits.records
        {
            return 0;
        }
        let count = added.len();
        self.link_to_roots(added);
        count
    }
}

/// Links by content and links by definition.
fn split<'a>(set: &RecordSet, links: &'a [Link]) -> (Vec<&'a Link>, Vec<&'a Link>) {
    links.iter().partition(|link| set.is_content(link))
}

/// Identities by definition: of the sources of each input those by definition count, or all if there
/// is none such.
fn ids(set: &RecordSet) -> Vec<Id> {
    let is_definition = |link: &Link| !set.is_content(link);
    let telling =
        |links: &[Link], link: &Link| is_definition(link) || !links.iter().any(is_definition);
    ids_by(set, |_| true, telling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::record::{Limits, select};

    fn digest(n: u8) -> String {
        format!("sha256:{}", format!("{n:02x}").repeat(32))
    }

    /// A stage on a local source, and a copy from it onto an image, with or without its content.
    fn set(content: bool, end: u8) -> RecordSet {
        limited(content, end, &Limits::default())
    }

    fn limited(content: bool, end: u8, limits: &Limits) -> RecordSet {
        let by_content = if content { r#",{"link":4}"# } else { "" };
        let mut records = format!(
            r#"{{"digest":"{}"}},{{"digest":"{}"}},
               {{"digest":"{}","inputs":[[{{"link":0}}]]}},
               {{"digest":"{}","inputs":[[{{"link":1}}],[{{"selector":"s","link":2}}{by_content}]]}}"#,
            digest(1),
            digest(2),
            digest(3),
            digest(end),
        );
        if content {
            records.push_str(&format!(r#",{{"digest":"{}"}}"#, digest(9)));
        }
        RecordSet::parse(format!(r#"{{"records":[{records}]}}"#).as_bytes(), limits).unwrap()
    }

    #[test]
    fn content_that_is_known_is_added_where_there_is_none() {
        let whole = set(true, 7);
        let known = Contents::of(&whole);
        assert_eq!(known.len(), 1);
        let mut lacking = set(false, 7);
        assert!(Contents::of(&lacking).is_empty());
        assert_eq!(lacking.add_contents(&known), 1);
        assert_eq!(Contents::of(&lacking), known);
        assert_eq!(lacking.sources_first().len(), 5);
        assert_eq!(lacking.add_contents(&known), 0);
    }

    /// Two roots with one digest, of which one has a result, in one order and the other. `make fuzz`
    /// found that the last of them was linked.
    #[test]
    fn of_roots_with_one_digest_none_is_forgotten() {
        let [image, copied, content] = [2, 3, 9].map(digest);
        let last = digest(7);
        let result = r#","layers":[{"layer":0}]"#;
        let embedded = [[result, ""], ["", result]].map(|[first, second]| {
            let read = |copied_from: &str| {
                let config = format!(
                    r#"{{"layers":[{{"blob":"{image}","parent":-1}}],"records":[
                        {{"digest":"{image}"}},{{"digest":"{copied}"}},
                        {{"digest":"{last}","inputs":[[{{"link":0}}],[{copied_from}]]{result}}},
                        {{"digest":"{content}"{first}}},{{"digest":"{content}"{second}}}]}}"#
                );
                RecordSet::parse(config.as_bytes(), &Limits::default()).unwrap()
            };
            let told = read(r#"{"selector":"s","link":1},{"link":3}"#);
            let mut set = read(r#"{"selector":"s","link":1}"#);
            assert_eq!(set.add_contents(&Contents::of(&told)), 1);
            String::from_utf8(select(&set).unwrap().to_json()).unwrap()
        });
        assert_eq!(embedded[0], embedded[1]);
        assert_eq!(embedded[0].matches("layers").count(), 2, "{}", embedded[0]);
    }

    #[test]
    fn nothing_is_added_to_another_build() {
        let known = Contents::of(&set(true, 7));
        assert_eq!(set(false, 8).add_contents(&known), 0);
        assert_eq!(set(true, 7).add_contents(&Contents::default()), 0);
    }

    #[test]
    fn nothing_is_added_beyond_the_limits() {
        let known = Contents::of(&set(true, 7));
        let limits = Limits {
            records: 4,
            ..Limits::default()
        };
        assert_eq!(limited(false, 7, &limits).add_contents(&known), 0);
    }
}
