//! Where agents are: many lookups in one command.

use std::sync::Arc;

use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::Delivery;
use crate::{
    cluster::{
        backplane::{Away, Entry},
        frame,
        ids::MemberId,
        members::Member,
        places::Place,
    },
    router::Router,
};

/// Agents that are looked up with one command.
const AT_ONCE: usize = 512;

/// What is to be looked up.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    wanted: Mutex<Vec<Wanted>>,
    more: Notify,
}

#[derive(Debug)]
enum Wanted {
    /// For the [lane](crate::presence::lane) of a key, which it was when it had this ticket.
    Lane(AgentKey, u64),
    Asked(AgentKey, oneshot::Sender<Result<Whereabouts, Away>>),
}

impl Wanted {
    const fn key(&self) -> AgentKey {
        match self {
            Self::Lane(key, _) | Self::Asked(key, _) => *key,
        }
    }
}

/// Where an agent is that is not here.
#[derive(Debug, Clone)]
pub(crate) enum Whereabouts {
    /// On no node that counts.
    Absent,
    At(Place),
    /// On a node that counts, but speaks another version of the frames; or nobody can say.
    Unreachable,
}

impl Lookups {
    fn push(&self, wanted: Wanted) {
        self.wanted.lock().push(wanted);
        self.more.notify_one();
    }

    async fn next(&self) -> Vec<Wanted> {
        loop {
            {
                let mut wanted = self.wanted.lock();
                if !wanted.is_empty() {
                    let most = wanted.len().min(AT_ONCE);
                    let rest = wanted.split_off(most);
                    return std::mem::replace(&mut wanted, rest);
                }
            }
            self.more.notified().await;
        }
    }
}

impl Delivery {
    /// Where an agent is, if that is remembered.
    pub(crate) fn remembered(&self, key: AgentKey) -> Option<Place> {
        let place = self.cluster.places.get(key)?;
        if self.has_left(place.member) {
            // The directory knows better.
            return None;
        }
        match self.judge(place) {
            Whereabouts::At(place) => {
                self.cluster.tally.lookups.remembered.one();
                Some(place)
            }
            _ => None,
        }
    }

    /// Where an agent is that is not here: remembered, or looked up.
    pub(crate) async fn find(&self, key: AgentKey) -> Result<Whereabouts, Away> {
        if let Some(place) = self.remembered(key) {
            return Ok(Whereabouts::At(place));
        }
        self.cluster.joined()?;
        let (found, whereabouts) = oneshot::channel();
        self.lookups.push(Wanted::Asked(key, found));
        let nobody = |_| Err(Away("nobody looks agents up any more".into()));
        whereabouts.await.unwrap_or_else(nobody)
    }

    /// Has a lane told where its agent is.
    pub(crate) fn look_up(&self, key: AgentKey, ticket: u64) {
        self.lookups.push(Wanted::Lane(key, ticket));
    }

    /// Whether a member is on its way out, or is not on the roster: not any more, or not yet.
    pub(super) fn has_left(&self, member: MemberId) -> bool {
        let members = self.cluster.members.load();
        let stays = |member: &Member| Instant::now() < member.until && !member.info.draining;
        !members.get(member).is_some_and(stays)
    }

    /// What a place on another node means right now.
    fn judge(&self, place: Place) -> Whereabouts {
        let cluster = &self.cluster;
        if cluster.joined().is_err() {
            return Whereabouts::Unreachable;
        }
        match cluster.members.load().get(place.member) {
            // Its entries are about to be taken out.
            None if self.has_departed(place.member) => Whereabouts::Absent,
            // It came since this node saw the roster.
            None => Whereabouts::At(place),
            Some(member) if Instant::now() >= member.until => {
                // Whose own lease is not certain knows too little of others' leases.
                if cluster.is_trusted() { Whereabouts::Absent } else { Whereabouts::Unreachable }
            }
            Some(member) if member.info.frames != frame::VERSION => Whereabouts::Unreachable,
            Some(_) => Whereabouts::At(place),
        }
    }

    /// What it means that the directory has an agent there right now.
    async fn judge_found(&self, entry: Entry) -> Whereabouts {
        let Some(place) = self.cluster.remember(entry) else {
            // It was here, and is not any more, since nobody looks for who is here.
            return Whereabouts::Absent;
        };
        let judged = self.judge(place.clone());
        if !matches!(judged, Whereabouts::Absent) || self.has_departed(place.member) {
            return judged;
        }
        let may_count = self.cluster.counts(place.member).await;
        match self.judge(place) {
            // The roster was not answered.
            Whereabouts::Absent if may_count => Whereabouts::Unreachable,
            known => known,
        }
    }

    async fn look(&self, wanted: &[Wanted]) -> Result<Vec<Whereabouts>, Away> {
        let keys: Vec<_> = wanted.iter().map(Wanted::key).collect();
        let found = self.cluster.joined()?.link.find(&keys).await?;
        let counts = &self.cluster.tally.lookups;
        let mut whereabouts = Vec::with_capacity(keys.len());
        for entry in found {
            whereabouts.push(match entry {
                Some(entry) => {
                    counts.found.one();
                    self.judge_found(entry).await
                }
                None => {
                    counts.absent.one();
                    Whereabouts::Absent
                }
            });
        }
        // An engine that answers less than it was asked says nothing of the rest.
        whereabouts.resize(keys.len(), Whereabouts::Unreachable);
        Ok(whereabouts)
    }
}

/// Looks up what is wanted, without end.
pub(super) async fn serve(router: Arc<Router>, delivery: Arc<Delivery>) {
    loop {
        let wanted = delivery.lookups.next().await;
        let looked = delivery.look(&wanted).await;
        if looked.is_err() {
            delivery.cluster.tally.lookups.failed.add(wanted.len() as u64);
        }
        for (index, wanted) in wanted.into_iter().enumerate() {
            let whereabouts = looked.as_ref().map(|found| found[index].clone());
            match wanted {
                Wanted::Lane(key, ticket) => {
                    let whereabouts = whereabouts.unwrap_or(Whereabouts::Unreachable);
                    router.resolved(key, ticket, whereabouts).await;
                }
                Wanted::Asked(_, asked) => {
                    // Whoever asked may be gone.
                    let _ = asked.send(whereabouts.map_err(Clone::clone));
                }
            }
        }
    }
}
