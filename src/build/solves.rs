//! The solves in flight, and the gateway calls that wait for theirs to be sent.
//!
//! A client makes its solve and its first gateway call, a ping, at the same time. buildkitd waits 3 s for
//! the solve of a ping (`Get` in `util/registrar/registrar.go`), and then answers `no such job`. inlay
//! asks the daemon something before it sends a solve, and a daemon under load can take longer than
//! that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::daemon::build_of;

/// The call that a gateway client makes first.
const PING: &str = "/moby.buildkit.v1.frontend.LLBBridge/Ping";
/// How long a ping is held for a solve that has not come yet.
const SOLVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The solves in flight, by the refs of their builds.
#[derive(Debug, Clone, Default)]
pub struct Solves(Arc<watch::Sender<HashMap<String, Stage>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not been sent to the daemon.
    Held,
    /// It has been.
    Sent,
}

/// Keeps a solve known until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    solves: Solves,
    /// `None` for a second solve of a ref, which the daemon refuses. The first one stays known.
    reference: Option<String>,
}

/// Holds the gateway calls of a build until it is dropped.
#[derive(Debug)]
pub struct Unsent {
    solves: Solves,
    reference: String,
}

// === impl Solves ===

impl Solves {
    /// A solve has come, and is not sent yet.
    pub fn hold(&self, reference: &str) -> (InFlight, Unsent) {
        let is_first = self.0.send_if_modified(|solves| {
            let is_first = !solves.contains_key(reference);
            if is_first {
                solves.insert(reference.to_owned(), Stage::Held);
            }
            is_first
        });
        let in_flight = InFlight {
            solves: self.clone(),
            reference: is_first.then(|| reference.to_owned()),
        };
        let unsent = Unsent {
            solves: self.clone(),
            reference: reference.to_owned(),
        };
        (in_flight, unsent)
    }

    /// Waits until the solve of a gateway call has been sent. A ping waits also for one that has not
    /// come yet, and passes where none comes.
    pub async fn sent_before(&self, path: &str, headers: &HeaderMap) {
        let Some(reference) = build_of(headers) else {
            return;
        };
        let mut solves = self.0.subscribe();
        if path == PING {
            let known = solves.wait_for(|solves| solves.contains_key(reference));
            // The daemon answers for a solve that does not come.
            let _ = timeout(SOLVE_TIMEOUT, known).await;
        }
        // The sender is not dropped meanwhile: it is `self`.
        let _ = solves
            .wait_for(|solves| solves.get(reference) != Some(&Stage::Held))
            .await;
    }
}

// === impl InFlight ===

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(reference) = &self.reference {
            self.solves
                .0
                .send_if_modified(|solves| solves.remove(reference).is_some());
        }
    }
}

// === impl Unsent ===

impl Drop for Unsent {
    fn drop(&mut self) {
        self.solves.0.send_if_modified(|solves| {
            let stage = solves.get_mut(&self.reference);
            stage.is_some_and(|stage| std::mem::replace(stage, Stage::Sent) == Stage::Held)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use futures_util::FutureExt as _;
    use http::HeaderName;
    use tokio::time::Instant;

    use super::*;
    use crate::daemon::BUILD_HEADER;

    fn headers(reference: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static(BUILD_HEADER),
            reference.parse().unwrap(),
        )])
    }

    /// What a wait takes on the clock of the test.
    async fn time(wait: impl Future<Output = ()>) -> Duration {
        let began = Instant::now();
        wait.await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn gateway_calls_wait_for_their_solve_to_be_sent() {
        let solves = Solves::default();
        let (in_flight, unsent) = solves.hold("a");
        let build = headers("a");
        assert!(solves.sent_before(PING, &build).now_or_never().is_none());
        assert!(solves.sent_before("/any", &build).now_or_never().is_none());
        assert!(
            solves
                .sent_before(PING, &HeaderMap::new())
                .now_or_never()
                .is_some()
        );
        drop(unsent);
        assert!(solves.sent_before(PING, &build).now_or_never().is_some());
        assert!(solves.sent_before("/any", &build).now_or_never().is_some());
        drop(in_flight);
        assert!(solves.sent_before("/any", &build).now_or_never().is_some());
        assert_eq!(time(solves.sent_before(PING, &build)).await, SOLVE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_waits_for_a_solve_that_comes_after_it() {
        let solves = Solves::default();
        let build = headers("a");
        assert!(solves.sent_before("/any", &build).now_or_never().is_some());
        let comes = async {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let (_in_flight, unsent) = solves.hold("a");
            tokio::time::sleep(Duration::from_secs(10)).await;
            drop(unsent);
        };
        let (waited, ()) = tokio::join!(time(solves.sent_before(PING, &build)), comes);
        assert_eq!(waited, Duration::from_millis(10_900));
    }

    #[tokio::test]
    async fn a_second_solve_of_a_ref_leaves_the_first_one_known() {
        let solves = Solves::default();
        let (_first, unsent) = solves.hold("a");
        drop(unsent);
        let second = solves.hold("a");
        drop(second);
        let build = headers("a");
        assert!(solves.sent_before(PING, &build).now_or_never().is_some());
    }
}
