//! Duty 13's 1012: a graceful stop tells everyone and loses nothing that was accepted.

use std::time::Duration;

use conexus_protocol::{Identity, Subprotocol};
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{agent::Agent, gateway::TestGateway, soon};

#[tokio::test]
async fn everyone_is_told_1012_with_a_hint_when_to_come_back() {
    let mut gateway = TestGateway::start().await;
    let mut unregistered = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let mut agents = [Agent::v1(&gateway).await, Agent::v1_1(&gateway).await];
    gateway.begin_stop();
    for agent in agents.iter_mut().chain([&mut unregistered]) {
        let (code, reason) = agent.close().await;
        assert_eq!(code, 1012);
        let hint: u64 = reason.strip_prefix("reconnect_in=").unwrap().parse().unwrap();
        assert!(hint <= 5000, "{reason}");
    }
    gateway.ended().await;
    let refused = tokio::net::TcpStream::connect(gateway.addr).await;
    assert!(refused.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn what_was_queued_is_written_before_the_close() {
    let mut gateway = TestGateway::start().await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let texts: Vec<_> = (0..100).map(|n| a.offer(&b.did(), &n.to_string()).1).collect();
    for text in &texts {
        a.socket.feed(Message::text(text.clone())).await.unwrap();
    }
    a.socket.flush().await.unwrap();
    a.ping().await;
    gateway.begin_stop();
    for text in texts {
        assert_eq!(b.text().await, text);
    }
    assert_eq!(b.close().await.0, 1012);
    assert_eq!(a.close().await.0, 1012);
    gateway.ended().await;
}

#[tokio::test]
async fn what_was_held_is_refused_to_its_sender_before_the_close() {
    let mut gateway = TestGateway::start_with(|s| s.mailbox.hold = Duration::from_secs(600)).await;
    let mut sender = Agent::v1(&gateway).await;
    let (id, _) = sender.send_offer(Identity::generate().did(), "x").await;
    sender.ping().await;
    gateway.begin_stop();
    let refusal = sender.refusal().await;
    assert_eq!(refusal.correlation_id, Some(id));
    assert_eq!(refusal.reason.as_deref(), Some("draining"));
    assert_eq!(sender.close().await.0, 1012);
    gateway.ended().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_keep_the_gateway_from_stopping() {
    let mut gateway =
        TestGateway::start_with(|s| s.server.drain_timeout = Duration::from_millis(500)).await;
    let deaf = Agent::v1(&gateway).await;
    let mut a = Agent::v1(&gateway).await;
    let sdp = "x".repeat(60_000);
    for _ in 0..150 {
        a.send_offer(&deaf.did(), &sdp).await;
    }
    soon("the gateway to stop", gateway.stop()).await;
    drop(deaf);
}

#[tokio::test]
async fn what_a_slow_target_did_not_take_is_refused_while_its_sender_is_still_here() {
    let mut gateway =
        TestGateway::start_with(|s| s.server.drain_timeout = Duration::from_secs(2)).await;
    let deaf = Agent::v1(&gateway).await;
    let mut sender = Agent::v1(&gateway).await;
    let sdp = "x".repeat(60_000);
    let mut open = Vec::new();
    for _ in 0..150 {
        open.push(sender.send_offer(&deaf.did(), &sdp).await.0);
    }
    sender.send_offer(&sender.did(), "marker").await;
    let mut refused = 0;
    // Some are refused since the outbox is full; then the sender's own message comes back.
    loop {
        let text = sender.text().await;
        if text.contains("marker") {
            break;
        }
        refused += 1;
    }
    gateway.begin_stop();
    let code = loop {
        match sender.frame().await {
            Ok(Message::Text(text)) => {
                assert!(text.contains("draining"), "{text}");
                refused += 1;
            }
            Ok(Message::Close(Some(frame))) => break u16::from(frame.code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1012);
    gateway.ended().await;
    let messages = gateway.counters();
    assert_eq!(messages.received, 151);
    assert_eq!(messages.refused, refused, "each refusal was told: {messages:?}");
    assert_eq!(messages.received, messages.delivered + messages.refused);
}
