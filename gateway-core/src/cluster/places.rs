//! Where agents of other nodes are, as far as this node remembers.
//!
//! Only who was found is remembered, not who was nowhere: they may come any moment. A memory is no
//! older than `cluster.cache_age`. One that is wrong costs a way for nothing, no message: the node that
//! it names says so.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use conexus_plugin_api::Agent;
use conexus_protocol::AgentKey;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    backplane::Entry,
    ids::{Epoch, MemberId},
};

/// Enough that two cores seldom meet at one lock.
const SHARDS: usize = 16;

/// Where an agent is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) member: MemberId,
    pub(crate) epoch: Epoch,
    pub(crate) agent: Arc<Agent>,
    found_at: Instant,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Places {
    shards: Box<[Mutex<LruCache<AgentKey, Place>>]>,
    age: Duration,
}

impl Places {
    pub(crate) fn new(entries: usize, age: Duration) -> Self {
        let each = NonZeroUsize::new(entries.div_ceil(SHARDS)).unwrap_or(NonZeroUsize::MIN);
        // Not `new`, which takes the memory for all of them at once.
        let shard = || {
            let mut cache = LruCache::unbounded();
            cache.resize(each);
            Mutex::new(cache)
        };
        Self { shards: std::iter::repeat_with(shard).take(SHARDS).collect(), age }
    }

    fn shard(&self, key: AgentKey) -> &Mutex<LruCache<AgentKey, Place>> {
        // Not the byte that divides the directory.
        &self.shards[usize::from(key.as_bytes()[1]) % SHARDS]
    }

    /// What is remembered, if it is not too old.
    pub(crate) fn get(&self, key: AgentKey) -> Option<Place> {
        let mut shard = self.shard(key).lock();
        match shard.get(&key) {
            Some(place) if place.found_at.elapsed() <= self.age => Some(place.clone()),
            Some(_) => {
                shard.pop(&key);
                None
            }
            None => None,
        }
    }

    /// Remembers what the directory said, unless something newer is remembered of a member that counts. One
    /// that does not may have left an older registration elsewhere as the only one.
    pub(super) fn remember(&self, entry: Entry, counts: impl Fn(MemberId) -> bool) -> Place {
        let Entry { key, member, epoch, agent } = entry;
        let place = Place { member, epoch, agent, found_at: Instant::now() };
        let mut shard = self.shard(key).lock();
        match shard.peek(&key) {
            Some(newer) if newer.epoch > epoch && counts(newer.member) => newer.clone(),
            _ => {
                shard.push(key, place.clone());
                place
            }
        }
    }

    /// Forgets a place that turned out to be wrong, or one of this registration and those before.
    pub(crate) fn forget(&self, key: AgentKey, epoch: Epoch) {
        let mut shard = self.shard(key).lock();
        if shard.peek(&key).is_some_and(|place| place.epoch <= epoch) {
            shard.pop(&key);
        }
    }

    /// Forgets a place of a registration before this one.
    pub(crate) fn forget_older(&self, key: AgentKey, than: Epoch) {
        let mut shard = self.shard(key).lock();
        if shard.peek(&key).is_some_and(|place| place.epoch < than) {
            shard.pop(&key);
        }
    }

    /// Forgets everything: the engine was away, and nobody knows what happened meanwhile.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;

    use super::*;
    use crate::session::handle::tests::session;

    fn entry(key: AgentKey, epoch: u64) -> Entry {
        Entry { key, member: MemberId(epoch), epoch: Epoch(epoch), agent: session().facts() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_remembered_for_its_time_and_the_newest_one_only() {
        let places = Places::new(100, Duration::from_secs(5));
        let key = Identity::generate().key();
        assert!(places.get(key).is_none());
        places.remember(entry(key, 2), |_| true);
        let late = places.remember(entry(key, 1), |member| member == MemberId(2));
        assert_eq!(late.epoch, Epoch(2), "an older answer came late");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(places.get(key).unwrap().epoch, Epoch(2));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(places.get(key).is_none());
        assert_eq!(places.len(), 0);
    }

    #[test]
    fn a_registration_that_was_lost_with_its_node_is_not_newer_than_one_that_is_left() {
        let places = Places::new(100, Duration::from_secs(5));
        let key = Identity::generate().key();
        places.remember(entry(key, 2), |_| true);
        assert_eq!(places.remember(entry(key, 1), |_| false).epoch, Epoch(1));
        assert_eq!(places.get(key).unwrap().epoch, Epoch(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_place_is_forgotten_and_not_a_newer_one() {
        let places = Places::new(100, Duration::from_secs(5));
        let key = Identity::generate().key();
        places.remember(entry(key, 2), |_| true);
        places.forget(key, Epoch(1));
        assert!(places.get(key).is_some());
        places.forget(key, Epoch(2));
        assert!(places.get(key).is_none());
        places.remember(entry(key, 3), |_| true);
        places.clear();
        assert_eq!(places.len(), 0);
    }

    #[test]
    fn no_more_are_remembered_than_may_be() {
        let places = Places::new(32, Duration::from_secs(5));
        for epoch in 1..1000 {
            places.remember(entry(Identity::generate().key(), epoch), |_| true);
        }
        assert!(places.len() <= 32);
    }
}
