//! Duties 1, 2 and 14: subprotocols, the first frame, the proof, renewal.

use std::collections::BTreeMap;

use conexus_gateway::config::Compat;
use conexus_protocol::{
    Draft, Envelope, ErrorCode, Identity, Metadata, Ping, Register, Rules, Subprotocol, Timestamp,
};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{
    agent::{Agent, dial},
    gateway::TestGateway,
    http,
};

fn v1_register(identity: &Identity) -> Draft {
    let register = Register {
        public_key: identity.key().base58(),
        nonce: None,
        audience: None,
        metadata: None,
        credentials: None,
    };
    Draft::new(identity.did(), register)
}

#[tokio::test]
async fn the_newest_subprotocol_that_both_know_is_chosen() {
    let gateway = TestGateway::start().await;
    for (offered, chosen) in [
        (&["ioap.v1"][..], "ioap.v1"),
        (&["ioap.v1.1"], "ioap.v1.1"),
        (&["ioap.v1", "ioap.v1.1"], "ioap.v1.1"),
        (&["ioap.v9", "ioap.v1"], "ioap.v1"),
    ] {
        let (_, name) = dial(gateway.addr, offered).await.unwrap();
        assert_eq!(name.as_deref(), Some(chosen), "{offered:?}");
    }
}

#[tokio::test]
async fn without_a_known_subprotocol_the_handshake_is_refused_with_the_list() {
    let gateway = TestGateway::start().await;
    for offered in [&[][..], &["ioap.v9"], &["IOAP.V1"]] {
        let Err(error) = dial(gateway.addr, offered).await else { panic!("upgraded") };
        let Error::Http(response) = *error else { panic!("{error}") };
        assert_eq!(response.status(), 400);
        let body: serde_json::Value =
            serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
        assert_eq!(body["supported"], serde_json::json!(["ioap.v1.1", "ioap.v1"]));
    }
}

#[tokio::test]
async fn without_a_subprotocol_v1_is_assumed_where_the_operator_allows_it() {
    let gateway = TestGateway::start_with(|s| s.protocol.require_subprotocol = false).await;
    let (socket, chosen) = dial(gateway.addr, &[]).await.unwrap();
    assert_eq!(chosen, None);
    let mut agent = Agent {
        identity: Identity::generate(),
        socket,
        subprotocol: Subprotocol::V1,
        nonce: None,
        url: gateway.url(),
    };
    agent.register().await;
    gateway.has_agents(1).await;
}

#[tokio::test]
async fn a_plain_request_to_the_websocket_route_is_told_to_upgrade() {
    let gateway = TestGateway::start().await;
    let (status, head, _) = http::get_raw(gateway.addr, "/ws", &[]).await;
    assert_eq!(status, 426);
    assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
}

#[tokio::test]
async fn v1_1_is_welcomed_with_what_it_needs_to_know() {
    let gateway = TestGateway::start().await;
    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let welcome = agent.register().await.unwrap();
    assert_eq!(welcome.presence_timeout_ms, 300_000);
    assert_eq!(welcome.heartbeat_ms, 100_000);
    assert_eq!(welcome.max_message_bytes, 65_536);
    assert_eq!(welcome.relay.len(), 4);
    assert!(!welcome.session_id.is_empty() && !welcome.node_id.is_empty());
    assert!(Timestamp::parse(&welcome.server_time).is_some());
}

#[tokio::test]
async fn beyond_loopback_without_public_urls_v1_1_is_not_offered() {
    let gateway = TestGateway::start_with(|s| s.server.listen = ([0, 0, 0, 0], 0).into()).await;
    let addr = ([127, 0, 0, 1], gateway.addr.port()).into();
    let (_, chosen) = dial(addr, &["ioap.v1.1", "ioap.v1"]).await.unwrap();
    assert_eq!(chosen.as_deref(), Some("ioap.v1"));
    let Err(error) = dial(addr, &["ioap.v1.1"]).await else { panic!("upgraded") };
    let Error::Http(response) = *error else { panic!("{error}") };
    let body = String::from_utf8(response.body().clone().unwrap()).unwrap();
    assert!(body.contains(r#""supported":["ioap.v1"]"#), "{body}");
}

/// What is wrong with a first frame, and how it is answered.
struct FirstFrame {
    name: &'static str,
    frame: Message,
    code: ErrorCode,
    member: Option<&'static str>,
    close: u16,
}

#[tokio::test]
async fn a_wrong_first_frame_is_answered_and_closed_by_its_kind() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let (other, stranger) = (Identity::generate(), Identity::generate());
    let good = v1_register(&me).sign(&me);
    let with = |change: &dyn Fn(&mut Draft)| {
        let mut draft = v1_register(&me);
        change(&mut draft);
        Message::text(draft.sign(&me))
    };
    let at = |seconds: i64| {
        let now = i64::try_from(Timestamp::now().as_unix_nanos() / 1_000_000).unwrap();
        Timestamp::from_unix_millis(now + seconds * 1000)
    };
    use ErrorCode::{InvalidSignature, MalformedMessage, UnsupportedVersion};
    let row = |name, frame, code, member, close| FirstFrame { name, frame, code, member, close };
    let text = |text: String| Message::text(text);
    let rows = [
        row("not JSON", text("nope".into()), MalformedMessage, None, 4000),
        row("not an object", text("[]".into()), MalformedMessage, None, 4000),
        row("binary", Message::binary(good.clone()), MalformedMessage, Some("type"), 4000),
        row(
            "another type",
            text(Draft::new(me.did(), Ping { sequence: None }).sign(&me)),
            MalformedMessage,
            Some("type"),
            4000,
        ),
        row(
            "another version",
            text(good.replace("\"1.0\"", "\"2.0\"")),
            UnsupportedVersion,
            Some("version"),
            4000,
        ),
        row(
            "no timestamp",
            text(good.replace("\"timestamp\"", "\"timestamp_\"")),
            MalformedMessage,
            Some("timestamp"),
            4000,
        ),
        row(
            "to somebody else",
            with(&|d| d.to = other.did().into()),
            MalformedMessage,
            Some("to"),
            4000,
        ),
        row(
            "to oneself in the other spelling",
            with(&|d| d.to = me.key().legacy_did()),
            MalformedMessage,
            Some("to"),
            4000,
        ),
        row("stale", with(&|d| d.timestamp = at(-61)), InvalidSignature, Some("timestamp"), 4001),
        row(
            "from the future",
            with(&|d| d.timestamp = at(75)),
            InvalidSignature,
            Some("timestamp"),
            4001,
        ),
        row(
            "from before the gateway started",
            with(&|d| d.timestamp = at(-30)),
            InvalidSignature,
            Some("timestamp"),
            4001,
        ),
        row(
            "another key's signature",
            text(v1_register(&me).sign(&stranger).replace(stranger.did(), me.did())),
            InvalidSignature,
            Some("signature"),
            4001,
        ),
        row(
            "unsigned",
            {
                let signature =
                    Envelope::parse(&good, Rules::V1_STRICT).unwrap().signature.into_owned();
                text(good.replace(&signature, ""))
            },
            InvalidSignature,
            Some("signature"),
            4001,
        ),
        row(
            "another public key",
            with(&|d| {
                d.payload = v1_register(&other).payload;
            }),
            InvalidSignature,
            Some("payload.public_key"),
            4001,
        ),
        row(
            "another gateway's audience",
            with(&|d| d.audience = Some("ws://gateway.example/ws".into())),
            InvalidSignature,
            Some("audience"),
            4001,
        ),
    ];
    let mut bystander = Agent::v1(&gateway).await;
    for row in rows {
        let mut agent = Agent::connect_as(&gateway, Subprotocol::V1, me.clone()).await;
        agent.send_frame(row.frame).await;
        let refusal = agent.refusal().await;
        assert_eq!(
            (refusal.code, refusal.member.as_deref()),
            (row.code, row.member),
            "{}",
            row.name
        );
        assert_eq!(agent.close().await.0, row.close, "{}", row.name);
        bystander.ping().await;
    }
    gateway.has_agents(1).await;
}

#[tokio::test]
async fn a_v1_registration_counts_once() {
    let gateway = TestGateway::start().await;
    let me = Identity::generate();
    let text = v1_register(&me).sign(&me);
    let mut first = Agent::connect_as(&gateway, Subprotocol::V1, me.clone()).await;
    first.send(text.clone()).await;
    first.ping().await;
    let mut replay = Agent::connect_as(&gateway, Subprotocol::V1, me).await;
    replay.send(text).await;
    let refusal = replay.refusal().await;
    assert_eq!(
        (refusal.code, refusal.member.as_deref()),
        (ErrorCode::InvalidSignature, Some("id"))
    );
    assert_eq!(replay.close().await.0, 4001);
    first.ping().await;
}

#[tokio::test]
async fn a_v1_1_proof_is_bound_to_its_connection_and_its_gateway() {
    let gateway = TestGateway::start().await;
    let elsewhere = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let me = Identity::generate();
    type Change<'a> = &'a dyn Fn(&mut Register);
    let changes: [(&str, Change<'_>); 5] = [
        ("payload.nonce", &|r| r.nonce = Some("x".repeat(43))),
        ("payload.nonce", &|r| r.nonce = elsewhere.nonce.clone()),
        ("payload.audience", &|r| r.audience = Some("ws://gateway.example/ws".into())),
        ("payload.audience", &|r| r.audience = Some("ws://127.0.0.1:1/ws".into())),
        ("payload.public_key", &|r| r.public_key = Identity::generate().key().base58()),
    ];
    for (member, change) in changes {
        let mut agent = Agent::connect_as(&gateway, Subprotocol::V1_1, me.clone()).await;
        let mut register = agent.registration();
        change(&mut register);
        agent.send(Draft::new(me.did(), register).sign(&me)).await;
        let refusal = agent.refusal().await;
        assert_eq!(refusal.code, ErrorCode::InvalidSignature);
        assert_eq!(refusal.member.as_deref(), Some(member));
        assert_eq!(agent.close().await.0, 4001);
    }
    // The nonce takes the place of freshness: a wrong clock does not matter.
    let mut agent = Agent::connect_as(&gateway, Subprotocol::V1_1, me.clone()).await;
    let mut draft = Draft::new(me.did(), agent.registration());
    draft.timestamp = Timestamp::from_unix_millis(0);
    agent.send(draft.sign(&me)).await;
    assert!(agent.text().await.contains("REGISTERED"));
}

#[tokio::test]
async fn a_public_url_is_the_only_audience_once_it_is_set() {
    let public = "wss://gateway.example/ws";
    let gateway =
        TestGateway::start_with(|s| s.server.public_urls = vec![public.parse().unwrap()]).await;
    for (audience, accepted) in [(public, true), (&gateway.url(), false)] {
        let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
        agent.url = audience.to_owned();
        let register = agent.registration();
        let (_, text) = agent.sign(&agent.did(), register);
        agent.send(text).await;
        if accepted {
            assert!(agent.text().await.contains("REGISTERED"));
        } else {
            assert_eq!(agent.refusal().await.member.as_deref(), Some("payload.audience"));
        }
    }
}

#[tokio::test]
async fn who_does_not_register_in_time_is_closed() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.register_timeout = std::time::Duration::from_millis(50);
    })
    .await;
    for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
        let mut agent = Agent::connect(&gateway, subprotocol).await;
        assert_eq!(agent.close().await.0, 4002);
    }
}

/// A REGISTER as the reference client sends it: signed over the timestamp without the `Z` that is
/// on the wire, and with the DID for a public key.
fn quirky_register(identity: &Identity, public_key: &str) -> String {
    let did = identity.did();
    let now = Timestamp::now().to_string();
    let bare = now.trim_end_matches('Z');
    let id = uuid::Uuid::new_v4();
    let message = |timestamp: &str, signature: &str| {
        format!(
            r#"{{"id":"{id}","correlation_id":null,"timestamp":"{timestamp}","from":"{did}","to":"{did}","type":"REGISTER","payload":{{"public_key":"{public_key}"}},"version":"1.0"{signature}}}"#
        )
    };
    let canonical = conexus_protocol::canonicalize(&message(bare, "")).unwrap();
    let signature = identity.sign(canonical.as_bytes());
    message(&now, &format!(r#","signature":"{signature}""#))
}

#[tokio::test]
async fn the_reference_clients_quirks_pass_on_v1_unless_strict() {
    for compat in [Compat::Reference, Compat::Strict] {
        let gateway = TestGateway::start_with(|s| s.protocol.compat = compat).await;
        let me = Identity::generate().with_legacy_did();
        let mut agent = Agent::connect_as(&gateway, Subprotocol::V1, me.clone()).await;
        agent.send(quirky_register(&me, me.did())).await;
        if compat == Compat::Strict {
            assert_eq!(agent.refusal().await.code, ErrorCode::InvalidSignature);
            assert_eq!(agent.close().await.0, 4001);
            continue;
        }
        let ping = r#"{"id":"1","correlation_id":null,"timestamp":"2026-01-01T00:00:00Z","from":"DID","to":"did:key:gateway","type":"PING","payload":{"reason":null},"version":"1.0","signature":""}"#;
        agent.send(ping.replace("DID", me.did())).await;
        assert!(agent.text().await.contains("PONG"));
        let (_, agents) = gateway.get("/agents").await;
        assert_eq!(agents["agents"][0]["did"], me.did(), "in the spelling it registered with");
    }
}

fn metadata(name: &str) -> Metadata {
    Metadata {
        name: Some(name.to_owned()),
        capabilities: vec!["translate".into(), "summarize".into()],
        attributes: BTreeMap::from([("region".into(), "eu".into())]),
    }
}

#[tokio::test]
async fn metadata_is_listed_and_renewed_on_the_same_session() {
    let gateway = TestGateway::start().await;
    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let first = agent.register_with(agent.with_metadata(metadata("one"))).await.unwrap();
    let (_, agents) = gateway.get("/agents").await;
    assert_eq!(agents["agents"][0]["metadata"]["name"], "one");
    assert_eq!(agents["agents"][0]["metadata"]["attributes"]["region"], "eu");

    let again = agent.register_with(agent.with_metadata(metadata("two"))).await.unwrap();
    assert_eq!(first.session_id, again.session_id);
    let (_, agents) = gateway.get("/agents").await;
    assert_eq!(agents["agents"][0]["metadata"]["name"], "two");
    assert_eq!(agents["count"], 1);
}

#[tokio::test]
async fn a_renewal_that_is_refused_leaves_the_session_as_it_was() {
    let gateway = TestGateway::start().await;
    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    agent.register_with(agent.with_metadata(metadata("one"))).await.unwrap();
    let other = Identity::generate();
    let too_long = agent.with_metadata(metadata(&"x".repeat(5000)));
    let nonce = Register { nonce: Some("x".repeat(43)), ..agent.with_metadata(metadata("two")) };
    let foreign = Register { public_key: other.key().base58(), ..agent.registration() };
    let rows = [
        (
            Draft::new(agent.did(), too_long).sign(&agent.identity),
            ErrorCode::MalformedMessage,
            "payload.metadata",
        ),
        (
            Draft::new(agent.did(), nonce).sign(&agent.identity),
            ErrorCode::InvalidSignature,
            "payload.nonce",
        ),
        (Draft::new(other.did(), foreign).sign(&other), ErrorCode::ConnectionRefused, "from"),
    ];
    for (text, code, member) in rows {
        agent.send(text).await;
        let refusal = agent.refusal().await;
        assert_eq!((refusal.code, refusal.member.as_deref()), (code, Some(member)));
    }
    let (_, agents) = gateway.get("/agents").await;
    assert_eq!(agents["agents"][0]["metadata"]["name"], "one");
    agent.ping().await;
}

#[tokio::test]
async fn a_v1_renewal_is_answered_with_nothing_and_cannot_be_replayed() {
    let gateway = TestGateway::start().await;
    let mut agent = Agent::v1(&gateway).await;
    let text = v1_register(&agent.identity).sign(&agent.identity);
    agent.send(text.clone()).await;
    agent.ping().await;
    agent.send(text).await;
    assert_eq!(agent.refusal().await.code, ErrorCode::InvalidSignature);
    agent.ping().await;
}

#[tokio::test]
async fn metadata_with_an_unknown_member_or_over_the_limit_is_malformed() {
    let gateway = TestGateway::start().await;
    for (metadata, member) in [
        (r#"{"name":"x","colour":"red"}"#.to_owned(), "payload.metadata"),
        (format!(r#"{{"name":"{}"}}"#, "x".repeat(5000)), "payload.metadata"),
        (r#"{"capabilities":"all"}"#.to_owned(), "payload.metadata"),
    ] {
        let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
        let (_, text) = agent.sign(&agent.did(), agent.registration());
        agent.send(text.replace("\"nonce\"", &format!("\"metadata\":{metadata},\"nonce\""))).await;
        let refusal = agent.refusal().await;
        assert_eq!(refusal.code, ErrorCode::MalformedMessage);
        assert!(refusal.member.unwrap().starts_with(member));
        assert_eq!(agent.close().await.0, 4000);
    }
}

#[tokio::test]
async fn renewals_are_limited_so_that_nobody_fills_the_memory_of_all() {
    let gateway = TestGateway::start_with(|s| s.signatures.replay_cache = 50).await;
    let mut agent = Agent::v1(&gateway).await;
    for _ in 0..10 {
        agent.send(v1_register(&agent.identity).sign(&agent.identity)).await;
    }
    agent.ping().await;
    for _ in 0..100 {
        agent.send(v1_register(&agent.identity).sign(&agent.identity)).await;
        assert_eq!(agent.refusal().await.reason.as_deref(), Some("rate_limited"));
    }
    Agent::v1(&gateway).await;
}
