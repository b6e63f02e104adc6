//! When the system hands no connections over, as when there is no file descriptor left: said at most
//! once a second while it lasts, and once when it is over.

use std::{future::pending, io, time::Duration};

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::pace::OncePerSecond;

/// It is over when nothing has failed for this long.
const QUIET: Duration = Duration::from_secs(1);

/// Of all listeners together: file descriptors are the process's.
static SAID: OncePerSecond = OncePerSecond::new();

/// What a listener has been through lately. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Trouble(Option<Episode>);

#[derive(Debug)]
struct Episode {
    began: Instant,
    failed: Instant,
    failures: u64,
    /// A connection was accepted since the last failure.
    accepts: bool,
}

impl Trouble {
    pub(super) fn failed(&mut self, error: &io::Error) {
        let now = Instant::now();
        let episode =
            self.0.get_or_insert(Episode { began: now, failed: now, failures: 0, accepts: false });
        episode.failures += 1;
        (episode.failed, episode.accepts) = (now, false);
        if SAID.due().is_some() {
            let (failures, lasted) = (episode.failures, now - episode.began);
            warn!(%error, failures, ?lasted, "cannot accept connections, still trying");
        }
    }

    pub(super) fn accepted(&mut self) {
        if let Some(episode) = &mut self.0 {
            episode.accepts = true;
        }
    }

    /// Waits until it is over, if there is any.
    pub(super) async fn over(&self) {
        match &self.0 {
            Some(episode) if episode.accepts => sleep_until(episode.failed + QUIET).await,
            _ => pending().await,
        }
    }

    pub(super) fn end(&mut self) {
        if let Some(Episode { began, failed, failures, .. }) = self.0.take() {
            info!(failures, lasted = ?(failed - began), "accepts connections again");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_over_a_second_after_the_last_failure_once_a_connection_came() {
        let is_over = async |trouble: &Trouble| {
            timeout(Duration::from_millis(1), trouble.over()).await.is_ok()
        };
        let mut trouble = Trouble::default();
        trouble.accepted();
        assert!(!is_over(&trouble).await, "there was none");
        trouble.failed(&io::Error::other("no file descriptor"));
        advance(2 * QUIET).await;
        assert!(!is_over(&trouble).await, "nobody came since");
        trouble.accepted();
        assert!(is_over(&trouble).await);
        trouble.failed(&io::Error::other("no file descriptor"));
        trouble.accepted();
        assert!(!is_over(&trouble).await, "it failed a moment ago");
        advance(QUIET).await;
        assert!(is_over(&trouble).await);
        assert_eq!(trouble.0.as_ref().unwrap().failures, 2);
        trouble.end();
        assert!(!is_over(&trouble).await);
    }
}
