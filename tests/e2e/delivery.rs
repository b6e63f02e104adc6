//! Duties 3 to 6, 8 and 12: bound sender, verbatim, nothing vanishes, order, PING, slow readers.

use std::{collections::HashSet, time::Duration};

use conexus_protocol::{
    Draft, Envelope, ErrorCode, ErrorPayload, Identity, Intent, MessageType, Offer, Ping, Pong,
    Rules, Subprotocol,
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpSocket;
use tokio_tungstenite::{MaybeTlsStream, tungstenite::Message};

use conexus_gateway::config::RoutedSignatures;

use crate::support::{
    agent::{Agent, Refusal},
    gateway::TestGateway,
    soon, until,
};

fn refused(id: String, code: ErrorCode, reason: &str) -> Refusal {
    Refusal { correlation_id: Some(id), code, reason: Some(reason.into()), member: None }
}

#[tokio::test]
async fn an_offer_reaches_its_target_to_the_letter() {
    let gateway = TestGateway::start().await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1_1(&gateway).await);
    let (_, text) = a.offer(&b.did(), "v=0\r\n\u{e9}");
    // Another order, spaces and escapes than anyone would write: they are the sender's business.
    let parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let members: Vec<_> =
        parsed.iter().rev().map(|(name, value)| format!("\t\"{name}\" : {value}")).collect();
    let odd = format!(" {{ {} }}\n", members.join(" ,\n"));
    a.send(odd.clone()).await;
    assert_eq!(b.text().await, odd);
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.delivered), (1, 1));
}

#[tokio::test]
async fn a_message_to_either_spelling_reaches_the_agent_also_oneself() {
    let gateway = TestGateway::start().await;
    let mut a = Agent::v1(&gateway).await;
    for did in [a.identity.key().did(), a.identity.key().legacy_did()] {
        let (_, text) = a.send_offer(&did, "to myself").await;
        assert_eq!(a.text().await, text);
    }
}

#[tokio::test]
async fn a_sender_is_bound_to_its_registered_did_to_the_letter() {
    let gateway = TestGateway::start().await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let forged = Draft::new(a.did(), Offer { sdp: "x".into() });
    let other_spelling = a.identity.clone().with_legacy_did();
    for text in [forged.sign(&b.identity), forged.sign(&other_spelling)] {
        a.send(text).await;
        let refusal = a.refusal().await;
        assert_eq!(refusal.code, ErrorCode::InvalidSignature);
        assert_eq!(refusal.member.as_deref(), Some("from"));
        assert_eq!(refusal.correlation_id.as_ref(), Some(&forged.id));
    }
    b.ping().await;
    assert_eq!(gateway.settled().await.received, 0);
}

#[tokio::test]
async fn routed_signatures_are_checked_as_the_configuration_says() {
    for (routed, unsigned_passes, forged_passes) in [
        (RoutedSignatures::Required, false, false),
        (RoutedSignatures::WhenPresent, true, false),
        (RoutedSignatures::Off, true, true),
    ] {
        let gateway = TestGateway::start_with(|s| s.signatures.routed = routed).await;
        let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
        let (_, good) = a.send_offer(&b.did(), "signed").await;
        assert_eq!(b.text().await, good);

        let (_, text) = a.offer(&b.did(), "signed");
        let signature = Envelope::parse(&text, Rules::V1_STRICT).unwrap().signature.into_owned();
        let unsigned = text.replace(&signature, "");
        let forged = text.replace("\"sdp\":\"signed\"", "\"sdp\":\"forged\"");
        for (text, passes) in [(unsigned, unsigned_passes), (forged, forged_passes)] {
            a.send(text.clone()).await;
            if passes {
                assert_eq!(b.text().await, text, "{routed:?}");
            } else {
                let refusal = a.refusal().await;
                assert_eq!(refusal.code, ErrorCode::InvalidSignature, "{routed:?}");
                assert_eq!(refusal.member.as_deref(), Some("signature"));
            }
        }
        let messages = gateway.settled().await;
        assert_eq!(messages.received, messages.delivered, "a bad signature is not received");
    }
}

#[tokio::test]
async fn an_absent_target_and_the_gateway_itself_are_unknown_agents() {
    let gateway = TestGateway::start().await;
    let mut a = Agent::v1(&gateway).await;
    let absent = Identity::generate();
    for to in [absent.did(), &gateway.did.clone(), "did:key:gateway", "bob", ""] {
        let (id, _) = a.send_offer(to, "x").await;
        assert_eq!(a.refusal().await, refused(id, ErrorCode::UnknownAgent, "unknown_agent"));
    }
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.refused), (5, 5));
}

#[tokio::test]
async fn a_type_that_is_not_relayed_is_refused_and_a_relayed_one_passes() {
    let intent = || Intent { query: Some("?".into()), ..Intent::default() };
    let gateway = TestGateway::start().await;
    let (mut a, b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let (id, text) = a.sign(&b.did(), intent());
    a.send(text).await;
    assert_eq!(a.refusal().await, refused(id, ErrorCode::ConnectionRefused, "not_relayed"));

    let gateway = TestGateway::start_with(|s| s.routing.relay = vec![MessageType::Intent]).await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let (_, text) = a.sign(&b.did(), intent());
    a.send(text.clone()).await;
    assert_eq!(b.text().await, text);
    let (id, _) = a.send_offer(&b.did(), "x").await;
    assert_eq!(a.refusal().await, refused(id, ErrorCode::ConnectionRefused, "not_relayed"));
}

#[tokio::test]
async fn an_error_that_cannot_be_delivered_is_counted_and_answered_with_nothing() {
    let gateway = TestGateway::start().await;
    let mut a = Agent::v1(&gateway).await;
    let error =
        ErrorPayload { code: ErrorCode::ConnectionRefused, message: "no".into(), details: None };
    let (_, text) = a.sign(Identity::generate().did(), error);
    a.send(text).await;
    a.ping().await;
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.refused), (1, 1));
}

#[tokio::test]
async fn a_ping_is_answered_with_its_own_sequence_whatever_its_size() {
    let gateway = TestGateway::start().await;
    for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
        let mut a = Agent::registered(&gateway, subprotocol).await;
        for sequence in ["0", "-7", "9223372036854775807", "1180591620717411303424"] {
            let did = a.did();
            a.send(format!(
                r#"{{"id":"p","from":"{did}","to":"anyone","type":"PING","payload":{{"sequence":{sequence}}},"signature":""}}"#
            ))
            .await;
            let text = a.text().await;
            let pong = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
            assert_eq!((pong.kind, pong.correlation_id.as_deref()), (MessageType::Pong, Some("p")));
            let echoed = pong.payload::<Pong>().unwrap().sequence.unwrap();
            assert_eq!(echoed.to_string(), sequence);
        }
    }
}

#[tokio::test]
async fn websocket_pings_are_answered() {
    let gateway = TestGateway::start().await;
    let mut a = Agent::v1(&gateway).await;
    a.send_frame(Message::Ping(b"hello".to_vec().into())).await;
    let answer = soon("a pong", a.socket.next()).await.unwrap().unwrap();
    assert_eq!(answer, Message::Pong(b"hello".to_vec().into()));
}

#[tokio::test]
async fn messages_of_one_sender_arrive_in_the_order_sent() {
    let gateway = TestGateway::start().await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);
    let texts: Vec<_> = (0..200).map(|n| a.offer(&b.did(), &n.to_string()).1).collect();
    for text in &texts {
        a.socket.feed(Message::text(text.clone())).await.unwrap();
    }
    a.socket.flush().await.unwrap();
    for text in texts {
        assert_eq!(b.text().await, text);
    }
}

/// An agent whose socket takes little before it has to read.
async fn small_window(gateway: &TestGateway) -> Agent {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut agent =
        Agent::connect_over(gateway, Subprotocol::V1, Identity::generate(), socket).await;
    agent.register().await;
    agent
}

#[tokio::test]
async fn a_slow_reader_costs_its_senders_an_error_and_nobody_else_anything() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.outbox_messages = 16;
        s.limits.write_timeout = Duration::from_secs(600);
    })
    .await;
    let mut slow = small_window(&gateway).await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1(&gateway).await);

    // Until the kernel's buffers and the outbox are full.
    let sdp = "x".repeat(60_000);
    let mut sent = Vec::new();
    let first_refused = loop {
        let (id, text) = a.send_offer(&slow.did(), &sdp).await;
        sent.push((id, text));
        // The answer to a message to oneself comes behind a refusal, if there was one.
        let (_, marker) = a.send_offer(&a.did(), "marker").await;
        let answer = a.text().await;
        if answer != marker {
            let envelope = Envelope::parse(&answer, Rules::V1_STRICT).unwrap();
            assert_eq!(envelope.kind, MessageType::Error);
            assert_eq!(a.text().await, marker);
            break envelope.correlation_id.unwrap().into_owned();
        }
        assert!(sent.len() < 1000, "the outbox never fills");
    };
    assert_eq!(sent.last().unwrap().0, first_refused);

    // Meanwhile the others do not notice.
    let (_, text) = a.send_offer(&b.did(), "hello").await;
    assert_eq!(b.text().await, text);

    // And what was accepted arrives, once it reads.
    for (_, text) in &sent[..sent.len() - 1] {
        assert_eq!(&slow.text().await, text);
    }
    let messages = gateway.settled().await;
    assert_eq!(messages.refused, 1);
}

#[tokio::test]
async fn a_socket_that_does_not_drain_is_closed_and_its_messages_are_accounted_for() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.write_timeout = Duration::from_millis(300);
    })
    .await;
    let mut slow = small_window(&gateway).await;
    let mut a = Agent::v1(&gateway).await;
    let sdp = "x".repeat(60_000);
    let mut open = HashSet::new();
    // More than the kernel's buffers take.
    for _ in 0..150 {
        open.insert(a.send_offer(&slow.did(), &sdp).await.0);
    }
    gateway.has_agents(1).await;
    until("all to be received", || gateway.counters().received == 150).await;
    let messages = gateway.settled().await;
    assert!(messages.refused > 0);

    // Every message of the sender either was refused by an ERROR or lies in the target's socket.
    for _ in 0..messages.refused {
        let refusal = a.refusal().await;
        assert!(open.remove(&refusal.correlation_id.unwrap()));
    }
    for _ in 0..messages.delivered {
        let text = slow.text().await;
        let id = Envelope::parse(&text, Rules::V1_STRICT).unwrap().id.into_owned();
        assert!(open.remove(&id), "delivered and refused");
    }
    assert!(open.is_empty());
}

#[tokio::test]
async fn what_waits_for_an_agent_that_resets_its_connection_is_not_delivered() {
    // With a mailbox it is held instead.
    for hold in [Duration::ZERO, Duration::from_secs(600)] {
        let gateway = TestGateway::start_with(|s| {
            s.limits.outbox_messages = 100_000;
            s.limits.outbox_bytes = 64 << 20;
            s.limits.write_timeout = Duration::from_secs(600);
            s.mailbox.hold = hold;
            s.mailbox.messages_per_agent = 100_000;
            s.mailbox.messages_per_sender = 100_000;
            s.mailbox.bytes_per_agent = 64 << 20;
        })
        .await;
        let slow = small_window(&gateway).await;
        let mut a = Agent::v1(&gateway).await;
        // Many lie side by side in what the kernel is asked to take at once.
        let sdp = "x".repeat(700);
        let mut sent = 0;
        let mut before = None;
        // Until the kernel takes no more, and then some.
        while before != Some(gateway.counters().delivered) || sent < 2_000 {
            before = Some(gateway.counters().delivered);
            for _ in 0..200 {
                a.socket.feed(Message::text(a.offer(&slow.did(), &sdp).1)).await.unwrap();
            }
            a.ping().await;
            sent += 200;
            assert!(sent < 100_000, "the kernel takes everything");
        }
        let before = gateway.counters().delivered;
        let MaybeTlsStream::Plain(stream) = slow.socket.get_ref() else { unreachable!() };
        stream.set_zero_linger().unwrap();
        drop(slow);
        gateway.has_agents(1).await;
        let messages = gateway.settled().await;
        assert_eq!((messages.received, messages.delivered), (sent, before), "{messages:?}");
        let (given_back, others) = match hold.is_zero() {
            true => (messages.refused, messages.held),
            false => (messages.held, messages.refused),
        };
        assert_eq!((given_back, others), (sent - before, 0), "{messages:?}");
        for _ in 0..messages.refused {
            assert_eq!(a.refusal().await.reason.as_deref(), Some("unknown_agent"));
        }
    }
}

#[tokio::test]
async fn over_the_rate_each_message_is_refused_and_too_many_strikes_close() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.messages_per_second = 1;
        s.limits.message_burst = 3;
        s.limits.rate_strikes = 5;
    })
    .await;
    let (mut a, mut b) = (Agent::v1_1(&gateway).await, Agent::v1_1(&gateway).await);
    let texts: Vec<_> = (0..9).map(|_| a.offer(&b.did(), "x")).collect();
    for (_, text) in &texts {
        a.socket.feed(Message::text(text.clone())).await.unwrap();
    }
    a.socket.flush().await.unwrap();
    for (_, text) in &texts[..3] {
        assert_eq!(&b.text().await, text);
    }
    for (id, _) in &texts[3..] {
        let refusal = a.refusal().await;
        assert_eq!(refusal, refused(id.clone(), ErrorCode::ConnectionRefused, "rate_limited"));
    }
    assert_eq!(a.close().await.0, 4008);
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.delivered, messages.refused), (9, 3, 6));
}

#[tokio::test]
async fn the_rate_covers_whatever_an_agent_sends_but_only_messages_are_accounted_for() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.messages_per_second = 1;
        s.limits.message_burst = 1;
    })
    .await;
    let mut a = Agent::v1_1(&gateway).await;
    a.ping().await;
    let (id, text) = a.sign("did:key:gateway", Ping { sequence: None });
    a.send(text).await;
    assert_eq!(a.refusal().await, refused(id, ErrorCode::ConnectionRefused, "rate_limited"));
    assert_eq!(gateway.settled().await.received, 0);
}
