//! Watching: what is asked of the gateway for it, and what becomes of the answers.

use conexus_client::{
    Client, SendError, Subprotocol, Watch, WatchFault,
    protocol::{
        Draft, ErrorCode, ErrorPayload, Identity, Message, Payload, Presence, PresenceState,
        RefusalReason,
    },
};
use serde_json::json;

use crate::{builder, connect, connected, errors, gateway::Gateway, gateway::Peer, messages, soon};

fn stranger() -> String {
    Identity::generate().did().to_owned()
}

async fn asked(peer: &mut Peer) -> Vec<String> {
    match peer.receive().await.payload {
        Payload::Watch(watch) => watch.dids,
        other => panic!("expected WATCH, got {other:?}"),
    }
}

async fn unasked(peer: &mut Peer) -> Vec<String> {
    match peer.receive().await.payload {
        Payload::Unwatch(unwatch) => unwatch.dids,
        other => panic!("expected UNWATCH, got {other:?}"),
    }
}

async fn tell(peer: &mut Peer, did: &str, state: PresenceState, since: &str) {
    let (did, since) = (did.to_owned(), since.to_owned());
    let presence = Presence { did, state, reason: None, since };
    let to = peer.gateway.did().to_owned();
    peer.send(Draft::new(to, presence)).await;
}

async fn refuse(peer: &mut Peer, watch: &Message, reason: RefusalReason, member: &str) {
    let details = json!({"reason": reason.as_str(), "member": member}).as_object().cloned();
    let error = ErrorPayload { code: reason.code(), message: "no".into(), details };
    let draft = Draft::new(&*watch.from, Payload::Error(error)).in_reply_to(&*watch.id);
    peer.send(draft).await;
}

async fn next(watch: &mut Watch) -> (String, PresenceState, String) {
    let Presence { did, state, since, .. } = soon(watch.recv()).await.unwrap().unwrap();
    (did, state, since)
}

fn online(did: &str, since: &str) -> (String, PresenceState, String) {
    (did.into(), PresenceState::Online, since.into())
}

fn offline(did: &str, since: &str) -> (String, PresenceState, String) {
    (did.into(), PresenceState::Offline, since.into())
}

/// Waits until the client has read all that was sent to it.
async fn settled(client: &Client, peer: &mut Peer) {
    let mut heard = messages(client);
    peer.deliver(&Identity::generate(), "marker").await;
    while heard.next().await != "marker" {}
}

#[tokio::test]
async fn a_watch_asks_tells_and_ends_with_its_handle() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let (one, other) = (stranger(), stranger());
    let mut both = [one.clone(), other.clone()];
    both.sort();
    let mut watch = client.watch([&one, &other, &one]).unwrap();
    let mut asked_for = asked(&mut peer).await;
    asked_for.sort();
    assert_eq!(asked_for, both);
    tell(&mut peer, &one, PresenceState::Online, "1").await;
    tell(&mut peer, &other, PresenceState::Offline, "2").await;
    tell(&mut peer, &one, PresenceState::Offline, "3").await;
    assert_eq!(next(&mut watch).await, online(&one, "1"));
    assert_eq!(next(&mut watch).await, offline(&other, "2"));
    assert_eq!(next(&mut watch).await, offline(&one, "3"));
    drop(watch);
    let mut gone = unasked(&mut peer).await;
    gone.sort();
    assert_eq!(gone, both);
}

#[tokio::test]
async fn watches_of_one_agent_share_what_is_asked_for_and_each_reads_its_own_spelling() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let agent = Identity::generate();
    let (w3c, legacy) = (agent.key().did(), agent.key().legacy_did());
    let mut first = client.watch([&w3c]).unwrap();
    assert_eq!(asked(&mut peer).await, [&*w3c]);
    tell(&mut peer, &w3c, PresenceState::Online, "1").await;
    assert_eq!(next(&mut first).await, online(&w3c, "1"));
    // What is known is told at once; nothing is asked.
    let mut second = client.watch([&legacy]).unwrap();
    assert_eq!(next(&mut second).await, online(&legacy, "1"));
    tell(&mut peer, &w3c, PresenceState::Offline, "2").await;
    assert_eq!(next(&mut first).await, offline(&w3c, "2"));
    assert_eq!(next(&mut second).await, offline(&legacy, "2"));
    drop(first);
    let third = client.watch([stranger()]).unwrap();
    assert_eq!(asked(&mut peer).await.len(), 1, "the one that is still watched was not given up");
    drop(second);
    assert_eq!(unasked(&mut peer).await, [&*w3c]);
    drop(third);
    unasked(&mut peer).await;
}

#[tokio::test]
async fn one_that_begins_right_after_another_ended_is_told_the_state_anew() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let did = stranger();
    let watch = client.watch([&did]).unwrap();
    asked(&mut peer).await;
    drop(watch);
    let mut again = client.watch([&did]).unwrap();
    // An UNWATCH may come before it, or not; in the end the gateway was asked again.
    loop {
        match peer.receive().await.payload {
            Payload::Watch(watch) => break assert_eq!(watch.dids, [&*did]),
            Payload::Unwatch(_) => {}
            other => panic!("{other:?}"),
        }
    }
    tell(&mut peer, &did, PresenceState::Online, "1").await;
    assert_eq!(next(&mut again).await, online(&did, "1"));
}

#[tokio::test]
async fn after_a_reconnect_the_client_asks_again_and_the_state_is_told_anew() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let (one, other) = (stranger(), stranger());
    let mut watch = client.watch([&one]).unwrap();
    asked(&mut peer).await;
    tell(&mut peer, &one, PresenceState::Online, "1").await;
    assert_eq!(next(&mut watch).await, online(&one, "1"));
    drop(peer);
    let mut states = client.states();
    soon(states.wait_for(|state| *state != conexus_client::ConnectionState::Connected))
        .await
        .unwrap();
    // One that begins meanwhile is told nothing of what was known before.
    let mut late = client.watch([&one, &other]).unwrap();
    let mut peer = gateway.register().await;
    let mut dids = asked(&mut peer).await;
    dids.sort();
    let mut both = [one.clone(), other.clone()];
    both.sort();
    assert_eq!(dids, both);
    tell(&mut peer, &one, PresenceState::Offline, "2").await;
    assert_eq!(next(&mut watch).await, offline(&one, "2"));
    assert_eq!(next(&mut late).await, offline(&one, "2"));
}

#[tokio::test]
async fn a_watch_from_before_the_first_connection_begins_with_it() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).build().unwrap();
    let did = stranger();
    let mut watch = client.watch([&did]).unwrap();
    let mut peer = connect(&mut client, &gateway).await;
    assert_eq!(asked(&mut peer).await, [&*did]);
    tell(&mut peer, &did, PresenceState::Online, "1").await;
    assert_eq!(next(&mut watch).await, online(&did, "1"));
    drop(client);
    assert!(soon(watch.recv()).await.is_none(), "it ends with its client");
}

#[tokio::test]
async fn who_may_not_be_watched_is_told_once_and_the_others_go_on() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let mut errors = errors(&client);
    let (denied, fine) = (stranger(), stranger());
    let mut watch = client.watch([&denied, &fine]).unwrap();
    let message = peer.receive().await;
    refuse(&mut peer, &message, RefusalReason::Denied, "payload.dids[0]").await;
    let error = soon(watch.recv()).await.unwrap().unwrap_err();
    assert_eq!(error.did, denied);
    let WatchFault::Refused(refusal) = error.reason else { panic!("{error:?}") };
    assert_eq!(refusal.reason, Some(RefusalReason::Denied));
    tell(&mut peer, &fine, PresenceState::Online, "1").await;
    assert_eq!(next(&mut watch).await, online(&fine, "1"));

    // A list as a whole.
    let mut more = client.watch([stranger(), stranger()]).unwrap();
    let message = peer.receive().await;
    refuse(&mut peer, &message, RefusalReason::QueueFull, "payload.dids").await;
    for _ in 0..2 {
        assert!(soon(more.recv()).await.unwrap().is_err());
    }
    // Those that were refused are asked for again only if somebody wants them again.
    drop((more, watch));
    assert_eq!(unasked(&mut peer).await, [&*fine]);
    let _again = client.watch([&denied]).unwrap();
    assert_eq!(asked(&mut peer).await, [&*denied]);
    // An ERROR about something else is nobody's refusal here.
    peer.refuse("some id", RefusalReason::Denied).await;
    assert!(errors.next().await.starts_with("refused by"));
}

#[tokio::test]
async fn a_gateway_without_presence_is_a_clear_error() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).build().unwrap();
    let mut early = client.watch([stranger()]).unwrap();
    let (connected, _peer) = tokio::join!(client.connect(), gateway.register_v1());
    connected.unwrap();
    let error = soon(early.recv()).await.unwrap().unwrap_err();
    assert_eq!(error.reason, WatchFault::Unsupported(Subprotocol::V1));
    let error = client.watch([stranger()]).unwrap_err();
    assert!(matches!(error, SendError::Unsupported(Subprotocol::V1)), "{error:?}");
    assert!(matches!(client.watch(["nobody"]), Err(SendError::Recipient(_))));
}

#[tokio::test]
async fn long_lists_are_asked_for_in_parts() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let dids: Vec<_> = (0..250).map(|_| stranger()).collect();
    let _watch = client.watch(&dids).unwrap();
    let mut all = Vec::new();
    for length in [100, 100, 50] {
        let part = asked(&mut peer).await;
        assert_eq!(part.len(), length);
        all.extend(part);
    }
    all.sort();
    let mut expected = dids;
    expected.sort();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn presence_reaches_message_handlers_only_of_those_who_ask_by_hand() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let did = stranger();
    let mut stream = client.messages();
    tell(&mut peer, &did, PresenceState::Online, "0").await;
    settled(&client, &mut peer).await;
    let by_hand = conexus_client::protocol::Watch { dids: vec![did.clone()] };
    soon(client.send("did:key:gateway", by_hand)).await.unwrap();
    tell(&mut peer, &did, PresenceState::Online, "1").await;
    let first = soon(stream.recv()).await.unwrap();
    assert!(matches!(first.payload, Payload::Offer(_)), "the marker: {first:?}");
    let second = soon(stream.recv()).await.unwrap();
    assert!(matches!(&second.payload, Payload::Presence(told) if told.since == "1"));
}

/// The next WATCH or UNWATCH, however long the client waits before it asks again.
async fn in_time(peer: &mut Peer) -> Message {
    tokio::time::timeout(std::time::Duration::from_secs(20), peer.receive()).await.unwrap()
}

#[tokio::test]
async fn what_is_refused_for_the_moment_is_asked_for_again_before_anybody_is_told() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let (busy, fine) = (stranger(), stranger());
    let mut watch = client.watch([&busy, &fine]).unwrap();
    let message = peer.receive().await;
    refuse(&mut peer, &message, RefusalReason::PolicyError, "payload.dids[0]").await;
    tell(&mut peer, &fine, PresenceState::Online, "1").await;
    let again = in_time(&mut peer).await;
    assert!(matches!(&again.payload, Payload::Watch(watch) if watch.dids == [&*busy]));
    tell(&mut peer, &busy, PresenceState::Online, "2").await;
    assert_eq!(next(&mut watch).await, online(&fine, "1"));
    assert_eq!(next(&mut watch).await, online(&busy, "2"));

    // The gateway would go on telling of it.
    drop(watch);
    let message = peer.receive().await;
    assert!(matches!(&message.payload, Payload::Unwatch(it) if it.dids.len() == 2));
    refuse(&mut peer, &message, RefusalReason::RateLimited, "payload").await;
    let again = in_time(&mut peer).await;
    assert!(matches!(&again.payload, Payload::Unwatch(it) if it.dids.len() == 2));
}

#[tokio::test]
async fn one_that_spoils_its_list_is_told_and_the_others_are_asked_for_again() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let (wrong, fine) = (stranger(), stranger());
    let mut watch = client.watch([&wrong, &fine]).unwrap();
    let message = peer.receive().await;
    let details = json!({"member": "payload.dids[0]"}).as_object().cloned();
    let code = ErrorCode::MalformedMessage;
    let error = ErrorPayload { code, message: "no".into(), details };
    let draft = Draft::new(&*message.from, Payload::Error(error)).in_reply_to(&*message.id);
    peer.send(draft).await;
    assert_eq!(soon(watch.recv()).await.unwrap().unwrap_err().did, wrong);
    assert_eq!(asked(&mut peer).await, [&*fine]);
}

#[tokio::test]
async fn after_the_end_of_the_client_there_is_nothing_to_watch() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let handle = client.handle();
    drop(client);
    let error = handle.watch([stranger()]).unwrap_err();
    assert!(matches!(error, SendError::NotConnected(_)), "{error:?}");
    soon(peer.ends()).await;
}

#[tokio::test]
async fn who_asks_by_hand_for_an_agent_that_is_watched_sees_both() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let did = stranger();
    let mut stream = client.messages();
    let mut watch = client.watch([&did]).unwrap();
    asked(&mut peer).await;
    let by_hand = conexus_client::protocol::Watch { dids: vec![did.clone()] };
    soon(client.send("did:key:gateway", by_hand)).await.unwrap();
    asked(&mut peer).await;
    tell(&mut peer, &did, PresenceState::Online, "1").await;
    assert_eq!(next(&mut watch).await, online(&did, "1"));
    let first = soon(stream.recv()).await.unwrap();
    assert!(matches!(&first.payload, Payload::Presence(told) if told.since == "1"));
    // Its own goes on when the other one ends.
    drop(watch);
    let _other = client.watch([stranger()]).unwrap();
    assert_eq!(asked(&mut peer).await.len(), 1);
}
