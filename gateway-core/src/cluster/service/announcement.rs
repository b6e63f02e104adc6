//! The announcement: all agents of this node are put down at once, when it joins or joins anew.
//!
//! It makes up for whatever could not be told while this node was apart. Where an agent has moved
//! meanwhile, its session here ends; where it had moved here, the one on the other node does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conexus_protocol::AgentKey;
use futures_util::{StreamExt as _, stream};
use tracing::debug;

use super::Service;
use crate::{
    cluster::{
        Joined,
        backplane::{Announced, Away, Claimed, Outcome},
        claims::{granted, insist, is_kept},
        ids::Bucket,
    },
    session::{handle::SessionHandle, outbox::Order},
};

/// So many parts of the directory are under way at once.
const AT_ONCE: usize = 16;

type Part = BTreeMap<AgentKey, Arc<SessionHandle>>;

impl Service {
    /// Puts down who is here; how many that are.
    pub(super) async fn announce(&self, joined: &Joined) -> Result<usize, Away> {
        // In this order: who comes or goes after the look at presence is in the ledger.
        self.cluster.ledger.open();
        let mut parts: BTreeMap<Bucket, Part> = BTreeMap::new();
        let sessions = self.core.router.presence.sessions();
        let agents = sessions.len();
        for session in sessions {
            let key = session.agent.key();
            parts.entry(Bucket::of(key)).or_default().insert(key, session);
        }
        // Also those where nobody is: somebody may have been.
        let all = Bucket::all().map(|bucket| (bucket, parts.remove(&bucket).unwrap_or_default()));
        let mut announcing = stream::iter(all)
            .map(|(bucket, part)| self.announce_part(joined, bucket, part))
            .buffer_unordered(AT_ONCE);
        while let Some(announced) = announcing.next().await {
            announced?;
        }
        self.cluster.tally.claims.announced.add(agents as u64);
        Ok(agents)
    }

    async fn announce_part(&self, joined: &Joined, bucket: Bucket, part: Part) -> Result<(), Away> {
        let presence = &self.core.router.presence;
        let mut announced = Vec::with_capacity(part.len());
        let mut unknown = Vec::new();
        for (key, session) in &part {
            let epoch = session.epoch().ok_or_else(|| self.age(session));
            if epoch.is_err() && presence.claiming(session) {
                unknown.push(*key);
            }
            announced.push(Announced { agent: session.facts(), epoch });
        }
        let outcomes = joined.link.announce(joined.member, bucket, &announced).await;
        let mut won = Vec::new();
        if let Ok(outcomes) = &outcomes {
            for Outcome { key, claimed } in outcomes {
                let Some(session) = part.get(key) else { continue };
                if self.settle(joined, session, claimed) {
                    won.push(*key);
                }
            }
        }
        for key in unknown.iter().filter(|key| !won.contains(key)) {
            if let Some(session) = part.get(key) {
                presence.claim_failed(*key, session.id);
            }
        }
        self.cluster.claimed.notify_waiters();
        outcomes.map(|_| ())
    }

    /// What came of one agent; whether it is down with this node.
    fn settle(&self, joined: &Joined, session: &Arc<SessionHandle>, claimed: &Claimed) -> bool {
        let (core, cluster, key) = (&self.core, &self.cluster, session.agent.key());
        match *claimed {
            Claimed::Won { epoch, before } => {
                if session.epoch() != Some(epoch) {
                    granted(core, cluster, session, epoch);
                }
                if let Some((member, _)) = before
                    && !cluster.is_own(member)
                {
                    insist(core, cluster, member, key, epoch);
                }
                true
            }
            Claimed::Lost { to, epoch } if is_kept(core, joined, session, to, epoch) => {
                granted(core, cluster, session, epoch);
                true
            }
            Claimed::Lost { to, .. } if cluster.is_own(to) => {
                // With who this process was before, or for a session that is over.
                cluster.ledger.claim(key);
                false
            }
            Claimed::Lost { to, .. } => {
                cluster.tally.claims.lost.one();
                debug!(agent = %session.agent, node = %cluster.name(to), "has moved to another node");
                session.outbox.order(Order::Move);
                false
            }
        }
    }

    /// How long ago a session proved its key.
    pub(super) fn age(&self, session: &SessionHandle) -> Duration {
        session.connected_at.until(self.core.clock.now())
    }
}
