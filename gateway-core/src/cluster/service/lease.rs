//! The lease: the one write that keeps a node and all of its agents present.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use tracing::warn;

use super::{Link, Parted, Service};
use crate::{
    cluster::{
        Joined,
        backplane::{NodeInfo, Roster},
        frame,
    },
    core::millis,
    phase::Phase,
};

/// Renewals in the time of a lease.
const RENEWALS: u32 = 3;

/// How long after a lease is to end the roster is looked at.
const AFTER: Duration = Duration::from_millis(10);

/// Whoever has just come looks this often, for so long: if it was the engine that was away, the others
/// come at the same time.
const OFTEN: Duration = Duration::from_millis(250);
const SETTLING: Duration = Duration::from_secs(2);

impl Service {
    /// Enters the roster, or finds this member there.
    pub(super) async fn enter(&mut self, link: &Arc<dyn Link>) -> Result<(), Parted> {
        let was_listed = std::mem::replace(&mut self.is_listed, true);
        let roster = self.look(link).await?;
        if roster.entered {
            self.cluster.tally.leases.entered.one();
        }
        if was_listed && roster.entered { Err(Parted::GivenUp) } else { Ok(()) }
    }

    /// Renews the lease until that fails.
    pub(super) async fn renew(&self, joined: &Joined) -> Parted {
        let mut phase = self.core.phase.subscribe();
        phase.mark_unchanged();
        let (begun, usual) = (Instant::now(), self.cluster.settings.lease / RENEWALS);
        let every = || if begun.elapsed() < SETTLING { usual.min(OFTEN) } else { usual };
        let mut next = begun + every();
        loop {
            tokio::select! {
                () = sleep_until(next.min(self.next_end())) => {}
                // Whether the gateway is about to stop is to be known at once.
                Ok(()) = phase.changed() => {}
                () = self.cluster.look_wanted() => {}
            }
            let now = Instant::now();
            if now >= next {
                self.cluster.usual_look();
                next = now + every();
            }
            match self.look(&joined.link).await {
                Ok(roster) if roster.entered => return Parted::GivenUp,
                Ok(_) => {}
                Err(parted) => return parted,
            }
        }
    }

    /// When the first of the others' leases ends, unless it is renewed.
    fn next_end(&self) -> Instant {
        let (members, now) = (self.cluster.members.load(), Instant::now());
        let ends = members.iter().map(|(_, member)| member.until + AFTER);
        let far = now + self.cluster.settings.lease;
        ends.filter(|end| *end > now).min().unwrap_or(far)
    }

    /// One renewal, and what it tells of the others.
    async fn look(&self, link: &Arc<dyn Link>) -> Result<Roster, Parted> {
        let (lease, leases) = (self.cluster.settings.lease, &self.cluster.tally.leases);
        let is_renewal = self.cluster.joined().is_ok();
        if is_renewal && !self.cluster.is_trusted() {
            // This process stood still: others may have taken its agents over.
            return Err(Parted::GivenUp);
        }
        let (sent, number) = (Instant::now(), self.cluster.begin_look());
        let roster = link.renew(self.member, &self.about(), lease).await;
        let roster = roster.inspect_err(|_| leases.failed.one())?;
        if is_renewal && !self.cluster.is_trusted() {
            // It may have been over when the engine came to it.
            return Err(Parted::GivenUp);
        }
        leases.renewed.one();
        self.cluster.trust_until(Some(sent + lease));
        self.cluster.looked(number, &roster);
        self.dead.found(&self.cluster, sent, &roster);
        self.warn_of_namesake();
        Ok(roster)
    }

    fn warn_of_namesake(&self) {
        let namesake = self.cluster.namesake();
        if !self.has_namesake.swap(namesake.is_some(), Relaxed)
            && let Some(node) = namesake
        {
            warn!(node, "another node of the cluster has the same server.node_id");
        }
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
            lease_ms: millis(core.settings.cluster.lease),
        }
    }
}
