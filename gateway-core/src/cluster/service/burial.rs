//! Burials: what is to be done about a node whose lease is over.
//!
//! One of those who are left strikes it off the roster. That one tells observers of every agent that the
//! directory has there, then takes those out, which watchers everywhere are told of. In this order, so
//! that an end is told at least once: whoever dies in between is [followed](Dead) by another.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use conexus_plugin_api::{
    Agent, Point,
    host::{Disconnect, Event},
};
use conexus_protocol::{AgentKey, Subprotocol};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{Parted, Service};
use crate::{
    cluster::{
        Cluster, Joined,
        backplane::{Away, Entry, Roster},
        ids::{Bucket, Epoch, MemberId},
    },
    telemetry::{
        events::now_ms,
        history::{HistoryEntry, HistoryKind},
    },
};

/// How observers and watchers are told of it.
const NODE_LOST: &str = "node_lost";

/// So many parts of the directory are under way at once.
const AT_ONCE: usize = 8;

/// So many ends are handed to observers at once: their queue has room for more, also for others'.
const TOLD_AT_ONCE: usize = 64;

/// Members whose lease is over by the latest look, and those that somebody struck off and has not
/// buried in time.
#[derive(Debug, Default)]
pub(super) struct Dead {
    found: Mutex<BTreeMap<MemberId, Found>>,
    more: Notify,
}

#[derive(Debug, Clone)]
struct Found {
    /// `server.node_id`, where that is still known; else the member.
    name: String,
    /// The engine's clock, and this node's when it was asked.
    looked: (Epoch, Instant),
}

impl Dead {
    /// What a look at the roster brought.
    pub(super) fn found(&self, cluster: &Cluster, sent: Instant, roster: &Roster) {
        let over = roster.members.iter().filter(|listed| listed.left.is_zero());
        let over = over.map(|listed| (listed.member, listed.info.node_id.clone()));
        let unburied = roster.unburied.iter().map(|member| (*member, member.to_string()));
        let looked = (roster.now, sent);
        let found: BTreeMap<_, _> = over
            .chain(unburied)
            // Those that this process was before it sees to itself.
            .filter(|(member, _)| !cluster.is_own(*member))
            .map(|(member, name)| (member, Found { name, looked }))
            .collect();
        let any = !found.is_empty();
        *self.found.lock() = found;
        if any {
            self.more.notify_one();
        }
    }

    async fn next(&self) -> BTreeMap<MemberId, Found> {
        loop {
            let found = std::mem::take(&mut *self.found.lock());
            if !found.is_empty() {
                return found;
            }
            self.more.notified().await;
        }
    }
}

impl Found {
    /// How long ago something was that has this epoch, in milliseconds.
    fn since_ms(&self, epoch: Epoch) -> u64 {
        let (now, looked) = self.looked;
        let elapsed = u64::try_from(looked.elapsed().as_micros()).unwrap_or(u64::MAX);
        now.0.saturating_add(elapsed).saturating_sub(epoch.0) / 1000
    }
}

impl Service {
    /// Buries whoever dies, until that fails.
    pub(super) async fn bury(&self, joined: &Joined) -> Parted {
        // If it was the engine that was away, all the others' leases are over, and they come back.
        sleep(self.cluster.settings.lease).await;
        loop {
            for (member, found) in self.dead.next().await {
                if let Err(away) = self.bury_one(joined, member, &found).await {
                    return Parted::Away(away);
                }
            }
        }
    }

    async fn bury_one(&self, joined: &Joined, member: MemberId, found: &Found) -> Result<(), Away> {
        if !joined.link.strike(member, self.cluster.settings.lease).await? {
            return Ok(());
        }
        let (node, lost) = (&self.core.node_id, &found.name);
        warn!(node, lost, %member, "a node of the cluster is lost: its lease is over");
        let buried = Bucket::all().map(|bucket| self.bury_part(joined, member, bucket, found));
        let buried: Vec<usize> =
            stream::iter(buried).buffer_unordered(AT_ONCE).try_collect().await?;
        joined.link.buried(member).await?;
        let (agents, burials) = (buried.iter().sum::<usize>(), &self.cluster.tally.burials);
        burials.nodes.one();
        burials.agents.add(agents as u64);
        info!(node, lost, %member, agents, "nothing is left of a lost node");
        Ok(())
    }

    /// Sees to one part of the directory; how many agents were there.
    async fn bury_part(
        &self,
        joined: &Joined,
        member: MemberId,
        bucket: Bucket,
        found: &Found,
    ) -> Result<usize, Away> {
        let entries = joined.link.entries(member, bucket).await?;
        for some in entries.chunks(TOLD_AT_ONCE) {
            for entry in some {
                self.tell_of_end(entry, found);
            }
            if self.core.router.policy.asks(Point::Disconnect)
                && !self.core.router.policy.told().await
            {
                warn!(lost = %found.name, "observers do not come to an end of what they are told");
            }
        }
        if !entries.is_empty() {
            joined.link.clear(member, bucket, NODE_LOST).await?;
        }
        Ok(entries.len())
    }

    fn tell_of_end(&self, entry: &Entry, found: &Found) {
        let router = &self.core.router;
        router.telemetry.note(left(&entry.agent));
        router.observe(Point::Disconnect, || {
            Event::Disconnect(Arc::new(Disconnect {
                agent: Arc::clone(&entry.agent),
                reason: NODE_LOST.into(),
                code: None,
                lasted_ms: found.since_ms(entry.epoch),
                epoch: Some(entry.epoch.0),
                connection: None,
            }))
        });
    }
}

/// What is remembered of it.
fn left(agent: &Agent) -> HistoryEntry {
    let spoken = [Subprotocol::V1, Subprotocol::V1_1].map(Subprotocol::as_str);
    let spoken = spoken.into_iter().find(|name| *name == agent.subprotocol);
    HistoryEntry {
        at_ms: now_ms(),
        kind: HistoryKind::Left,
        did: agent.did.as_str().into(),
        session: None,
        address: agent.address,
        subprotocol: spoken.unwrap_or_default(),
        reason: Some(Cow::Borrowed(NODE_LOST)),
        code: None,
        key: AgentKey::from_bytes(agent.key),
    }
}
