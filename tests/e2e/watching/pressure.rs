//! Watchers that do not read: they cost what is bounded, and are told the latest once they do.

use conexus_protocol::{Identity, PresenceState, Subprotocol};
use tokio::net::TcpSocket;

use super::{presence, read, watched};
use crate::support::{agent::Agent, gateway::TestGateway};

/// A registered agent whose socket takes little unless it is read.
async fn narrow(gateway: &TestGateway) -> Agent {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let identity = Identity::generate();
    let mut agent = Agent::connect_over(gateway, Subprotocol::V1_1, identity, socket).await;
    agent.register().await;
    agent
}

#[tokio::test]
async fn whoever_reads_late_is_told_the_latest_state_and_messages_keep_half_of_the_room() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.outbox_messages = 16;
        s.limits.write_timeout = std::time::Duration::from_secs(60);
    })
    .await;
    let (one, other) = (Identity::generate(), Identity::generate());
    let mut watcher = narrow(&gateway).await;
    watched(&mut watcher, &[one.did(), other.did()]).await;
    let mut sender = Agent::v1_1(&gateway).await;
    // Fill the kernel's buffers and the outbox: until a message is refused for want of room.
    let filler = "x".repeat(60_000);
    let mut accepted = 0;
    loop {
        sender.send_offer(&watcher.did(), &filler).await;
        let (_, marker) = sender.offer(&sender.did(), "marker");
        sender.send(marker.clone()).await;
        let next = sender.text().await;
        if next != marker {
            assert_eq!(sender.read_refusal(&next).reason.as_deref(), Some("queue_full"));
            assert_eq!(sender.text().await, marker);
            break;
        }
        accepted += 1;
    }
    for _ in 0..10 {
        let agent = Agent::registered_as(&gateway, Subprotocol::V1_1, one.clone()).await;
        drop(agent);
        gateway.has_agents(2).await;
    }
    let _other = Agent::registered_as(&gateway, Subprotocol::V1_1, other.clone()).await;
    let _one = Agent::registered_as(&gateway, Subprotocol::V1_1, one.clone()).await;
    gateway.has_agents(4).await;
    // It reads: what was queued, then one word of each.
    for _ in 0..accepted {
        assert!(watcher.text().await.contains("OFFER"));
    }
    let mut told = vec![presence(&mut watcher).await, presence(&mut watcher).await];
    told.sort_by_key(|presence| presence.did != one.did());
    assert!(told.iter().all(|presence| presence.state == PresenceState::Online), "{told:?}");
    assert_eq!((&*told[0].did, &*told[1].did), (one.did(), other.did()));
    watcher.ping().await;
}

#[tokio::test]
async fn an_agent_that_flaps_pushes_out_no_message_of_those_who_watch_it() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.outbox_messages = 8;
        s.limits.write_timeout = std::time::Duration::from_secs(60);
    })
    .await;
    let me = Identity::generate();
    let mut watcher = narrow(&gateway).await;
    // By another name than it is registered with, over and over: each answer waits as a change does.
    let did = me.key().legacy_did();
    watched(&mut watcher, &[&did]).await;
    for _ in 0..3000 {
        super::watch(&mut watcher, &[&did]).await;
    }
    let mut sender = Agent::v1_1(&gateway).await;
    let (_, text) = sender.send_offer(&watcher.did(), "still gets through").await;
    sender.ping().await;
    let agent = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    let (mut got, mut state) = (false, PresenceState::Offline);
    while !(got && state == PresenceState::Online) {
        let next = watcher.text().await;
        match next == text {
            true => got = true,
            false => state = read(&next).state,
        }
    }
    drop(agent);
    while presence(&mut watcher).await.state == PresenceState::Online {}
}
