//! Interoperability: a client that was not written here, in another language, with another
//! WebSocket library, and with the reference client's quirks.
//!
//! The agent is `tests/foreign/v1_agent.py`, a process for each. It proves itself against the
//! recorded sessions of the reference client, and checks with its own means (schema, signature)
//! whatever reaches it. `tests/run` makes the Python that it needs.

use std::{path::PathBuf, process::Stdio, time::Duration};

use conexus_gateway::config::{Activity, Compat, RoutedSignatures};
use conexus_protocol::{AgentKey, Identity, Timestamp};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::support::{agent::Agent, gateway::TestGateway, soon};

/// The Python with what the agent needs: `CONEXUS_TEST_PYTHON`, else what `tests/run` made before.
/// A test that cannot run has not passed, so there is no way to go without.
pub(crate) fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("CONEXUS_TEST_PYTHON") {
        return python.into();
    }
    let made = repository("target/foreign-venv/bin/python");
    assert!(made.exists(), "no Python for the foreign agent: run tests/run, once at least");
    made
}

pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(repository("tests/foreign/v1_agent.py")).args(arguments).kill_on_drop(true);
    command
}

/// A foreign agent, connected. Dropping it kills it.
struct Foreign {
    did: String,
    connected: Value,
    child: Child,
    commands: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
}

/// What a foreign agent received, and what it thinks of the signature.
struct Received {
    text: String,
    message: Value,
    verified: Option<bool>,
}

impl Foreign {
    async fn connect(gateway: &TestGateway) -> Self {
        Self::connect_with(gateway, &[]).await
    }

    async fn connect_with(gateway: &TestGateway, arguments: &[&str]) -> Self {
        let url = gateway.url();
        let mut child = command(&["--url", &url])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Python that tests/run makes");
        let commands = child.stdin.take().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines();
        let connected = Value::Null;
        let mut agent = Self { did: String::new(), connected, child, commands, events };
        agent.connected = agent.event("connected").await;
        agent.did = agent.connected["did"].as_str().unwrap().to_owned();
        agent
    }

    /// Connected and registered, and `/agents` shows it.
    async fn register(gateway: &TestGateway) -> Self {
        let mut agent = Self::connect(gateway).await;
        agent.registered(gateway).await;
        agent
    }

    async fn registered(&mut self, gateway: &TestGateway) {
        self.tell(json!({ "do": "register" })).await;
        self.ping(json!({})).await;
        assert!(listed(gateway).await.contains(&self.did));
    }

    async fn order(&mut self, command: &Value) {
        let line = format!("{command}\n");
        soon("a command to be taken", self.commands.write_all(line.as_bytes())).await.unwrap();
    }

    /// Has something sent, and returns its text.
    async fn tell(&mut self, command: Value) -> String {
        self.order(&command).await;
        self.event("sent").await["text"].as_str().unwrap().to_owned()
    }

    async fn send(&mut self, kind: &str, to: &str, payload: Value) -> String {
        self.tell(json!({ "do": "send", "type": kind, "to": to, "payload": payload })).await
    }

    async fn send_signed(&mut self, kind: &str, to: &str, payload: Value) -> String {
        let signed = true;
        let command =
            json!({ "do": "send", "type": kind, "to": to, "payload": payload, "signed": signed });
        self.tell(command).await
    }

    /// The next thing that happens to it, which must be this.
    async fn event(&mut self, expected: &str) -> Value {
        let line = soon(expected, self.events.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("the agent ended before {expected}"));
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["event"], expected, "{line}");
        event
    }

    async fn received(&mut self) -> Received {
        let event = self.event("received").await;
        let text = event["text"].as_str().unwrap().to_owned();
        let message = serde_json::from_str(&text).unwrap();
        Received { text, message, verified: event["verified"].as_bool() }
    }

    /// A PING, and the PONG that answers it.
    async fn ping(&mut self, payload: Value) -> Received {
        let ping = parsed(&self.send("PING", "did:key:gateway", payload).await);
        let pong = self.received().await;
        assert_eq!(pong.message["type"], "PONG", "{}", pong.text);
        assert_eq!(pong.message["correlation_id"], ping["id"]);
        assert_eq!(pong.message["to"], *self.did);
        assert_eq!(pong.verified, Some(true), "the gateway signs what it says");
        pong
    }

    /// The gateway's next word, which must be an ERROR with this code about that message.
    async fn refused(&mut self, code: &str, about: &Value) -> Value {
        let error = self.received().await;
        assert_eq!(error.message["type"], "ERROR", "{}", error.text);
        assert_eq!(error.message["payload"]["code"], code, "{}", error.text);
        assert_eq!(error.message["correlation_id"], *about, "{}", error.text);
        assert_eq!(error.verified, Some(true), "the gateway signs what it says");
        error.message
    }

    /// The end of the connection: the close code, and whether the reference client notices it.
    async fn closed(mut self) -> (u16, bool) {
        let event = self.event("closed").await;
        drop(self.commands);
        let status = soon("the agent to end", self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
        (event["code"].as_u64().unwrap() as u16, event["noticed"].as_bool().unwrap())
    }

    /// Leaves as the reference client does: with a close, and not a word.
    async fn close(mut self) {
        self.order(&json!({ "do": "close" })).await;
        assert_eq!(self.closed().await, (1000, false));
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The DIDs in `/agents`.
async fn listed(gateway: &TestGateway) -> Vec<String> {
    let (status, list) = gateway.get("/agents").await;
    assert_eq!(status, 200);
    let agents = list["agents"].as_array().unwrap();
    assert_eq!(list["count"], agents.len());
    agents.iter().map(|agent| agent["did"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_foreign_agent_speaks_as_the_reference_client_was_recorded() {
    let checking = command(&["--check-recording"]).output();
    let checked = soon("the check", checking).await.expect("the Python that tests/run makes");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let counts: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert!(counts["rebuilt"].as_u64() >= Some(50), "{counts}");
    assert!(counts["verified"].as_u64() >= Some(10), "{counts}");
}

#[tokio::test]
async fn the_foreign_agent_connects_as_the_reference_client_was_recorded() {
    let gateway = TestGateway::start().await;
    let agent = Foreign::connect(&gateway).await;
    let path = repository("protocol/tests/vectors/wire_transcript.json");
    let recording = parsed(&std::fs::read_to_string(path).unwrap());
    let request = recording["cases"][0]["events"][0]["data"].as_str().unwrap();
    let recorded: Vec<_> =
        request.lines().filter_map(|line| line.split_once(": ")).map(lasting).collect();
    let sent = agent.connected["request"].as_array().unwrap().iter();
    let sent: Vec<_> =
        sent.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    assert_eq!(sent.into_iter().map(lasting).collect::<Vec<_>>(), recorded);
    // It offers compression, which is declined.
    assert_eq!(agent.connected["subprotocol"], "ioap.v1");
    assert_eq!(agent.connected["extensions"], json!([]));
}

/// A header without what differs each time.
fn lasting<'a>((name, value): (&'a str, &'a str)) -> (&'a str, &'a str) {
    match name {
        "Host" | "Sec-WebSocket-Key" => (name, ""),
        // Python's version is the machine's own.
        "User-Agent" => (name, value.split_once(' ').map_or(value, |(_python, library)| library)),
        _ => (name, value),
    }
}

#[tokio::test]
async fn two_reference_clients_signal_each_other_and_leave() {
    for routed in [RoutedSignatures::Off, RoutedSignatures::WhenPresent] {
        let gateway = TestGateway::start_with(|s| s.signatures.routed = routed).await;
        let mut a = Foreign::register(&gateway).await;
        let mut b = Foreign::register(&gateway).await;
        assert_eq!(listed(&gateway).await.len(), 2);

        let offer = a.send("OFFER", &b.did, json!({ "sdp": "v=0\r\no=- 1 2 IN\r\né" })).await;
        assert_eq!(b.received().await.text, offer);
        let answer = b
            .tell(json!({
                "do": "send", "type": "ANSWER", "to": a.did, "payload": { "sdp": "v=0\r\n" },
                "correlation_id": parsed(&offer)["id"],
            }))
            .await;
        assert_eq!(a.received().await.text, answer);

        let candidate = json!({ "candidate": "candidate:1", "sdp_mid": "0", "sdp_mline_index": 0 });
        let candidate = a.send("ICE_CANDIDATE", &b.did, candidate).await;
        assert_eq!(b.received().await.text, candidate);
        let candidate =
            b.send("ICE_CANDIDATE", &a.did, json!({ "candidate": "candidate:2" })).await;
        assert!(candidate.contains(r#""sdp_mid": null, "sdp_mline_index": null"#), "{candidate}");
        assert_eq!(a.received().await.text, candidate);

        assert_eq!(a.ping(json!({})).await.message["payload"], json!({}));
        assert_eq!(b.ping(json!({ "sequence": 7 })).await.message["payload"]["sequence"], 7);

        let left = b.did.clone();
        b.close().await;
        gateway.has_agents(1).await;
        assert_eq!(listed(&gateway).await, [a.did.clone()]);
        let offer = a.send("OFFER", &left, json!({ "sdp": "x" })).await;
        let error = a.refused("UNKNOWN_AGENT", &parsed(&offer)["id"]).await;
        assert_eq!(error["payload"]["details"]["reason"], "unknown_agent");

        let messages = gateway.settled().await;
        assert_eq!((messages.received, messages.delivered, messages.refused), (5, 4, 1));
    }
}

#[tokio::test]
async fn what_a_reference_client_signs_passes_unless_it_rewrote_it_afterwards() {
    let rewritten = json!({ "candidate": "candidate:1" });
    for (routed, rewritten_passes) in
        [(RoutedSignatures::Off, true), (RoutedSignatures::WhenPresent, false)]
    {
        let gateway = TestGateway::start_with(|s| s.signatures.routed = routed).await;
        let mut a = Foreign::register(&gateway).await;
        let mut b = Foreign::register(&gateway).await;
        let offer = a.send_signed("OFFER", &b.did, json!({ "sdp": "x" })).await;
        assert_eq!(b.received().await.text, offer);

        let candidate = a.send_signed("ICE_CANDIDATE", &b.did, rewritten.clone()).await;
        if rewritten_passes {
            assert_eq!(b.received().await.text, candidate);
        } else {
            a.refused("INVALID_SIGNATURE", &parsed(&candidate)["id"]).await;
        }
    }
}

#[tokio::test]
async fn a_reference_client_and_an_agent_of_ours_reach_each_other_in_either_spelling() {
    let gateway = TestGateway::start().await;
    let mut theirs = Foreign::register(&gateway).await;
    let mut ours = Agent::v1_1(&gateway).await;
    for did in [theirs.did.clone(), AgentKey::parse_did(&theirs.did).unwrap().did()] {
        let (_, offer) = ours.send_offer(&did, "x").await;
        let received = theirs.received().await;
        assert_eq!(received.text, offer);
        assert_eq!(received.verified, Some(true), "our signature verifies elsewhere");
    }
    for did in [ours.did(), ours.identity.key().legacy_did()] {
        let answer = theirs.send("ANSWER", &did, json!({ "sdp": "x" })).await;
        assert_eq!(ours.text().await, answer);
    }
}

#[tokio::test]
async fn a_reference_client_is_told_about_a_bad_message_and_goes_on() {
    let gateway = TestGateway::start().await;
    let mut agent = Foreign::register(&gateway).await;
    agent.tell(json!({ "do": "send_text", "text": "{nope" })).await;
    agent.refused("MALFORMED_MESSAGE", &Value::Null).await;
    let bad = agent.send("OFFER", &agent.did.clone(), json!({ "sdp": "x", "extra": 1 })).await;
    let error = agent.refused("MALFORMED_MESSAGE", &parsed(&bad)["id"]).await;
    assert_eq!(error["payload"]["details"]["member"], "payload.extra");
    agent.ping(json!({})).await;
}

#[tokio::test]
async fn a_reference_client_that_does_not_prove_itself_is_told_and_notices_the_close() {
    let gateway = TestGateway::start().await;
    let mut agent = Foreign::connect(&gateway).await;
    let offer = agent.send("OFFER", Identity::generate().did(), json!({ "sdp": "x" })).await;
    agent.refused("MALFORMED_MESSAGE", &parsed(&offer)["id"]).await;
    assert_eq!(agent.closed().await, (4000, true));

    let mut agent = Foreign::connect(&gateway).await;
    let register = agent.tell(json!({ "do": "register", "spoil": true })).await;
    agent.refused("INVALID_SIGNATURE", &parsed(&register)["id"]).await;
    assert_eq!(agent.closed().await, (4001, true));
}

#[tokio::test]
async fn a_strict_gateway_takes_none_of_the_quirks() {
    let gateway = TestGateway::start_with(|s| s.protocol.compat = Compat::Strict).await;
    let mut agent = Foreign::connect(&gateway).await;
    let register = agent.tell(json!({ "do": "register" })).await;
    agent.refused("INVALID_SIGNATURE", &parsed(&register)["id"]).await;
    assert_eq!(agent.closed().await, (4001, true));
}

#[tokio::test]
async fn a_reference_client_that_unregisters_is_gone_at_once() {
    let gateway = TestGateway::start().await;
    let mut agent = Foreign::register(&gateway).await;
    agent.send("UNREGISTER", &agent.did.clone(), json!({ "reason": "bye" })).await;
    assert_eq!(agent.closed().await, (1000, false));
    assert!(listed(&gateway).await.is_empty());
}

#[tokio::test]
async fn a_graceful_stop_is_noticed_by_a_reference_client() {
    let mut gateway = TestGateway::start().await;
    let agent = Foreign::register(&gateway).await;
    gateway.begin_stop();
    assert_eq!(agent.closed().await, (1012, true));
    gateway.ended().await;
}

#[tokio::test]
async fn a_message_over_what_a_reference_client_takes_ends_its_session_and_no_other() {
    let gateway = TestGateway::start_with(|s| {
        s.limits.message_bytes = 4 * 1024 * 1024;
        s.limits.outbox_bytes = 4 * 1024 * 1024;
    })
    .await;
    let mut a = Foreign::register(&gateway).await;
    let b = Foreign::register(&gateway).await;
    a.send("OFFER", &b.did, json!({ "sdp": "x".repeat(1_200_000) })).await;
    // Its library closes with 1009 and reads no further, so it takes its time to end.
    gateway.has_agents(1).await;
    assert_eq!(listed(&gateway).await, [a.did.clone()]);
    a.ping(json!({})).await;
}

const KEEPALIVE: Duration = Duration::from_millis(50);

#[tokio::test]
async fn the_keepalive_of_either_side_renews_the_presence_of_a_reference_client() {
    // The library pings, so that the gateway has no need to.
    keeps_renewing(KEEPALIVE, Duration::from_secs(100), "kept_alive").await;
    // The gateway pings, and the library answers.
    keeps_renewing(Duration::ZERO, KEEPALIVE, "answered_ping").await;
}

/// What renews a lease is what `/agents` shows as the last activity. To let leases run out instead
/// would make the test slow, and a matter of luck on a busy machine.
async fn keeps_renewing(interval: Duration, heartbeat: Duration, keepalive: &str) {
    let gateway = TestGateway::start_with(|s| s.presence.heartbeat = Some(heartbeat)).await;
    let interval = interval.as_secs_f64().to_string();
    let arguments = ["--ping-interval", &interval, "--report-pings"];
    let mut agent = Foreign::connect_with(&gateway, &arguments).await;
    agent.order(&json!({ "do": "register" })).await;
    gateway.has_agents(1).await;
    let mut last = last_activity(&gateway).await;
    let mut renewals = 0;
    while renewals < 3 {
        let line = soon(keepalive, agent.events.next_line()).await.unwrap().unwrap();
        let event = parsed(&line)["event"].as_str().unwrap().to_owned();
        assert!([keepalive, "sent"].contains(&event.as_str()), "nothing else happens: {line}");
        let now = last_activity(&gateway).await;
        renewals += u32::from(now > last);
        last = now;
    }
}

/// Of the only agent.
async fn last_activity(gateway: &TestGateway) -> Timestamp {
    let (_, list) = gateway.get("/agents").await;
    Timestamp::parse(list["agents"][0]["last_activity"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn where_only_messages_count_a_silent_reference_client_is_told_of_its_expiry() {
    let gateway = TestGateway::start_with(|s| {
        s.presence.timeout = Duration::from_millis(300);
        s.presence.activity = Activity::Messages;
    })
    .await;
    let mut agent = Foreign::connect_with(&gateway, &["--ping-interval", "0.05"]).await;
    agent.tell(json!({ "do": "register" })).await;
    agent.refused("TIMEOUT", &Value::Null).await;
    assert_eq!(agent.closed().await, (4004, true));
}
