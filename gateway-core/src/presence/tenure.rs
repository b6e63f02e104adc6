//! Tenures: since when a key is held on this node without a break, as the cluster reckons.
//!
//! The directory grants each registration an epoch, and what other nodes send names the one that they
//! know of. A tenure spans all registrations of the key that followed each other here, so that a message
//! for an older one of them still counts after a local takeover. It begins with a claim of a vacant key,
//! and ends when its session begins to leave; whoever keeps the directory is told of that. Without a
//! cluster there is none.

use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Presence, Slot};
use crate::{
    cluster::ids::Epoch,
    session::handle::{SessionHandle, SessionId},
};

/// See the [module](self).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenure {
    /// The session that it began with.
    since: SessionId,
    /// The first epoch and the newest one, once the directory has granted any.
    granted: Option<(Epoch, Epoch)>,
    /// How many claims are being made in the directory right now.
    claiming: u32,
}

impl Tenure {
    const fn new(since: SessionId) -> Self {
        Self { since, granted: None, claiming: 0 }
    }

    /// The newest epoch that the directory has granted.
    pub(crate) fn newest(&self) -> Option<Epoch> {
        self.granted.map(|(_, newest)| newest)
    }

    /// Whether what was sent to a registration with this epoch is for whoever holds the key now.
    ///
    /// An epoch that is not known here was granted by a claim whose answer is on its way, if there is
    /// one: nobody else learns of it otherwise. A session that makes its first claim writes nothing to its
    /// agent before it is granted.
    pub(crate) fn accepts(&self, epoch: Epoch) -> bool {
        match self.granted {
            Some((first, newest)) if epoch <= newest => first <= epoch,
            _ => self.claiming > 0,
        }
    }
}

/// A tenure that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Departed {
    pub(crate) key: AgentKey,
    pub(crate) session: SessionId,
    /// The newest one that was granted, if any was.
    pub(crate) epoch: Option<Epoch>,
    /// Why, as watchers are told.
    pub(crate) reason: &'static str,
}

/// The tenures that are over and that the directory was not told of yet.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    list: Mutex<Vec<Departed>>,
    more: Notify,
}

impl Departures {
    fn push(&self, departed: Departed) {
        self.list.lock().push(departed);
        self.more.notify_one();
    }

    /// Waits until there are any, and takes them out. Cancel-safe; for one who waits.
    pub(crate) async fn next(&self) -> Vec<Departed> {
        loop {
            let departed = std::mem::take(&mut *self.list.lock());
            if !departed.is_empty() {
                return departed;
            }
            self.more.notified().await;
        }
    }
}

impl Presence {
    /// `session` came to a vacant key.
    pub(super) fn begin_tenure(&self, slot: &mut Slot, session: &SessionHandle) {
        if self.delivery.is_some() {
            slot.tenure = Some(Box::new(Tenure::new(session.id)));
        }
    }

    /// The end of `session` begins.
    pub(super) fn end_tenure(
        &self,
        slot: &mut Slot,
        session: &SessionHandle,
        reason: &'static str,
    ) {
        if let Some(tenure) = slot.tenure.take() {
            let (key, epoch) = (session.agent.key(), tenure.newest());
            self.departures.push(Departed { key, session: session.id, epoch, reason });
        }
    }

    /// A claim is being made in the directory for `session`. False if it does not hold its key any
    /// more. Whoever makes it says what came of it, by [`set_epoch`](Self::set_epoch) or
    /// [`claim_failed`](Self::claim_failed).
    pub(crate) fn claiming(&self, session: &SessionHandle) -> bool {
        self.with_tenure(session.agent.key(), session.id, |tenure| tenure.claiming += 1)
    }

    /// The directory has granted a claim of this session's. False if its tenure is over by now, so that
    /// the entry is nobody's.
    pub(crate) fn set_epoch(&self, key: AgentKey, session: SessionId, epoch: Epoch) -> bool {
        self.with_tenure(key, session, |tenure| {
            tenure.claiming = tenure.claiming.saturating_sub(1);
            let (first, newest) = tenure.granted.unwrap_or((epoch, epoch));
            tenure.granted = Some((first.min(epoch), newest.max(epoch)));
        })
    }

    /// A claim of this session's came to nothing.
    pub(crate) fn claim_failed(&self, key: AgentKey, session: SessionId) {
        self.with_tenure(key, session, |tenure| {
            tenure.claiming = tenure.claiming.saturating_sub(1);
        });
    }

    /// The tenure of whoever holds a key.
    pub(crate) fn tenure(&self, key: AgentKey) -> Option<Tenure> {
        self.shard(key).get(&key)?.tenure.as_deref().copied()
    }

    /// Whether the tenure of this session's goes on.
    fn with_tenure(
        &self,
        key: AgentKey,
        session: SessionId,
        change: impl FnOnce(&mut Tenure),
    ) -> bool {
        let mut shard = self.shard(key);
        let tenure = shard.get_mut(&key).and_then(|slot| slot.tenure.as_deref_mut());
        // Sessions of earlier tenures have smaller numbers.
        let tenure = tenure.filter(|tenure| tenure.since <= session);
        tenure.map(change).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenure_accepts_its_own_epochs_and_newer_ones_while_a_claim_is_made() {
        let mut tenure = Tenure::new(SessionId(1));
        assert!(!tenure.accepts(Epoch(5)), "nothing was granted, nothing is being claimed");
        tenure.claiming = 1;
        assert!(tenure.accepts(Epoch(5)));
        (tenure.granted, tenure.claiming) = (Some((Epoch(5), Epoch(7))), 0);
        let accepted: Vec<_> = (4..=8).filter(|epoch| tenure.accepts(Epoch(*epoch))).collect();
        assert_eq!(accepted, [5, 6, 7]);
        tenure.claiming = 1;
        assert!(tenure.accepts(Epoch(8)));
        assert!(!tenure.accepts(Epoch(4)), "of an earlier tenure");
    }
}
