//! What laying a definition over records tells.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::record::{Digest, Link};

/// An input read by content of which nothing here tells which of several it is now.
///
/// For a directory of the client, each of them had its own records. For the result of an
/// operation or an image, they are links of one record, which has the result of one of them: an
/// operation that gave different content when it ran again leaves the earlier content linked to
/// the later result, and a link kept here is not merely superfluous, it may be untrue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The vertex that reads.
    pub vertex: usize,
    /// Number of its input.
    pub input: usize,
    /// The vertex of what is read.
    pub source: usize,
    /// Whether that is a directory of the client.
    pub local: bool,
    /// Digests of the roots that it may be.
    pub candidates: BTreeSet<Digest>,
}

/// What belongs to the build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// By record and input.
    pub(super) dropped: BTreeMap<(usize, usize), BTreeSet<Link>>,
    /// The vertices that each record may be.
    pub(super) roles: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) ends: Vec<usize>,
    pub(super) questions: Vec<Question>,
    pub(super) contradicted: bool,
}

/// Why no lineage was traced.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum LineageError {
    /// More work than the assumptions allow.
    #[error("the records and the definition take more than {limit} steps to compare")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

// === impl Lineage ===

impl Lineage {
    /// Whether a link may belong to the build. Of a record that no kept link leads to, nothing
    /// is said, and its links count as kept.
    pub fn keeps(&self, record: usize, input: usize, link: &Link) -> bool {
        let dropped = self.dropped.get(&(record, input));
        !dropped.is_some_and(|links| links.contains(link))
    }

    /// The records that may be the end of the build.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// What would tell more, if it were known.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The vertices that a record may be.
    pub fn vertices(&self, record: usize) -> impl Iterator<Item = usize> + '_ {
        self.roles.get(&record).into_iter().flatten().copied()
    }

    /// Whether what was taken for known contradicts the records, so that none of them is the end of
    /// the build.
    pub fn contradicted(&self) -> bool {
        self.contradicted
    }
}
