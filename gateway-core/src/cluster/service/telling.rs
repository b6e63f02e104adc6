//! What the directory is told while this node is in the cluster: who has left, who is here and not
//! down yet, and what has changed of whom; and what members were that this process was before.

use std::{sync::Arc, time::Duration};

use conexus_protocol::AgentKey;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{Parted, Service};
use crate::{
    cluster::{
        Cluster, Joined,
        backplane::{Away, Release},
        claims::{place_running, verify},
        ids::{Bucket, MemberId},
        ledger::Due,
    },
    core::Core,
};

/// How many releases go in one command, and about how many agents a question is.
const BATCH: usize = 512;

/// So many commands are under way at once.
const AT_ONCE: usize = 16;

/// Beyond the time in which a command is carried out or never: for the clocks of two machines.
const AND_A_BIT: Duration = Duration::from_millis(200);

/// How long a node that leaves takes to answer what it was sent at the end, at most, for each step.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How watchers are told of what was found to be left over.
const GONE: &str = "gone";

/// How they are told of what is left once the gateway has stopped.
const STOPPING: &str = "stopping";

/// Notes whose agents' time on this node is over, in whatever station it is.
pub(super) async fn note_departures(core: &Core, cluster: &Cluster) {
    loop {
        for departed in core.router.presence.departures.next().await {
            if let Some(epoch) = departed.epoch {
                cluster.ledger.release(departed.key, epoch, departed.reason);
            }
        }
    }
}

impl Service {
    /// Tells the directory what is due, until that fails.
    pub(super) async fn tell(&self, joined: &Joined) -> Parted {
        loop {
            let due = match self.cluster.ledger.next().await {
                Ok(due) => due,
                Err(overflow) => return overflow.into(),
            };
            if let Err(away) = self.tell_all(joined, due).await {
                return Parted::Away(away);
            }
        }
    }

    async fn tell_all(
        &self,
        joined: &Joined,
        due: impl IntoIterator<Item = (AgentKey, Due)>,
    ) -> Result<(), Away> {
        let (mut releases, mut descriptions, mut claims) = (Vec::new(), Vec::new(), Vec::new());
        for (key, Due { release, claim, describe }) in due {
            if let Some((epoch, reason)) = release {
                releases.push(Release { key, epoch, reason });
            }
            let Some(session) = self.core.router.presence.holder(key) else { continue };
            if claim {
                claims.push(session);
            } else if describe && let Some(epoch) = session.epoch() {
                descriptions.push((epoch, session.facts()));
            }
        }
        // Those of one part of the directory beside each other: that is one command.
        releases.sort_unstable_by_key(|release| release.key);
        let released =
            releases.chunks(BATCH).map(|batch| joined.link.release(joined.member, batch));
        let described = descriptions
            .iter()
            .map(|(epoch, agent)| joined.link.describe(joined.member, *epoch, agent));
        stream::iter(released.chain(described))
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |told| told)
            .await?;
        // Behind the releases: one of the same agent is not to take out what was put down meanwhile.
        for session in claims {
            let (core, cluster) = (Arc::clone(&self.core), Arc::clone(&self.cluster));
            let age = self.age(&session);
            self.cluster.spawn(place_running(core, cluster, session, age));
        }
        Ok(())
    }

    /// Sees to what earlier links and members of this process may have left behind.
    pub(super) async fn tidy(&self, joined: &Joined, former: &mut Vec<MemberId>) -> Parted {
        while let Some(member) = former.last().copied() {
            let cleared = async {
                self.clear(joined, member, GONE).await?;
                // Whoever struck it off may have died over that.
                joined.link.buried(member).await
            };
            if let Err(away) = cleared.await {
                return Parted::Away(away);
            }
            debug!(%member, "nothing is left of who this node was before");
            former.pop();
        }
        loop {
            // Until then an older link may have something put down.
            sleep(self.core.settings.cluster_redis.timeout + AND_A_BIT).await;
            let unsure = match self.cluster.ledger.take_unsure() {
                Ok(unsure) => unsure,
                // What is down of whoever is gone is taken out by an announcement.
                Err(overflow) => return overflow.into(),
            };
            for keys in unsure.chunks(BATCH) {
                let verified = async {
                    verify(&self.core, &self.cluster, joined, keys).await?;
                    self.end_older_ones(joined, keys).await
                };
                if let Err(away) = verified.await {
                    unsure.iter().for_each(|key| self.cluster.ledger.unsure(*key));
                    return Parted::Away(away);
                }
            }
        }
    }

    /// Leaves the cluster in order: what is due is told, and nothing is left behind.
    pub(super) async fn leave(&self, joined: &Joined) -> Result<(), Away> {
        while !self.cluster.ledger.is_settled() && self.cluster.joined().is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
        self.empty(joined, joined.member, STOPPING).await?;
        // Others may have sent something before they saw that. It is answered, and what they send from now
        // on is heard by nobody: so all of it goes where its agents are now. Only then is this node off the
        // roster, since what is under way to a member that is not there is given up.
        joined.link.unlisten().await?;
        let _ = timeout(LAST_WORDS, self.unlistened.notified()).await;
        if let Some(delivery) = self.core.router.presence.delivery() {
            delivery.flushed(LAST_WORDS).await;
        }
        joined.link.retire(joined.member).await
    }

    /// Takes out what a member of this process's has, and takes it off the roster.
    async fn clear(
        &self,
        joined: &Joined,
        member: MemberId,
        reason: &'static str,
    ) -> Result<(), Away> {
        self.empty(joined, member, reason).await?;
        joined.link.retire(member).await
    }

    async fn empty(
        &self,
        joined: &Joined,
        member: MemberId,
        reason: &'static str,
    ) -> Result<(), Away> {
        let cleared = Bucket::all().map(|bucket| joined.link.clear(member, bucket, reason));
        stream::iter(cleared).map(Ok).try_for_each_concurrent(AT_ONCE, |cleared| cleared).await
    }
}
