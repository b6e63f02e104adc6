//! A node without sockets: presence, router and delivery. Tests play its members' service and its
//! agents.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use conexus_plugin_api::Agent as Facts;
use conexus_protocol::{AgentKey, Identity, MessageType, Subprotocol};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    accounting::Messages,
    clock::Clock,
    cluster::{
        Cluster, Joined, Station,
        backplane::{
            Announced, Away, Backplane as _, Claim, Claimed, LinkEvent, NodeInfo, Release,
        },
        delivery::{self, Delivery},
        frame,
        ids::{Bucket, Epoch, MemberId},
        memory::MemoryEngine,
    },
    config::Settings,
    hooks::{EmptyChain, Fixed, Policy},
    mailbox::MailboxLimits,
    phase::Phase,
    presence::Presence,
    router::Router,
    session::{
        handle::{SessionHandle, SessionId},
        outbox::{Arrival, Outbox, Parcel},
    },
    telemetry::Telemetry,
    voice::Voice,
};

/// As long as any test.
const FOR_GOOD: Duration = Duration::from_secs(1_000_000);

pub(crate) struct Node {
    pub(crate) router: Arc<Router>,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) phase: watch::Sender<Phase>,
    engine: MemoryEngine,
    settings: Arc<Settings>,
    member: Mutex<MemberId>,
    links: AtomicU64,
    reading: Mutex<Option<AbortOnDropHandle<()>>>,
    /// What comes in from other nodes is lost.
    pub(crate) deaf: Arc<AtomicBool>,
    _serving: AbortOnDropHandle<()>,
}

/// Settings that tests begin with: mail is held for a while, and nobody is missed on the roster.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.mailbox.hold = Duration::from_secs(30);
    settings.cluster.lease = FOR_GOOD;
    settings
}

impl Node {
    pub(crate) async fn start(engine: &MemoryEngine) -> Self {
        Self::start_with(engine, settings(), Arc::new(Fixed(Arc::new(EmptyChain)))).await
    }

    pub(crate) async fn start_with(
        engine: &MemoryEngine,
        settings: Settings,
        policy: Arc<dyn Policy>,
    ) -> Self {
        let clock = Clock::start();
        let telemetry = Arc::new(Telemetry::new(&settings.telemetry));
        let mailbox = &settings.mailbox;
        let limits = MailboxLimits {
            messages_per_agent: mailbox.messages_per_agent,
            bytes_per_agent: mailbox.bytes_per_agent,
            total_bytes: mailbox.total_bytes,
            messages_per_sender: mailbox.messages_per_sender,
        };
        let cluster =
            Arc::new(Cluster::new(settings.cluster.clone(), Arc::new(engine.clone()) as _));
        let member = cluster.draw_member();
        let delivery = Delivery::new(Arc::clone(&cluster), &settings);
        let presence =
            Presence::new(limits, clock, Arc::clone(&telemetry)).in_cluster(Arc::clone(&delivery));
        let (phase, seen) = watch::channel(Phase::Running);
        let voice = Voice::new(Identity::generate());
        let router = Router::new(&settings, presence, telemetry, voice, policy, clock, seen);
        let router = Arc::new(router);
        let serving = tokio::spawn(delivery::serve(Arc::clone(&router)));
        let node = Self {
            router,
            delivery,
            cluster,
            phase,
            engine: engine.clone(),
            settings: Arc::new(settings),
            member: Mutex::new(member),
            links: AtomicU64::new(0),
            reading: Mutex::default(),
            deaf: Arc::default(),
            _serving: AbortOnDropHandle::new(serving),
        };
        node.join().await;
        node
    }

    pub(crate) fn member(&self) -> MemberId {
        *self.member.lock()
    }

    /// Connects, as the same member as before, with a lease for good.
    pub(crate) async fn join(&self) {
        let member = self.member();
        let (events, mut heard) = mpsc::channel(1024);
        let Ok(link) = self.engine.connect(member, events).await else { return };
        link.renew(member, &info(), FOR_GOOD).await.unwrap();
        let number = self.links.fetch_add(1, SeqCst) + 1;
        self.cluster.trust_until(Some(Instant::now() + FOR_GOOD));
        self.cluster.take(Station::Joined(Joined { member, link, number }));
        let (router, cluster) = (Arc::clone(&self.router), Arc::clone(&self.cluster));
        let deaf = Arc::clone(&self.deaf);
        let reading = tokio::spawn(async move {
            while let Some(event) = heard.recv().await {
                match event {
                    LinkEvent::Frames(_) if deaf.load(Relaxed) => {}
                    LinkEvent::Frames(batch) => delivery::receive(&router, batch).await,
                    LinkEvent::Change(_) | LinkEvent::Unlistened => {}
                    LinkEvent::Lost(away) => cluster.take(Station::Apart(away)),
                }
            }
        });
        *self.reading.lock() = Some(AbortOnDropHandle::new(reading));
    }

    /// Becomes another member, to which the same agents belong.
    pub(crate) async fn rejoin(&self) {
        let before = std::mem::replace(&mut *self.member.lock(), self.cluster.draw_member());
        self.cluster.take(Station::Apart(Away("it joins anew".into())));
        self.join().await;
        let Ok(joined) = self.cluster.joined() else { return };
        for bucket in Bucket::all() {
            joined.link.clear(before, bucket, "gone").await.unwrap();
        }
        for session in self.router.presence.sessions() {
            let key = session.agent.key();
            let newest = self.router.presence.tenure(key).and_then(|tenure| tenure.newest());
            assert!(self.router.presence.claiming(&session));
            let epoch = newest.ok_or(Duration::ZERO);
            let announced = [Announced { agent: session.facts(), epoch }];
            let outcomes =
                joined.link.announce(joined.member, Bucket::of(key), &announced).await.unwrap();
            match outcomes[0].claimed {
                Claimed::Won { epoch, .. } => {
                    self.router.presence.set_epoch(key, session.id, epoch);
                }
                Claimed::Lost { .. } => self.router.presence.claim_failed(key, session.id),
            }
        }
    }

    /// Looks at the roster.
    pub(crate) async fn look(&self, lease: Duration) {
        let joined = self.cluster.joined().unwrap();
        let number = self.cluster.begin_look();
        let roster = joined.link.renew(joined.member, &info(), lease).await.unwrap();
        self.cluster.looked(number, &roster);
    }

    /// The same once somebody wants that.
    pub(crate) async fn looks_when_wanted(&self, lease: Duration) {
        self.cluster.look_wanted().await;
        self.look(lease).await;
    }

    /// An agent that only sends, or is only there.
    pub(crate) fn session(&self, identity: &Identity, room: usize) -> Arc<SessionHandle> {
        static NEXT: AtomicU64 = AtomicU64::new(1_000_000);
        let id = SessionId(NEXT.fetch_add(1, SeqCst));
        let now = self.router.clock.now();
        let facts = Facts {
            did: identity.did().to_owned(),
            key: *identity.key().as_bytes(),
            session: id.0,
            address: ([127, 0, 0, 1], 1).into(),
            subprotocol: Subprotocol::V1.as_str().to_owned(),
            connected_at_ms: 0,
            metadata: Default::default(),
            labels: Default::default(),
            rate_class: None,
        };
        Arc::new(SessionHandle::new(
            id,
            identity.id().clone(),
            Subprotocol::V1,
            Arc::new(facts),
            Arc::default(),
            Outbox::new(room, 1_000_000),
            Arc::clone(&self.router.telemetry),
            now,
            now.after(FOR_GOOD),
        ))
    }

    /// An agent registers here: locally, and in the directory if that can be reached. Whoever has it
    /// elsewhere is still to be told.
    pub(crate) async fn comes(&self, identity: &Identity) -> Arc<SessionHandle> {
        self.comes_with_room(identity, 100_000).await
    }

    pub(crate) async fn comes_with_room(
        &self,
        identity: &Identity,
        room: usize,
    ) -> Arc<SessionHandle> {
        let session = self.session(identity, room);
        let presence = &self.router.presence;
        presence.claim(&session).await;
        assert!(presence.claiming(&session));
        match self.claims(&session).await {
            Some(epoch) => assert!(presence.set_epoch(identity.key(), session.id, epoch)),
            None => presence.claim_failed(identity.key(), session.id),
        }
        session
    }

    pub(crate) async fn claims(&self, session: &SessionHandle) -> Option<Epoch> {
        let joined = self.cluster.joined().ok()?;
        let claim = Claim { member: joined.member, agent: session.facts(), age: Duration::ZERO };
        match joined.link.claim(&claim).await {
            Ok(Claimed::Won { epoch, .. }) => Some(epoch),
            _ => None,
        }
    }

    /// A session ends: what it has not written is handed on, and the directory is told.
    pub(crate) async fn leaves(&self, session: &SessionHandle) {
        if self.router.presence.begin_leaving(session, "closed") {
            self.tells_who_left().await;
        }
        self.hands_on(session).await;
    }

    /// The same, and the directory is not [told](Self::tells_who_left) yet.
    pub(crate) async fn leaves_untold(&self, session: &SessionHandle) {
        assert!(self.router.presence.begin_leaving(session, "closed"));
        self.hands_on(session).await;
    }

    pub(crate) async fn tells_who_left(&self) {
        for departed in self.router.presence.departures.next().await {
            if let (Some(epoch), Ok(joined)) = (departed.epoch, self.cluster.joined()) {
                let (key, reason) = (departed.key, departed.reason);
                let release = [Release { key, epoch, reason }];
                let _ = joined.link.release(joined.member, &release).await;
            }
        }
    }

    async fn hands_on(&self, session: &SessionHandle) {
        let presence = &self.router.presence;
        while !presence.finish_leaving(session) {
            let left = std::iter::from_fn(|| session.outbox.take()).collect();
            self.router.hand_on(left, session.id).await;
        }
    }

    /// One agent of this node's sends to another one.
    pub(crate) async fn sends(&self, from: &Arc<SessionHandle>, to: AgentKey, text: &str) {
        let (now, number) = (self.router.clock.now(), from.count_sent());
        self.router.telemetry.messages.received(MessageType::Offer);
        let arrival = Arrival { at: Instant::now(), number };
        let kind = MessageType::Offer;
        if let Some(rest) = self.router.route(from, text.into(), to, kind, arrival, now) {
            rest.await;
        }
    }

    pub(crate) fn counts(&self) -> Messages {
        self.router.telemetry.messages.snapshot()
    }

    /// Whether every message of this node's has one end, or is held.
    pub(crate) fn is_even(&self) -> bool {
        let Messages { received, delivered, refused, held } = self.counts();
        received == delivered + refused + held
    }

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        let of = self.router.telemetry.messages.by_type();
        let refused = of.flat_map(|of| of.refused);
        refused.filter(|(why, _)| *why == reason).map(|(_, count)| count).sum()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }
}

pub(crate) fn info() -> NodeInfo {
    NodeInfo {
        node_id: "a".into(),
        did: String::new(),
        version: String::new(),
        frames: frame::VERSION,
        started_ms: 0,
        agents: 0,
        draining: false,
        lease_ms: 0,
    }
}

/// An agent takes what waits for it: all that its kernel would take.
pub(crate) fn takes(session: &SessionHandle) -> Vec<String> {
    takes_some(session, usize::MAX)
}

pub(crate) fn takes_some(session: &SessionHandle, most: usize) -> Vec<String> {
    let parcels = std::iter::from_fn(|| session.outbox.take()).take(most);
    let text = |parcel: Parcel| {
        let text = parcel.text().to_string();
        match parcel {
            Parcel::Routed(routed) => routed.delivered(Instant::now()),
            Parcel::Forwarded(forwarded) => forwarded.delivered(),
            Parcel::Tap(tap) => tap.delivered(),
            Parcel::Reply(_) | Parcel::Word(_) => {}
        }
        text
    };
    parcels.map(text).collect()
}

/// Lets everybody do what there is to do, without any time passing.
pub(crate) async fn quiet() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Waits until something is so; the clock goes on while nobody has anything to do.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < end, "it never came to be");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
