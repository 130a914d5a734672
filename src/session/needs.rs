//! Which sessions inlay has a part in: those of builds that want something of it there.
//!
//! A session opens before anybody knows what its builds ask for, and a client names it in a solve at
//! about the same time. So the session waits for that a moment. It knows sessions by their ids, and
//! nothing of what they carry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a session waits to be named by a build.
const MAX_UNNAMED: Duration = Duration::from_millis(100);

/// The sessions that builds in flight name.
#[derive(Debug, Clone, Default)]
pub struct Needs(Arc<Named>);

#[derive(Debug, Default)]
struct Named {
    sessions: Mutex<HashMap<String, Uses>>,
    changed: Notify,
}

/// How many builds name a session, and how many of them need inlay in it.
#[derive(Debug, Default)]
struct Uses {
    builds: usize,
    needing: usize,
}

/// Keeps a build's sessions known until it is dropped.
#[derive(Debug)]
pub struct Naming {
    needs: Needs,
    sessions: Vec<String>,
    needed: bool,
}

// === impl Needs ===

impl Needs {
    /// Makes known that a build names sessions, and whether inlay is needed in them.
    pub fn name(&self, sessions: Vec<String>, needed: bool) -> Naming {
        let mut named = self.lock();
        for session in &sessions {
            let uses = named.entry(session.clone()).or_default();
            uses.builds += 1;
            uses.needing += usize::from(needed);
        }
        drop(named);
        self.0.changed.notify_waiters();
        Naming {
            needs: self.clone(),
            sessions,
            needed,
        }
    }

    /// Whether a session that opens may need inlay: unless all builds that name it, and one does
    /// soon, need nothing.
    pub async fn may_need(&self, session: &str) -> bool {
        let named = async {
            loop {
                let changed = self.0.changed.notified();
                if let Some(uses) = self.lock().get(session) {
                    return uses.needing > 0;
                }
                changed.await;
            }
        };
        timeout(MAX_UNNAMED, named).await.unwrap_or(true)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Uses>> {
        // Nothing panics while it is held.
        let sessions = self.0.sessions.lock();
        sessions.unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Naming ===

impl Drop for Naming {
    fn drop(&mut self) {
        let mut named = self.needs.lock();
        for session in &self.sessions {
            if let Some(uses) = named.get_mut(session) {
                uses.builds -= 1;
                uses.needing -= usize::from(self.needed);
                if uses.builds == 0 {
                    named.remove(session);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(ids: &[&str]) -> Vec<String> {
        ids.iter().copied().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_session_needs_what_its_builds_need() {
        let needs = Needs::default();
        assert!(needs.may_need("a").await, "nobody names it");
        let nothing = needs.name(sessions(&["a", "b"]), false);
        assert!(!needs.may_need("a").await);
        let something = needs.name(sessions(&["a"]), true);
        assert!(needs.may_need("a").await);
        assert!(!needs.may_need("b").await);
        drop(something);
        assert!(!needs.may_need("a").await);
        drop(nothing);
        assert!(needs.lock().is_empty());
    }

    #[tokio::test]
    async fn a_build_may_name_its_session_a_moment_later() {
        let needs = Needs::default();
        let names = async {
            tokio::time::sleep(MAX_UNNAMED / 10).await;
            needs.name(sessions(&["a"]), false)
        };
        let (may_need, _naming) = tokio::join!(needs.may_need("a"), names);
        assert!(!may_need);
    }
}
