//! Looks at the roster: who counts, and a look ahead of time where somebody is named that does not seem to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{
    Cluster,
    backplane::{Entry, Roster},
    ids::MemberId,
    members::Members,
    places::Place,
};

/// Of so many members that do not count each has the roster looked at, until it is looked at anyway.
const SOUGHT: usize = 256;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Looks {
    wanted: Notify,
    /// How many were begun.
    begun: AtomicU64,
    /// The number of the latest one that was answered.
    answered: watch::Sender<u64>,
    /// Who was looked for since the last usual look, and need not be again: a look with a number above this one
    /// tells.
    sought: Mutex<BTreeMap<MemberId, u64>>,
}

impl Cluster {
    /// Waits until somebody wants the roster to be looked at ahead of time. For one who waits.
    pub(super) async fn look_wanted(&self) {
        self.looks.wanted.notified().await;
    }

    /// A usual look is due: whoever was looked for may be so again.
    pub(super) fn usual_look(&self) {
        self.looks.sought.lock().clear();
    }

    /// The number of a look that begins.
    pub(super) fn begin_look(&self) -> u64 {
        self.looks.begun.fetch_add(1, SeqCst) + 1
    }

    /// What a look brought.
    pub(super) fn looked(&self, number: u64, roster: &Roster) {
        self.members.store(Arc::new(Members::new(roster.clone(), Instant::now())));
        self.looks.answered.send_replace(number);
    }

    /// Changes with each look that is answered.
    pub(super) fn answered_looks(&self) -> watch::Receiver<u64> {
        self.looks.answered.subscribe()
    }

    /// Whether what this member has counts. One that does not by what is known may have come or renewed its lease just
    /// now: the roster is looked at, and while that is not answered it may count.
    pub(crate) async fn counts(&self, member: MemberId) -> bool {
        if self.members.load().counts(member, Instant::now()) {
            return true;
        }
        if !self.is_own(member)
            && self.joined().is_ok()
            && let Some(begun) = self.look_for(member)
        {
            let mut answered = self.looks.answered.subscribe();
            let patience = self.settings.takeover_timeout;
            if timeout(patience, answered.wait_for(|number| *number > begun)).await.is_err() {
                return true;
            }
        }
        self.members.load().counts(member, Instant::now())
    }

    /// Has the roster looked at for a member, once: whoever else asks for it waits for the same look, whose number
    /// is above the one returned.
    fn look_for(&self, member: MemberId) -> Option<u64> {
        let mut sought = self.looks.sought.lock();
        if let Some(begun) = sought.get(&member) {
            return Some(*begun);
        }
        if sought.len() >= SOUGHT {
            return None;
        }
        // One that is under way may have been answered before that member came.
        let begun = self.looks.begun.load(SeqCst);
        sought.insert(member, begun);
        self.looks.wanted.notify_one();
        Some(begun)
    }

    /// Remembers where the directory says that an agent is; where it is, as far as this node knows.
    pub(super) fn remember(&self, entry: Entry) -> Place {
        let (members, now) = (self.members.load(), Instant::now());
        self.places.remember(entry, |member| members.counts(member, now))
    }

    /// How operators call a member's node.
    pub(crate) fn name(&self, member: MemberId) -> String {
        match self.members.load().get(member) {
            Some(known) => known.info.node_id.clone(),
            None => member.to_string(),
        }
    }

    /// This node's own name, where another one that is alive has it, too.
    pub(crate) fn namesake(&self) -> Option<String> {
        let joined = self.joined().ok()?;
        let (members, now) = (self.members.load(), Instant::now());
        let own = &members.get(joined.member)?.info;
        // Who this process was before may still be on the roster.
        let mut others = members.iter().filter(|(member, _)| !self.is_own(*member));
        let namesake =
            others.any(|(_, other)| other.counts(now) && other.info.node_id == own.node_id);
        namesake.then(|| own.node_id.clone())
    }
}
