//! What keeps a v1 registration from being used twice.
//!
//! A v1 REGISTER carries no nonce, so anyone who has seen one could send it again while it is
//! fresh. Each one whose signature verified is remembered by key and id until it is stale anyway.
//! The memory is bounded, and when it is full further ones are refused rather than old ones
//! forgotten; no key has more than its share, so that one alone cannot keep the others out. Used by the handshake and at renewals.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use conexus_protocol::{AgentKey, Timestamp};
use parking_lot::Mutex;

/// What one key may have of the memory: this part of it, and in a small one so many at least.
const SHARE: usize = 100;
const LEAST_SHARE: usize = 16;

type Used = Arc<(AgentKey, Box<str>)>;

/// Why a registration is not accepted as new.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFresh {
    #[error("timestamp is further from the gateway's clock than signatures.max_clock_skew")]
    Stale,
    #[error("timestamp is from before the gateway started")]
    BeforeStart,
    #[error("message was used before")]
    Replayed,
    #[error("too many registrations to remember (signatures.replay_cache)")]
    CacheFull,
    #[error("too many registrations of this agent to remember")]
    ShareFull,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct ReplayGuard {
    skew_nanos: i128,
    started_at: Timestamp,
    capacity: usize,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    used: HashSet<Used>,
    /// How many of them are each key's; those that have none are not there.
    of_key: HashMap<AgentKey, usize>,
    /// By the moment from which on they are stale, in nanoseconds of the wall clock.
    stale_from: BinaryHeap<Reverse<(i128, Used)>>,
}

impl ReplayGuard {
    pub(crate) fn new(skew: Duration, capacity: usize, started_at: Timestamp) -> Self {
        let skew_nanos = i128::try_from(skew.as_nanos()).unwrap_or(i128::MAX / 4);
        Self { skew_nanos, started_at, capacity, memory: Mutex::default() }
    }

    /// Whether a timestamp is fresh. To be asked before the signature is verified: it is cheap.
    pub(crate) fn check_fresh(&self, stamped: Timestamp, now: Timestamp) -> Result<(), NotFresh> {
        let age = now.as_unix_nanos() - stamped.as_unix_nanos();
        if age.abs() > self.skew_nanos {
            return Err(NotFresh::Stale);
        }
        if stamped < self.started_at {
            return Err(NotFresh::BeforeStart);
        }
        Ok(())
    }

    /// Enters a verified registration. Fails if it was entered before.
    pub(crate) fn enter(
        &self,
        key: AgentKey,
        id: &str,
        stamped: Timestamp,
        now: Timestamp,
    ) -> Result<(), NotFresh> {
        let now = now.as_unix_nanos();
        let used: Used = Arc::new((key, id.into()));
        let mut memory = self.memory.lock();
        while let Some(Reverse((stale_from, _))) = memory.stale_from.peek() {
            if *stale_from >= now {
                break;
            }
            if let Some(Reverse((_, stale))) = memory.stale_from.pop() {
                memory.used.remove(&stale);
                if let Entry::Occupied(mut count) = memory.of_key.entry(stale.0) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
        }
        if memory.used.contains(&used) {
            return Err(NotFresh::Replayed);
        }
        if memory.used.len() >= self.capacity {
            return Err(NotFresh::CacheFull);
        }
        let count = memory.of_key.entry(key).or_default();
        if *count >= (self.capacity / SHARE).max(LEAST_SHARE) {
            return Err(NotFresh::ShareFull);
        }
        *count += 1;
        memory.stale_from.push(Reverse((stamped.as_unix_nanos() + self.skew_nanos, used.clone())));
        memory.used.insert(used);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;

    use super::*;

    const SKEW: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_800_000_000_000 + seconds * 1000)
    }

    fn guard(capacity: usize) -> ReplayGuard {
        ReplayGuard::new(SKEW, capacity, at(0))
    }

    #[test]
    fn fresh_is_within_the_skew_on_both_sides_and_after_the_start() {
        let guard = guard(9);
        for (stamped, now, verdict) in [
            (10, 10, Ok(())),
            (10, 70, Ok(())),
            (10, 71, Err(NotFresh::Stale)),
            (160, 100, Ok(())),
            (161, 100, Err(NotFresh::Stale)),
            (-1, 5, Err(NotFresh::BeforeStart)),
        ] {
            assert_eq!(guard.check_fresh(at(stamped), at(now)), verdict, "{stamped} at {now}");
        }
    }

    #[test]
    fn the_same_id_of_the_same_key_counts_once_while_it_is_fresh() {
        let guard = guard(9);
        let (a, b) = (Identity::generate().key(), Identity::generate().key());
        guard.enter(a, "1", at(10), at(10)).unwrap();
        assert_eq!(guard.enter(a, "1", at(10), at(70)), Err(NotFresh::Replayed));
        guard.enter(a, "2", at(10), at(10)).unwrap();
        guard.enter(b, "1", at(10), at(10)).unwrap();
    }

    #[test]
    fn a_full_memory_refuses_until_something_is_stale() {
        let guard = guard(1);
        let key = Identity::generate().key();
        guard.enter(key, "1", at(10), at(10)).unwrap();
        assert_eq!(guard.enter(key, "2", at(70), at(70)), Err(NotFresh::CacheFull));
        guard.enter(key, "3", at(71), at(71)).unwrap();
        assert_eq!(guard.enter(key, "1", at(71), at(71)), Err(NotFresh::CacheFull));
    }

    #[test]
    fn one_key_does_not_fill_the_memory_that_all_share() {
        let guard = guard(2000);
        let (greedy, other) = (Identity::generate().key(), Identity::generate().key());
        let enter = |key, id: u32, second| {
            guard.enter(key, &id.to_string(), at(second), at(second)).is_ok()
        };
        assert_eq!((0..3000).filter(|id| enter(greedy, *id, 10)).count(), 20);
        assert_eq!(guard.enter(greedy, "0", at(10), at(10)), Err(NotFresh::Replayed));
        assert!(enter(other, 0, 10));
        // What is stale makes room, and who has nothing left is forgotten.
        assert_eq!((0..3000).filter(|id| enter(greedy, *id, 71)).count(), 20);
        assert_eq!(guard.memory.lock().of_key.len(), 1);
        assert!(enter(other, 1, 132));
        assert_eq!(guard.memory.lock().of_key.len(), 1);
    }
}
