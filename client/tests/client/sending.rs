//! Sending, asking, and what is refused before it reaches the socket.

use std::time::Duration;

use conexus_client::{
    ConnectionState, Identity, Metadata, SendError,
    protocol::{
        Answer, Draft, Intent, MessageType, Offer, Payload, Ping, Pong, RefusalReason, Register,
        Unregister,
    },
};

use crate::{
    builder, connected, errors,
    gateway::{Gateway, NONCE, malformed, offer, sdp},
    messages, soon,
};

fn hello() -> Offer {
    Offer { sdp: "hello".into() }
}

#[tokio::test]
async fn a_message_arrives_signed_and_with_the_id_that_send_returned() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let agent = Identity::generate();
    let id = client.send(agent.did(), hello()).await.unwrap();
    let message = peer.receive().await;
    assert_eq!((&*message.id, &*message.from, &*message.to), (&*id, client.did(), agent.did()));
    assert_eq!(sdp(&message), "hello");

    let reply = client.reply(&message, Answer { sdp: "back".into() }).await.unwrap();
    let message = peer.receive().await;
    assert_eq!(message.id, reply);
    assert_eq!(message.correlation_id.as_deref(), Some(&*id));
    assert_eq!(message.to, client.did(), "oneself is an ordinary recipient");
}

#[tokio::test]
async fn messages_of_many_senders_all_arrive_and_each_ones_in_order() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let to = Identity::generate().did().to_owned();
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..8 {
        let (handle, to) = (client.handle(), to.clone());
        senders.spawn(async move {
            for number in 0..50 {
                let sdp = format!("{sender} {number}");
                handle.send(&*to, Offer { sdp }).await.unwrap();
            }
        });
    }
    let mut next = [0; 8];
    for _ in 0..400 {
        let text = sdp(&peer.receive().await);
        let (sender, number) = text.split_once(' ').unwrap();
        let expected = &mut next[sender.parse::<usize>().unwrap()];
        assert_eq!(number.parse::<usize>().unwrap(), *expected);
        *expected += 1;
    }
    soon(senders.join_all()).await;
}

#[tokio::test]
async fn what_is_not_an_agents_to_send_is_refused() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let register = Register {
        public_key: client.identity().key().base58(),
        nonce: None,
        audience: None,
        metadata: None,
        credentials: None,
    };
    for payload in [Payload::Register(register), Payload::Unregister(Unregister { reason: None })] {
        let error = client.send(client.did(), payload).await.unwrap_err();
        assert!(matches!(error, SendError::NotSendable(_)), "{error:?}");
    }
    for to in ["", "did:key:gateway", "did:web:example.org", "did:key:z6MkInvalid0"] {
        let error = client.send(to, hello()).await.unwrap_err();
        assert!(matches!(error, SendError::Recipient(_)), "{to}: {error:?}");
    }
    let draft = Draft::new(client.did(), hello()).with_id("i".repeat(129));
    let error = client.send_draft(draft).await.unwrap_err();
    assert!(matches!(error, SendError::Invalid(_)), "{error:?}");
    client.send(client.did(), hello()).await.unwrap();
    assert_eq!(sdp(&peer.receive().await), "hello", "nothing else was sent");
}

#[tokio::test]
async fn a_message_over_the_gateways_limit_is_refused() {
    let mut gateway = Gateway::start().await;
    gateway.max_message_bytes = 2000;
    let (client, mut peer) = connected(&gateway).await;
    let to = Identity::generate().did().to_owned();
    let error = client.send(&*to, Offer { sdp: "x".repeat(2000) }).await.unwrap_err();
    assert!(matches!(error, SendError::TooLarge { bytes: 2001.., limit: 2000 }), "{error:?}");
    client.send(&*to, Offer { sdp: "x".repeat(1000) }).await.unwrap();
    assert_eq!(peer.receive().await.kind(), MessageType::Offer);
}

#[tokio::test]
async fn without_a_connection_sending_fails_at_once() {
    let gateway = Gateway::start().await;
    let client = builder(&gateway).build().unwrap();
    let to = Identity::generate().did().to_owned();
    let error = client.send(&*to, hello()).await.unwrap_err();
    assert!(matches!(error, SendError::NotConnected(ConnectionState::Disconnected)));
    let error = client.send_confirmed(&*to, hello(), None).await.unwrap_err();
    assert!(matches!(error, SendError::NotConnected(ConnectionState::Disconnected)));
    assert!(matches!(client.ping().await, Err(SendError::NotConnected(_))));
    let update = client.update_metadata(Metadata::default()).await;
    assert!(matches!(update, Err(SendError::NotConnected(_))));
}

#[tokio::test]
async fn a_confirmed_message_returns_the_answer_and_no_handler_sees_it() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let mut heard = messages(&client);
    let agent = Identity::generate();
    let script = async {
        let question = peer.receive().await;
        // Someone else's answer is no answer.
        let intruder = offer(peer.agent(), "intruder").in_reply_to(&*question.id);
        peer.send_text(intruder.sign(&Identity::generate())).await;
        let answer = Draft::new(peer.agent(), Answer { sdp: "answer".into() });
        peer.send_text(answer.in_reply_to(&*question.id).sign(&agent)).await;
        peer.deliver(&agent, "later").await;
    };
    let asking = client.send_confirmed(agent.did(), hello(), Duration::from_secs(20));
    let (answer, ()) = soon(async { tokio::join!(asking, script) }).await;
    let answer = answer.unwrap();
    assert_eq!((answer.kind(), &*answer.from), (MessageType::Answer, agent.did()));
    assert_eq!(heard.next().await, "intruder");
    assert_eq!(heard.next().await, "later");
}

#[tokio::test]
async fn the_other_spelling_of_the_recipient_may_answer() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let agent = Identity::generate();
    let asked_as = agent.key().legacy_did();
    let script = async {
        let question = peer.receive().await;
        let answer = offer(peer.agent(), "same key").in_reply_to(&*question.id);
        peer.send_text(answer.sign(&agent)).await;
    };
    let asking = client.send_confirmed(asked_as, hello(), None);
    let (answer, ()) = soon(async { tokio::join!(asking, script) }).await;
    assert_eq!(sdp(&answer.unwrap()), "same key");
}

#[tokio::test]
async fn a_confirmed_message_that_is_refused_returns_code_and_reason() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let agent = Identity::generate();
    for reason in RefusalReason::ALL {
        let script = async {
            let question = peer.receive().await;
            peer.refuse(&question.id, reason).await;
        };
        let asking = client.send_confirmed(agent.did(), hello(), None);
        match soon(async { tokio::join!(asking, script) }).await.0 {
            Err(SendError::Refused(refusal)) => {
                assert_eq!((refusal.code, refusal.reason), (reason.code(), Some(reason)));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn without_an_answer_a_confirmed_message_times_out() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let mut heard = messages(&client);
    let (agent, limit) = (Identity::generate(), Duration::from_millis(30));
    let error = client.send_confirmed(agent.did(), hello(), limit).await.unwrap_err();
    assert!(matches!(error, SendError::Timeout(t) if t == limit));
    let question = peer.receive().await;
    let late = offer(peer.agent(), "too late").in_reply_to(&*question.id).sign(&agent);
    peer.send_text(late).await;
    assert_eq!(heard.next().await, "too late");
}

#[tokio::test]
async fn whoever_waits_for_an_answer_learns_that_the_connection_broke() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let to = Identity::generate().did().to_owned();
    let asking = client.send_confirmed(to, hello(), None);
    let script = async {
        peer.receive().await;
        drop(peer);
    };
    let (error, ()) = soon(async { tokio::join!(asking, script) }).await;
    assert!(matches!(error, Err(SendError::ConnectionLost)), "{error:?}");
}

#[tokio::test]
async fn ping_measures_the_way_to_the_gateway_and_back() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let script = async {
        let ping = peer.receive().await;
        assert_eq!(ping.payload.kind(), MessageType::Ping);
        assert_eq!(ping.to, gateway.identity.did());
        let pong = Draft::new(peer.agent(), Payload::Pong(Pong { sequence: None }));
        peer.send(pong.in_reply_to(&*ping.id)).await;
    };
    let (elapsed, ()) = soon(async { tokio::join!(client.ping(), script) }).await;
    assert!(elapsed.unwrap() > Duration::ZERO);
    let ping = Payload::Ping(Ping { sequence: None });
    client.send("whoever", ping).await.expect("the recipient of a PING does not matter");
}

#[tokio::test]
async fn new_metadata_repeats_the_proof_and_stays_for_later_registrations() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let named = |name: &str| Metadata { name: Some(name.into()), ..Metadata::default() };
    let script = async {
        peer.receive_register().await;
        peer.send(gateway.registered(&peer)).await;
    };
    let updating = client.update_metadata(named("new"));
    let (updated, ()) = soon(async { tokio::join!(updating, script) }).await;
    updated.unwrap();
    let Payload::Register(register) = &peer.register.as_ref().unwrap().payload else { panic!() };
    assert_eq!(register.nonce.as_deref(), Some(NONCE));
    assert_eq!(register.audience, Some(gateway.url()));
    assert_eq!(register.metadata, Some(named("new")));

    let script = async {
        peer.receive_register().await;
        let id = peer.register.as_ref().unwrap().id.clone();
        let error = Draft::new(peer.agent(), Payload::Error(malformed()));
        peer.send(error.in_reply_to(id)).await;
    };
    let updating = client.update_metadata(named("refused"));
    let (refused, ()) = soon(async { tokio::join!(updating, script) }).await;
    assert!(matches!(refused, Err(SendError::Refused(_))));

    drop(peer);
    let peer = soon(gateway.register()).await;
    let Payload::Register(register) = &peer.register.as_ref().unwrap().payload else { panic!() };
    assert_eq!(register.metadata, Some(named("new")));
}

#[tokio::test]
async fn on_v1_an_unsigned_refusal_and_pong_of_the_gateway_are_answers() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = {
        let client = builder(&gateway).build().unwrap();
        let mut client = client;
        let (connected, peer) =
            soon(async { tokio::join!(client.connect(), gateway.register_v1()) }).await;
        connected.unwrap();
        (client, peer)
    };
    let mut errors = errors(&client);
    let agent = Identity::generate();
    let script = async {
        let question = peer.receive().await;
        let answer = plain(&question.id, "ERROR", r#"{"code":"UNKNOWN_AGENT","message":"gone"}"#);
        peer.send_text(answer).await;
        let ping = peer.receive().await;
        assert_eq!(ping.to, "did:key:gateway");
        peer.send_text(plain(&ping.id, "PONG", r#"{"reason":null}"#)).await;
        // An agent has a key, so it cannot do the same.
        let unsigned = plain("x", "OFFER", r#"{"sdp":"v=0"}"#);
        peer.send_text(unsigned).await;
    };
    let asking = async {
        let error = client.send_confirmed(agent.did(), hello(), None).await.unwrap_err();
        assert!(matches!(error, SendError::Refused(_)), "{error:?}");
        client.ping().await.unwrap();
    };
    soon(async { tokio::join!(asking, script) }).await;
    assert!(errors.next().await.contains("claims to be from did:key:gateway"));
}

#[tokio::test]
async fn an_intent_travels_like_any_other_payload() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let intent: Intent = serde_json::from_str(r#"{"query":"ä \" 😀"}"#).unwrap();
    client.send(Identity::generate().did(), Payload::Intent(intent)).await.unwrap();
    assert_eq!(peer.receive().await.kind(), MessageType::Intent);
}

/// A message of a gateway that neither has a key nor signs.
fn plain(correlation_id: &str, kind: &str, payload: &str) -> String {
    format!(
        r#"{{"id":"1","correlation_id":"{correlation_id}","timestamp":"2026-01-01T00:00:00Z",
            "from":"did:key:gateway","to":"did:key:z","type":"{kind}","version":"1.0",
            "signature":"","payload":{payload}}}"#
    )
}
