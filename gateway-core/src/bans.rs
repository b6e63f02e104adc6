//! Bans: keys that may not register for a while, by an operator's word.
//!
//! In memory only: a restart forgets them. What is to last belongs into policy. Bounded; whoever bans
//! one too many is refused. Looked at in the handshake and at a renewal, and by nothing that carries
//! messages.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use conexus_protocol::AgentKey;
use parking_lot::Mutex;

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

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Bans {
    bans: Mutex<HashMap<AgentKey, Ban>>,
    /// So that a gateway that bans nobody locks nothing.
    count: AtomicUsize,
}

impl Bans {
    /// Bans a key, or changes its ban.
    pub(crate) fn set(&self, key: AgentKey, ban: Ban, now: Moment) -> Result<(), TooMany> {
        let mut bans = self.bans.lock();
        if bans.len() >= MAX_BANS && !bans.contains_key(&key) {
            bans.retain(|_, ban| ban.until > now);
            if bans.len() >= MAX_BANS {
                return Err(TooMany);
            }
        }
        bans.insert(key, ban);
        self.count.store(bans.len(), SeqCst);
        Ok(())
    }

    /// Lifts a ban; whether there was one that still held.
    pub(crate) fn lift(&self, key: AgentKey, now: Moment) -> bool {
        let mut bans = self.bans.lock();
        let lifted = bans.remove(&key);
        self.count.store(bans.len(), SeqCst);
        lifted.is_some_and(|ban| ban.until > now)
    }

    /// The ban of a key, if one holds.
    pub(crate) fn of(&self, key: AgentKey, now: Moment) -> Option<Ban> {
        if self.count.load(SeqCst) == 0 {
            return None;
        }
        self.bans.lock().get(&key).filter(|ban| ban.until > now).cloned()
    }

    /// How many there are, some of which may have ended meanwhile.
    pub(crate) fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// Every ban that holds; the ones that end first come first.
    pub(crate) fn all(&self, now: Moment) -> Vec<Ban> {
        let mut bans = self.bans.lock();
        bans.retain(|_, ban| ban.until > now);
        self.count.store(bans.len(), SeqCst);
        let mut all: Vec<_> = bans.values().cloned().collect();
        drop(bans);
        all.sort_by(|a, b| (a.until, &a.did).cmp(&(b.until, &b.did)));
        all
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
        assert_eq!(bans.all(at(0)), [ban(50), ban(100)]);
        assert_eq!(bans.all(at(60)), [ban(100)]);
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
            bytes[..8].copy_from_slice(&(bans.bans.lock().len() as u64).to_be_bytes());
            bans.set(AgentKey::from_bytes(bytes), ban(100), at(0)).unwrap();
        }
        assert_eq!(bans.set(key(), ban(100), at(0)), Err(TooMany));
        bans.set(first, ban(20), at(0)).unwrap();
        bans.set(key(), ban(100), at(20)).unwrap();
    }
}
