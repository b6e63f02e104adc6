//! The audit: whether the directory still has who is here.
//!
//! What the directory is told is told once, and every step of it may be the last one of a node: one that
//! puts an agent down and dies before it has asked for the end of the session elsewhere, one whose link
//! fails before it hears whose place its claim took. So each node looks, a part of the directory after
//! the other and at a bounded rate, whether its own agents are down; at once for all of them when
//! another node is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use conexus_protocol::AgentKey;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{Parted, Service};
use crate::{
    cluster::{
        Joined,
        backplane::{Away, Entry},
        claims::{insist, place_running},
        ids::{Bucket, MemberId},
    },
    session::{handle::SessionHandle, outbox::Order},
};

/// Between two questions. Each is one command about one part of the directory.
const EVERY: Duration = Duration::from_millis(250);

/// About how many agents one question is at most: a quarter of a millisecond of the engine's.
const BATCH: usize = 128;

/// Agents of one part of the directory.
type Piece = (Bucket, Vec<Arc<SessionHandle>>);

impl Service {
    /// Looks again and again, until that fails.
    pub(super) async fn audit(&self, joined: &Joined) -> Parted {
        let mut others = self.others(joined);
        loop {
            let mut is_one_lost = false;
            for piece in self.own_pieces() {
                sleep(EVERY).await;
                if let Err(away) = self.look_after(joined, &piece).await {
                    return Parted::Away(away);
                }
                let now = self.others(joined);
                is_one_lost = !others.is_subset(&now);
                others = now;
                if is_one_lost {
                    break;
                }
            }
            if !is_one_lost {
                sleep(EVERY).await;
                continue;
            }
            // What it had taken from this node is known once it is buried.
            sleep(self.cluster.settings.lease / 4).await;
            for piece in self.own_pieces() {
                if let Err(away) = self.look_after(joined, &piece).await {
                    return Parted::Away(away);
                }
            }
        }
    }

    fn others(&self, joined: &Joined) -> BTreeSet<MemberId> {
        let (members, now) = (self.cluster.members.load(), Instant::now());
        let counting = members.iter().filter(|(_, about)| about.counts(now));
        counting.map(|(member, _)| member).filter(|member| *member != joined.member).collect()
    }

    /// Who is here and was put down.
    fn own_pieces(&self) -> Vec<Piece> {
        let mut parts: BTreeMap<Bucket, Vec<_>> = BTreeMap::new();
        for session in self.core.router.presence.sessions() {
            if session.epoch().is_some() {
                parts.entry(Bucket::of(session.agent.key())).or_default().push(session);
            }
        }
        let pieces = |(bucket, part): (Bucket, Vec<_>)| -> Vec<Piece> {
            part.chunks(BATCH).map(|piece| (bucket, piece.to_vec())).collect()
        };
        parts.into_iter().flat_map(pieces).collect()
    }

    async fn look_after(&self, joined: &Joined, (bucket, piece): &Piece) -> Result<(), Away> {
        let asked = Instant::now();
        let keys: Vec<_> = piece.iter().map(|session| session.agent.key()).collect();
        let missing = joined.link.missing(joined.member, *bucket, &keys).await?;
        let keys: Vec<_> = missing.iter().map(|place| keys[*place]).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let found = joined.link.find(&keys).await?;
        for (place, entry) in missing.into_iter().zip(found) {
            self.compare(&piece[place], entry, asked);
        }
        Ok(())
    }

    /// What the directory has of an agent that was here when it was asked.
    fn compare(&self, session: &Arc<SessionHandle>, entry: Option<Entry>, asked: Instant) {
        let (core, cluster, agent) = (&self.core, &self.cluster, &session.agent);
        let holder = core.router.presence.holder(agent.key());
        if holder.is_none_or(|holder| holder.id != session.id) {
            return;
        }
        match entry {
            Some(entry) if cluster.is_own(entry.member) => {}
            Some(entry) if session.epoch().is_some_and(|own| own < entry.epoch) => {
                let node = cluster.name(entry.member);
                debug!(%agent, node, "is on another node, which did not ask for its end here");
                session.outbox.order(Order::Move);
            }
            _ => {
                debug!(%agent, "was not in the directory any more");
                // As of the question: whoever registers elsewhere after it has the newer one.
                let (core, cluster) = (Arc::clone(core), Arc::clone(cluster));
                let (session, age) = (Arc::clone(session), asked.elapsed());
                cluster.clone().spawn(place_running(core, cluster, session, age));
            }
        }
    }

    /// Has the older sessions end of agents that were put down without this node's having heard whose
    /// place that took: wherever they are.
    pub(super) async fn end_older_ones(
        &self,
        joined: &Joined,
        keys: &[AgentKey],
    ) -> Result<(), Away> {
        let found = joined.link.find(keys).await?;
        let others = self.others(joined);
        for (key, entry) in keys.iter().zip(found) {
            let Some(Entry { member, epoch, .. }) = entry else { continue };
            for other in others.iter().filter(|other| **other != member) {
                insist(&self.core, &self.cluster, *other, *key, epoch);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
