//! Which parts of the directory this node follows, and what comes of it.
//!
//! Whoever is interested in an agent says so by its key: `watching` for agents that are watched,
//! `mailbox` for those who have mail here. A part of the directory in which nobody is of interest is
//! not followed, so that a node hears only of changes that it has a use for. One task follows first
//! and asks the directory afterwards, in batches: so no change falls in between.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use conexus_protocol::AgentKey;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};
use tracing::debug;

use super::{
    Cluster, Joined, Station,
    backplane::{Away, Change, ChangeKind, Entry},
    ids::{BUCKETS, Bucket},
};
use crate::{clock::Moment, router::Router, watching::Watches};

/// Keys that the directory is asked for at once.
const BATCH: usize = 256;
/// Parts of the directory that are begun to be followed at once.
const FOLLOWED_AT_ONCE: usize = 16;
/// Between two looks at those who have mail here, and at what nobody is interested in any more.
const LOOK: Duration = Duration::from_secs(1);
/// Mailboxes that are looked after in one look; the next look goes on from there.
const MAILBOXES: usize = 1024;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Follows {
    /// How many keys of each part of the directory are of interest.
    interest: Box<[AtomicUsize]>,
    /// Whom the directory is to be asked for.
    looks: Mutex<HashSet<AgentKey>>,
    more: Notify,
    /// Moves on whenever it was asked.
    looked: watch::Sender<()>,
    joined: AtomicBool,
}

impl Default for Follows {
    fn default() -> Self {
        Self {
            interest: std::iter::repeat_with(AtomicUsize::default).take(BUCKETS).collect(),
            looks: Mutex::default(),
            more: Notify::new(),
            looked: watch::Sender::new(()),
            joined: AtomicBool::new(false),
        }
    }
}

impl Follows {
    fn interest_in(&self, Bucket(bucket): Bucket) -> &AtomicUsize {
        &self.interest[usize::from(bucket)]
    }

    /// A further interest in a key.
    pub(crate) fn begin(&self, key: AgentKey) {
        if self.interest_in(Bucket::of(key)).fetch_add(1, SeqCst) == 0 {
            self.more.notify_one();
        }
    }

    /// One interest in a key less.
    pub(crate) fn end(&self, key: AgentKey) {
        self.interest_in(Bucket::of(key)).fetch_sub(1, SeqCst);
    }

    fn wanted(&self) -> BTreeSet<Bucket> {
        Bucket::all().filter(|bucket| self.interest_in(*bucket).load(SeqCst) > 0).collect()
    }

    /// Whether the directory can be asked at all.
    pub(crate) fn is_joined(&self) -> bool {
        self.joined.load(SeqCst)
    }

    /// The directory is to be asked where an agent of interest is.
    pub(crate) fn look(&self, key: AgentKey) {
        self.look_for([key]);
    }

    fn look_for(&self, keys: impl IntoIterator<Item = AgentKey>) {
        self.looks.lock().extend(keys);
        self.more.notify_one();
    }

    /// Waits until it is known where these watched agents are, as far as that can be known by then.
    pub(crate) async fn know(&self, watches: &Watches, keys: &[AgentKey], within: Duration) {
        let until = Instant::now() + within;
        let mut looked = self.looked.subscribe();
        let unknown = || keys.iter().copied().filter(|key| !watches.is_known(*key));
        self.look_for(unknown());
        while self.is_joined() && unknown().next().is_some() {
            if timeout_at(until, looked.changed()).await.is_err() {
                debug!("the directory was not asked in time for those who are to be watched");
                return;
            }
        }
    }

    fn take_looks(&self) -> Vec<AgentKey> {
        let mut looks = self.looks.lock();
        let taken: Vec<_> = looks.iter().copied().take(BATCH).collect();
        for key in &taken {
            looks.remove(key);
        }
        taken
    }
}

/// The directory has changed in a part that this node follows: to be called for each such event of the
/// link, in their order.
pub(crate) fn heard(cluster: &Cluster, router: &Arc<Router>, change: &Change) {
    let own = cluster.is_own(change.member);
    match change.kind {
        ChangeKind::Left(_) => cluster.places.forget(change.key, change.epoch),
        // Where it was before; where it is now is found with its facts.
        ChangeKind::Came | ChangeKind::Moved => {
            cluster.places.forget_older(change.key, change.epoch);
            if !own && router.presence.held_for(change.key) > 0 {
                router.mail_goes(change.key);
            }
        }
    }
    router.presence.watches.heard(change, own);
}

/// Follows what is of interest while this node is in the cluster, until dropped.
pub(crate) async fn serve(cluster: Arc<Cluster>, router: Arc<Router>) {
    let mut station = cluster.station.subscribe();
    let follower = Follower { cluster: &cluster, router: &router };
    let mut apart_since = Instant::now();
    loop {
        let now = station.borrow_and_update().clone();
        match now {
            Station::Joined(joined) => {
                tokio::select! {
                    _ = station.changed() => {}
                    Err(away) = follower.follow(&joined) => {
                        debug!(%away, "the directory cannot be followed");
                        // The link has failed, which is noted elsewhere.
                        let _ = station.changed().await;
                    }
                }
                apart_since = Instant::now();
                cluster.follows.joined.store(false, SeqCst);
            }
            Station::Apart(_) => {
                tokio::select! {
                    _ = station.changed() => {}
                    () = follower.be_apart(apart_since) => {}
                }
            }
        }
    }
}

struct Follower<'a> {
    cluster: &'a Cluster,
    router: &'a Arc<Router>,
}

impl Follower<'_> {
    const fn follows(&self) -> &Arc<Follows> {
        &self.cluster.follows
    }

    fn watches(&self) -> &Watches {
        &self.router.presence.watches
    }

    /// Nobody can be asked. After a lease nobody elsewhere is known to be there.
    async fn be_apart(&self, since: Instant) {
        let cut_off_at = since + self.cluster.settings.lease;
        let mut is_cut_off = false;
        loop {
            self.give_up_looks();
            tokio::select! {
                () = self.follows().more.notified() => {}
                () = sleep_until(cut_off_at), if !is_cut_off => {
                    is_cut_off = true;
                    self.watches().cut_off();
                }
            }
        }
    }

    fn give_up_looks(&self) {
        loop {
            let keys = self.follows().take_looks();
            if keys.is_empty() {
                break;
            }
            for key in keys {
                self.watches().unanswered(key);
            }
        }
        self.follows().looked.send_replace(());
    }

    /// Follows while the link holds.
    async fn follow(&self, joined: &Joined) -> Result<std::convert::Infallible, Away> {
        let follows = self.follows();
        let mut followed = BTreeSet::new();
        follows.look_for(self.watches().joined());
        follows.joined.store(true, SeqCst);
        // Until then the others may still be about to say again who is with them.
        let settled_at = Instant::now() + self.cluster.settings.lease;
        let mut is_settled = false;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut mail_seen = None;
        loop {
            self.follow_wanted(joined, &mut followed).await?;
            let keys = follows.take_looks();
            if !keys.is_empty() {
                self.look(joined, &keys, is_settled).await?;
                continue;
            }
            tokio::select! {
                () = follows.more.notified() => {}
                () = sleep_until(settled_at), if !is_settled => {
                    is_settled = true;
                    follows.look_for(self.watches().doubtful());
                }
                _ = looks.tick() => {
                    self.unfollow_unwanted(joined, &mut followed).await?;
                    mail_seen = self.look_after_mail(joined, mail_seen).await?;
                }
            }
        }
    }

    async fn follow_wanted(
        &self,
        joined: &Joined,
        followed: &mut BTreeSet<Bucket>,
    ) -> Result<(), Away> {
        let missing: Vec<_> = self.follows().wanted().difference(followed).copied().collect();
        let mut begun = stream::iter(missing)
            .map(|bucket| async move { joined.link.follow(bucket).await.map(|()| bucket) })
            .buffer_unordered(FOLLOWED_AT_ONCE);
        while let Some(bucket) = begun.next().await {
            followed.insert(bucket?);
        }
        Ok(())
    }

    async fn unfollow_unwanted(
        &self,
        joined: &Joined,
        followed: &mut BTreeSet<Bucket>,
    ) -> Result<(), Away> {
        let unwanted: Vec<_> = followed.difference(&self.follows().wanted()).copied().collect();
        for bucket in unwanted {
            joined.link.unfollow(bucket).await?;
            followed.remove(&bucket);
        }
        Ok(())
    }

    /// Asks the directory for agents whose changes come in already.
    async fn look(&self, joined: &Joined, keys: &[AgentKey], settled: bool) -> Result<(), Away> {
        let found = self.find(joined, keys).await;
        let (follows, watches) = (self.follows(), self.watches());
        match found {
            Ok(entries) => {
                for (key, entry) in keys.iter().zip(entries) {
                    let entry = entry.map(|Entry { member, epoch, .. }| {
                        (self.cluster.is_own(member), member, epoch)
                    });
                    watches.found(*key, entry, settled);
                }
            }
            Err(away) => {
                for key in keys {
                    watches.unanswered(*key);
                }
                follows.looked.send_replace(());
                return Err(away);
            }
        }
        follows.looked.send_replace(());
        Ok(())
    }

    /// Where they are; who is on another node is remembered.
    async fn find(&self, joined: &Joined, keys: &[AgentKey]) -> Result<Vec<Option<Entry>>, Away> {
        let entries = joined.link.find(keys).await?;
        for entry in entries.iter().flatten() {
            self.cluster.remember(entry.clone());
        }
        Ok(entries)
    }

    /// Whether somebody is elsewhere who has mail here: it may have come while nobody followed it.
    async fn look_after_mail(
        &self,
        joined: &Joined,
        after: Option<(Moment, AgentKey)>,
    ) -> Result<Option<(Moment, AgentKey)>, Away> {
        let postroom = &self.router.presence.postroom;
        let some = postroom.some_with_mail(after, MAILBOXES);
        for part in some.chunks(BATCH) {
            let keys: Vec<_> = part.iter().map(|(_, key)| *key).collect();
            let entries = self.find(joined, &keys).await?;
            for entry in entries.into_iter().flatten() {
                if !self.cluster.is_own(entry.member) {
                    self.router.mail_goes(entry.key);
                }
            }
        }
        // From the beginning again where there was nobody left.
        Ok(some.last().copied().filter(|_| some.len() == MAILBOXES))
    }
}

#[cfg(test)]
mod tests;
