//! Sends what the stack leaves lying on a way by a relay.
//!
//! The stack gives what goes by a TURN server to its client for that only after that client had its turn to send, so
//! each packet waits for the next thing that wakes the stack, which may be a timer 200 ms away. So on such a way it is
//! woken again and again: often while something is said, seldom else.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::webrtc::peer_connection::PeerConnection;
use tokio::time::{Instant, sleep};

use super::{events::Listener, path};
use crate::p2p::transport::CandidateKind;

/// Between two times while something is said. A packet waits for half of that, on average, at each end.
const BUSY_EVERY: Duration = Duration::from_millis(2);
/// Between two times else: as often as a search for a way does something.
const IDLE_EVERY: Duration = Duration::from_millis(20);
/// How long something counts as being said: what was handed over is mostly acknowledged by then.
const BUSY_FOR: Duration = Duration::from_secs(1);
/// How often it is looked whether the way is by a relay.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When something was said last on any channel of a connection.
#[derive(Debug)]
pub(super) struct Said {
    base: Instant,
    /// In milliseconds after that; 0 is never.
    last: AtomicU64,
}

impl Default for Said {
    fn default() -> Self {
        Self { base: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Said {
    pub(super) fn now(&self) {
        self.last.store(self.since_base().max(1), Ordering::Relaxed);
    }

    fn is_recent(&self) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        let ago = Duration::from_millis(self.since_base().saturating_sub(last));
        last > 0 && ago < BUSY_FOR
    }

    fn since_base(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Wakes a connection until it has ended.
pub(super) async fn keep_going(stack: Weak<dyn PeerConnection>, listener: Arc<Listener>) {
    let ended = listener.common.ended.clone();
    let waking = async {
        loop {
            let found = match stack.upgrade() {
                Some(stack) => path::of(&*stack).await,
                None => return,
            };
            if found.is_some_and(|path| path.local != CandidateKind::Relay) {
                // An ICE restart may lead to a relay yet.
                sleep(LOOK_EVERY).await;
                continue;
            }
            let looked = Instant::now();
            while looked.elapsed() < LOOK_EVERY {
                listener.nudge().await;
                let is_busy = listener.common.said.is_recent();
                sleep(if is_busy { BUSY_EVERY } else { IDLE_EVERY }).await;
            }
        }
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = waking => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_said_counts_for_a_second() {
        let said = Said::default();
        assert!(!said.is_recent());
        said.now();
        assert!(said.is_recent());
        tokio::time::advance(Duration::from_millis(900)).await;
        assert!(said.is_recent());
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(!said.is_recent());
    }
}
