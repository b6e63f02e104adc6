//! The cluster: several gateways that are one to their agents.
//!
//! Nodes share a directory (which agent is on which node) and deliver to each other, both by way of
//! an engine that exists already, the [`Backplane`]. A node's word counts only while its lease lives.
//! Without a cluster nothing here is even made: what is delivered on this node never comes by.

pub(crate) mod backplane;
pub(crate) mod frame;
pub(crate) mod ids;
pub(crate) mod members;
#[cfg(test)]
pub(crate) mod memory;
mod news;
pub(crate) mod places;
pub(crate) mod tally;
pub(crate) mod service;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::{
    backplane::{Away, Backplane, Link},
    ids::{Bucket, MemberId},
    members::Members,
    places::Places,
    tally::Tally,
};
use crate::config::ClusterSettings;

/// What the rest of a node has of its cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) settings: ClusterSettings,
    pub(crate) backplane: Arc<dyn Backplane>,
    pub(crate) station: watch::Sender<Station>,
    /// Until when this node's lease lives, reckoned from before it was asked for.
    trusted_until: Mutex<Option<Instant>>,
    pub(crate) members: ArcSwap<Members>,
    pub(crate) places: Places,
    pub(crate) tally: Tally,
    /// When its station last changed.
    stationed_at: Mutex<Instant>,
    /// Parts of the directory whose changes are wanted here, and by how many. Each link begins to
    /// follow them before it is [joined](Station::Joined).
    pub(crate) followed: Mutex<BTreeMap<Bucket, usize>>,
    links: AtomicU64,
    look: Notify,
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

impl Cluster {
    pub(crate) fn new(settings: ClusterSettings, backplane: Arc<dyn Backplane>) -> Self {
        let station = Station::Apart(Away("has not joined the cluster yet".into()));
        Self {
            places: Places::new(settings.cache_entries, settings.cache_age),
            settings,
            backplane,
            station: watch::Sender::new(station),
            trusted_until: Mutex::default(),
            members: ArcSwap::default(),
            tally: Tally::default(),
            stationed_at: Mutex::new(Instant::now()),
            followed: Mutex::default(),
            links: AtomicU64::new(0),
            look: Notify::new(),
        }
    }

    /// The number of this process's next link.
    fn next_link(&self) -> u64 {
        self.links.fetch_add(1, Relaxed) + 1
    }

    /// Has the roster looked at soon, ahead of the next renewal.
    fn look_soon(&self) {
        self.look.notify_one();
    }

    async fn asked_to_look(&self) {
        self.look.notified().await;
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
        *self.trusted_until.lock() = until;
    }

    /// Whether the others cannot have given this node up: while that is not certain it takes nothing
    /// from them, since its agents may be elsewhere by now.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted_until.lock().is_some_and(|until| Instant::now() < until)
    }
}
