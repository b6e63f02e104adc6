//! The cluster: several gateways that are one to their agents.
//!
//! Nodes share a directory (which agent is on which node) and deliver to each other, both by way of
//! an engine that exists already, the [`Backplane`]. A node's word counts only while its lease lives.
//! Without a cluster nothing here is even made: what is delivered on this node never comes by.

mod answers;
pub(crate) mod backplane;
pub(crate) mod banned;
pub(crate) mod claims;
#[cfg(test)]
mod conformance;
pub(crate) mod delivery;
mod find;
pub(crate) mod follows;
pub(crate) mod frame;
pub(crate) mod ids;
pub(crate) mod ledger;
pub(crate) mod lists;
mod looks;
pub(crate) mod members;
#[cfg(test)]
pub(crate) mod memory;
mod news;
pub(crate) mod places;
pub(crate) mod redis;
pub(crate) mod service;
pub(crate) mod tally;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod trial;

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    backplane::{Away, Backplane, Link},
    follows::Follows,
    ids::MemberId,
    ledger::Ledger,
    lists::Lists,
    looks::Looks,
    members::Members,
    places::Places,
    tally::Tally,
};
use crate::{config::ClusterSettings, core::Core, pace::OncePerSecond};

/// Sessions on other nodes that policy has ended at once; further ones are not.
const CLOSING: usize = 256;

/// How many members a process remembers that it was: what they left is seen to within a moment.
const REMEMBERED: usize = 64;

/// What the rest of a node has of its cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) settings: ClusterSettings,
    pub(crate) backplane: Arc<dyn Backplane>,
    pub(crate) station: watch::Sender<Station>,
    began: Instant,
    /// Until when this node's lease lives, reckoned from before it was asked for: nanoseconds since this began, 0 for
    /// no lease. Looked at for each message of another node's.
    trusted_until: AtomicU64,
    pub(crate) members: ArcSwap<Members>,
    pub(crate) places: Places,
    pub(crate) follows: Arc<Follows>,
    pub(crate) lists: Lists,
    /// For what policy has done on other nodes and nobody waits for.
    pub(crate) runtime: Handle,
    pub(crate) closing: Arc<Semaphore>,
    pub(crate) tally: Tally,
    /// When its station last changed.
    stationed_at: Mutex<Instant>,
    /// What the directory is to be told yet.
    pub(crate) ledger: Ledger,
    links: AtomicU64,
    looks: Looks,
    /// Who this process is, and was before.
    own: ArcSwap<Vec<MemberId>>,
    /// Something came of a claim.
    claimed: Notify,
    unyielded: OncePerSecond,
    /// What goes on though nobody may wait for it any more; each of it is bounded in time.
    tasks: TaskTracker,
    ending: CancellationToken,
}

/// Whether this node is part of the cluster right now.
#[derive(Debug, Clone)]
pub(crate) enum Station {
    /// Not yet, or not any more: the engine is away.
    Apart(Away),
    Joined(Joined),
}

/// A node's place in the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) member: MemberId,
    pub(crate) link: Arc<dyn Link>,
    /// The how manieth link of this process it is.
    pub(crate) number: u64,
}

/// Keeps this node informed of what the others have: of agents that matter to it, and of bans. Until
/// dropped.
pub(crate) async fn keep_informed(core: Arc<Core>, cluster: Arc<Cluster>) {
    let router = Arc::clone(&core.router);
    tokio::join!(follows::serve(Arc::clone(&cluster), router), banned::serve(core, cluster));
}

impl Cluster {
    /// Within a runtime.
    pub(crate) fn new(settings: ClusterSettings, backplane: Arc<dyn Backplane>) -> Self {
        let station = Station::Apart(Away("has not joined the cluster yet".into()));
        Self {
            places: Places::new(settings.cache_entries, settings.cache_age),
            follows: Arc::default(),
            lists: Lists::default(),
            runtime: Handle::current(),
            closing: Arc::new(Semaphore::new(CLOSING)),
            settings,
            backplane,
            station: watch::Sender::new(station),
            began: Instant::now(),
            trusted_until: AtomicU64::new(0),
            members: ArcSwap::default(),
            tally: Tally::default(),
            stationed_at: Mutex::new(Instant::now()),
            ledger: Ledger::default(),
            links: AtomicU64::new(0),
            looks: Looks::default(),
            own: ArcSwap::default(),
            claimed: Notify::new(),
            unyielded: OncePerSecond::new(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        }
    }

    /// The number of this process's next link.
    fn next_link(&self) -> u64 {
        self.links.fetch_add(1, Relaxed) + 1
    }

    /// Draws who this process is from now on.
    fn draw_member(&self) -> MemberId {
        let member = MemberId::generate();
        let mut own = self.own.load().as_ref().clone();
        own.drain(..own.len().saturating_sub(REMEMBERED));
        own.push(member);
        self.own.store(Arc::new(own));
        member
    }

    /// Whether a member is this process, or was.
    pub(crate) fn is_own(&self, member: MemberId) -> bool {
        self.own.load().contains(&member)
    }

    /// Whether this process is that member still, and the others certainly count it as there.
    fn is_still(&self, member: MemberId) -> bool {
        self.own.load().last() == Some(&member) && self.is_trusted()
    }

    /// Does something in a task of its own, until this node's part in the cluster ends.
    fn spawn<F>(&self, what: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn(self.ending.clone().run_until_cancelled_owned(what))
    }

    /// This node's place, or why it has none.
    pub(crate) fn joined(&self) -> Result<Joined, Away> {
        match &*self.station.borrow() {
            Station::Joined(joined) => Ok(joined.clone()),
            Station::Apart(away) => Err(away.clone()),
        }
    }

    /// Takes another station. All changes go by here.
    pub(crate) fn take(&self, station: Station) {
        let stays = match (&*self.station.borrow(), &station) {
            (Station::Joined(before), Station::Joined(now)) => before.member == now.member,
            (Station::Apart(_), Station::Apart(_)) => true,
            _ => false,
        };
        if !stays {
            *self.stationed_at.lock() = Instant::now();
        }
        self.station.send_replace(station);
    }

    /// Since when it is this member, or apart for whatever reason.
    pub(crate) fn stationed_at(&self) -> Instant {
        *self.stationed_at.lock()
    }

    /// Notes that a lease of this node's lives until then.
    pub(crate) fn trust_until(&self, until: Option<Instant>) {
        let nanos = until.map_or(0, |until| self.nanos(until));
        self.trusted_until.store(nanos, SeqCst);
    }

    /// Nanoseconds from the beginning to a moment, of which there are enough for 584 years.
    fn nanos(&self, moment: Instant) -> u64 {
        let nanos = moment.saturating_duration_since(self.began).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// For how long the others certainly count this node as there.
    pub(crate) fn lease_left(&self, now: Instant) -> Duration {
        let until = self.trusted_until.load(SeqCst);
        Duration::from_nanos(until.saturating_sub(self.nanos(now)))
    }

    /// Whether the others cannot have given this node up: while that is not certain it takes nothing
    /// from them, since its agents may be elsewhere by now.
    pub(crate) fn is_trusted(&self) -> bool {
        self.nanos(Instant::now()) < self.trusted_until.load(SeqCst)
    }
}
