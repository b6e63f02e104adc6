//! Watching with the client crate, at the real gateway.

use std::time::Duration;

use conexus_client::{
    Client, ReconnectPolicy, SendError, Watch, WatchFault,
    protocol::{Identity, PresenceState, RefusalReason, Subprotocol},
};

use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    policy::{Changing, Closures},
    soon, until,
};

fn quick() -> ReconnectPolicy {
    ReconnectPolicy {
        initial: Duration::from_millis(5),
        max: Duration::from_millis(50),
        max_attempts: 0,
        ..ReconnectPolicy::default()
    }
}

async fn connected(gateway: &TestGateway) -> Client {
    let connecting = Client::builder(gateway.url(), Identity::generate()).reconnect(quick());
    soon("the client to connect", connecting.connect()).await.unwrap()
}

async fn told(watch: &mut Watch) -> (String, PresenceState) {
    let presence = soon("word of presence", watch.recv()).await.unwrap().unwrap();
    (presence.did, presence.state)
}

#[tokio::test]
async fn a_watch_goes_on_at_a_gateway_that_was_started_anew() {
    let mut gateway = TestGateway::start_with(|s| s.server.reconnect_spread = Duration::ZERO).await;
    let client = connected(&gateway).await;
    let me = Identity::generate();
    let did = me.did().to_owned();
    let mut watch = client.watch([&did]).unwrap();
    assert_eq!(told(&mut watch).await, (did.clone(), PresenceState::Offline));
    let agent = Agent::registered_as(&gateway, Subprotocol::V1_1, me.clone()).await;
    assert_eq!(told(&mut watch).await, (did.clone(), PresenceState::Online));

    let address = gateway.addr;
    gateway.begin_stop();
    drop(agent);
    gateway.ended().await;
    let gateway = TestGateway::start_with(|s| s.server.listen = address).await;
    assert_eq!(told(&mut watch).await, (did.clone(), PresenceState::Offline));
    let _agent = Agent::registered_as(&gateway, Subprotocol::V1, me.with_legacy_did()).await;
    assert_eq!(told(&mut watch).await, (did.clone(), PresenceState::Online));
    assert_eq!(gateway.watches(), 1);
    drop(watch);
    until("the gateway to be told", || gateway.watches() == 0).await;
    soon("the farewell", client.close()).await;
}

#[tokio::test]
async fn a_refusal_names_its_agent_and_why() {
    let hidden = Identity::generate();
    let secret = hidden.did().to_owned();
    let policy = Changing::new(Closures {
        watch: Some(Box::new(move |event| match event.did == secret {
            true => Err(RefusalReason::Denied.into()),
            false => Ok(()),
        })),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy, |s| s.limits.watches = 2).await;
    let client = connected(&gateway).await;
    let fine = Identity::generate();
    let mut watch = client.watch([hidden.did(), fine.did()]).unwrap();
    // In which order the two are asked for is the client's choice.
    let (mut refusals, mut states) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        match soon("an answer", watch.recv()).await.unwrap() {
            Err(refused) => refusals.push(refused),
            Ok(change) => states.push(change.did),
        }
    }
    assert_eq!(states, [fine.did()]);
    let refused = refusals.pop().unwrap();
    assert_eq!(refused.did, hidden.did());
    let WatchFault::Refused(refusal) = refused.reason else { panic!("{refused:?}") };
    assert_eq!(refusal.reason, Some(RefusalReason::Denied));
    let mut more = client.watch([Identity::generate().did(), Identity::generate().did()]).unwrap();
    for _ in 0..2 {
        let refused = soon("a refusal", more.recv()).await.unwrap().unwrap_err();
        let WatchFault::Refused(refusal) = refused.reason else { panic!("{refused:?}") };
        assert_eq!(refusal.reason, Some(RefusalReason::QueueFull));
    }
    assert_eq!(gateway.watches(), 1);
}

#[tokio::test]
async fn a_session_of_v1_has_no_watches() {
    // A listener beyond loopback without public URLs does not offer ioap.v1.1.
    let gateway = TestGateway::start_with(|s| s.server.listen = ([0, 0, 0, 0], 0).into()).await;
    let url = format!("ws://127.0.0.1:{}/ws", gateway.addr.port());
    let connecting = Client::builder(url, Identity::generate()).connect();
    let client = soon("the client to connect", connecting).await.unwrap();
    let refused = client.watch([Identity::generate().did()]);
    assert!(matches!(refused, Err(SendError::Unsupported(Subprotocol::V1))));
}
