//! Dialing and registering, on both protocols.

use std::{error::Error, time::Duration};

use conexus_client::{
    Client, ConnectError, ConnectionState, Identity, Metadata, SendError, Subprotocol,
    UnverifiedReason,
    protocol::{Challenge, ErrorCode, MessageType, Payload, RefusalReason},
};
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{
    builder, connect, connected, errors,
    gateway::{Gateway, NONCE, offer},
    messages, quick, soon, states,
};

fn register_payload(peer: &crate::Peer) -> conexus_client::protocol::Register {
    match &peer.register.as_ref().unwrap().payload {
        Payload::Register(register) => register.clone(),
        other => panic!("not a register: {:?}", other.kind()),
    }
}

#[tokio::test]
async fn register_proves_the_key_for_this_gateway_and_this_connection() {
    let gateway = Gateway::start().await;
    let metadata = Metadata {
        name: Some("worker".into()),
        capabilities: vec!["translate".into()],
        attributes: [("zone".to_owned(), "b".to_owned())].into(),
    };
    let url = gateway.url().replace("ws://", "ws://user:secret@") + "#part";
    let mut client = Client::builder(url, Identity::generate())
        .metadata(metadata.clone())
        .credentials("token")
        .build()
        .unwrap();
    let peer = connect(&mut client, &gateway).await;

    // The signature was verified as the message was received.
    let message = peer.register.as_ref().unwrap();
    assert_eq!((&*message.from, &*message.to), (client.did(), client.did()));
    let register = register_payload(&peer);
    assert_eq!(register.public_key, client.identity().key().base58());
    assert_eq!(register.nonce.as_deref(), Some(NONCE));
    assert_eq!(register.audience, Some(gateway.url()));
    assert_eq!(register.metadata, Some(metadata));
    assert_eq!(register.credentials.as_deref(), Some("token"));
    assert_eq!(peer.offered.as_deref(), Some("ioap.v1.1, ioap.v1"));
}

#[tokio::test]
async fn the_session_is_what_the_gateway_said() {
    let gateway = Gateway::start().await;
    let (client, _peer) = connected(&gateway).await;
    let session = client.session().unwrap();
    assert_eq!(session.subprotocol, Subprotocol::V1_1);
    assert_eq!(session.gateway.as_ref().unwrap().as_str(), gateway.identity.did());
    assert_eq!(session.session_id.as_deref(), Some("session-1"));
    assert_eq!(session.node_id.as_deref(), Some("node-1"));
    assert_eq!(session.heartbeat, Duration::from_secs(30));
    assert_eq!(session.max_message_bytes, 65_536);
    assert_eq!(session.relay, [MessageType::Offer, MessageType::Answer]);
    assert_eq!(client.state(), ConnectionState::Connected);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_at_once() {
    let url = Gateway::start().await.url();
    let mut client = Client::builder(url, Identity::generate()).build().unwrap();
    let error = soon(client.connect()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tcp(_)), "{error:?}");
    assert_eq!(client.state(), ConnectionState::Error);
}

#[tokio::test]
async fn a_server_that_never_answers_the_upgrade_is_a_timeout() {
    let gateway = Gateway::start().await;
    let limit = Duration::from_millis(50);
    let client = builder(&gateway).connect_timeout(limit);
    let (error, _stream) = tokio::join!(client.connect(), gateway.accept_tcp());
    assert!(matches!(error, Err(ConnectError::Timeout(t)) if t == limit));
}

#[tokio::test]
async fn a_gateway_that_never_challenges_is_a_timeout() {
    let gateway = Gateway::start().await;
    let client = builder(&gateway).connect_timeout(Duration::from_millis(100));
    let (error, _peer) = tokio::join!(client.connect(), gateway.accept(Some("ioap.v1.1")));
    assert!(matches!(error, Err(ConnectError::Timeout(_))));
}

#[tokio::test]
async fn an_http_refusal_shows_status_and_body() {
    let gateway = Gateway::start().await;
    let refuse = async {
        let mut stream = gateway.accept_tcp().await;
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        let response = "HTTP/1.1 400 Bad Request\r\ncontent-length: 8\r\n\r\nioap.v9\n";
        stream.write_all(response.as_bytes()).await.unwrap();
        stream
    };
    let (error, _stream) = tokio::join!(builder(&gateway).connect(), refuse);
    match error {
        Err(ConnectError::Http { status, body }) => assert_eq!((status, &*body), (400, "ioap.v9")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refused_registration_carries_the_error_and_the_close_code() {
    let gateway = Gateway::start().await;
    let refuse = async {
        let mut peer = gateway.accept(Some("ioap.v1.1")).await;
        peer.challenge().await;
        peer.receive_register().await;
        let id = peer.register.as_ref().unwrap().id.clone();
        peer.refuse(&id, RefusalReason::Denied).await;
        peer.close(4007, "denied").await;
        peer
    };
    let mut client = builder(&gateway).build().unwrap();
    let (error, _peer) = soon(async { tokio::join!(client.connect(), refuse) }).await;
    let error = error.unwrap_err();
    assert!(error.is_final());
    match error {
        ConnectError::Refused { refusal, close } => {
            assert_eq!(refusal.code, ErrorCode::ConnectionRefused);
            assert_eq!(refusal.reason, Some(RefusalReason::Denied));
            assert_eq!(refusal.from, gateway.identity.did());
            assert_eq!(close.unwrap().code, 4007);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.state(), ConnectionState::Error);
}

#[tokio::test]
async fn a_challenge_with_a_wrong_signature_ends_the_attempt_before_register() {
    let gateway = Gateway::start().await;
    let forge = async {
        let mut peer = gateway.accept(Some("ioap.v1.1")).await;
        let challenge = Challenge { nonce: NONCE.into(), expires_in_ms: 10_000 };
        let draft = conexus_client::protocol::Draft::new("x", Payload::Challenge(challenge));
        let text = draft.sign(&gateway.identity);
        let other = Identity::generate();
        peer.send_text(text.replace(gateway.identity.did(), other.did())).await;
        assert!(!peer.ends().await, "nothing but the end of the socket may follow");
    };
    let (error, ()) = soon(async { tokio::join!(builder(&gateway).connect(), forge) }).await;
    match error {
        Err(ConnectError::UnprovenGateway(UnverifiedReason::Signature(_))) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn registered_signed_by_another_key_than_challenge_is_ignored() {
    let gateway = Gateway::start().await;
    let script = async {
        let mut peer = gateway.accept(Some("ioap.v1.1")).await;
        peer.challenge().await;
        peer.receive_register().await;
        let forged = gateway.registered(&peer).sign(&Identity::generate());
        peer.send_text(forged).await;
        let mut unrelated = gateway.registered(&peer);
        unrelated.correlation_id = Some("another".into());
        peer.send(unrelated).await;
        peer.send(gateway.registered(&peer)).await;
        peer
    };
    let (client, _peer) = soon(async { tokio::join!(builder(&gateway).connect(), script) }).await;
    let session = client.unwrap().session().unwrap();
    assert_eq!(session.gateway.as_ref().unwrap().as_str(), gateway.identity.did());
}

#[tokio::test]
async fn anything_but_a_challenge_first_is_out_of_turn() {
    let gateway = Gateway::start().await;
    for (text, expected) in [
        (Some("garbage".to_owned()), "malformed"),
        (
            Some(offer("did:key:any", "v=0").sign(&gateway.identity)),
            "OFFER where CHALLENGE was due",
        ),
        (None, "a binary frame where"),
    ] {
        let script = async {
            let mut peer = gateway.accept(Some("ioap.v1.1")).await;
            match text {
                Some(text) => peer.send_text(text).await,
                None => peer.socket.send(Frame::binary(vec![0])).await.unwrap(),
            }
            peer
        };
        let (error, _peer) =
            soon(async { tokio::join!(builder(&gateway).connect(), script) }).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error} is not {expected}");
    }
}

#[tokio::test]
async fn a_message_that_overtakes_registered_is_not_lost() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).build().unwrap();
    let mut heard = messages(&client);
    let script = async {
        let mut peer = gateway.accept(Some("ioap.v1.1")).await;
        peer.challenge().await;
        peer.receive_register().await;
        peer.deliver(&Identity::generate(), "early").await;
        peer.send(gateway.registered(&peer)).await;
        peer
    };
    let (connected, _peer) = soon(async { tokio::join!(client.connect(), script) }).await;
    connected.unwrap();
    assert_eq!(heard.next().await, "early");
}

#[tokio::test]
async fn a_gateway_of_v1_gets_a_register_with_the_audience_in_its_envelope() {
    let gateway = Gateway::start().await;
    let metadata = Metadata { name: Some("n".into()), ..Metadata::default() };
    let client = builder(&gateway).metadata(metadata).credentials("secret");
    let (client, peer) =
        soon(async { tokio::join!(client.connect(), gateway.register_v1()) }).await;
    let client = client.unwrap();
    assert_eq!(client.state(), ConnectionState::Connected);
    assert_eq!(client.session().unwrap().subprotocol, Subprotocol::V1);

    let register = peer.register.as_ref().unwrap();
    let text: serde_json::Value = serde_json::from_str(&register.text).unwrap();
    assert_eq!(text["audience"], gateway.url());
    let members: Vec<_> = text["payload"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["public_key"], "v1 knows no other member");
    let error = client.update_metadata(Metadata::default()).await.unwrap_err();
    assert!(matches!(error, SendError::Unsupported(Subprotocol::V1)));
}

#[tokio::test]
async fn a_server_that_selects_no_subprotocol_is_taken_for_v1() {
    let gateway = Gateway::start().await;
    let script = async {
        assert!(gateway.accept(None).await.offered.is_some());
        let mut peer = gateway.accept(None).await;
        assert_eq!(peer.offered, None, "the second try offers nothing");
        peer.receive_register().await;
        peer
    };
    let (client, _peer) = soon(async { tokio::join!(builder(&gateway).connect(), script) }).await;
    assert_eq!(client.unwrap().session().unwrap().subprotocol, Subprotocol::V1);
}

#[tokio::test]
async fn min_protocol_forbids_every_way_back_to_v1() {
    let gateway = Gateway::start().await;
    let client = || builder(&gateway).min_protocol(Subprotocol::V1_1);

    let (error, peer) =
        soon(async { tokio::join!(client().connect(), gateway.accept(None)) }).await;
    assert!(matches!(error, Err(ConnectError::ProtocolTooOld { .. })), "{error:?}");
    assert_eq!(peer.offered.as_deref(), Some("ioap.v1.1"));

    // A server that selects what was not offered.
    let (error, _peer) =
        soon(async { tokio::join!(client().connect(), gateway.accept(Some("ioap.v1"))) }).await;
    assert!(matches!(error, Err(ConnectError::Socket(_))), "{error:?}");
}

#[tokio::test]
async fn a_late_refusal_on_v1_reaches_the_error_handlers_and_the_state() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).build().unwrap();
    let (mut errors, mut states) = (errors(&client), states(&client));
    let (connected, mut peer) =
        soon(async { tokio::join!(client.connect(), gateway.register_v1()) }).await;
    connected.unwrap();
    // As the reference does it: no key, no signature.
    peer.send_text(format!(
        r#"{{"id":"e1","correlation_id":"{}","timestamp":"2026-01-01T00:00:00Z",
            "from":"did:key:gateway","to":"{}","type":"ERROR","version":"1.0","signature":"",
            "payload":{{"code":"INVALID_SIGNATURE","message":"bad"}}}}"#,
        peer.register.as_ref().unwrap().id,
        peer.agent(),
    ))
    .await;
    peer.close(4001, "not authenticated").await;
    let refused = errors.next().await;
    assert_eq!(refused, "refused by did:key:gateway: INVALID_SIGNATURE: bad");
    let lost = errors.next().await;
    assert!(lost.contains("closed with 4001"), "{lost}");
    assert_eq!(states.next().await, ConnectionState::Connecting);
    assert_eq!(states.next().await, ConnectionState::Connected);
    assert_eq!(states.next().await, ConnectionState::Error);
}

#[tokio::test]
async fn the_first_attempt_is_retried_only_on_demand() {
    let gateway = Gateway::start().await;
    let client = builder(&gateway).reconnect(quick(3)).retry_first_attempt(true);
    let script = async {
        drop(gateway.accept_tcp().await);
        drop(gateway.accept_tcp().await);
        gateway.register().await
    };
    let (client, _peer) = soon(async { tokio::join!(client.connect(), script) }).await;
    assert_eq!(client.unwrap().state(), ConnectionState::Connected);

    let (error, ()) = soon(async {
        tokio::join!(builder(&gateway).connect(), async { drop(gateway.accept_tcp().await) })
    })
    .await;
    assert!(error.is_err());
}

#[tokio::test]
async fn errors_name_their_causes() {
    let url = Gateway::start().await.url();
    let error = soon(Client::builder(url, Identity::generate()).connect()).await.unwrap_err();
    assert!(error.source().is_some());
}
