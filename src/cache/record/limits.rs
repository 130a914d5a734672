//! How much of a cache is read before it is refused.
//!
//! Numbers only; the reader of JSON and [`set`](super::set) hold a cache to them.

/// Bounds on a cache that is read. Reading takes time and memory linear in them, whatever the
/// bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Length of the JSON text.
    pub bytes: usize,
    /// Number of records.
    pub records: usize,
    /// Number of links, results and layers of explicit chains, of all records together. By itself
    /// the same bound is on the layers that results name through the parents of their topmost, of
    /// which those that lie on one another count once.
    pub links: usize,
    /// Number of layers, and length of any one result.
    pub layers: usize,
    /// Length of the longest path of links, counted in links. BuildKit walks records
    /// recursively, so one that is far too deep for it helps nobody.
    pub depth: usize,
}

impl Default for Limits {
    /// Far above any real build, far below what hurts: BuildKit itself stops reading a cache
    /// config at 1 MiB.
    fn default() -> Self {
        Self {
            bytes: 8 << 20,
            records: 100_000,
            links: 1_000_000,
            layers: 10_000,
            depth: 10_000,
        }
    }
}
