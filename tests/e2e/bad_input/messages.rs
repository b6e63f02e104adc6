//! Text that is no message, on a registered session: an ERROR that names the fault, and nothing
//! else happens.

use std::path::Path;

use conexus_gateway::config::Compat;
use conexus_protocol::{ErrorCode, Subprotocol};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::Message;

use super::tables::{
    ID, MARKER, Row, Sketch, distinct_keys, envelopes, limits, nested, payloads, shapeless, types,
};
use crate::support::{
    agent::{Agent, Refusal},
    bystanders::Bystanders,
    gateway::TestGateway,
};

/// A gateway that does not lose its patience over a table.
async fn patient(compat: Compat) -> TestGateway {
    TestGateway::start_with(|s| {
        s.protocol.compat = compat;
        s.limits.bad_messages_per_minute = 100_000;
    })
    .await
}

#[tokio::test]
async fn what_is_no_message_gets_its_error_and_the_session_lives_on() {
    for (compat, subprotocol) in [
        (Compat::Reference, Subprotocol::V1),
        (Compat::Strict, Subprotocol::V1),
        (Compat::Reference, Subprotocol::V1_1),
    ] {
        let gateway = patient(compat).await;
        let mut bystanders = Bystanders::register(&gateway).await;
        let mut agent = Agent::registered(&gateway, subprotocol).await;
        let good = Sketch::offer(&agent.did());
        let tables = [
            shapeless(&good),
            envelopes(&good),
            payloads(&good),
            limits(&good),
            types(&good, subprotocol),
        ];
        bystanders.exchange().await;
        let mut wrong = Vec::new();
        for Row { name, frame, answer } in tables.into_iter().flatten() {
            agent.send_frame(frame).await;
            let text = agent.text().await;
            let refusal = agent.read_refusal(&text);
            if refusal != answer {
                wrong.push(format!("{name}: {refusal:?}, not {answer:?}"));
            }
            if text.contains(MARKER) {
                wrong.push(format!("{name}: says too much: {text}"));
            }
            agent.ping().await;
            bystanders.exchange().await;
        }
        assert!(wrong.is_empty(), "{subprotocol} {compat:?}:\n{}", wrong.join("\n"));
        // The rows built on it mean what they say: without a fault it is routed.
        agent.send(good.text()).await;
        assert_eq!(agent.refusal().await.code, ErrorCode::UnknownAgent);
    }
}

#[tokio::test]
async fn what_reaches_a_limit_and_does_not_pass_it_is_a_message() {
    let gateway = patient(Compat::Strict).await;
    for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
        let mut agent = Agent::registered(&gateway, subprotocol).await;
        let good = Sketch::offer(&agent.did());
        let params = |inside: &str| good.saying("INTENT", format!("{{\"params\":{{{inside}}}}}"));
        for (name, message) in [
            ("no timestamp", good.without("timestamp")),
            ("no version", good.without("version")),
            ("no correlation_id", good.without("correlation_id")),
            ("a time without zone", good.with("timestamp", "\"2026-01-12T10:00:00\"")),
            (
                "nine digits and an offset",
                good.with("timestamp", "\"2026-01-12T10:00:00.123456789-08:00\""),
            ),
            ("128 levels", params(&format!("\"x\":{}", nested(125)))),
            ("60 KiB of names where any may be", params(&distinct_keys(60_000))),
            (
                "60 KiB of members that are ignored",
                good.and("more", format!("0,{}", distinct_keys(60_000))),
            ),
            ("a surrogate pair", good.saying("OFFER", r#"{"sdp":"\ud83d\ude00"}"#)),
            ("a NUL", good.saying("OFFER", r#"{"sdp":"\u0000"}"#)),
            ("an empty name that is ignored", good.and("", "{}")),
        ] {
            agent.send(message.text()).await;
            let refusal = agent.refusal().await;
            assert_eq!(refusal.correlation_id.as_deref(), Some(ID), "{name}");
            assert!(refusal.reason.is_some(), "{name}: {refusal:?}");
        }

        let longest = "x".repeat(128);
        agent.send(good.with("id", format!("\"{longest}\"")).text()).await;
        assert_eq!(agent.refusal().await.correlation_id, Some(longest));

        let digits = "1".repeat(4300);
        agent.send(good.saying("PING", format!("{{\"sequence\":{digits}}}")).text()).await;
        assert!(agent.text().await.contains(&digits));
    }
}

#[tokio::test]
async fn an_error_is_at_most_1_kib_whatever_the_id_and_the_member() {
    let gateway = patient(Compat::Strict).await;
    for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
        let mut agent = Agent::registered(&gateway, subprotocol).await;
        let good = Sketch::offer(&agent.did());
        for unit in [r"\u0001", r"\u007f", r#"\""#, r"\n", "x"] {
            let literal = format!("\"{}\"", unit.repeat(128));
            // An id whose every character takes six bytes leaves no room for anything else.
            let id = if unit.len() < 6 { serde_json::from_str(&literal).unwrap() } else { None };
            let message = good.with("id", &literal);
            let long_name = message.saying("OFFER", format!("{{\"{}\":1}}", unit.repeat(5000)));
            let short_name = message.saying("OFFER", r#"{"more":1}"#);
            for (message, code, member) in [
                (message, ErrorCode::UnknownAgent, None),
                (short_name, ErrorCode::MalformedMessage, Some("payload.more")),
                (long_name, ErrorCode::MalformedMessage, None),
            ] {
                agent.send(message.text()).await;
                // That is what measures.
                let refusal = agent.refusal().await;
                assert_eq!((&refusal.correlation_id, refusal.code), (&id, code), "{unit}");
                if member.is_some() {
                    assert_eq!(refusal.member.as_deref(), member, "{unit}");
                }
            }
        }
        agent.ping().await;
    }
}

#[tokio::test]
async fn too_many_bad_messages_a_minute_close_with_4005() {
    let gateway = TestGateway::start_with(|s| s.limits.bad_messages_per_minute = 5).await;
    let mut bystanders = Bystanders::register(&gateway).await;
    for subprotocol in [Subprotocol::V1, Subprotocol::V1_1] {
        let mut agent = Agent::registered(&gateway, subprotocol).await;
        for _ in 0..5 {
            agent.send("nonsense").await;
            assert_eq!(agent.refusal().await.code, ErrorCode::MalformedMessage);
            agent.ping().await;
            bystanders.exchange().await;
        }
        agent.send_frame(Message::binary("nonsense")).await;
        assert_eq!(agent.refusal().await.code, ErrorCode::MalformedMessage);
        let (code, reason) = agent.close().await;
        assert_eq!((code, reason.is_empty()), (4005, false));
        gateway.has_agents(2).await;
        bystanders.exchange().await;
    }
}

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    message: String,
    accepted: bool,
    accepted_compat: bool,
    error_code: Option<String>,
    normative: bool,
}

impl Case {
    /// The message's id, where it has a valid one.
    fn message_id(&self) -> Option<String> {
        let message: serde_json::Value = serde_json::from_str(&self.message).ok()?;
        let id = message.get("id")?.as_str()?;
        (1..=128).contains(&id.len()).then(|| id.to_owned())
    }
}

fn vectors() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../protocol/tests/vectors/message_validation.json");
    let vectors: Vectors = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    vectors.cases
}

/// The vectors are other agents' messages: one that is well-formed has a foreign sender, which is
/// what it is refused for.
#[tokio::test]
async fn the_schema_vectors_hold_on_a_live_session() {
    for compat in [Compat::Reference, Compat::Strict] {
        let gateway = patient(compat).await;
        let mut agent = Agent::v1(&gateway).await;
        let mut checked = 0;
        for case in vectors().iter().filter(|case| case.normative) {
            let accepted = match compat {
                Compat::Reference => case.accepted_compat,
                Compat::Strict => case.accepted,
            };
            agent.send(case.message.clone()).await;
            let Refusal { correlation_id, code, member, .. } = agent.refusal().await;
            if accepted {
                let foreign = [ErrorCode::InvalidSignature, ErrorCode::ConnectionRefused];
                assert!(foreign.contains(&code), "{}: {code}", case.id);
                assert_eq!(member.as_deref(), Some("from"), "{}", case.id);
            } else {
                assert_eq!(Some(code.as_str()), case.error_code.as_deref(), "{}", case.id);
            }
            assert_eq!(correlation_id, case.message_id(), "{}", case.id);
            checked += 1;
        }
        assert!(checked > 150, "only {checked} vectors");
        agent.ping().await;
    }
}

#[tokio::test]
async fn bad_messages_are_counted_per_session() {
    let gateway = TestGateway::start_with(|s| s.limits.bad_messages_per_minute = 2).await;
    let mut agents = [Agent::v1(&gateway).await, Agent::v1(&gateway).await];
    for _ in 0..2 {
        for agent in &mut agents {
            agent.send("nonsense").await;
            agent.refusal().await;
            agent.ping().await;
        }
    }
}
