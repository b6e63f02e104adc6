//! Trace ids: the same name of a message in the log, in the log of decisions and in the events.

use conexus_protocol::Subprotocol;
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::support::{
    agent::{Agent, dial_with},
    events::Events,
    process::{Process, folder_with},
    soon,
};

const CONFIG: &str = r#"
[log]
level = "conexus_gateway=trace"

[telemetry]
decision_log = "decisions.jsonl"

[hook.a]
use = "script:a"

[[chain.on_route]]
hook = "a"
"#;

const SCRIPT: &str = r#"
fn on_route(event) {
    if event.payload.sdp == "no" { deny("denied", "not that") }
}
"#;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A signed OFFER that carries a traceparent.
fn traced(agent: &Agent, to: &str, sdp: &str, traceparent: &str) -> String {
    let (_, text) = agent.offer(to, sdp);
    let unsigned: Value = serde_json::from_str(&text).unwrap();
    let mut members = unsigned.as_object().unwrap().clone();
    members.remove("signature");
    members.insert("traceparent".into(), traceparent.into());
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let body: Vec<_> = sorted
        .iter()
        .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
        .collect();
    let body = body.join(",");
    let signature = agent.identity.sign(format!("{{{body}}}").as_bytes());
    format!("{{{body},\"signature\":\"{signature}\"}}")
}

/// The traces in the log of decisions, once it has as many records as were expected.
async fn recorded(folder: &std::path::Path, expected: usize) -> Vec<Value> {
    soon("the decisions to be recorded", async {
        loop {
            let text = std::fs::read_to_string(folder.join("decisions.jsonl")).unwrap_or_default();
            let records: Vec<Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            if records.len() == expected {
                return records;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_senders_trace_is_found_in_the_log_the_decisions_and_the_events() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let (mut a, mut b) = (gateway.agent().await, gateway.agent().await);
    let mut events =
        Events::open(gateway.admin, &format!("topics=message&agent={}", a.did())).await;

    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let denied = traced(&a, &b.did(), "no", &traceparent);
    a.send(denied).await;
    assert_eq!(a.refusal().await.reason.as_deref(), Some("denied"));
    let line = gateway.logged("message refused").await;
    assert!(
        line.contains(&format!("trace={TRACE}")) && line.contains("reason=\"denied\""),
        "{line}"
    );
    assert!(line.contains("message{trace="), "within the message's span: {line}");
    assert_eq!(events.next_of("message").await["trace"], TRACE);

    let passed = traced(&a, &b.did(), "yes", &traceparent);
    a.send(&*passed).await;
    assert_eq!(b.text().await, passed, "forwarded to the letter");
    assert_eq!(events.next_of("message").await["trace"], TRACE);
    let line = gateway.logged("message delivered").await;
    assert!(line.contains(&format!("trace={TRACE}")), "{line}");

    // Of another form it counts as absent, and the gateway makes one.
    let other = traced(&a, &b.did(), "no", "00-0-0-0");
    a.send(other).await;
    a.refusal().await;
    let event = events.next_of("message").await;
    let made = event["trace"].as_str().unwrap();
    assert!(made != TRACE && made.len() == 32, "{made}");
    gateway.logged(&format!("trace={made}")).await;

    let records = recorded(folder.path(), 3).await;
    let traces: Vec<_> = records.iter().map(|record| &record["trace"]).collect();
    assert_eq!(traces, [TRACE, TRACE, made]);
    assert!(gateway.stop().await.success());
}

#[tokio::test]
async fn what_is_held_keeps_its_trace() {
    let set = ["--set", "mailbox.hold=10m", "--set", "log.level=debug"];
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &set).await;
    let mut a = gateway.agent().await;
    let absent = conexus_protocol::Identity::generate();
    let query = format!("topics=message&agent={}", absent.did());
    let mut events = Events::open(gateway.admin, &query).await;
    a.send_offer(absent.did(), "later").await;
    let held = events.next_of("message").await;
    assert_eq!((&held["outcome"], &held["latency_us"]), (&"held".into(), &Value::Null));
    let line = gateway.logged("message held").await;
    assert!(line.contains(held["trace"].as_str().unwrap()), "{line}");

    let (socket, _) =
        dial_with(gateway.addr, &["ioap.v1"], TcpSocket::new_v4().unwrap()).await.unwrap();
    let (subprotocol, url) = (Subprotocol::V1, String::new());
    let mut back = Agent { identity: absent, socket, subprotocol, nonce: None, url };
    let (register, did) = (back.registration(), back.did());
    let text = back.sign(&did, register).1;
    back.send(text).await;
    back.text().await;
    let delivered = events.next_of("message").await;
    assert_eq!((&delivered["outcome"], &delivered["trace"]), (&"delivered".into(), &held["trace"]));
    assert_eq!(delivered["latency_us"], Value::Null, "the wait is not the gateway's");
}
