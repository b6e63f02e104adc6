//! Bans: keys that may not register for a while, by an operator's word.
//!
//! In memory; a restart forgets them, unless a cluster knows them, too: then they
//! [hold on all of its nodes](crate::cluster::banned), and outlive each of them. What is to last
//! belongs into policy. Bounded; whoever bans one too many is refused. Looked at in the handshake and
//! at a renewal, and by nothing that carries messages.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use crate::clock::Moment;

/// Bans at once.
pub(crate) const MAX_BANS: usize = 10_000;

/// A ban that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ban {
    /// The agent, as it was spelt when it was banned.
    pub(crate) did: String,
    pub(crate) until: Moment,
    pub(crate) reason: String,
    /// Who said so.
    pub(crate) by: String,
}

/// There are too many already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_BANS} agents are banned already")]
pub(crate) struct TooMany;

#[derive(Debug)]
struct Kept {
    ban: Ban,
    /// Whether the cluster knows it.
    shared: bool,
}

#[derive(Debug, Default)]
struct Inner {
    bans: HashMap<AgentKey, Kept>,
    /// Whom the cluster still has as banned.
    lifted: HashSet<AgentKey>,
}

/// What this node knows and its cluster does not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unshared {
    pub(crate) bans: Vec<(AgentKey, Ban)>,
    pub(crate) lifted: Vec<AgentKey>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Bans {
    inner: Mutex<Inner>,
    /// So that a gateway that bans nobody locks nothing.
    count: AtomicUsize,
    changed: Notify,
}

impl Bans {
    fn changing<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock();
        let changed = change(&mut inner);
        self.count.store(inner.bans.len(), SeqCst);
        changed
    }

    /// Bans a key, or changes its ban.
    pub(crate) fn set(&self, key: AgentKey, ban: Ban, now: Moment) -> Result<(), TooMany> {
        self.changing(|inner| {
            if inner.bans.len() >= MAX_BANS && !inner.bans.contains_key(&key) {
                inner.bans.retain(|_, kept| kept.ban.until > now);
                if inner.bans.len() >= MAX_BANS {
                    return Err(TooMany);
                }
            }
            inner.bans.insert(key, Kept { ban, shared: false });
            inner.lifted.remove(&key);
            Ok(())
        })?;
        self.look_again();
        Ok(())
    }

    /// Lifts a ban; whether there was one that still held.
    pub(crate) fn lift(&self, key: AgentKey, now: Moment) -> bool {
        let lifted = self.changing(|inner| {
            let lifted = inner.bans.remove(&key);
            if lifted.as_ref().is_some_and(|kept| kept.shared) {
                inner.lifted.insert(key);
            }
            lifted
        });
        self.look_again();
        lifted.is_some_and(|kept| kept.ban.until > now)
    }

    /// The ban of a key, if one holds.
    pub(crate) fn of(&self, key: AgentKey, now: Moment) -> Option<Ban> {
        if self.count.load(SeqCst) == 0 {
            return None;
        }
        let inner = self.inner.lock();
        inner.bans.get(&key).map(|kept| &kept.ban).filter(|ban| ban.until > now).cloned()
    }

    /// How many there are, some of which may have ended meanwhile.
    pub(crate) fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// Every ban that holds; the ones that end first come first.
    pub(crate) fn all(&self, now: Moment) -> Vec<(AgentKey, Ban)> {
        let mut all: Vec<_> = self.changing(|inner| {
            inner.bans.retain(|_, kept| kept.ban.until > now);
            inner.bans.iter().map(|(key, kept)| (*key, kept.ban.clone())).collect()
        });
        all.sort_by(|(_, a), (_, b)| (a.until, &a.did).cmp(&(b.until, &b.did)));
        all
    }
}

/// With a cluster.
impl Bans {
    /// Waits until there is something to tell the cluster, or to ask it. For one who waits.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// The cluster is to be asked which bans there are.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Whether the cluster knows of a ban, or has it lifted.
    pub(crate) fn is_shared(&self, key: AgentKey) -> bool {
        let inner = self.inner.lock();
        inner.bans.get(&key).is_none_or(|kept| kept.shared) && !inner.lifted.contains(&key)
    }

    /// What the cluster does not know yet.
    pub(crate) fn unshared(&self, now: Moment) -> Unshared {
        let inner = self.inner.lock();
        let unshared = inner.bans.iter().filter(|(_, kept)| !kept.shared && kept.ban.until > now);
        Unshared {
            bans: unshared.map(|(key, kept)| (*key, kept.ban.clone())).collect(),
            lifted: inner.lifted.iter().copied().collect(),
        }
    }

    /// The cluster knows this now, unless it has changed since.
    pub(crate) fn shared(&self, told: &Unshared) {
        let mut inner = self.inner.lock();
        for (key, ban) in &told.bans {
            if let Some(kept) = inner.bans.get_mut(key).filter(|kept| kept.ban == *ban) {
                kept.shared = true;
            } else if !inner.bans.contains_key(key) {
                // Lifted while it was told.
                inner.lifted.insert(*key);
            }
        }
        for key in &told.lifted {
            inner.lifted.remove(key);
        }
    }

    /// The cluster has lost its memory: what it knew is to be told it anew.
    pub(crate) fn forgotten(&self) {
        let mut inner = self.inner.lock();
        inner.lifted.clear();
        for kept in inner.bans.values_mut() {
            kept.shared = false;
        }
    }

    /// These are the bans that the cluster knows; who is banned on this node only since then. What it
    /// does not know yet stays as it is.
    pub(crate) fn learn(&self, all: Vec<(AgentKey, Ban)>) -> Vec<AgentKey> {
        self.changing(|inner| {
            let Inner { bans, lifted } = inner;
            let mut before = std::mem::take(bans);
            bans.extend(before.extract_if(|_, kept| !kept.shared));
            let mut new = Vec::new();
            for (key, ban) in all {
                if bans.contains_key(&key) || lifted.contains(&key) {
                    continue;
                }
                if !before.contains_key(&key) {
                    new.push(key);
                }
                bans.insert(key, Kept { ban, shared: true });
            }
            new
        })
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn ban(until: u64) -> Ban {
        Ban { did: "did".into(), until: at(until), reason: "spam".into(), by: "ops".into() }
    }

    fn key() -> AgentKey {
        Identity::generate().key()
    }

    #[test]
    fn a_ban_holds_until_its_moment_or_until_it_is_lifted() {
        let (bans, a, b) = (Bans::default(), key(), key());
        assert_eq!(bans.of(a, at(0)), None);
        bans.set(a, ban(100), at(0)).unwrap();
        bans.set(b, ban(50), at(0)).unwrap();
        assert_eq!(bans.of(a, at(99)), Some(ban(100)));
        assert_eq!(bans.of(a, at(100)), None);
        assert_eq!(bans.all(at(0)), [(b, ban(50)), (a, ban(100))]);
        assert_eq!(bans.all(at(60)), [(a, ban(100))]);
        assert!(bans.lift(a, at(60)));
        assert!(!bans.lift(a, at(60)));
        assert_eq!(bans.of(a, at(60)), None);
    }

    #[test]
    fn a_ban_too_many_is_refused_unless_others_have_ended() {
        let bans = Bans::default();
        let first = key();
        bans.set(first, ban(10), at(0)).unwrap();
        for _ in 1..MAX_BANS {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(bans.count() as u64).to_be_bytes());
            bans.set(AgentKey::from_bytes(bytes), ban(100), at(0)).unwrap();
        }
        assert_eq!(bans.set(key(), ban(100), at(0)), Err(TooMany));
        bans.set(first, ban(20), at(0)).unwrap();
        bans.set(key(), ban(100), at(20)).unwrap();
    }

    #[test]
    fn what_the_cluster_knows_holds_here_and_what_it_does_not_is_kept_for_it() {
        let (bans, a, b, c) = (Bans::default(), key(), key(), key());
        bans.set(a, ban(100), at(0)).unwrap();
        let told = bans.unshared(at(0));
        assert_eq!(told, Unshared { bans: vec![(a, ban(100))], lifted: vec![] });
        assert!(!bans.is_shared(a));
        bans.shared(&told);
        assert!(bans.is_shared(a));
        assert_eq!(bans.unshared(at(0)), Unshared::default());

        bans.set(c, ban(70), at(0)).unwrap();
        assert_eq!(bans.learn(vec![(a, ban(100)), (b, ban(80))]), [b]);
        assert_eq!(bans.all(at(0)), [(c, ban(70)), (b, ban(80)), (a, ban(100))]);
        assert!(bans.lift(a, at(0)));
        assert!(!bans.is_shared(a), "until that is known");
        assert!(bans.learn(vec![(a, ban(100)), (b, ban(80))]).is_empty());
        assert_eq!(bans.all(at(0)), [(c, ban(70)), (b, ban(80))]);
        let told = bans.unshared(at(0));
        assert_eq!(told, Unshared { bans: vec![(c, ban(70))], lifted: vec![a] });
        assert!(bans.lift(c, at(0)), "while it is told");
        bans.shared(&told);
        assert_eq!(bans.unshared(at(0)), Unshared { bans: vec![], lifted: vec![c] });
        // Another node lifted that one.
        assert!(bans.learn(Vec::new()).is_empty());
        assert_eq!(bans.count(), 0);
    }

    #[test]
    fn an_engine_without_memory_is_told_all_of_them_again() {
        let (bans, a) = (Bans::default(), key());
        bans.learn(vec![(a, ban(100))]);
        assert_eq!(bans.unshared(at(0)), Unshared::default());
        bans.forgotten();
        assert_eq!(bans.unshared(at(0)).bans, [(a, ban(100))]);
        assert!(bans.unshared(at(100)).bans.is_empty(), "it has ended");
        assert!(bans.learn(Vec::new()).is_empty());
        assert_eq!(bans.of(a, at(0)), Some(ban(100)));
    }
}
