//! What hooks reach of the gateway: lookups, messages of the gateway's own, the end of a session.

use std::sync::{Arc, OnceLock};

use conexus_gateway::hooks::{Admission, Passage};
use conexus_plugin_api::{AgentFilter, host::Refused};
use conexus_protocol::{AgentId, Envelope, Identity, MessageType, Rules, Subprotocol};

use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    policy::{Changing, Closures, observer},
};

#[tokio::test]
async fn hooks_find_the_agents_that_are_present_in_the_order_of_their_keys() {
    let policy = Changing::new(Closures {
        register: Some(Box::new(|event| {
            let parity = if event.agent.session % 2 == 0 { "even" } else { "odd" };
            let labels = [("parity".to_owned(), parity.to_owned())].into();
            Ok(Admission { labels, ..Admission::default() })
        })),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy.clone(), |_| {}).await;
    let world = policy.world();
    let mut agents = Vec::new();
    for _ in 0..5 {
        agents.push(Agent::v1(&gateway).await);
    }
    let all = world.agents(&AgentFilter::default());
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted_by(|a, b| a.key < b.key));
    let first = world.agents(&AgentFilter { limit: 2, ..AgentFilter::default() });
    assert_eq!(first, all[..2]);
    let label = Some(("parity".to_owned(), "odd".to_owned()));
    assert_eq!(world.agents(&AgentFilter { label, ..AgentFilter::default() }).len(), 3);

    let gone = agents.pop().unwrap();
    let key = gone.identity.key();
    let known = world.agent(key).unwrap();
    assert_eq!((&known.did, &*known.subprotocol), (&gone.did(), "ioap.v1"));
    assert_eq!(known.labels["parity"], "odd");
    drop(gone);
    gateway.has_agents(4).await;
    assert!(world.agent(key).is_none());
}

#[tokio::test]
async fn a_message_of_a_hooks_is_the_gateways_own_and_signed() {
    let policy = Changing::new(Closures::default());
    let gateway = TestGateway::start_with_policy(policy.clone(), |_| {}).await;
    let world = policy.world();
    for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
        let mut agent = Agent::registered(&gateway, subprotocol).await;
        let key = agent.identity.key();
        world.send(key, "INTENT", r#"{"query": "are you there?"}"#).unwrap();
        let text = agent.text().await;
        let message = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
        assert_eq!((message.kind, &*message.from), (MessageType::Intent, &*gateway.did));
        assert_eq!(message.to, agent.did());
        message.verify(AgentId::parse(&gateway.did).unwrap().public_key()).unwrap();

        let too_large = format!(r#"{{"sdp":"{}"}}"#, "x".repeat(100_000));
        for (kind, payload) in [
            ("PING", "{}"),
            ("REGISTERED", "{}"),
            ("nonsense", "{}"),
            ("OFFER", "{}"),
            ("OFFER", "no JSON"),
            ("OFFER", &too_large),
        ] {
            let refused = world.send(key, kind, payload);
            assert!(matches!(refused, Err(Refused::Invalid(_))), "{kind}: {refused:?}");
        }
        agent.ping().await;
    }
    let absent = Identity::generate().key();
    assert_eq!(world.send(absent, "INTENT", "{}"), Err(Refused::Absent));
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.delivered), (0, 0), "beside the accounting");
}

#[tokio::test]
async fn a_message_of_a_hooks_finds_no_place_in_a_full_outbox() {
    let policy = Changing::new(Closures::default());
    let gateway =
        TestGateway::start_with_policy(policy.clone(), |s| s.limits.outbox_messages = 4).await;
    let agent = Agent::v1(&gateway).await;
    let payload = format!(r#"{{"sdp":"{}"}}"#, "x".repeat(60_000));
    // Nothing is read, so that the kernel's buffers fill up, then the outbox.
    let world = policy.world();
    crate::support::until("the outbox to be full", || {
        match world.send(agent.identity.key(), "OFFER", &payload) {
            Ok(()) => false,
            Err(refused) => {
                assert_eq!(refused, Refused::Full);
                true
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_hook_may_end_a_session_in_its_own_words() {
    let (tell, mut observed) = observer();
    let policy = Changing::new(Closures { observer: Some(tell), ..Closures::default() });
    let gateway = TestGateway::start_with_policy(policy.clone(), |_| {}).await;
    let world = policy.world();
    for (n, (reason, told)) in [
        ("behave yourself", "behave yourself".to_owned()),
        ("", "denied by policy".to_owned()),
        (&*"é".repeat(200), "é".repeat(61)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut agent = Agent::v1_1(&gateway).await;
        assert!(world.disconnect(agent.identity.key(), reason));
        assert_eq!(agent.close().await, (4007, told));
        gateway.has_agents(0).await;
        assert!(!world.disconnect(agent.identity.key(), reason));
        let end = format!("on_disconnect s{} denied 4007", n + 1);
        assert_eq!(observed.lines(2).await[1], end);
    }
}

#[tokio::test]
async fn hooks_reach_the_gateway_from_within_a_decision() {
    let itself = Arc::new(OnceLock::<Changing>::new());
    let reached = Arc::clone(&itself);
    let policy = Changing::new(Closures {
        route: Some(Box::new(move |event| {
            let world = reached.get().unwrap().world();
            let key = conexus_protocol::AgentKey::from_bytes(event.from.key);
            assert_eq!(world.agents(&AgentFilter::default()).len(), 2);
            assert!(world.agent(key).is_some());
            world.send(key, "INTENT", r#"{"query":"last warning"}"#).unwrap();
            assert!(world.disconnect(key, "that was it"));
            Ok(Passage::default())
        })),
        ..Closures::default()
    });
    itself.set(policy.clone()).ok().unwrap();
    let gateway = TestGateway::start_with_policy(policy, |_| {}).await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let (_, text) = a.send_offer(&b.did(), "x").await;
    assert_eq!(b.text().await, text);
    assert!(a.text().await.contains("last warning"));
    assert_eq!(a.close().await, (4007, "that was it".into()));
    assert_eq!(gateway.settled().await.delivered, 1);
}
