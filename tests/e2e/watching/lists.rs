//! What may be on a list, and how long one may be.

use conexus_protocol::{ErrorCode, Identity, Message, MessageType, Payload, Rules, Subprotocol};
use serde_json::json;

use super::{absent, online, seen, unwatch, watch, watched};
use crate::support::{agent::Agent, gateway::TestGateway};

fn strangers(count: usize) -> Vec<String> {
    (0..count).map(|_| Identity::generate().did().to_owned()).collect()
}

fn refs(dids: &[String]) -> Vec<&str> {
    dids.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn more_than_the_limit_is_refused_and_nothing_of_the_list_is_taken() {
    let gateway = TestGateway::start_with(|s| s.limits.watches = 3).await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let dids = strangers(5);
    watched(&mut watcher, &refs(&dids[..2])).await;
    let id = watch(&mut watcher, &refs(&dids[2..4])).await;
    let text = watcher.text().await;
    let message = Message::parse(&text, Rules::V1_1).unwrap();
    let refusal = watcher.read_refusal(&text);
    assert_eq!(refusal.correlation_id, Some(id));
    assert_eq!(refusal.code, ErrorCode::ConnectionRefused);
    assert_eq!(refusal.reason.as_deref(), Some("queue_full"));
    assert_eq!(refusal.member.as_deref(), Some("payload.dids"));
    let Payload::Error(error) = message.payload else { panic!("{text}") };
    assert_eq!(error.details.unwrap()["limit"], "3");
    assert_eq!(gateway.watches(), 2);

    // Those that are watched already, and the other spelling of one, count once.
    let legacy = conexus_protocol::AgentKey::parse_did(&dids[0]).unwrap().legacy_did();
    watch(&mut watcher, &[&dids[0], &legacy, &dids[1], &dids[2], &dids[2]]).await;
    assert_eq!(seen(&mut watcher).await, absent(&legacy));
    assert_eq!(seen(&mut watcher).await, absent(&dids[1]));
    assert_eq!(seen(&mut watcher).await, absent(&dids[2]));
    assert_eq!(gateway.watches(), 3);
    // Room is made by leaving others alone.
    unwatch(&mut watcher, &[&dids[1]]).await;
    assert_eq!(watched(&mut watcher, &[&dids[3]]).await, [absent(&dids[3])]);
}

#[tokio::test]
async fn the_default_is_256_all_at_once() {
    let gateway = TestGateway::start().await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let dids = strangers(257);
    watch(&mut watcher, &refs(&dids)).await;
    assert_eq!(watcher.refusal().await.reason.as_deref(), Some("queue_full"));
    let told = watched(&mut watcher, &refs(&dids[..256])).await;
    assert_eq!(told.len(), 256);
    assert!(told.iter().all(|seen| dids.contains(&seen.did)));
    watcher.ping().await;
    assert_eq!(gateway.watches(), 256);
}

#[tokio::test]
async fn what_is_no_did_is_named_by_its_place_and_nothing_of_the_list_is_taken() {
    let gateway = TestGateway::start().await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let (good, long) = (Identity::generate(), format!("did:key:z{}", "1".repeat(50_000)));
    let legacy = good.key().legacy_did();
    for bad in ["", "did:key:gateway", "did:key:z", "did:web:x", "\u{0}", &long] {
        for kind in [MessageType::Watch, MessageType::Unwatch] {
            let text = json!({
                "id": "m1", "type": kind.as_str(), "from": watcher.did(), "to": "x",
                "version": "1.0", "timestamp": "2026-01-01T00:00:00Z", "signature": "",
                "payload": {"dids": [good.did(), legacy, bad]},
            });
            watcher.send(text.to_string()).await;
            let refusal = watcher.refusal().await;
            assert_eq!(refusal.code, ErrorCode::MalformedMessage, "{bad:.20}");
            assert_eq!(refusal.member.as_deref(), Some("payload.dids[2]"));
            assert_eq!(refusal.correlation_id.as_deref(), Some("m1"));
        }
    }
    watcher.ping().await;
    assert_eq!(gateway.watches(), 0);
}

#[tokio::test]
async fn the_sender_and_the_rate_are_checked_as_for_any_message() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.messages_per_second = 1;
        s.limits.message_burst = 2;
    })
    .await;
    let mut watcher = Agent::v1_1(&gateway).await;
    let other = Identity::generate();
    let (_, text) = Agent::v1_1(&gateway)
        .await
        .sign("x", conexus_protocol::Watch { dids: vec![other.did().to_owned()] });
    watcher.send(text).await;
    let refusal = watcher.refusal().await;
    assert_eq!(refusal.code, ErrorCode::InvalidSignature);
    assert_eq!(refusal.member.as_deref(), Some("from"));
    for _ in 0..20 {
        watch(&mut watcher, &[]).await;
    }
    watch(&mut watcher, &[other.did()]).await;
    let refusal = watcher.refusal().await;
    assert_eq!(refusal.reason.as_deref(), Some("rate_limited"));
    assert_eq!(gateway.watches(), 0);
}

#[tokio::test]
async fn who_is_watched_by_many_is_told_to_all_of_them() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let mut watchers = Vec::new();
    for _ in 0..150 {
        let mut watcher = Agent::v1_1(&gateway).await;
        watched(&mut watcher, &[me.did()]).await;
        watchers.push(watcher);
    }
    let _me = Agent::registered_as(&gateway, Subprotocol::V1, me.clone()).await;
    for watcher in &mut watchers {
        assert_eq!(seen(watcher).await, online(me.did()));
    }
}
