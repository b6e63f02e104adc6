//! Bans that hold on all nodes.
//!
//! They are kept in the engine, beside the directory, each with its end by the engine's clock; every
//! node has a copy, which is what registrations are held against. So they outlive any node's restart,
//! nobody waits for the engine in order to register, and while a node is apart its copy holds. What is
//! said on a node that is apart is passed on when it is back. An engine that has lost its memory is
//! told all of them again, by whichever node comes first.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tracing::{debug, warn};

use super::{
    Cluster, Joined, Station,
    backplane::{Away, BanAbout, BanList, BansAt, SharedBan},
    frame::Question,
};
use crate::{
    bans::{Ban, MAX_BANS, Unshared},
    core::Core,
    pace::OncePerSecond,
    world::dismiss,
};
use conexus_protocol::{AgentKey, CloseReason};

/// How often the engine is asked whether bans have changed, should nobody say so.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks whether a ban is known to all.
const WAIT: Duration = Duration::from_millis(5);

/// Shares this node's bans with the others, until dropped.
pub(crate) async fn serve(core: Arc<Core>, cluster: Arc<Cluster>) {
    let mut station = cluster.station.subscribe();
    let mut sharing =
        Sharing { core: &core, cluster: &cluster, known: None, full: OncePerSecond::new() };
    loop {
        let now = station.borrow_and_update().clone();
        if let Station::Joined(joined) = now {
            tokio::select! {
                _ = station.changed() => continue,
                Err(away) = sharing.share(&joined) => debug!(%away, "bans cannot be shared"),
            }
        }
        if station.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until all nodes can know of a change of a key's ban, as far as that is possible in time;
/// whether they can.
pub(crate) async fn passed_on(core: &Core, cluster: &Cluster, key: AgentKey) -> bool {
    let until = Instant::now() + cluster.settings.takeover_timeout;
    let known = async {
        while cluster.joined().is_ok() && !core.bans.is_shared(key) {
            tokio::time::sleep(WAIT).await;
        }
    };
    let _ = timeout_at(until, known).await;
    core.bans.is_shared(key)
}

struct Sharing<'a> {
    core: &'a Core,
    cluster: &'a Cluster,
    known: Option<BansAt>,
    full: OncePerSecond,
}

impl Sharing<'_> {
    async fn share(&mut self, joined: &Joined) -> Result<std::convert::Infallible, Away> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.core.bans.changed() => {}
            }
            // First what the others do: what this node has to say of it is newer.
            if let Some(list) = joined.link.bans(self.known).await? {
                self.learn(list);
            }
            let unshared = self.core.bans.unshared(self.core.clock.now());
            if unshared != Unshared::default() {
                self.pass_on(joined, &unshared).await?;
            }
        }
    }

    fn learn(&mut self, BanList { at, bans }: BanList) {
        let before = self.known.replace(at);
        if before.is_some_and(|before| before.origin != at.origin && before.origin != 0) {
            warn!(node = %self.core.node_id, "the cluster has lost its bans, and is told them again");
            self.core.bans.forgotten();
        }
        let now = self.core.clock.now();
        let ban = |SharedBan { key, left, about }: SharedBan| {
            let BanAbout { did, reason, by } = about;
            (key, Ban { did, until: now.after(left), reason, by })
        };
        for key in self.core.bans.learn(bans.into_iter().map(ban).collect()) {
            let ban = self.core.bans.of(key, now);
            if let Some((session, ban)) = self.core.router.presence.holder(key).zip(ban) {
                dismiss(&session, CloseReason::Removed, &ban.reason);
            }
        }
    }

    async fn pass_on(&self, joined: &Joined, unshared: &Unshared) -> Result<(), Away> {
        let now = self.core.clock.now();
        let bans: Vec<_> = unshared
            .bans
            .iter()
            .map(|(key, Ban { did, until, reason, by })| SharedBan {
                key: *key,
                left: now.until(*until),
                about: BanAbout { did: did.clone(), reason: reason.clone(), by: by.clone() },
            })
            .collect();
        if !joined.link.ban(&bans, &unshared.lifted).await? {
            if let Some(more) = self.full.due() {
                let (node, bans) = (&self.core.node_id, bans.len());
                warn!(%node, bans, more, "bans hold on this node alone: the cluster has {MAX_BANS}");
            }
            return Ok(());
        }
        self.core.bans.shared(unshared);
        self.tell(joined).await;
        Ok(())
    }

    /// Has the others look at once. Who does not hear it looks within a second.
    async fn tell(&self, joined: &Joined) {
        let (members, now) = (self.cluster.members.load_full(), Instant::now());
        let others =
            members.iter().filter(|(member, about)| *member != joined.member && about.counts(now));
        let Some(delivery) = self.core.router.presence.delivery() else { return };
        let told = others.map(|(member, _)| delivery.ask(member, Question::Bans));
        let _ = timeout(self.cluster.settings.takeover_timeout, join_all(told)).await;
    }
}
