//! What runs beside the messages: publishers, lookups, answers, and a look once a second at what is
//! lost.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use conexus_protocol::AgentKey;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{error, info};

use super::{
    Delivery, Job, lookup,
    peer::{Peer, Shut},
    publisher,
};
use crate::{clock::Moment, cluster::members::Members, router::Router};

/// Between two looks at what is under way.
const TURN: Duration = Duration::from_secs(1);

/// How long a lease that is over may take to turn out to have been renewed: whoever looks at the roster does
/// so at that moment.
const GRACE: Duration = Duration::from_millis(100);

/// Keys with mail that are looked for in one turn.
const MAIL_PER_TURN: usize = 1000;

/// Serves what delivery needs, without end. Dropping it ends it all.
pub(crate) async fn serve(router: Arc<Router>) {
    let Some(delivery) = router.presence.delivery().cloned() else {
        return std::future::pending().await;
    };
    let Some(mut work) = delivery.work.lock().take() else { return };
    let mut station = delivery.cluster.station.subscribe();
    let mut looks = delivery.cluster.answered_looks();
    let mut tasks = JoinSet::new();
    let look_up = || lookup::serve(Arc::clone(&router), Arc::clone(&delivery));
    let mut lookups = tasks.spawn(look_up()).id();
    let (router, delivery) = (Arc::clone(&router), Arc::clone(&delivery));
    let seen = delivery.cluster.members.load_full();
    let mut service = Service { router, delivery, seen, mail_from: None, lost_lookups: false };
    service.follow().await;
    let mut turn = Instant::now() + TURN;
    loop {
        tokio::select! {
            Ok(()) = station.changed() => service.follow().await,
            Some(job) = work.recv() => service.begin(job, &mut tasks),
            // Whoever is off the roster by now is not to get any more.
            Ok(()) = looks.changed() => service.bury().await,
            () = sleep_until(service.next_look(turn)) => {
                service.bury().await;
                if turn <= Instant::now() {
                    service.look().await;
                    turn = Instant::now() + TURN;
                }
            }
            Some(ended) = tasks.join_next_with_id() => {
                let Err(fault) = ended else { continue };
                error!(%fault, "a task that delivers to other nodes broke");
                if fault.id() == lookups {
                    lookups = tasks.spawn(look_up()).id();
                    service.lost_lookups = true;
                }
            }
        }
    }
}

struct Service {
    router: Arc<Router>,
    delivery: Arc<Delivery>,
    /// The roster as it was looked at last.
    seen: Arc<Members>,
    /// The mailbox that was looked after last.
    mail_from: Option<(Moment, AgentKey)>,
    /// Lookups broke off.
    lost_lookups: bool,
}

impl Service {
    fn begin(&self, job: Job, tasks: &mut JoinSet<()>) {
        let (router, delivery) = (Arc::clone(&self.router), Arc::clone(&self.delivery));
        match job {
            Job::Publish(peer) => {
                let publishing = Publishing {
                    router: Arc::clone(&router),
                    delivery: Arc::clone(&delivery),
                    peer: Arc::clone(&peer),
                };
                tasks.spawn(async move {
                    let _publishing = publishing;
                    publisher::publish(router, delivery, peer).await;
                });
            }
            Job::Drain(key, ticket) => {
                tasks.spawn(async move { router.drain_lane(key, ticket).await });
            }
            Job::Answer(request) => {
                let answers = delivery.answers.get().cloned();
                let answering = Answering(delivery);
                tasks.spawn(async move {
                    let _answering = answering;
                    request.answer(answers).await;
                });
            }
        }
    }

    /// The node's place in the cluster may be another one.
    async fn follow(&self) {
        let joined = self.delivery.cluster.joined().ok();
        let place = joined.map(|joined| (joined.member, joined.number));
        for peer in self.delivery.peers() {
            match place {
                None => self.router.lose(&peer, Some(Shut::Away)).await,
                Some(_) if place == peer.place() => {}
                // Whatever is still said to the member that this node was is no answer to it now.
                Some((member, _)) if peer.knows_as().is_some_and(|known| known != member) => {
                    self.give_up(&peer).await;
                }
                Some(place) => self.router.lost(peer.reopen(place)).await,
            }
        }
    }

    fn is_listed(&self, peer: &Peer) -> bool {
        self.delivery.cluster.members.load().get(peer.member).is_some()
    }

    async fn give_up(&self, peer: &Arc<Peer>) {
        self.delivery.forget(peer);
        self.router.lose(peer, Some(Shut::Gone)).await;
    }

    /// When there is something to see to.
    fn next_look(&self, turn: Instant) -> Instant {
        let members = self.delivery.cluster.members.load();
        let of = |peer: Arc<Peer>| members.get(peer.member).map(|member| member.until + GRACE);
        let leases = self.delivery.peers().into_iter().filter_map(of);
        // One that is over was seen to.
        let now = Instant::now();
        leases.filter(|until| *until > now).min().map_or(turn, |until| until.min(turn))
    }

    /// Gives up the peers whose lease is over. One that has joined is on the roster that this node sees
    /// within a lease.
    async fn bury(&mut self) {
        let cluster = &self.delivery.cluster;
        if cluster.joined().is_err() || !cluster.is_trusted() {
            return;
        }
        let members = cluster.members.load_full();
        if !Arc::ptr_eq(&members, &self.seen) {
            self.delivery.roster_changed(&self.seen, &members);
            self.seen = Arc::clone(&members);
        }
        for peer in self.delivery.peers() {
            let now = Instant::now();
            let listed = members.get(peer.member).map(|member| member.until);
            let missing = peer.missing(listed.is_some(), now);
            let struck_off = missing.is_some_and(|missing| missing >= cluster.settings.lease);
            if struck_off {
                self.delivery.is_missing(peer.member);
            }
            if struck_off || listed.is_some_and(|until| until + GRACE <= now) {
                let (messages, _) = peer.load();
                info!(member = %peer.member, messages, "the lease of a node is over: what was under way to it is refused");
                self.give_up(&peer).await;
            }
        }
    }

    /// Once a second.
    async fn look(&mut self) {
        let apart = self.delivery.cluster.joined().is_err();
        for peer in self.delivery.peers() {
            if apart {
                // What came up while it was being shut.
                self.router.lose(&peer, Some(Shut::Away)).await;
            } else if peer.is_quiet() && !self.is_listed(&peer) {
                // It left before it was seen on the roster, or is seen there soon.
                self.give_up(&peer).await;
            } else {
                peer.ask_about_unsettled(Instant::now());
            }
        }
        self.router.presence.sweep_lanes();
        // Not at once: whatever broke them may do so again.
        if std::mem::take(&mut self.lost_lookups) {
            self.router.presence.look_up_anew();
        }
        if !apart {
            self.look_for_mail();
        }
    }

    /// Whoever has mail here may be on another node by now.
    fn look_for_mail(&mut self) {
        let presence = &self.router.presence;
        let some = presence.postroom.waiting_from(self.mail_from, MAIL_PER_TURN);
        self.mail_from = some.last().copied().filter(|_| some.len() == MAIL_PER_TURN);
        for (_, key) in some {
            presence.mail_goes(key);
        }
    }
}

/// A peer whose publisher runs. Should that break, another one is made, with a peer of its own.
struct Publishing {
    router: Arc<Router>,
    delivery: Arc<Delivery>,
    peer: Arc<Peer>,
}

impl Drop for Publishing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.delivery.forget(&self.peer);
            self.router.lose_at_once(&self.peer, Some(Shut::Gone));
        }
    }
}

struct Answering(Arc<Delivery>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Relaxed);
    }
}
