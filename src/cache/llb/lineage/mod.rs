//! Which links of an exported cache belong to the build that a definition describes.
//! It is computed from the records, the definition, and what its caller knows of the sources.
//!
//! # The question
//! Beside the keys of this build, a daemon exports every other chain of keys that once led to the same
//! content. So an input of a record has links to the keys of its source in this build, and to those of
//! earlier builds. Links that are known to be of earlier builds are dropped. Links that are in doubt stay.
//!
//! # The argument
//! Say that record `r` *is* vertex `v` if `r` is the key of `v` in this build. Then for each
//! input of `v`, with `u` the vertex it reads, `r` has a link that this build made, and that link
//! leads either to the key of `u` (a *definition* link, with the selector that `v` has for the
//! input), or to the root of the content that was read (a *content* link, without a selector).
//! So a link from `r` is *refuted* for the input if
//! 1. it is a content link and the content is known to be another;
//! 2. it is a definition link, and
//!    - `u` is a directory of the client: keys of those are random, and never exported;
//!    - or `u` is another source, and the link leads to a record with inputs, or to a root that
//!      is known not to be its key;
//!    - or `u` is an operation, and the link leads to a record that has inputs where `u` has none
//!      or the other way round, or that has another digest than `u`, or that is refuted as `u`.
//!
//! And `r` is refuted as `v` if all links of one of its inputs are. Vertices form an order, inputs
//! first, and each step from a pair `(r, v)` to a pair `(s, u)` descends in it, so this recursion
//! ends, whatever the links of the records are.
//!
//! From the final records, which are the terminal vertex, the links that are not refuted lead to
//! all that may belong to the build. A record may be several vertices: it keeps what any of them
//! keeps. Refutation is of a link for a vertex's input, never of a root as such, because one
//! content can be this build's in one place and an earlier build's in another.
//!
//! # What the records tell of content
//! If `r` has a definition link that is not refuted, then its content links for the same input are
//! of what `u` produced under a key that this build has: a daemon finds the record of an operation by
//! any of its keys, and adds the others to it. So content that no such record has is another build's, and
//! the search is repeated with that knowledge. If no such record has content, or there is no such record,
//! nothing is concluded.
//!
//! # What is certain
//! A record is certain to be the key of `v` if it is the only end, or if it is reached from a certain record
//! by the only link of an input, and that link is by definition. If an input of such a record has a single
//! content, that is its content in this build; if a source has a single key, that is its key. In a build that
//! imports caches anything else is in doubt: links below content may be those of an earlier build that
//! produced the same content. Without an import the daemon adds the keys of this build, so a single content
//! or key is this build's.
//!
//! # Records that no link leads to
//! Where equal operations are made of one another, BuildKit's records can form a loop, and the daemon
//! drops a link of it. The records below are exported, but no link leads to them. Such a record is `v` if
//! each of its inputs fits that of `v` by a known key of its definition. Content does not count.
//!
//! # What is not concluded
//! - The digests of a kind of operation only count if any of them occurs among the records, in one
//!   dialect and not in another, and if no record that is certain to be one of them has another digest:
//!   otherwise the daemon may derive digests in another way.
//! - Where the number of inputs differs, or the vertex is of a kind that is not covered, a record
//!   keeps all that leads to it.
//! - If all final records are refuted as the terminal vertex, an assumption is wrong: everything stays, and
//!   [`Lineage::contradicted`] says so.
//!
//! # The parts
//! `evidence` is what is known beside the definition, `refute` decides whether a record can be a vertex,
//! `trace` follows the remaining links from the final records down, and `verdict` has the outcome.

mod ends;
mod evidence;
mod refute;
mod trace;
mod verdict;

pub use ends::{by_key, drop_cut};
pub use evidence::{Assumptions, Evidence};
pub use verdict::{Lineage, LineageError, Question};

#[cfg(test)]
mod tests;
