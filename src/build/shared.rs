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
    /// What is remembered of images.
    pub recall: Recall,
    /// Where daemons import from what inlay serves.
    pub loopback: Loopback,
    /// What imports read before.
    pub known_documents: KnownDocuments,
    /// What imports may take.
    pub import_memory: ImportMemory,
    /// Builds whose keys are not known.
    pub unknown_keys: UnknownKeys,
}

// === impl Shared ===

impl Shared {
    /// Nothing is in flight, and nothing is remembered yet.
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
