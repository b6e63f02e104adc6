//! What reaches message handlers is its sender's word.

use conexus_client::{ClientError, Identity, UnverifiedReason, protocol::RefusalReason};
use tokio::sync::mpsc;

use crate::{
    builder, connect, connected, errors,
    gateway::{Gateway, offer},
    messages, soon,
};

#[tokio::test]
async fn unsigned_and_forged_messages_reach_only_the_error_handlers() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let (sender, mut unverified) = mpsc::unbounded_channel();
    client.on_error(move |error| match error {
        ClientError::UnverifiedMessage { from, reason, .. } => {
            sender.send((from.clone(), reason.clone())).unwrap();
        }
        other => panic!("{other}"),
    });
    let mut heard = messages(&client);
    let (agent, forger) = (Identity::generate(), Identity::generate());
    let genuine = offer(peer.agent(), "genuine").sign(&agent);

    let in_anothers_name = genuine.replace(agent.did(), forger.did());
    peer.send_text(in_anothers_name).await;
    let (from, reason) = soon(unverified.recv()).await.unwrap();
    assert_eq!(from, forger.did());
    assert!(matches!(reason, UnverifiedReason::Signature(_)), "{reason:?}");

    peer.send_text(genuine.replace("genuine", "altered")).await;
    let (_, reason) = soon(unverified.recv()).await.unwrap();
    assert!(matches!(reason, UnverifiedReason::Signature(_)), "{reason:?}");

    peer.send_text(without_signature(&genuine)).await;
    let (_, reason) = soon(unverified.recv()).await.unwrap();
    assert_eq!(reason, UnverifiedReason::Unsigned);

    peer.send_text(genuine.replace(agent.did(), "did:key:gateway")).await;
    let (_, reason) = soon(unverified.recv()).await.unwrap();
    assert!(matches!(reason, UnverifiedReason::Sender(_)), "{reason:?}");

    peer.send_text(genuine).await;
    assert_eq!(heard.next().await, "genuine");
}

#[tokio::test]
async fn what_claims_to_be_the_gateway_must_have_its_signature() {
    let gateway = Gateway::start().await;
    // Not even where agents' signatures do not matter.
    let mut client = builder(&gateway).verify_incoming(false).build().unwrap();
    let mut errors = errors(&client);
    let mut peer = connect(&mut client, &gateway).await;
    let genuine = offer(peer.agent(), "x").sign(&gateway.identity);
    peer.send_text(without_signature(&genuine)).await;
    assert!(errors.next().await.ends_with("it is not signed"));

    let registered = gateway.registered(&peer).sign(&Identity::generate());
    peer.send_text(registered).await;
    assert!(errors.next().await.ends_with("only the gateway may say this"));

    peer.refuse("1", RefusalReason::Denied).await;
    assert!(errors.next().await.starts_with("refused by"));
}

#[tokio::test]
async fn verification_of_agents_can_be_turned_off() {
    let gateway = Gateway::start().await;
    let mut client = builder(&gateway).verify_incoming(false).build().unwrap();
    let mut heard = messages(&client);
    let mut peer = connect(&mut client, &gateway).await;
    let genuine = offer(peer.agent(), "unsigned").sign(&Identity::generate());
    peer.send_text(without_signature(&genuine)).await;
    assert_eq!(heard.next().await, "unsigned");
}

#[tokio::test]
async fn the_reference_clients_quirks_are_tolerated_unless_they_are_not() {
    let gateway = Gateway::start().await;
    let agent = Identity::generate();
    for tolerate in [true, false] {
        let mut client = builder(&gateway).tolerate_reference_quirks(tolerate).build().unwrap();
        let (mut heard, mut errors) = (messages(&client), errors(&client));
        let mut peer = connect(&mut client, &gateway).await;
        for text in [signed_without_z(&agent, peer.agent()), with_nulls(&agent, peer.agent())] {
            peer.send_text(text).await;
            if tolerate {
                assert_eq!(heard.next().await, "quirk");
            } else {
                errors.next().await;
            }
        }
        peer.deliver(&agent, "ordinary").await;
        assert_eq!(heard.next().await, "ordinary");
    }
}

#[tokio::test]
async fn an_agent_in_the_references_spelling_is_verified_all_the_same() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = connected(&gateway).await;
    let mut heard = messages(&client);
    peer.deliver(&Identity::generate().with_legacy_did(), "legacy").await;
    assert_eq!(heard.next().await, "legacy");
}

fn without_signature(text: &str) -> String {
    let mut message: serde_json::Value = serde_json::from_str(text).unwrap();
    message["signature"] = "".into();
    message.to_string()
}

/// The reference signs a timestamp without the `Z` that it sends.
fn signed_without_z(agent: &Identity, to: &str) -> String {
    let body = quirky(agent, to, "2026-01-01T00:00:00.000001", r#"{"sdp":"quirk"}"#);
    sign(agent, &body).replace("00.000001\"", "00.000001Z\"")
}

/// The reference writes members of other types as null.
fn with_nulls(agent: &Identity, to: &str) -> String {
    let payload = r#"{"candidate":null,"query":null,"sdp":"quirk"}"#;
    sign(agent, &quirky(agent, to, "2026-01-01T00:00:00Z", payload))
}

fn quirky(agent: &Identity, to: &str, timestamp: &str, payload: &str) -> String {
    format!(
        r#"{{"from":"{}","id":"q","payload":{payload},"timestamp":"{timestamp}","to":"{to}","type":"OFFER","version":"1.0"}}"#,
        agent.did()
    )
}

fn sign(agent: &Identity, text: &str) -> String {
    let canonical = conexus_client::protocol::canonicalize(text).unwrap();
    let signature = agent.sign(canonical.as_bytes());
    format!("{},\"signature\":\"{signature}\"}}", canonical.strip_suffix('}').unwrap())
}
