//! What all builds share.

use super::export::recall::Recall;
use super::policy::Policy;
use crate::daemon::Daemon;
use crate::session::Sessions;

/// The daemon, the operator's policy, and what outlives a build.
#[derive(Debug)]
pub struct Shared {
    /// The daemon that all builds are on.
    pub daemon: Daemon,
    /// What the operator decided.
    pub policy: Policy,
    /// The sessions of clients.
    pub sessions: Sessions,
    /// What is remembered of images.
    pub recall: Recall,
}

// === impl Shared ===

impl Shared {
    /// Nothing is in flight, and nothing is remembered yet.
    pub fn new(daemon: Daemon, policy: Policy) -> Self {
        Self {
            daemon,
            policy,
            sessions: Sessions::default(),
            recall: Recall::default(),
        }
    }
}
