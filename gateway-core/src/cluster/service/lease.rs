//! The lease: the one write that keeps a node and all of its agents present.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::{Link, Parted, Service};
use crate::{
    cluster::{
        Joined,
        backplane::{NodeInfo, Roster},
        frame,
        members::Members,
    },
    phase::Phase,
};

/// Renewals in the time of a lease.
const RENEWALS: u32 = 3;

impl Service {
    /// Enters the roster, or finds this member there.
    pub(super) async fn enter(&mut self, link: &Arc<dyn Link>) -> Result<(), Parted> {
        let was_listed = std::mem::replace(&mut self.is_listed, true);
        let roster = self.look(link).await?;
        if was_listed && roster.entered { Err(Parted::GivenUp) } else { Ok(()) }
    }

    /// Renews the lease until that fails.
    pub(super) async fn renew(&self, joined: &Joined) -> Parted {
        let mut phase = self.core.phase.subscribe();
        phase.mark_unchanged();
        let every = self.cluster.settings.lease / RENEWALS;
        let mut next = Instant::now() + every;
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                // Whether the gateway is about to stop is to be known at once.
                _ = phase.changed() => {}
                () = self.cluster.asked_to_look() => {}
            }
            next = Instant::now() + every;
            match self.look(&joined.link).await {
                Ok(roster) if roster.entered => return Parted::GivenUp,
                Ok(_) => {}
                Err(parted) => return parted,
            }
        }
    }

    /// One renewal, and what it tells of the others.
    async fn look(&self, link: &Arc<dyn Link>) -> Result<Roster, Parted> {
        let lease = self.cluster.settings.lease;
        let sent = Instant::now();
        let roster = link.renew(self.member, &self.about(), lease).await?;
        self.cluster.trust_until(Some(sent + lease));
        self.cluster.members.store(Arc::new(Members::new(roster.clone(), Instant::now())));
        Ok(roster)
    }

    fn about(&self) -> NodeInfo {
        let core = &self.core;
        NodeInfo {
            node_id: core.node_id.clone(),
            did: core.router.voice.did().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            frames: frame::VERSION,
            started_ms: core.clock.started_at().as_unix_millis(),
            agents: core.router.presence.online() as u64,
            draining: core.phase() != Phase::Running,
        }
    }
}
