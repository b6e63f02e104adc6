//! Watching: who is told when an agent comes or goes.
//!
//! Presence notes each change of a watched key here, under the key's own lock: that costs whoever
//! comes or goes a look at one number, or a place in a list. One task [tells](telling) the watchers
//! later, a few at a time, so that neither the agent nor anybody's messages wait for its audience.
//! What an outbox has no room for is [owed](watcher), the latest state of each agent alone. Whoever
//! begins to watch is told nothing of what was before: not when an absent agent went, nor why.
//! `presence` notes changes and adds watchers, `session` asks for both.

pub(crate) mod change;
pub(crate) mod elsewhere;
pub(crate) mod telling;
pub(crate) mod watcher;
mod whereabouts;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use ahash::RandomState;
use conexus_protocol::AgentKey;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use self::{
    change::{Change, Shown, State},
    whereabouts::{Here, Whereabouts},
};
use crate::{
    clock::{Clock, Moment},
    cluster::follows::Follows,
    session::handle::{SessionHandle, SessionId},
    telemetry::Telemetry,
};

/// Fewer than presence has: there is nothing here on the way of a message.
const SHARDS: usize = 16;

/// So many changes of one agent's are told one by one; of more than the watchers can be told in the
/// meantime only the last one is.
const UNTOLD: usize = 8;

/// Of an agent whose watchers had to wait this long for their turn only the last change is told: they
/// are no longer told what was, while others wait.
const LATE: Duration = Duration::from_millis(500);

/// Somebody who watches an agent.
#[derive(Debug)]
struct Follower {
    session: Arc<SessionHandle>,
    /// When it began, and the number of the agent's last change before: that one is not for it.
    began: Moment,
    before: u64,
}

/// One agent that somebody watches.
#[derive(Debug)]
struct Watched {
    watchers: BTreeMap<SessionId, Follower>,
    latest: Arc<Change>,
    /// What not all watchers were told yet, oldest first.
    untold: Vec<Arc<Change>>,
    /// Its key is among those whose watchers are to be told.
    queued: bool,
    whereabouts: Whereabouts,
    /// How many lists it is on that are being seen to: it is kept for them.
    expected: usize,
    /// Where there is a cluster: its directory was asked since changes of this agent come in.
    known: bool,
}

impl Watched {
    fn is_idle(&self) -> bool {
        self.watchers.is_empty() && !self.queued && self.expected == 0
    }
}

/// Whose watchers are to be told, and since when; each key is in here once at most.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(AgentKey, Moment)>,
    /// Of the one whose turn it is.
    telling: Option<Moment>,
}

type Shard = HashMap<AgentKey, Watched, RandomState>;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Watches {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// How many agents are watched. It is zero where nobody watches anybody.
    watched: AtomicUsize,
    /// Nobody is told of changes any more: the gateway stops.
    quiet: AtomicBool,
    last_change: AtomicU64,
    changed: Mutex<Queue>,
    more: Notify,
    pub(crate) clock: Clock,
    telemetry: Arc<Telemetry>,
    /// Where there is a cluster.
    follows: OnceLock<Arc<Follows>>,
}

/// Some of an agent's watchers, and what they are to be told unless they know it.
pub(crate) struct Part {
    pub(crate) watchers: Vec<Arc<SessionHandle>>,
    pub(crate) changes: Vec<Arc<Change>>,
    /// Whether there may be further ones.
    pub(crate) more: bool,
}

impl Watches {
    pub(crate) fn new(clock: Clock, telemetry: Arc<Telemetry>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            watched: AtomicUsize::new(0),
            quiet: AtomicBool::new(false),
            last_change: AtomicU64::new(0),
            changed: Mutex::default(),
            more: Notify::new(),
            clock,
            telemetry,
            follows: OnceLock::new(),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
    fn shard(&self, key: AgentKey) -> MutexGuard<'_, Shard> {
        self.shards[self.hasher.hash_one(key) as usize % SHARDS].lock()
    }

    /// How many agents are watched by anybody.
    pub(crate) fn watched(&self) -> usize {
        self.watched.load(Relaxed)
    }

    /// Of how many agents there is something to be told, and for how long of the one that waits longest.
    pub(crate) fn backlog(&self) -> (usize, Duration) {
        let queue = self.changed.lock();
        let oldest = queue.telling.or_else(|| Some(queue.waiting.front()?.1));
        let waited = oldest.map_or(Duration::ZERO, |since| since.until(self.clock.now()));
        (queue.waiting.len() + usize::from(queue.telling.is_some()), waited)
    }

    /// From now on nobody is told of a change, also of one that was not told yet; who asks for a state
    /// is answered all the same.
    pub(crate) fn fall_silent(&self) {
        self.quiet.store(true, SeqCst);
    }

    /// An agent came or went. To be called under the lock of its key's slot in presence, which is
    /// also where watchers are [added](Self::add): so none of them misses a change.
    pub(crate) fn changed(&self, key: AgentKey, state: State) {
        if self.watched.load(Relaxed) == 0 {
            return;
        }
        let mut shard = self.shard(key);
        let Some(watched) = shard.get_mut(&key) else { return };
        let shown = Shown::of(state, &self.clock);
        match self.follows.get() {
            None => self.note(shard, key, shown),
            Some(follows) => match watched.whereabouts.here(shown, follows.is_joined()) {
                Here::Nothing => {}
                Here::Tell(shown) => self.note(shard, key, shown),
                Here::Ask => follows.look(key),
            },
        }
    }

    /// Watchers are to be told this of a watched agent.
    fn note(&self, mut shard: MutexGuard<'_, Shard>, key: AgentKey, shown: Shown) {
        let Some(watched) = shard.get_mut(&key) else { return };
        let change = Arc::new(self.change(key, shown));
        watched.latest = Arc::clone(&change);
        if self.quiet.load(Relaxed) {
            return;
        }
        if watched.untold.len() == UNTOLD {
            self.telemetry.watches.coalesced(watched.untold.len() * watched.watchers.len());
            watched.untold.clear();
        }
        watched.untold.push(change);
        if !std::mem::replace(&mut watched.queued, true) {
            drop(shard);
            self.enqueue(key);
        }
    }

    fn change(&self, key: AgentKey, shown: Shown) -> Change {
        Change::new(self.last_change.fetch_add(1, Relaxed) + 1, key, shown)
    }

    fn enqueue(&self, key: AgentKey) {
        self.changed.lock().waiting.push_back((key, self.clock.now()));
        self.more.notify_one();
    }

    /// Makes `session` a watcher of an agent, which is in this `state` unless that is known better
    /// here; what it is to be told of the agent's state. Under the lock of the key's slot in presence.
    pub(crate) fn add(
        &self,
        key: AgentKey,
        session: &Arc<SessionHandle>,
        state: impl FnOnce() -> State,
    ) -> Arc<Change> {
        let mut shard = self.shard(key);
        let watched = self.watched_in(&mut shard, key, state);
        let latest = &watched.latest;
        let follower = watched.watchers.entry(session.id).or_insert_with(|| {
            self.telemetry.watches.begun();
            // Here, where the task that tells cannot come in between with older changes.
            session.watcher.knows(key, latest.number());
            Follower {
                session: Arc::clone(session),
                began: self.clock.now(),
                before: latest.number(),
            }
        });
        if latest.number() <= follower.before && !latest.is_online() {
            let absent = Shown::Absent(self.clock.wall(follower.began));
            return Arc::new(Change::new(latest.number(), key, absent));
        }
        Arc::clone(latest)
    }

    /// What is kept of an agent, from now on.
    fn watched_in<'a>(
        &self,
        shard: &'a mut Shard,
        key: AgentKey,
        state: impl FnOnce() -> State,
    ) -> &'a mut Watched {
        shard.entry(key).or_insert_with(|| {
            self.watched.fetch_add(1, Relaxed);
            if let Some(follows) = self.follows.get() {
                follows.begin(key);
            }
            let shown = Shown::of(state(), &self.clock);
            let latest = Arc::new(self.change(key, shown));
            Watched {
                watchers: BTreeMap::new(),
                whereabouts: Whereabouts::new(latest.is_online()),
                latest,
                untold: Vec::new(),
                queued: false,
                expected: 0,
                known: false,
            }
        })
    }

    /// `session` no longer watches an agent.
    pub(crate) fn remove(&self, key: AgentKey, session: SessionId) {
        let mut shard = self.shard(key);
        let Some(watched) = shard.get_mut(&key) else { return };
        if watched.watchers.remove(&session).is_some() {
            self.telemetry.watches.ended();
        }
        self.remove_if_idle(&mut shard, key);
    }

    /// A key that is still among the changed ones stays until it is its turn.
    fn remove_if_idle(&self, shard: &mut Shard, key: AgentKey) {
        if shard.get(&key).is_some_and(Watched::is_idle) {
            shard.remove(&key);
            self.watched.fetch_sub(1, Relaxed);
            if let Some(follows) = self.follows.get() {
                follows.end(key);
            }
        }
    }

    /// An agent whose watchers are to be told; waits until there is one.
    async fn next_changed(&self) -> AgentKey {
        loop {
            if let Some(key) = self.take_changed() {
                return key;
            }
            self.more.notified().await;
        }
    }

    fn take_changed(&self) -> Option<AgentKey> {
        let next = {
            let mut queue = self.changed.lock();
            let next = queue.waiting.pop_front();
            queue.telling = next.map(|(_, since)| since);
            next
        };
        let (key, since) = next?;
        if since.until(self.clock.now()) >= LATE
            && let Some(watched) = self.shard(key).get_mut(&key)
        {
            let outdated = watched.untold.len().saturating_sub(1);
            watched.untold.drain(..outdated);
            self.telemetry.watches.coalesced(outdated * watched.watchers.len());
        }
        Some(key)
    }

    /// Up to `most` watchers of an agent that follow `after`, and what they may not know yet.
    fn part(&self, key: AgentKey, after: Option<SessionId>, most: usize) -> Part {
        let mut shard = self.shard(key);
        let Some(watched) = shard.get_mut(&key) else {
            return Part { watchers: Vec::new(), changes: Vec::new(), more: false };
        };
        if self.quiet.load(Relaxed) {
            watched.untold.clear();
        }
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let following = watched.watchers.range((from, Bound::Unbounded));
        let watchers: Vec<_> =
            following.take(most).map(|(_, follower)| Arc::clone(&follower.session)).collect();
        let more = watchers.len() == most;
        Part { watchers, changes: watched.untold.clone(), more }
    }

    /// All watchers of an agent were told the changes up to this one. What came up meanwhile takes
    /// its turn behind that of others.
    fn told(&self, key: AgentKey, up_to: u64) {
        let mut shard = self.shard(key);
        let Some(watched) = shard.get_mut(&key) else { return };
        watched.untold.retain(|change| change.number() > up_to);
        if watched.untold.is_empty() {
            watched.untold = Vec::new();
            watched.queued = false;
            // Without the words, which nobody may need again.
            watched.latest = Arc::new(watched.latest.unworded());
            self.remove_if_idle(&mut shard, key);
        } else {
            drop(shard);
            self.enqueue(key);
        }
    }
}

#[cfg(test)]
mod tests;
