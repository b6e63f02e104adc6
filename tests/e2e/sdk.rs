//! The client crate against the real gateway.

use std::{sync::Arc, time::Duration};

use conexus_client::{
    Client, ConnectionState, Identity, Message, Metadata, ReconnectPolicy, SendError, Subprotocol,
    protocol::{Answer, ErrorCode, Offer, Payload, RefusalReason},
};
use tokio::sync::mpsc;

use crate::support::{agent::Agent, gateway::TestGateway, soon};

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

fn offer(sdp: &str) -> Offer {
    Offer { sdp: sdp.to_owned() }
}

#[tokio::test]
async fn two_agents_find_each_other_and_talk() {
    let gateway = TestGateway::start().await;
    let (a, b) = (connected(&gateway).await, connected(&gateway).await);
    assert_eq!(a.session().unwrap().subprotocol, Subprotocol::V1_1);
    let handle = b.handle();
    b.on_message_async(move |message: Arc<Message>| {
        let handle = handle.clone();
        async move {
            let Payload::Offer(offer) = &message.payload else { return Ok(()) };
            let answer = Answer { sdp: format!("re: {}", offer.sdp) };
            handle.reply(&message, answer).await.map(drop)
        }
    });
    let answer = soon("an answer", a.send_confirmed(b.did(), offer("hello"), None)).await.unwrap();
    assert_eq!(answer.payload, Answer { sdp: "re: hello".into() }.into());
    assert!(soon("a pong", a.ping()).await.is_ok());
    let messages = gateway.settled().await;
    assert_eq!((messages.received, messages.delivered), (2, 2));
}

#[tokio::test]
async fn a_refusal_comes_back_with_its_reason() {
    let gateway = TestGateway::start().await;
    let a = connected(&gateway).await;
    let absent = Identity::generate();
    let refused = soon("a refusal", a.send_confirmed(absent.did(), offer("x"), None)).await;
    let Err(SendError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code, ErrorCode::UnknownAgent);
    assert_eq!(refusal.reason, Some(RefusalReason::UnknownAgent));
}

#[tokio::test]
async fn metadata_is_published_and_renewed() {
    let gateway = TestGateway::start().await;
    let named = |name: &str| Metadata { name: Some(name.into()), ..Metadata::default() };
    let builder = Client::builder(gateway.url(), Identity::generate()).metadata(named("one"));
    let client = soon("the client to connect", builder.connect()).await.unwrap();
    for name in ["one", "two"] {
        soon("the renewal", client.update_metadata(named(name))).await.unwrap();
        let (_, agents) = gateway.get("/agents").await;
        assert_eq!(agents["agents"][0]["metadata"]["name"], name);
    }
    soon("the farewell", client.close()).await;
    gateway.has_agents(0).await;
}

#[tokio::test]
async fn where_the_newer_subprotocol_is_not_offered_the_client_carries_on_as_v1() {
    let gateway = TestGateway::start_with(|s| s.server.listen = ([0, 0, 0, 0], 0).into()).await;
    let url = format!("ws://127.0.0.1:{}/ws", gateway.addr.port());
    let connecting = Client::builder(&url, Identity::generate()).connect();
    let client = soon("the client to connect", connecting).await.unwrap();
    assert_eq!(client.session().unwrap().subprotocol, Subprotocol::V1);
    assert!(soon("a pong", client.ping()).await.is_ok());

    // It names the URL that it dialed, and a gateway that goes by another name refuses it.
    let elsewhere = vec!["wss://gateway.example/ws".parse().unwrap()];
    let gateway = TestGateway::start_with(|s| s.server.public_urls = elsewhere).await;
    let connecting = Client::builder(gateway.url(), Identity::generate()).connect();
    assert!(soon("the refusal", connecting).await.is_err());
}

#[tokio::test]
async fn after_a_restart_of_the_gateway_the_client_is_back_by_itself() {
    let mut first = TestGateway::start_with(|s| s.server.reconnect_spread = Duration::ZERO).await;
    let client = connected(&first).await;
    let did = client.did().to_owned();
    let mut states = client.states();
    let addr = first.addr;
    first.stop().await;
    soon("the client to notice", states.wait_for(|state| *state != ConnectionState::Connected))
        .await
        .unwrap();
    let second = TestGateway::start_with(|s| s.server.listen = addr).await;
    soon("the client to be back", states.wait_for(|state| *state == ConnectionState::Connected))
        .await
        .unwrap();
    let mut other = Agent::v1(&second).await;
    let mut messages = client.messages();
    other.send_offer(&did, "welcome back").await;
    let message = soon("the offer", messages.recv()).await.unwrap();
    assert_eq!(message.payload, offer("welcome back").into());
}

#[tokio::test]
async fn a_replaced_client_does_not_fight_the_newer_one() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let connect = || Client::builder(gateway.url(), me.clone()).reconnect(quick()).connect();
    let older = soon("the older one", connect()).await.unwrap();
    let newer = soon("the newer one", connect()).await.unwrap();
    let mut states = older.states();
    soon("the older one to give up", states.wait_for(|state| *state == ConnectionState::Error))
        .await
        .unwrap();
    assert!(soon("a pong", newer.ping()).await.is_ok());
    gateway.has_agents(1).await;
}

#[tokio::test]
async fn a_forged_message_reaches_no_handler_but_the_error_handlers() {
    let gateway = TestGateway::start_with(|s| {
        s.signatures.routed = conexus_gateway::config::RoutedSignatures::Off;
    })
    .await;
    let client = connected(&gateway).await;
    let (tell, mut errors) = mpsc::channel(4);
    client.on_error(move |error| {
        let _ = tell.try_send(error.to_string());
    });
    let mut messages = client.messages();
    let mut sender = Agent::v1(&gateway).await;
    let (_, text) = sender.offer(client.did(), "good");
    sender.send(text.replace("\"sdp\":\"good\"", "\"sdp\":\"evil\"")).await;
    sender.send(text).await;
    let message = soon("the good one", messages.recv()).await.unwrap();
    assert_eq!(message.payload, offer("good").into());
    assert!(soon("the error", errors.recv()).await.is_some());
}
