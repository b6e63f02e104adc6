//! The mailbox of duty 5: held for an agent that is away, delivered ahead of newer messages,
//! refused when nobody comes.

use std::time::Duration;

use conexus_protocol::{ErrorCode, Identity, Subprotocol};

use crate::support::{agent::Agent, gateway::TestGateway};

async fn holding(hold: Duration) -> TestGateway {
    TestGateway::start_with(|s| {
        s.mailbox.hold = hold;
        s.mailbox.messages_per_agent = 4;
    })
    .await
}

#[tokio::test]
async fn what_was_held_is_delivered_ahead_of_newer_messages() {
    let gateway = holding(Duration::from_secs(600)).await;
    let me = Identity::generate();
    let mut sender = Agent::v1(&gateway).await;
    let mut texts = Vec::new();
    for n in 0..3 {
        texts.push(sender.send_offer(me.did(), &n.to_string()).await.1);
    }
    sender.ping().await;
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.held), (3, 3));

    let mut receiver = Agent::connect_as(&gateway, Subprotocol::V1_1, me.clone()).await;
    assert!(receiver.register().await.is_some(), "REGISTERED comes first");
    texts.push(sender.send_offer(me.did(), "newer").await.1);
    for text in texts {
        assert_eq!(receiver.text().await, text);
    }
    let messages = gateway.settled().await;
    assert_eq!((messages.delivered, messages.held), (4, 0));
}

#[tokio::test]
async fn what_nobody_fetches_comes_back_as_expired() {
    let gateway = holding(Duration::from_millis(50)).await;
    let mut sender = Agent::v1(&gateway).await;
    let absent = Identity::generate();
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(sender.send_offer(absent.did(), "x").await.0);
    }
    for id in ids {
        let refusal = sender.refusal().await;
        assert_eq!(refusal.correlation_id, Some(id));
        assert_eq!(refusal.code, ErrorCode::UnknownAgent);
        assert_eq!(refusal.reason.as_deref(), Some("expired"));
    }
    let messages = gateway.settled().await;
    assert_eq!((messages.refused, messages.held), (2, 0));
}

#[tokio::test]
async fn a_full_mailbox_refuses_what_is_too_much() {
    let gateway = holding(Duration::from_secs(600)).await;
    let mut sender = Agent::v1(&gateway).await;
    let absent = Identity::generate();
    for _ in 0..4 {
        sender.send_offer(absent.did(), "x").await;
    }
    let (id, _) = sender.send_offer(absent.did(), "one too many").await;
    let refusal = sender.refusal().await;
    assert_eq!(refusal.correlation_id, Some(id));
    assert_eq!(refusal.reason.as_deref(), Some("queue_full"));
}

#[tokio::test]
async fn what_a_dead_socket_left_unwritten_waits_for_the_agents_return() {
    let gateway = TestGateway::start_with(|s| {
        s.mailbox.hold = Duration::from_secs(600);
        s.mailbox.messages_per_agent = 1000;
        s.mailbox.bytes_per_agent = 64 << 20;
        s.limits.write_timeout = Duration::from_millis(300);
    })
    .await;
    let me = Identity::generate();
    let mut slow = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    let mut sender = Agent::v1(&gateway).await;
    let sdp = "x".repeat(60_000);
    let mut texts = Vec::new();
    // More than the kernel's buffers take, less than outbox and kernel do together.
    for _ in 0..100 {
        texts.push(sender.send_offer(me.did(), &sdp).await.1);
        if gateway.messages().await.refused > 0 {
            break;
        }
    }
    gateway.has_agents(1).await;
    let messages = gateway.settled().await;
    let refused = usize::try_from(messages.refused).unwrap();
    for _ in 0..refused {
        sender.refusal().await;
    }
    assert!(messages.held > 0, "{messages:?}");

    // The old socket has the first ones, the new one gets the others, in order.
    let delivered = usize::try_from(messages.delivered).unwrap();
    for text in &texts[..delivered] {
        assert_eq!(&slow.text().await, text);
    }
    let mut back = Agent::connect_as(&gateway, Subprotocol::V1_1, me.clone()).await;
    back.register().await;
    let held = usize::try_from(messages.held).unwrap();
    for text in &texts[delivered..][..held] {
        assert_eq!(&back.text().await, text);
    }
    assert_eq!(gateway.settled().await.held, 0);
}

#[tokio::test]
async fn a_sender_that_is_gone_is_told_nothing_and_its_message_is_counted() {
    let gateway = holding(Duration::from_millis(100)).await;
    let mut sender = Agent::v1(&gateway).await;
    sender.send_offer(Identity::generate().did(), "x").await;
    sender.ping().await;
    drop(sender);
    gateway.has_agents(0).await;
    let mut messages = gateway.settled().await;
    while messages.held > 0 {
        tokio::task::yield_now().await;
        messages = gateway.settled().await;
    }
    assert_eq!((messages.received, messages.refused), (1, 1));
}

#[tokio::test]
async fn a_sender_that_came_back_meanwhile_is_told_on_its_newer_session() {
    let gateway = holding(Duration::from_millis(300)).await;
    let me = Identity::generate();
    let mut older = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    let (id, _) = older.send_offer(Identity::generate().did(), "x").await;
    older.ping().await;
    let mut newer = Agent::registered_as(&gateway, Subprotocol::V1_1, me).await;
    let refusal = newer.refusal().await;
    assert_eq!(refusal.correlation_id, Some(id));
    assert_eq!(refusal.reason.as_deref(), Some("expired"));
}
