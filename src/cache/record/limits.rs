//! Limits on a cache that is read. The reader of JSON and [`set`](super::set) refuse a cache that exceeds
//! them.

/// Bounds on a cache that is read. Reading takes time and memory linear in them, whatever the
/// bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Length of the JSON text.
    pub bytes: usize,
    /// Number of records.
    pub records: usize,
    /// Number of links, results and layers of explicit chains, of all records together. The layers below
    /// the topmost layers of results are counted apart, with the same bound. Chains that lie on one another
    /// count once there.
    pub links: usize,
    /// Number of layers, and length of any one result.
    pub layers: usize,
    /// Number of links in the longest path. BuildKit walks records recursively, and could not use a deeper
    /// cache.
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
