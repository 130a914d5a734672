//! What all builds share.

use super::export::recall::Recall;
use super::export::unknown_keys::UnknownKeys;
use super::import::documents::KnownDocuments;
use super::import::loopback::Loopback;
use super::import::memory::ImportMemory;
use super::policy::Policy;
use crate::session::Sessions;

/// The operator's policy, and what outlives a build.
#[derive(Debug)]
pub struct Shared {
    /// What the operator decided.
    pub policy: Policy,
    /// The sessions of clients.
    pub sessions: Sessions,
    /// What is remembered of earlier builds.
    pub recall: Recall,
    /// The registry from which daemons import what inlay serves.
    pub loopback: Loopback,
    /// Documents of images that imports read before.
    pub known_documents: KnownDocuments,
    /// The memory for imports.
    pub import_memory: ImportMemory,
    /// Builds whose daemons derive keys in a way that inlay does not know.
    pub unknown_keys: UnknownKeys,
}

// === impl Shared ===

impl Shared {
    /// The state of a server that starts.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            sessions: Sessions::default(),
            recall: Recall::default(),
            loopback: Loopback::default(),
            known_documents: KnownDocuments::default(),
            import_memory: ImportMemory::default(),
            unknown_keys: UnknownKeys::default(),
        }
    }
}
