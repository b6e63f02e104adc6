//! A decision's place in the session: it may take time, and then delays the one agent it is about.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use conexus_gateway::hooks::{
    Connect, Decision, Expiring, ExpiryVerdict, Policy, Registering, Routing, Undeliverable,
    UndeliverableVerdict, Verdict,
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
    expiry: Option<ExpiryVerdict>,
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

fn verdict(denied: Option<RefusalReason>) -> Decision<Verdict> {
    Decision::Now(denied.map_or(Verdict::Continue, Verdict::Deny))
}

impl Policy for Fake {
    fn hook_count(&self) -> usize {
        1
    }

    fn on_connect(&self, _: &Connect<'_>) -> Decision<Verdict> {
        verdict(self.connect)
    }

    fn on_register(&self, event: &Registering<'_>) -> Decision<Verdict> {
        let denied = self.register.filter(|_| event.credentials != Some("open sesame"));
        Decision::Later(Box::pin(async move {
            tokio::task::yield_now().await;
            denied.map_or(Verdict::Continue, Verdict::Deny)
        }))
    }

    fn on_route(&self, event: &Routing<'_>) -> Decision<Verdict> {
        let text = event.envelope.text();
        assert!(!self.panics_over.is_some_and(|word| text.contains(word)), "a broken policy");
        if self.slow_sender.as_deref() != Some(event.from.as_str()) {
            return Decision::Now(Verdict::Continue);
        }
        self.asked.fetch_add(1, SeqCst);
        let permits = Arc::clone(&self.permits);
        Decision::Later(Box::pin(async move {
            permits.0.acquire().await.unwrap().forget();
            Verdict::Continue
        }))
    }

    fn on_undeliverable(&self, _: &Undeliverable<'_>) -> Decision<UndeliverableVerdict> {
        let hold = self.hold;
        Decision::Later(Box::pin(async move {
            tokio::task::yield_now().await;
            hold.map_or(UndeliverableVerdict::Continue, UndeliverableVerdict::Hold)
        }))
    }

    fn on_expire(&self, _: &Expiring<'_>) -> Decision<ExpiryVerdict> {
        let asked = self.expiries.fetch_add(1, SeqCst);
        match self.expiry {
            Some(verdict) if asked == 0 => Decision::Now(verdict),
            _ => Decision::Now(ExpiryVerdict::LetGo),
        }
    }
}

#[tokio::test]
async fn a_slow_decision_delays_its_own_sender_only_whose_outbox_is_still_written() {
    let slow_one = Identity::generate();
    let fake = Fake { slow_sender: Some(slow_one.did().into()), ..Fake::default() };
    let gateway = TestGateway::start_with_policy(fake.clone(), |s| {
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
    let gateway = TestGateway::start_with_policy(fake.clone(), |_| {}).await;
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
    let gateway = TestGateway::start_with_policy(fake, |_| {}).await;
    let Err(error) = dial(gateway.addr, &["ioap.v1"]).await else { panic!("upgraded") };
    assert!(matches!(*error, Error::Http(response) if response.status() == 403));

    let fake = Fake { register: denied, ..Fake::default() };
    let gateway = TestGateway::start_with_policy(fake, |_| {}).await;
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
    let gateway = TestGateway::start_with_policy(fake, |_| {}).await;
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
    let fake =
        Fake { expiry: Some(ExpiryVerdict::Extend(Duration::from_millis(400))), ..Fake::default() };
    let gateway = TestGateway::start_with_policy(fake.clone(), |s| {
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
    let gateway = TestGateway::start_with_policy(fake, |_| {}).await;
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
