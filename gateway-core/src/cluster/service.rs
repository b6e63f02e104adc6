//! The task that keeps a node in its cluster.
//!
//! Connect, enter the roster, put down in the directory who is here, and then stay: renew the lease,
//! hear what the others say, and begin anew when the engine is away. It runs beside everything else:
//! agents of this node that talk to each other notice nothing of it. `gateway` runs it until it has
//! stopped; then it [retires](serve).

mod lease;

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Cluster, Joined, Station,
    backplane::{Away, Link, LinkEvent},
    ids::MemberId,
    news,
};
use crate::core::Core;

/// What a link may have brought and nobody has seen to yet.
const EVENTS: usize = 1024;

/// How long the engine is left alone after it could not be reached: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a node is not in the cluster any more.
#[derive(Debug)]
enum Parted {
    /// The engine is away.
    Away(Away),
    /// The others have given this member up, or may have: it comes back as another one.
    GivenUp,
    /// The gateway has stopped.
    Retired,
}

impl From<Away> for Parted {
    fn from(away: Away) -> Self {
        Self::Away(away)
    }
}

/// What the task remembers from one link to the next.
struct Service {
    core: Arc<Core>,
    cluster: Arc<Cluster>,
    member: MemberId,
    /// Whether this member may be on the roster.
    is_listed: bool,
    retire: CancellationToken,
}

/// See the [module](self). Returns once `retire` is cancelled and the others need not wait for this
/// node's lease to end.
pub(crate) async fn serve(core: Arc<Core>, cluster: Arc<Cluster>, retire: CancellationToken) {
    let member = MemberId::generate();
    let mut service = Service { core, cluster, member, is_listed: false, retire };
    let mut pause = FIRST_PAUSE;
    let mut said = None;
    loop {
        let number = service.cluster.next_link();
        let parted = service.live(number).await;
        let was_joined = service.part(&parted);
        match parted {
            Parted::Retired => return,
            Parted::GivenUp => {}
            Parted::Away(away) => {
                if was_joined {
                    pause = FIRST_PAUSE;
                }
                // Once loudly for each time that it goes away; then it is tried again and again.
                if was_joined || said.is_none() {
                    warn!(
                        node = %service.core.node_id, member = %service.member, %away,
                        "apart from the cluster: agents of other nodes cannot be reached"
                    );
                }
                said = Some(away);
                let retired = service.retire.clone();
                tokio::select! {
                    () = sleep(pause.mul_f64(rand::random_range(0.5..=1.0))) => {}
                    () = retired.cancelled() => return,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

impl Service {
    /// The life of one link.
    async fn live(&mut self, number: u64) -> Parted {
        let (events, heard) = mpsc::channel(EVENTS);
        let retire = self.retire.clone();
        let joining = async {
            let link = self.cluster.backplane.connect(self.member, events).await?;
            self.enter(&link).await?;
            Ok::<_, Parted>(link)
        };
        let link = tokio::select! {
            link = joining => match link {
                Ok(link) => link,
                Err(parted) => return parted,
            },
            () = retire.cancelled() => return Parted::Retired,
        };
        let joined = Joined { member: self.member, link, number };
        tokio::select! {
            parted = self.renew(&joined) => parted,
            parted = self.hear(heard) => parted,
            parted = self.join(&joined) => parted,
            parted = self.retired(&joined) => parted,
        }
    }

    /// Puts down who is here, and is part of the cluster from then on.
    async fn join(&self, joined: &Joined) -> Parted {
        self.cluster.station.send_replace(Station::Joined(joined.clone()));
        news::joined(&self.core, &self.cluster, joined);
        let nodes = self.cluster.members.load().iter().count();
        info!(node = %self.core.node_id, member = %joined.member, nodes, "joined the cluster");
        std::future::pending().await
    }

    /// Hands on what comes in.
    async fn hear(&self, mut heard: mpsc::Receiver<LinkEvent>) -> Parted {
        loop {
            match heard.recv().await {
                Some(LinkEvent::Frames(batch)) => news::frames(&self.core, &self.cluster, &batch),
                Some(LinkEvent::Change(change)) => {
                    news::changed(&self.core, &self.cluster, &change);
                }
                Some(LinkEvent::Lost(away)) => return Parted::Away(away),
                None => return Parted::Away(Away("the link has ended".into())),
            }
        }
    }

    /// Once the gateway has stopped: nobody is to wait for its lease to end, or to bury it.
    async fn retired(&self, joined: &Joined) -> Parted {
        self.retire.cancelled().await;
        let (node, member) = (&self.core.node_id, joined.member);
        match joined.link.retire(member).await {
            Ok(()) => info!(%node, %member, "left the cluster"),
            Err(away) => {
                warn!(%node, %member, %away, "the others wait for the end of this node's lease");
            }
        }
        Parted::Retired
    }

    /// This node is not in the cluster any more; whether it had been.
    fn part(&mut self, parted: &Parted) -> bool {
        let away = match parted {
            Parted::Away(away) => away.clone(),
            Parted::GivenUp => Away("this node comes back as a new member".into()),
            Parted::Retired => Away("this node has left the cluster".into()),
        };
        let before = self.cluster.station.send_replace(Station::Apart(away));
        news::parted(&self.core, &self.cluster);
        if matches!(parted, Parted::GivenUp) {
            self.member = MemberId::generate();
            self.is_listed = false;
            self.cluster.trust_until(None);
        }
        matches!(before, Station::Joined(_))
    }
}

#[cfg(test)]
mod tests;
