//! The task that tells watchers what changed.
//!
//! At a steady pace: a popular agent that comes and goes is not to take the processor from those who
//! have messages under way. Agents that changed take their turns; within one of them the watchers
//! are told in the order of their sessions.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{Part, change::Teller};
use crate::router::Router;

/// So many watchers are told before messages get their turn, and then no more for a while. Each is
/// a task that wakes and writes to its socket.
const AT_ONCE: usize = 16;
const PACE: Duration = Duration::from_millis(1);

/// Tells watchers, until dropped.
pub(crate) async fn serve(router: Arc<Router>) {
    let watches = &router.presence.watches;
    let teller = Teller { voice: &router.voice };
    let mut pace = interval(PACE);
    // What was not told in time is not made up for by a rush.
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = 0;
    loop {
        let key = watches.next_changed().await;
        let (mut after, mut up_to) = (None, None);
        loop {
            let Part { watchers, changes, more } = watches.part(key, after, AT_ONCE);
            up_to = up_to.or_else(|| changes.last().map(|change| change.number()));
            after = watchers.last().map(|session| session.id);
            for session in watchers {
                let outcome = session.watcher.tell(&session.outbox, &changes, teller);
                router.telemetry.watches.told(outcome);
                told += outcome.told;
            }
            if told >= AT_ONCE {
                told = 0;
                pace.tick().await;
            } else {
                tokio::task::yield_now().await;
            }
            if !more {
                break;
            }
        }
        watches.told(key, up_to.unwrap_or(0));
    }
}
