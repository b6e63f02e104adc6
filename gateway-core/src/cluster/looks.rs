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
    time::{Instant, timeout_at},
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
    /// Who was looked for since the last usual look, and need not be again.
    sought: Mutex<BTreeMap<MemberId, Sought>>,
}

/// A member that was looked for.
#[derive(Debug, Clone, Copy)]
struct Sought {
    /// A look with a number above this one tells.
    behind: u64,
    since: Instant,
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
            && let Some(Sought { behind, since }) = self.look_for(member)
        {
            let mut answered = self.looks.answered.subscribe();
            // Of all who ask for it, so that many agents of one member are not waited for one after the other.
            let until = since + self.settings.takeover_timeout;
            if timeout_at(until, answered.wait_for(|number| *number > behind)).await.is_err() {
                return true;
            }
        }
        self.members.load().counts(member, Instant::now())
    }

    /// Has the roster looked at for a member, once: whoever else asks for it waits for the same look.
    fn look_for(&self, member: MemberId) -> Option<Sought> {
        let mut sought = self.looks.sought.lock();
        if let Some(already) = sought.get(&member) {
            return Some(*already);
        }
        if sought.len() >= SOUGHT {
            return None;
        }
        // One that is under way may have been answered before that member came.
        let behind = self.looks.begun.load(SeqCst);
        let new = Sought { behind, since: Instant::now() };
        sought.insert(member, new);
        self.looks.wanted.notify_one();
        Some(new)
    }

    /// Remembers where the directory says that an agent is; where it is, as far as this node knows. What it says of this
    /// node is not remembered: an older registration elsewhere may be all that is left of that agent in a moment.
    pub(super) fn remember(&self, entry: Entry) -> Option<Place> {
        if self.is_own(entry.member) {
            return None;
        }
        let (members, now) = (self.members.load(), Instant::now());
        Some(self.places.remember(entry, |member| members.counts(member, now)))
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
