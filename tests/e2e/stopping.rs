//! Duty 13's 1012: a graceful stop tells everyone and loses nothing that was accepted.

use std::time::Duration;

use conexus_gateway::Messages;
use conexus_protocol::{Identity, Subprotocol};
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    http,
    process::{Process, folder_with},
    soon,
};

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

#[tokio::test]
async fn while_load_balancers_notice_agents_still_come_and_talk() {
    let mut gateway = TestGateway::start_with(|s| {
        s.server.drain_delay = Duration::from_secs(600);
        s.server.drain_timeout = Duration::from_secs(2);
    })
    .await;
    let mut early = Agent::v1_1(&gateway).await;
    assert_eq!(gateway.get("/ready").await.0, 200);
    gateway.begin_stop();
    soon("it to be no longer ready", async { while gateway.get("/ready").await.0 != 503 {} }).await;
    let (status, health) = gateway.get("/health").await;
    assert_eq!((status, health["status"].as_str()), (200, Some("healthy")));
    let late = Agent::v1_1(&gateway).await;
    let (_, text) = early.send_offer(&late.did(), "hello").await;
    let mut late = late;
    assert_eq!(late.text().await, text);
    let (id, _) = early.send_offer(Identity::generate().did(), "x").await;
    let refusal = early.refusal().await;
    assert_eq!(
        (refusal.correlation_id, refusal.reason.as_deref()),
        (Some(id), Some("unknown_agent"))
    );
}

#[tokio::test]
async fn agents_are_told_to_go_one_after_the_other_and_the_rest_are_served_meanwhile() {
    let mut gateway = TestGateway::start_with(|s| {
        s.server.drain_spread = Duration::from_secs(300);
        s.server.drain_timeout = Duration::from_secs(600);
    })
    .await;
    let mut agents = Vec::new();
    for _ in 0..10 {
        agents.push(Agent::v1_1(&gateway).await);
    }
    let mut unregistered = Agent::connect(&gateway, Subprotocol::V1_1).await;
    gateway.begin_stop();
    // Who has not registered is no longer waited for, and the first of the agents goes at once.
    assert_eq!(unregistered.close().await.0, 1012);
    gateway.has_agents(9).await;
    let (status, answer) = http::refused_upgrade(gateway.addr, "/ws").await;
    assert_eq!((status, answer["error"].as_str()), (503, Some("the gateway is stopping")));
    let mut gone = None;
    let mut there = Vec::new();
    for mut agent in agents {
        let (_, text) = agent.sign("did:key:gateway", conexus_protocol::Ping { sequence: None });
        let sent = agent.socket.send(Message::text(text)).await;
        match agent.frame().await {
            Ok(Message::Text(_)) if sent.is_ok() => there.push(agent),
            Ok(Message::Close(Some(frame))) => {
                assert_eq!(u16::from(frame.code), 1012);
                let hint = frame.reason.strip_prefix("reconnect_in=").unwrap();
                assert!(hint.parse::<u64>().unwrap() <= 5000, "{hint}");
                assert!(gone.replace(agent).is_none(), "one of ten in 30 s");
            }
            other => panic!("{other:?}"),
        }
    }
    // Who stays is served; what is for the one that has gone comes back.
    let (mut a, mut b) = (there.pop().unwrap(), there.pop().unwrap());
    let (_, text) = a.send_offer(&b.did(), "still here").await;
    assert_eq!(b.text().await, text);
    let (id, _) = a.send_offer(&gone.unwrap().did(), "x").await;
    let refusal = a.refusal().await;
    assert_eq!((refusal.correlation_id, refusal.reason.as_deref()), (Some(id), Some("draining")));
    let Messages { received, delivered, refused, held } = gateway.settled().await;
    assert_eq!((received, delivered, refused, held), (2, 1, 1, 0));
}

#[tokio::test]
async fn an_agent_that_is_told_to_go_gets_what_was_queued_for_it_first() {
    let mut gateway = TestGateway::start_with(|s| {
        s.server.drain_spread = Duration::from_millis(1);
        s.limits.outbox_messages = 1000;
    })
    .await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    // More than the kernel takes at once.
    let sdp = "x".repeat(50_000);
    let texts: Vec<_> = (0..200).map(|n| a.offer(&b.did(), &format!("{n}{sdp}")).1).collect();
    let mut refused = 0;
    for text in &texts {
        a.send(text.clone()).await;
    }
    a.send_offer(&a.did(), "marker").await;
    while !a.text().await.contains("marker") {
        refused += 1;
    }
    gateway.begin_stop();
    let mut got = 0;
    let code = loop {
        match b.frame().await.unwrap() {
            Message::Text(text) => {
                assert!(texts.iter().any(|sent| *sent == *text));
                got += 1;
            }
            Message::Close(frame) => break frame.map(|frame| u16::from(frame.code)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((code, got + refused), (Some(1012), 200));
    gateway.ended().await;
    let messages = gateway.counters();
    assert_eq!((messages.delivered, messages.refused), (got + 1, refused), "{messages:?}");
}

#[tokio::test]
async fn an_agent_that_takes_nothing_and_is_told_to_go_is_no_pending_decision() {
    let folder = folder_with(&[]);
    let settings = ["--set", "server.drain_spread=1ms", "--set", "server.drain_timeout=6s"];
    let mut gateway = Process::start(folder.path(), &settings).await;
    let (deaf, mut sender) = (gateway.agent().await, gateway.agent().await);
    let sdp = "x".repeat(60_000);
    for _ in 0..150 {
        sender.send_offer(&deaf.did(), &sdp).await;
    }
    let log = gateway.last_words().await.join("\n");
    assert!(log.contains("agents do not take what is queued"), "{log}");
    for wrong in ["decisions still pending", "cutting them off"] {
        assert!(!log.contains(wrong), "{log}");
    }
    drop(deaf);
}

#[tokio::test]
async fn many_agents_are_told_to_come_back_over_a_longer_time() {
    let mut gateway = TestGateway::start_with(|s| {
        s.server.reconnect_spread = Duration::ZERO;
        s.server.reconnect_rate = 1;
    })
    .await;
    let mut agents = Vec::new();
    for _ in 0..20 {
        agents.push(Agent::v1(&gateway).await);
    }
    gateway.begin_stop();
    let mut hints = Vec::new();
    for mut agent in agents {
        let (code, reason) = agent.close().await;
        assert_eq!(code, 1012);
        hints.push(reason.strip_prefix("reconnect_in=").unwrap().parse::<u64>().unwrap());
    }
    // 20 at one a second. That all of them are within the first half has a chance of one in a million.
    assert!(hints.iter().all(|hint| *hint <= 20_000), "{hints:?}");
    assert!(hints.iter().any(|hint| *hint > 10_000), "{hints:?}");
}
