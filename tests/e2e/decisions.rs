//! A decision's place in the session: it may take time, and then delays the one agent it is about.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use conexus_gateway::{
    config::Settings,
    hooks::{Admission, Decision, Fallback, Fixed, Judge, Passage, Ruling},
};
use conexus_plugin_api::{
    Point,
    host::{Connect, Expire, Register, Route},
};
use conexus_protocol::{ErrorCode, Identity, RefusalReason, Subprotocol};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{
    agent::{Agent, dial},
    gateway::TestGateway,
    until,
};

/// Decides about routes when the test lets it, about others as it is told.
#[derive(Clone, Default)]
struct Fake {
    /// Messages of this agent wait for a permit.
    slow_sender: Option<String>,
    permits: Arc<Opener>,
    asked: Arc<AtomicUsize>,
    connect: Option<RefusalReason>,
    register: Option<RefusalReason>,
    hold: Option<Duration>,
    extension: Option<Duration>,
    expiries: Arc<AtomicUsize>,
    /// Breaks over a message whose text contains this.
    panics_over: Option<&'static str>,
}

struct Opener(Semaphore);

impl Default for Opener {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

fn ruling<T: Default>(denied: Option<RefusalReason>) -> Ruling<T> {
    denied.map_or_else(|| Ok(T::default()), |reason| Err(reason.into()))
}

impl Judge for Fake {
    fn asks(&self, _: Point) -> bool {
        true
    }

    fn on_connect(self: Arc<Self>, _: Arc<Connect>) -> Decision<Ruling<()>> {
        Decision::Now(ruling(self.connect))
    }

    fn on_register(self: Arc<Self>, event: Arc<Register>) -> Decision<Ruling<Admission>> {
        let open = event.credentials.as_deref() == Some("open sesame");
        let denied = self.register.filter(|_| !open);
        Decision::Later(Box::pin(async move {
            tokio::task::yield_now().await;
            ruling(denied)
        }))
    }

    fn on_route(self: Arc<Self>, event: Arc<Route>) -> Decision<Ruling<Passage>> {
        let text = event.text();
        assert!(!self.panics_over.is_some_and(|word| text.contains(word)), "a broken policy");
        if self.slow_sender.as_ref() != Some(&event.from.did) {
            return Decision::Now(Ok(Passage::default()));
        }
        self.asked.fetch_add(1, SeqCst);
        let permits = Arc::clone(&self.permits);
        Decision::Later(Box::pin(async move {
            permits.0.acquire().await.unwrap().forget();
            Ok(Passage::default())
        }))
    }

    fn on_undeliverable(self: Arc<Self>, _: Arc<Route>) -> Decision<Ruling<Fallback>> {
        let hold = self.hold;
        Decision::Later(Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(hold.map_or(Fallback::Configured, Fallback::Hold))
        }))
    }

    fn on_expire(self: Arc<Self>, _: Arc<Expire>) -> Decision<Option<Duration>> {
        let asked = self.expiries.fetch_add(1, SeqCst);
        Decision::Now(self.extension.filter(|_| asked == 0))
    }
}

async fn start(fake: Fake, change: impl FnOnce(&mut Settings)) -> TestGateway {
    TestGateway::start_with_policy(Fixed(Arc::new(fake)), change).await
}

#[tokio::test]
async fn a_slow_decision_delays_its_own_sender_only_whose_outbox_is_still_written() {
    let slow_one = Identity::generate();
    let fake = Fake { slow_sender: Some(slow_one.did().into()), ..Fake::default() };
    let gateway = start(fake.clone(), |s| {
        s.presence.timeout = Duration::from_millis(700);
        s.presence.heartbeat = Some(Duration::from_millis(100));
    })
    .await;
    let mut slow = Agent::registered_as(&gateway, Subprotocol::V1, slow_one).await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);

    let first = slow.send_offer(&b.did(), "first").await.1;
    let second = slow.send_offer(&b.did(), "second").await.1;
    until("the decision to be asked for", || fake.asked.load(SeqCst) == 1).await;

    // For much longer than the lease: the others talk, and the slow one is still written to.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        let (_, text) = a.send_offer(&b.did(), "to the others").await;
        assert_eq!(b.text().await, text);
        let (_, text) = a.send_offer(&slow.did(), "to the slow one").await;
        assert_eq!(slow.text().await, text);
    }
    assert_eq!(fake.asked.load(SeqCst), 1, "no further frame was read");

    fake.permits.0.add_permits(2);
    assert_eq!(b.text().await, first);
    assert_eq!(b.text().await, second);
    slow.ping().await;
}

#[tokio::test]
async fn a_message_whose_decision_outlives_its_sender_still_gets_its_end() {
    let slow_one = Identity::generate();
    let fake = Fake { slow_sender: Some(slow_one.did().into()), ..Fake::default() };
    let gateway = start(fake.clone(), |_| {}).await;
    let mut slow = Agent::registered_as(&gateway, Subprotocol::V1, slow_one.clone()).await;
    let mut b = Agent::v1(&gateway).await;
    let (_, text) = slow.send_offer(&b.did(), "x").await;
    until("the decision to be asked for", || fake.asked.load(SeqCst) == 1).await;
    // A newer session of the same agent takes over while the older one waits.
    let mut newer = Agent::connect_as(&gateway, Subprotocol::V1_1, slow_one).await;
    let (_, register) = newer.sign(&newer.did(), newer.registration());
    newer.send(register).await;
    fake.permits.0.add_permits(1);
    assert_eq!(b.text().await, text);
    assert_eq!(slow.close().await.0, 4003);
    assert!(newer.text().await.contains("REGISTERED"));
    assert_eq!(gateway.settled().await.delivered, 1);
}

#[tokio::test]
async fn a_denied_connection_gets_403_and_a_denied_registration_4007() {
    let denied = Some(RefusalReason::Denied);
    let fake = Fake { connect: denied, ..Fake::default() };
    let gateway = start(fake, |_| {}).await;
    let Err(error) = dial(gateway.addr, &["ioap.v1"]).await else { panic!("upgraded") };
    assert!(matches!(*error, Error::Http(response) if response.status() == 403));

    let fake = Fake { register: denied, ..Fake::default() };
    let gateway = start(fake, |_| {}).await;
    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let (id, text) = agent.sign(&agent.did(), agent.registration());
    agent.send(text).await;
    let refusal = agent.refusal().await;
    assert_eq!(refusal.correlation_id, Some(id));
    assert_eq!(refusal.code, ErrorCode::ConnectionRefused);
    assert_eq!(refusal.reason.as_deref(), Some("denied"));
    assert_eq!(agent.close().await.0, 4007);

    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let mut register = agent.registration();
    register.credentials = Some("open sesame".into());
    assert!(agent.register_with(register).await.is_some());
    let (_, agents) = gateway.get("/agents").await;
    assert!(!agents.to_string().contains("sesame"), "credentials are for policy alone");
}

#[tokio::test]
async fn policy_may_hold_what_cannot_be_delivered() {
    let fake = Fake { hold: Some(Duration::from_secs(600)), ..Fake::default() };
    let gateway = start(fake, |_| {}).await;
    let me = Identity::generate();
    let mut sender = Agent::v1(&gateway).await;
    let (_, text) = sender.send_offer(me.did(), "x").await;
    sender.ping().await;
    assert_eq!(gateway.settled().await.held, 1);
    let mut receiver = Agent::connect_as(&gateway, Subprotocol::V1_1, me).await;
    receiver.register().await;
    assert_eq!(receiver.text().await, text);
}

#[tokio::test]
async fn policy_may_extend_a_lease_and_is_asked_once_per_lapse() {
    let fake = Fake { extension: Some(Duration::from_millis(400)), ..Fake::default() };
    let gateway = start(fake.clone(), |s| {
        s.presence.timeout = Duration::from_millis(200);
    })
    .await;
    let mut agent = Agent::v1(&gateway).await;
    until("the first lapse", || fake.expiries.load(SeqCst) == 1).await;
    let (_, health) = gateway.get("/health").await;
    assert_eq!(health["connected_agents"], 1, "extended");
    // Nothing is read meanwhile, so no ping is answered.
    until("the second lapse", || fake.expiries.load(SeqCst) == 2).await;
    assert!(matches!(agent.frame().await, Ok(Message::Text(text)) if text.contains("TIMEOUT")));
    assert_eq!(agent.close().await.0, 4004);
    assert_eq!(fake.expiries.load(SeqCst), 2);
}

#[tokio::test]
async fn a_policy_that_panics_ends_one_session_whose_key_and_messages_are_not_lost() {
    let fake = Fake { panics_over: Some("boom"), ..Fake::default() };
    let gateway = start(fake, |_| {}).await;
    let me = Identity::generate();
    let mut broken = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    let mut other = Agent::v1(&gateway).await;
    broken.send_offer(&other.did(), "boom").await;
    assert!(broken.frame().await.is_err(), "its socket is gone");
    gateway.has_agents(1).await;
    let mut again = Agent::registered_as(&gateway, Subprotocol::V1_1, me).await;
    let (_, text) = other.send_offer(&again.did(), "x").await;
    assert_eq!(again.text().await, text);
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.delivered), (2, 1), "{messages:?}");
}
