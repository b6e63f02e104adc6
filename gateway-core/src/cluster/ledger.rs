//! What the directory is to be told yet: bounded, and one entry for each agent.
//!
//! Sessions note here what they do not wait for. While this node is apart nothing is noted: all that it
//! knows is [announced](super::service) when it comes back. From the moment when that begins, what
//! happens is noted again, so nothing falls between.

use std::collections::HashMap;

use ahash::RandomState;
use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ids::Epoch;

/// Of so many agents something may wait to be told. Whoever has more to tell announces everything anew.
const MOST: usize = 1 << 16;

/// What is due about one agent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// It has left, with this epoch and for this reason.
    pub(super) release: Option<(Epoch, &'static str)>,
    /// It is here, and is not down, or not as it registered last.
    pub(super) claim: bool,
    /// What is told of it has changed.
    pub(super) describe: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    noted: Mutex<Noted>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Noted {
    is_open: bool,
    /// Something was not noted for want of room.
    overflowed: bool,
    due: HashMap<AgentKey, Due, RandomState>,
    /// Agents whose claims a link took along when it failed: they may be carried out yet.
    unsure: Vec<AgentKey>,
    /// There were more of them.
    all_unsure: bool,
    /// What was taken out is being told.
    telling: bool,
}

/// More happens here than the directory can be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow;

impl Ledger {
    /// An agent has left that was down with this epoch.
    pub(super) fn release(&self, key: AgentKey, epoch: Epoch, reason: &'static str) {
        self.note(key, |due| {
            if due.release.is_none_or(|(older, _)| older < epoch) {
                due.release = Some((epoch, reason));
            }
        });
    }

    /// An agent is here and could not be put down.
    pub(super) fn claim(&self, key: AgentKey) {
        self.note(key, |due| due.claim = true);
    }

    /// What is told of an agent has changed.
    pub(crate) fn describe(&self, key: AgentKey) {
        self.note(key, |due| due.describe = true);
    }

    fn note(&self, key: AgentKey, change: impl FnOnce(&mut Due)) {
        let mut noted = self.noted.lock();
        if !noted.is_open {
            return;
        }
        if noted.due.len() >= MOST && !noted.due.contains_key(&key) {
            noted.overflowed = true;
        } else {
            change(noted.due.entry(key).or_default());
        }
        drop(noted);
        self.more.notify_one();
    }

    /// A link failed while it was to put this agent down.
    pub(super) fn unsure(&self, key: AgentKey) {
        let mut noted = self.noted.lock();
        if noted.unsure.len() < MOST {
            noted.unsure.push(key);
        } else {
            noted.all_unsure = true;
        }
    }

    /// All that is here is about to be announced: from now on what happens beside that is noted.
    pub(super) fn open(&self) {
        let mut noted = self.noted.lock();
        noted.due.clear();
        (noted.is_open, noted.overflowed, noted.telling) = (true, false, false);
    }

    /// This node is apart.
    pub(super) fn close(&self) {
        let mut noted = self.noted.lock();
        noted.is_open = false;
        noted.due = HashMap::default();
    }

    /// Waits until something is due, and takes it out. Cancel-safe; for one who waits, and who has told
    /// by then what it took before.
    pub(super) async fn next(&self) -> Result<HashMap<AgentKey, Due, RandomState>, Overflow> {
        loop {
            {
                let mut noted = self.noted.lock();
                if noted.overflowed {
                    return Err(Overflow);
                }
                noted.telling = !noted.due.is_empty();
                if noted.telling {
                    return Ok(std::mem::take(&mut noted.due));
                }
            }
            self.more.notified().await;
        }
    }

    /// Whether all is told that was noted.
    pub(super) fn is_settled(&self) -> bool {
        let noted = self.noted.lock();
        noted.due.is_empty() && !noted.telling
    }

    /// Whose claims may have been carried out behind this node's back. An overflow is told once.
    pub(super) fn take_unsure(&self) -> Result<Vec<AgentKey>, Overflow> {
        let mut noted = self.noted.lock();
        let unsure = std::mem::take(&mut noted.unsure);
        if std::mem::take(&mut noted.all_unsure) { Err(Overflow) } else { Ok(unsure) }
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;

    use super::*;

    #[tokio::test]
    async fn what_is_due_of_an_agent_is_told_at_once_and_nothing_while_apart() {
        let ledger = Ledger::default();
        let (one, other) = (Identity::generate().key(), Identity::generate().key());
        ledger.release(one, Epoch(1), "closed");
        assert!(ledger.is_settled(), "the announcement makes up for it");
        ledger.open();
        ledger.release(one, Epoch(2), "closed");
        ledger.release(one, Epoch(1), "broken");
        ledger.claim(one);
        ledger.describe(other);
        let due = ledger.next().await.unwrap();
        let first = Due { release: Some((Epoch(2), "closed")), claim: true, describe: false };
        assert_eq!((due.len(), &due[&one]), (2, &first));
        assert!(!ledger.is_settled(), "it is being told");
        ledger.close();
        ledger.open();
        assert!(ledger.is_settled());
    }

    #[tokio::test]
    async fn whoever_has_too_much_to_tell_is_told_so() {
        let ledger = Ledger::default();
        ledger.open();
        let key = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            AgentKey::from_bytes(bytes)
        };
        for number in 0..MOST as u32 {
            ledger.claim(key(number));
        }
        ledger.describe(key(0));
        assert_eq!(ledger.next().await.unwrap().len(), MOST, "still in time");
        for number in 0..=MOST as u32 {
            ledger.claim(key(number));
        }
        assert_eq!(ledger.next().await, Err(Overflow));
        ledger.open();
        ledger.claim(key(1));
        assert_eq!(ledger.next().await.unwrap().len(), 1);
    }

    #[test]
    fn more_uncertain_claims_than_are_remembered_are_an_overflow_once() {
        let ledger = Ledger::default();
        let key = Identity::generate().key();
        for _ in 0..=MOST {
            ledger.unsure(key);
        }
        assert_eq!(ledger.take_unsure(), Err(Overflow));
        ledger.unsure(key);
        assert_eq!(ledger.take_unsure(), Ok(vec![key]));
    }
}
