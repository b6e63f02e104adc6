//! One gateway, and beside it nodes that are no more than a hand on the engine.

use std::{sync::Arc, time::Duration};

use conexus_plugin_api::Agent;
use conexus_protocol::{
    AgentKey, Envelope, Identity, MessageType, Presence as Payload, PresenceState, Rules,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::*;
use crate::{
    cluster::{
        backplane::{Backplane as _, Claim, Claimed, Link, NodeInfo, Release},
        ids::{Epoch, MemberId},
        memory::MemoryEngine,
    },
    config::Settings,
    core::Core,
    gateway::Gateway,
    hooks::{EmptyChain, Fixed},
    presence::Source,
    session::{
        handle::{SessionHandle, tests::session_of},
        outbox::{Arrival, Routed},
    },
    watching::{
        change::{Spelling, Teller},
        elsewhere::Expected,
    },
};

const LEASE: Duration = Duration::from_secs(5);

struct Node {
    core: Arc<Core>,
    cluster: Arc<Cluster>,
    running: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Node {
    async fn start(engine: &MemoryEngine) -> Self {
        let mut settings = Settings::default();
        settings.server.listen = ([127, 0, 0, 1], 0).into();
        settings.cluster.lease = LEASE;
        let policy = Arc::new(Fixed(Arc::new(EmptyChain)));
        let (settings, engine) = (Arc::new(settings), Arc::new(engine.clone()));
        let gateway =
            Gateway::bind_with_backplane(settings, Identity::generate(), policy, Some(engine));
        let gateway = gateway.await.unwrap();
        let core = gateway.watch().core();
        let running = tokio::spawn(gateway.run(std::future::pending()));
        let cluster = core.cluster.clone().unwrap();
        let node = Self { core, cluster, running };
        node.joined().await;
        node
    }

    async fn joined(&self) {
        let mut station = self.cluster.station.subscribe();
        station.wait_for(|station| matches!(station, Station::Joined(_))).await.unwrap();
    }

    /// As WATCH does it.
    async fn watch(&self, watcher: &Arc<SessionHandle>, key: AgentKey) {
        let router = &self.core.router;
        let keys = [key];
        let _expected = Expected::new(&router.presence, &keys);
        self.cluster.follows.know(&router.presence.watches, &keys, LEASE).await;
        assert!(watcher.watcher.begin(key, Spelling::W3c));
        let latest = router.presence.watch(key, watcher);
        let teller = Teller { voice: &router.voice };
        watcher.watcher.tell_anew(&watcher.outbox, &latest, teller);
    }

    /// Waits until the task that follows has nothing to do.
    async fn settled(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A node that is played.
struct Other {
    member: MemberId,
    link: Arc<dyn Link>,
}

impl Other {
    async fn join(engine: &MemoryEngine, member: u64) -> Self {
        let member = MemberId(member);
        let link = engine.connect(member, mpsc::channel(64).0).await.unwrap();
        let info = NodeInfo {
            node_id: format!("other-{}", member.0),
            did: String::new(),
            version: String::new(),
            frames: crate::cluster::frame::VERSION,
            started_ms: 0,
            agents: 0,
            draining: false,
            lease_ms: 0,
        };
        link.renew(member, &info, 1000 * LEASE).await.unwrap();
        Self { member, link }
    }

    async fn claim(&self, agent: &Arc<Agent>) -> Epoch {
        let (member, agent) = (self.member, Arc::clone(agent));
        match self.link.claim(&Claim { member, agent, age: Duration::ZERO }).await.unwrap() {
            Claimed::Won { epoch, .. } => epoch,
            lost => panic!("{lost:?}"),
        }
    }

    async fn release(&self, key: AgentKey, epoch: Epoch, reason: &'static str) {
        self.link.release(self.member, &[Release { key, epoch, reason }]).await.unwrap();
    }
}

fn agent() -> (AgentKey, Arc<Agent>) {
    let session = session_of(&Identity::generate());
    (session.agent.key(), session.facts())
}

/// The next PRESENCE, in short.
async fn told(watcher: &SessionHandle) -> String {
    let next = async {
        loop {
            if let Some(parcel) = watcher.outbox.take() {
                return parcel;
            }
            watcher.outbox.changed().await;
        }
    };
    let parcel = tokio::time::timeout(10 * LEASE, next).await.expect("nothing was told");
    let presence = Envelope::parse(parcel.text(), Rules::V1_1).unwrap().payload::<Payload>();
    let presence = presence.unwrap();
    match presence.state {
        PresenceState::Online => "online".to_owned(),
        PresenceState::Offline => presence.reason.unwrap_or_else(|| "absent".to_owned()),
    }
}

fn nothing_was_told(watcher: &SessionHandle) -> bool {
    watcher.outbox.take().is_none()
}

#[tokio::test(start_paused = true)]
async fn a_watcher_follows_an_agent_over_other_nodes() {
    let engine = MemoryEngine::new();
    let node = Node::start(&engine).await;
    let (b, c) = (Other::join(&engine, 2).await, Other::join(&engine, 3).await);
    let ((key, facts), watcher) = (agent(), session_of(&Identity::generate()));
    node.watch(&watcher, key).await;
    assert_eq!(told(&watcher).await, "absent");
    b.claim(&facts).await;
    assert_eq!(told(&watcher).await, "online");
    let epoch = c.claim(&facts).await;
    node.settled().await;
    assert!(nothing_was_told(&watcher), "it moved");
    let late = session_of(&Identity::generate());
    node.watch(&late, key).await;
    assert_eq!(told(&late).await, "online");
    c.release(key, epoch, "closed").await;
    assert_eq!((told(&watcher).await, told(&late).await), ("closed".into(), "closed".into()));
    b.claim(&facts).await;
    assert_eq!(told(&watcher).await, "online");
    b.link.clear(b.member, Bucket::of(key), "node_lost").await.unwrap();
    assert_eq!(told(&watcher).await, "node_lost");
    assert_eq!((watcher.watcher.count(), node.core.router.presence.watches.watched()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_there_already_is_known_at_once_and_nothing_is_followed_without_interest() {
    let engine = MemoryEngine::new();
    let node = Node::start(&engine).await;
    let b = Other::join(&engine, 2).await;
    let ((key, facts), watcher) = (agent(), session_of(&Identity::generate()));
    b.claim(&facts).await;
    node.watch(&watcher, key).await;
    assert_eq!(told(&watcher).await, "online");
    assert_eq!(engine.followed(), [Bucket::of(key)]);
    let place = node.cluster.places.get(key).expect("remembered with its facts");
    assert_eq!((place.member, &place.agent.did), (b.member, &facts.did));
    node.core.router.presence.unwatch_all(&watcher);
    tokio::time::sleep(2 * LOOK).await;
    assert_eq!(engine.followed(), []);
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_tells_nothing_and_a_longer_one_that_others_are_out_of_reach() {
    let engine = MemoryEngine::new();
    let node = Node::start(&engine).await;
    let b = Other::join(&engine, 2).await;
    let ((key, facts), watcher) = (agent(), session_of(&Identity::generate()));
    let epoch = b.claim(&facts).await;
    node.watch(&watcher, key).await;
    assert_eq!(told(&watcher).await, "online");

    engine.set_away(true);
    tokio::time::sleep(LEASE / 2).await;
    engine.set_away(false);
    node.joined().await;
    tokio::time::sleep(2 * LEASE).await;
    assert!(nothing_was_told(&watcher));

    engine.set_away(true);
    assert_eq!(told(&watcher).await, "node_unreachable");
    let late = session_of(&Identity::generate());
    node.watch(&late, key).await;
    assert_eq!(told(&late).await, "absent", "who begins now knows nothing of before");
    engine.set_away(false);
    assert_eq!((told(&watcher).await, told(&late).await), ("online".into(), "online".into()));

    // It left while nobody could tell.
    engine.set_away(true);
    tokio::time::sleep(LEASE / 2).await;
    engine.set_away(false);
    let b = Other::join(&engine, 2).await;
    b.release(key, epoch, "closed").await;
    node.joined().await;
    assert_eq!(told(&watcher).await, "node_lost");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_comes_back_empty_is_waited_for_before_anybody_counts_as_gone() {
    let engine = MemoryEngine::new();
    let node = Node::start(&engine).await;
    let b = Other::join(&engine, 2).await;
    let ((key, facts), (lost, lost_facts)) = (agent(), agent());
    let watcher = session_of(&Identity::generate());
    let epoch = b.claim(&facts).await;
    b.claim(&lost_facts).await;
    for key in [key, lost] {
        node.watch(&watcher, key).await;
        assert_eq!(told(&watcher).await, "online");
    }
    engine.set_away(true);
    engine.forget();
    engine.set_away(false);
    node.joined().await;
    node.settled().await;
    let b = Other::join(&engine, 2).await;
    let announced = crate::cluster::backplane::Announced { agent: facts, epoch: Ok(epoch) };
    b.link.announce(b.member, Bucket::of(key), &[announced]).await.unwrap();
    assert_eq!(told(&watcher).await, "node_lost", "the one of whom nobody said anything");
    tokio::time::sleep(2 * LEASE).await;
    assert!(nothing_was_told(&watcher));
}

#[tokio::test(start_paused = true)]
async fn who_has_mail_here_is_followed_and_looked_for() {
    let engine = MemoryEngine::new();
    let node = Node::start(&engine).await;
    let (key, _) = agent();
    let presence = &node.core.router.presence;
    let arrival = Arrival { at: Instant::now(), number: 1 };
    let sender = session_of(&Identity::generate());
    let routed = Routed::new("x".into(), key, MessageType::Offer, sender, arrival);
    let now = node.core.clock.now();
    presence.hold(routed, now.after(LEASE), now, Source::Lane).unwrap();
    node.settled().await;
    assert_eq!(engine.followed(), [Bucket::of(key)]);
    assert_eq!(presence.postroom.some_with_mail(None, 9), [(now.after(LEASE), key)]);
    assert!(presence.postroom.some_with_mail(Some((now.after(LEASE), key)), 9).is_empty());
    tokio::time::sleep(LEASE + 2 * LOOK).await;
    assert_eq!(presence.held_for(key), 0, "it has waited too long");
    assert_eq!(engine.followed(), []);
}
