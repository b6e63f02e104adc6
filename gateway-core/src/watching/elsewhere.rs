//! What watchers are told of agents on other nodes: what the directory of the cluster says of each
//! watched key, in the order in which it says it. [`follows`](crate::cluster::follows) asks it.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use conexus_protocol::{AgentKey, Timestamp};

use super::{
    Watched, Watches,
    change::{Shown, State},
};
use crate::{
    cluster::{
        backplane::Change,
        follows::Follows,
        ids::{Epoch, MemberId},
    },
    presence::Presence,
};

impl Watches {
    /// From now on the agents that are watched may be on other nodes, too. Once, before anybody watches.
    pub(crate) fn follow_by(&self, follows: Arc<Follows>) {
        let is_first = self.follows.set(follows).is_ok() && self.watched() == 0;
        debug_assert!(is_first, "the cluster is there before anybody watches");
    }

    fn update(&self, key: AgentKey, what: impl FnOnce(&mut Watched) -> Option<Shown>) {
        if self.watched.load(Relaxed) == 0 {
            return;
        }
        let mut shard = self.shard(key);
        let Some(watched) = shard.get_mut(&key) else { return };
        if let Some(shown) = what(watched) {
            self.note(shard, key, shown);
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.wall(self.clock.now())
    }

    /// The directory changed; `own`: what changed is on this node.
    pub(crate) fn heard(&self, change: &Change, own: bool) {
        let Change { key, member, epoch, ref kind } = *change;
        let now = self.now();
        self.update(key, |watched| watched.whereabouts.heard(own, (member, epoch), kind, now));
    }

    /// The directory was asked for an agent, and has this registration of its, on this node if that is
    /// `own`. What it does not have is the last word if the cluster is `settled`.
    pub(crate) fn found(
        &self,
        key: AgentKey,
        entry: Option<(bool, MemberId, Epoch)>,
        settled: bool,
    ) {
        self.update(key, |watched| {
            watched.known = true;
            watched.whereabouts.found(entry, settled, self.now())
        });
    }

    /// The directory could not be asked for an agent.
    pub(crate) fn unanswered(&self, key: AgentKey) {
        self.update(key, |watched| watched.whereabouts.unanswered());
    }

    /// Whether the directory was asked for an agent since its changes come in. Also true of one that
    /// nobody watches any more.
    pub(crate) fn is_known(&self, key: AgentKey) -> bool {
        self.shard(key).get(&key).is_none_or(|watched| watched.known)
    }

    /// This node is in the cluster, again or for the first time: nothing is known for certain. Who is
    /// watched.
    pub(crate) fn joined(&self) -> Vec<AgentKey> {
        self.of_all(|key, watched| {
            watched.known = false;
            watched.whereabouts.joined();
            Some(key)
        })
    }

    /// Who was elsewhere before this node lost sight of the cluster, which was not confirmed since.
    pub(crate) fn doubtful(&self) -> Vec<AgentKey> {
        self.of_all(|key, watched| watched.whereabouts.is_doubtful().then_some(key))
    }

    fn of_all(
        &self,
        mut of: impl FnMut(AgentKey, &mut Watched) -> Option<AgentKey>,
    ) -> Vec<AgentKey> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().iter_mut().filter_map(|(key, watched)| of(*key, watched)));
        }
        all
    }

    /// This node has been apart from the cluster for too long: whoever is elsewhere counts as gone.
    pub(crate) fn cut_off(&self) {
        for key in self.of_all(|key, _| Some(key)) {
            self.update(key, |watched| {
                watched.known = false;
                watched.whereabouts.cut_off(self.now())
            });
        }
    }
}

/// Agents that somebody may come to watch: what the directory says of them is noted meanwhile.
pub(crate) struct Expected<'a> {
    presence: &'a Presence,
    keys: &'a [AgentKey],
}

impl<'a> Expected<'a> {
    pub(crate) fn new(presence: &'a Presence, keys: &'a [AgentKey]) -> Self {
        for key in keys {
            presence.expect(*key);
        }
        Self { presence, keys }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        for key in self.keys {
            self.presence.watches.no_longer_expected(*key);
        }
    }
}

impl Watches {
    /// An agent may be watched soon, and is in this `state` unless that is known better here. Under the
    /// lock of the key's slot in presence.
    pub(crate) fn expect(&self, key: AgentKey, state: impl FnOnce() -> State) {
        let mut shard = self.shard(key);
        self.watched_in(&mut shard, key, state).expected += 1;
    }

    fn no_longer_expected(&self, key: AgentKey) {
        let mut shard = self.shard(key);
        if let Some(watched) = shard.get_mut(&key) {
            watched.expected -= 1;
        }
        self.remove_if_idle(&mut shard, key);
    }
}
