//! What observers are told, and in which order: of each agent everything, once, and nothing of a
//! newer session before the end of the older one.

use std::{sync::Arc, time::Duration};

use conexus_gateway::{
    config::Settings,
    hooks::{Fixed, Judge, Passage, Way},
};
use conexus_plugin_api::{Point, PointKind, host::Event};
use conexus_protocol::{Identity, Ping, Subprotocol, Unregister};

use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    policy::{Changing, Closures, Observed, observer},
};

async fn observed(change: impl FnOnce(&mut Settings)) -> (TestGateway, Observed) {
    let (tell, observed) = observer();
    let policy = Changing::new(Closures { observer: Some(tell), ..Closures::default() });
    (TestGateway::start_with_policy(policy, change).await, observed)
}

#[tokio::test]
async fn the_end_of_a_session_that_was_taken_over_comes_before_the_newer_one() {
    let (gateway, mut observed) = observed(|_| {}).await;
    let me = Identity::generate();
    let older = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    let newer = Agent::registered_as(&gateway, Subprotocol::V1_1, me.with_legacy_did()).await;
    let expected = [
        "on_registered s1",
        "on_replaced s1",
        "on_disconnect s1 replaced 4003",
        "on_registered s2",
    ];
    assert_eq!(observed.lines(4).await, expected);
    drop(older);
    drop(newer);
    assert_eq!(observed.line().await, "on_disconnect s2 broken");
    assert!(observed.is_silent(), "the older socket's end is no further event");
}

#[tokio::test]
async fn an_agent_that_says_goodbye_is_told_of_twice_and_one_that_closes_once() {
    let (gateway, mut observed) = observed(|_| {}).await;
    let mut agent = Agent::v1(&gateway).await;
    let (_, text) = agent.sign("anyone", Unregister { reason: None });
    agent.send(text).await;
    let expected = ["on_registered s1", "on_unregister s1", "on_disconnect s1 unregistered 1000"];
    assert_eq!(observed.lines(3).await, expected);

    let mut agent = Agent::v1_1(&gateway).await;
    agent.socket.close(None).await.unwrap();
    assert_eq!(observed.line().await, "on_registered s2");
    let Event::Disconnect(end) = observed.event().await else { panic!("no end") };
    assert_eq!(end.reason, "closed");
    assert_eq!(end.agent.did, agent.did());
    assert!(end.connection.is_some());
}

#[tokio::test]
async fn an_agent_whose_lease_ran_out_and_one_that_is_told_to_come_back_have_their_reasons() {
    let (gateway, mut told) = observed(|s| s.presence.timeout = Duration::from_millis(200)).await;
    let _silent = Agent::v1(&gateway).await;
    assert_eq!(told.line().await, "on_registered s1");
    let Event::Disconnect(end) = told.event().await else { panic!("no end") };
    assert_eq!((&*end.reason, end.code), ("expired", Some(4004)));
    assert!(end.lasted_ms >= 200, "{}", end.lasted_ms);

    let (mut gateway, mut told) = observed(|_| {}).await;
    let _agent = Agent::v1(&gateway).await;
    gateway.begin_stop();
    assert_eq!(told.lines(2).await, ["on_registered s1", "on_disconnect s1 stopping 1012"]);
    gateway.ended().await;
}

#[tokio::test]
async fn a_session_that_breaks_over_its_policy_has_one_end() {
    let (tell, mut observed) = observer();
    let policy = Changing::new(Closures {
        route: Some(Box::new(|_| panic!("a broken policy"))),
        observer: Some(tell),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy, |_| {}).await;
    let me = Identity::generate();
    let mut agent = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    agent.send_offer(me.did(), "x").await;
    assert!(agent.frame().await.is_err(), "its socket is gone");
    gateway.has_agents(0).await;
    let _again = Agent::registered_as(&gateway, Subprotocol::V1_1, me).await;
    let expected = ["on_registered s1", "on_disconnect s1 broken", "on_registered s2"];
    assert_eq!(observed.lines(3).await, expected);
    assert_eq!(gateway.settled().await.refused, 1);
}

#[tokio::test]
async fn a_renewal_is_told_as_such_with_what_the_agent_is_from_then_on() {
    let (gateway, mut observed) = observed(|_| {}).await;
    let mut agent = Agent::v1_1(&gateway).await;
    assert_eq!(observed.line().await, "on_registered s1");
    let named = conexus_protocol::Metadata { name: Some("n".into()), ..Default::default() };
    agent.register_with(agent.with_metadata(named)).await;
    let Event::Registered(event) = observed.event().await else { panic!("no renewal") };
    assert!(event.renewal);
    assert_eq!(event.agent.metadata.name.as_deref(), Some("n"));
}

#[tokio::test]
async fn what_the_kernel_has_is_told_with_who_really_got_it() {
    let other = Identity::generate();
    let (tell, mut observed) = observer();
    let key = other.key();
    let policy = Changing::new(Closures {
        route: Some(Box::new(move |event| {
            let elsewhere = event.payload().contains("elsewhere");
            let way = if elsewhere { Way::Redirect(key) } else { Way::Straight };
            Ok(Passage { way, ..Passage::default() })
        })),
        observer: Some(tell),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy, |_| {}).await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let mut other = Agent::registered_as(&gateway, Subprotocol::V1_1, other).await;
    observed.lines(3).await;

    let (_, text) = a.send_offer(&b.did(), "x").await;
    assert_eq!(b.text().await, text);
    let Event::Delivered(event) = observed.event().await else { panic!("not delivered") };
    assert_eq!((&event.from.did, &event.to.did), (&a.did(), &b.did()));
    assert_eq!((&*event.kind, event.bytes), ("OFFER", text.len()));

    let (_, text) = a.send_offer(&b.did(), "elsewhere").await;
    assert_eq!(other.text().await, text);
    assert_eq!(observed.line().await, "on_delivered s1 to s3 OFFER");

    // What is the gateway's own is no message between agents.
    let (_, ping) = a.sign(&b.did(), Ping { sequence: None });
    a.send(ping).await;
    a.text().await;
    assert!(observed.is_silent());
}

struct BreaksOverEvents;

impl Judge for BreaksOverEvents {
    fn asks(&self, point: Point) -> bool {
        point.kind() == PointKind::Observer
    }

    fn observe(self: Arc<Self>, event: Event) {
        panic!("over {event:?}");
    }
}

#[tokio::test]
async fn observers_that_panic_end_no_session() {
    let policy = Fixed(Arc::new(BreaksOverEvents));
    let gateway = TestGateway::start_with_policy(policy, |_| {}).await;
    let me = Identity::generate();
    let mut older = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    let mut other = Agent::v1_1(&gateway).await;
    let (_, text) = other.send_offer(me.did(), "x").await;
    assert_eq!(older.text().await, text);
    let mut newer = Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone()).await;
    assert_eq!(older.close().await.0, 4003);
    let (_, text) = other.send_offer(me.did(), "y").await;
    assert_eq!(newer.text().await, text);
    assert_eq!(gateway.settled().await.delivered, 2);
}
