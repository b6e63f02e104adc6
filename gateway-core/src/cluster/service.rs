//! The task that keeps a node in its cluster.
//!
//! Connect, enter the roster, put down in the directory who is here, and then stay: renew the lease,
//! hear what the others say, tell the directory who leaves, bury the dead; and begin anew when the
//! engine is away. It runs beside everything else: agents of this node that talk to each other notice
//! nothing of it. `gateway` runs it until it has stopped; then the node [retires](serve).

mod announcement;
mod audit;
mod burial;
mod lease;
mod telling;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::burial::Dead;
use super::{
    Cluster, Joined, Station,
    backplane::{Away, Link, LinkEvent},
    ids::MemberId,
    ledger::Overflow,
    news,
};
use crate::{core::Core, pace::OncePerSecond};

/// What a link may have brought and nobody has seen to yet.
const EVENTS: usize = 1024;

/// How long the engine is left alone after it could not be reached: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How often it is said that the engine is still away.
const REMINDER: Duration = Duration::from_secs(60);

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

impl From<Overflow> for Parted {
    fn from(_: Overflow) -> Self {
        Self::Away(Away("more agents come and go than the engine can be told of".into()))
    }
}

/// What the task remembers from one link to the next.
struct Service {
    core: Arc<Core>,
    cluster: Arc<Cluster>,
    member: MemberId,
    /// Whether this member may be on the roster.
    is_listed: bool,
    /// Who this process was before, and what may be left of that.
    former: Vec<MemberId>,
    dead: Dead,
    /// Whether another node has its name, by the latest look.
    has_namesake: AtomicBool,
    said: OncePerSecond,
    said_joined: OncePerSecond,
    retire: CancellationToken,
    /// Nothing comes in from other nodes any more.
    unlistened: Notify,
}

/// See the [module](self). Returns once `retire` is cancelled and the others need not wait for this
/// node's lease to end.
pub(crate) async fn serve(core: Arc<Core>, cluster: Arc<Cluster>, retire: CancellationToken) {
    let _ending = cluster.ending.clone().drop_guard();
    let member = cluster.draw_member();
    let departed = telling::note_departures(&core, &cluster);
    let mut service = Service {
        core: Arc::clone(&core),
        cluster: Arc::clone(&cluster),
        member,
        is_listed: false,
        former: Vec::new(),
        dead: Dead::default(),
        has_namesake: AtomicBool::new(false),
        said: OncePerSecond::new(),
        said_joined: OncePerSecond::new(),
        retire,
        unlistened: Notify::new(),
    };
    tokio::select! {
        () = service.serve() => {}
        () = departed => {}
    }
}

impl Service {
    async fn serve(&mut self) {
        let mut pause = FIRST_PAUSE;
        let mut said: Option<Instant> = None;
        loop {
            let parted = self.live().await;
            let was_joined = self.part(&parted);
            if was_joined {
                (pause, said) = (FIRST_PAUSE, None);
            }
            match parted {
                Parted::Retired => return,
                // At once; but not again and again.
                Parted::GivenUp if was_joined => {
                    if let Some(more) = self.said.due() {
                        let (node, member) = (&self.core.node_id, self.member);
                        warn!(
                            node, %member, more,
                            "the others may have given this node up, it comes back as a new member"
                        );
                    }
                    continue;
                }
                Parted::GivenUp => {}
                Parted::Away(away) => {
                    if said.is_none_or(|said| said.elapsed() >= REMINDER)
                        && let Some(more) = self.said.due()
                    {
                        said = Some(Instant::now());
                        let (node, member) = (&self.core.node_id, self.member);
                        warn!(
                            node, %member, %away, more,
                            "apart from the cluster: agents of other nodes cannot be reached"
                        );
                    }
                }
            }
            tokio::select! {
                () = sleep(pause.mul_f64(rand::random_range(0.5..=1.0))) => {}
                () = self.retire.cancelled() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The life of one link.
    async fn live(&mut self) -> Parted {
        if self.is_listed && !self.cluster.is_trusted() {
            // Its lease may be over by now.
            self.renounce();
        }
        let number = self.cluster.next_link();
        let (events, heard) = mpsc::channel(EVENTS);
        let retire = self.retire.clone();
        let entered = tokio::select! {
            entered = self.connect(events) => entered,
            () = retire.cancelled() => return Parted::Retired,
        };
        let link = match entered {
            Ok(link) => link,
            Err(parted) => return parted,
        };
        let joined = Joined { member: self.member, link, number };
        let mut former = std::mem::take(&mut self.former);
        let parted = tokio::select! {
            parted = self.renew(&joined) => parted,
            parted = self.hear(heard) => parted,
            parted = self.join(&joined, &mut former) => parted,
            parted = self.retired(&joined) => parted,
        };
        self.former = former;
        parted
    }

    async fn connect(&mut self, events: mpsc::Sender<LinkEvent>) -> Result<Arc<dyn Link>, Parted> {
        let links = &self.cluster.tally.links;
        let connected = self.cluster.backplane.connect(self.member, events).await;
        let link = connected.inspect_err(|_| links.refused.one())?;
        links.made.one();
        self.enter(&link).await?;
        Ok(link)
    }

    /// Puts down who is here, and is part of the cluster from then on.
    async fn join(&self, joined: &Joined, former: &mut Vec<MemberId>) -> Parted {
        let begun = Instant::now();
        let agents = match self.announce(joined).await {
            Ok(agents) => agents,
            Err(away) => return Parted::Away(away),
        };
        self.cluster.take(Station::Joined(joined.clone()));
        news::joined(&self.core, &self.cluster, joined);
        let (node, member, took) = (&self.core.node_id, joined.member, begun.elapsed());
        let nodes = self.cluster.members.load().iter().count();
        if let Some(more) = self.said_joined.due() {
            info!(node, %member, nodes, agents, ?took, more, "joined the cluster");
        }
        tokio::select! {
            parted = self.tell(joined) => parted,
            parted = self.tidy(joined, former) => parted,
            parted = self.bury(joined) => parted,
            parted = self.audit(joined) => parted,
        }
    }

    /// Hands on what comes in.
    async fn hear(&self, mut heard: mpsc::Receiver<LinkEvent>) -> Parted {
        loop {
            match heard.recv().await {
                Some(LinkEvent::Frames(batch)) => {
                    news::frames(&self.core, batch).await;
                }
                Some(LinkEvent::Change(change)) => {
                    news::changed(&self.core, &self.cluster, &change);
                }
                Some(LinkEvent::Unlistened) => self.unlistened.notify_one(),
                Some(LinkEvent::Lost(away)) => return Parted::Away(away),
                None => return Parted::Away(Away("the link has ended".into())),
            }
        }
    }

    /// Once the gateway has stopped: nobody is to wait for its lease to end, or to bury it.
    async fn retired(&self, joined: &Joined) -> Parted {
        self.retire.cancelled().await;
        let (node, member) = (&self.core.node_id, joined.member);
        match self.leave(joined).await {
            Ok(()) => info!(node, %member, "left the cluster"),
            Err(away) => {
                warn!(node, %member, %away, "the others wait for the end of this node's lease");
            }
        }
        Parted::Retired
    }

    /// This node is not in the cluster any more; whether it had been.
    fn part(&mut self, parted: &Parted) -> bool {
        let was_joined = self.cluster.joined().is_ok();
        let away = match parted {
            Parted::Away(away) => away.clone(),
            Parted::GivenUp => Away("this node comes back as a new member".into()),
            Parted::Retired => Away("this node has left the cluster".into()),
        };
        if was_joined && matches!(parted, Parted::Away(_)) {
            self.cluster.tally.links.lost.one();
        }
        self.cluster.take(Station::Apart(away));
        self.cluster.ledger.close();
        news::parted(&self.core, &self.cluster);
        if matches!(parted, Parted::GivenUp) {
            self.renounce();
        }
        was_joined
    }

    /// It is another member from now on: what the others still do about this one is not to touch it.
    fn renounce(&mut self) {
        self.cluster.trust_until(None);
        let former = std::mem::replace(&mut self.member, self.cluster.draw_member());
        if std::mem::take(&mut self.is_listed) {
            self.former.push(former);
        }
    }
}

#[cfg(test)]
mod tests;
