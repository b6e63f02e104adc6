//! What is delivered over TLS is what the kernel has, and not what the library keeps.

use std::{collections::HashSet, time::Duration};

use conexus_protocol::{Envelope, Identity, Rules};
use tokio::net::TcpSocket;

use crate::support::{agent::Agent, gateway::TestGateway, pki::Pki, until};

/// An agent whose socket takes little before it has to read.
async fn small_window(pki: &Pki, gateway: &TestGateway, identity: Identity) -> Agent {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    pki.agent_over(gateway, identity, socket).await
}

fn id_of(text: &str) -> String {
    Envelope::parse(text, Rules::V1_1).unwrap().id.into_owned()
}

#[tokio::test]
async fn a_reader_that_stalls_is_closed_and_each_message_has_one_end() {
    // Large ones lie in several records, of small ones many lie in one.
    for (size, count) in [(60_000, 150), (700, 9_000)] {
        let pki = Pki::new();
        let gateway = pki
            .gateway(|s| {
                s.limits.write_timeout = Duration::from_millis(300);
                s.limits.outbox_messages = 100_000;
                s.limits.outbox_bytes = 64 << 20;
            })
            .await;
        let mut slow = small_window(&pki, &gateway, Identity::generate()).await;
        let mut a = pki.agent(&gateway, Identity::generate()).await;
        let sdp = "x".repeat(size);
        let mut open = HashSet::new();
        // More than the kernel's buffers take.
        for _ in 0..count {
            open.insert(a.send_offer(&slow.did(), &sdp).await.0);
        }
        gateway.has_agents(1).await;
        until("all to be received", || gateway.counters().received == count).await;
        let messages = gateway.settled().await;
        assert!(messages.refused > 0 && messages.delivered > 0, "{messages:?}");

        // Every message of the sender either was refused by an ERROR or lies in the target's socket.
        for _ in 0..messages.refused {
            let refusal = a.refusal().await;
            assert!(open.remove(&refusal.correlation_id.unwrap()));
        }
        for _ in 0..messages.delivered {
            assert!(open.remove(&id_of(&slow.text().await)), "delivered and refused");
        }
        assert!(open.is_empty());
    }
}

#[tokio::test]
async fn a_takeover_of_a_reader_that_stalls_loses_and_doubles_nothing() {
    const MESSAGES: u64 = 120;
    let pki = Pki::new();
    let gateway = pki
        .gateway(|s| {
            s.limits.write_timeout = Duration::from_secs(600);
            s.limits.outbox_bytes = 64 << 20;
        })
        .await;
    let identity = Identity::generate();
    let mut slow = small_window(&pki, &gateway, identity.clone()).await;
    let mut a = pki.agent(&gateway, Identity::generate()).await;
    let sdp = "x".repeat(30_000);
    let mut sent = Vec::new();
    for _ in 0..MESSAGES {
        sent.push(a.send_offer(&slow.did(), &sdp).await.0);
    }
    until("all to be received", || gateway.counters().received == MESSAGES).await;
    let before = gateway.counters().delivered;
    assert!(before < MESSAGES, "the older session has not got everything");

    let mut newer = pki.agent(&gateway, identity).await;
    let messages = gateway.settled().await;
    assert_eq!((messages.delivered, messages.refused), (MESSAGES, 0));
    // What the older one can read, and then what the newer one got: all of it, once, in order.
    let mut got = Vec::new();
    while let Ok(tokio_tungstenite::tungstenite::Message::Text(text)) = slow.frame().await {
        got.push(id_of(&text));
    }
    assert!(got.len() as u64 >= before);
    while got.len() < sent.len() {
        got.push(id_of(&newer.text().await));
    }
    assert_eq!(got, sent);
    newer.ping().await;
}

#[tokio::test]
async fn a_stop_writes_what_is_queued_and_says_when_to_come_back() {
    let pki = Pki::new();
    let mut gateway = pki.gateway(|_| {}).await;
    let mut a = pki.agent(&gateway, Identity::generate()).await;
    let mut b = pki.agent(&gateway, Identity::generate()).await;
    let mut sent = Vec::new();
    for _ in 0..50 {
        sent.push(a.send_offer(&b.did(), "hello").await.0);
    }
    until("all to be received", || gateway.counters().received == 50).await;
    gateway.begin_stop();
    for id in sent {
        assert_eq!(id_of(&b.text().await), id);
    }
    for agent in [&mut a, &mut b] {
        let (code, reason) = agent.close().await;
        assert_eq!(code, 1012);
        assert!(reason.starts_with("reconnect_in="), "{reason}");
    }
    gateway.ended().await;
    let messages = gateway.counters();
    assert_eq!((messages.received, messages.delivered), (50, 50));
}
