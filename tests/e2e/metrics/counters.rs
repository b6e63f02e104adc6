//! Each thing that can become of a connection moves its counter, and no other.

use conexus_protocol::{Draft, Identity, Metadata, Subprotocol, Unregister};
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    agent::{Agent, dial},
    http,
    process::{Process, folder_with, post},
    scrape::Scrape,
};

const CONFIG: &str = r#"
[policy]
watch = false

[limits]
bad_messages_per_minute = 3
rate_strikes = 2

[rate_class.hasty]
messages_per_second = 1
message_burst = 2

[hook.gate]
use = "script:gate"

[[chain.on_connect]]
hook = "gate"
[[chain.on_register]]
hook = "gate"
"#;

const GATE: &str = r#"
fn on_connect(event) {
    if event.query == "unwelcome" { deny() }
}
fn on_register(event) {
    switch event.agent.name {
        "stranger" => deny("denied", "members only"),
        "hasty" => set(#{ rate_class: "hasty" }),
        _ => ()
    }
}
"#;

/// Everything that counts connections and sessions, as one line each.
const COUNTED: [&str; 10] = [
    "conexus_registrations_total",
    "conexus_registration_renewals_total",
    "conexus_registrations_refused_total",
    "conexus_connections_refused_total",
    "conexus_sessions_ended_total",
    "conexus_takeovers_total",
    "conexus_leases_lapsed_total",
    "conexus_leases_extended_total",
    "conexus_bad_messages_total",
    "conexus_rate_limited_messages_total",
];

/// A counter (without `conexus_` and `_total`), its labels, and by how much it goes up.
type Step<'a> = (&'a str, &'a [(&'a str, &'a str)], u64);

/// What has moved since the last time.
struct Counters<'a> {
    gateway: &'a Process,
    before: Scrape,
}

impl<'a> Counters<'a> {
    async fn of(gateway: &'a Process) -> Self {
        Self { gateway, before: Scrape::of(gateway).await }
    }

    /// Waits until these have gone up by so much; no other has.
    async fn moved(&mut self, expected: &[Step<'_>]) {
        let before = &self.before;
        let what = format!("{expected:?}");
        let gone = |scrape: &Scrape| {
            expected.iter().all(|(name, labels, by)| {
                let now = scrape.count(&total(name), labels);
                now == before.count(&total(name), labels) + by
            })
        };
        let now = Scrape::once(self.gateway, &what, gone).await;
        for name in COUNTED {
            let by: u64 =
                expected.iter().filter(|(of, ..)| total(of) == name).map(|(.., by)| by).sum();
            let (then, after) = (before.count(name, &[]), now.count(name, &[]));
            assert_eq!(after - then, by, "{name}, expected {what}");
        }
        self.before = now;
    }
}

fn total(name: &str) -> String {
    format!("conexus_{name}_total")
}

fn named(name: &str) -> Metadata {
    Metadata { name: Some(name.into()), ..Metadata::default() }
}

/// A registration, which is in the counts when this returns.
async fn registered(gateway: &Process, name: &str, identity: Identity) -> Agent {
    let mut agent = gateway.connect(Subprotocol::V1_1, identity).await;
    agent.register_with(agent.with_metadata(named(name))).await;
    agent
}

const REGISTERED: Step<'_> = ("registrations", &[("subprotocol", "ioap.v1.1")], 1);

fn ended<'a>(labels: &'a [(&'a str, &'a str)]) -> Step<'a> {
    ("sessions_ended", labels, 1)
}

#[tokio::test]
async fn how_sessions_begin_and_end_is_counted_by_reason() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/gate.rhai", GATE)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let mut counters = Counters::of(&gateway).await;
    let fresh = Identity::generate;

    drop(gateway.agent().await);
    let older = [("subprotocol", "ioap.v1")];
    counters.moved(&[("registrations", &older, 1), ended(&[("reason", "broken")])]).await;

    let mut agent = registered(&gateway, "x", fresh()).await;
    agent.register().await;
    let newer = [("subprotocol", "ioap.v1.1")];
    counters.moved(&[REGISTERED, ("registration_renewals", &newer, 1)]).await;

    agent.socket.close(None).await.unwrap();
    counters.moved(&[ended(&[("reason", "closed")])]).await;

    let mut agent = registered(&gateway, "x", fresh()).await;
    agent.send(Draft::new(agent.did(), Unregister::default()).sign(&agent.identity)).await;
    assert_eq!(agent.close().await.0, 1000);
    counters.moved(&[REGISTERED, ended(&[("reason", "unregistered")])]).await;

    let mut old = registered(&gateway, "x", fresh()).await;
    let new = registered(&gateway, "x", old.identity.clone()).await;
    assert_eq!(old.close().await.0, 4003);
    let twice = ("registrations", &newer[..], 2);
    counters.moved(&[twice, ("takeovers", &[], 1), ended(&[("reason", "replaced")])]).await;

    let did = new.did();
    let path = format!("/api/v1/agents/{did}/disconnect");
    assert_eq!(post(gateway.admin, &path, &[("Host", "localhost")]).await.0, 200);
    counters.moved(&[ended(&[("reason", "removed")])]).await;

    let mut agent = registered(&gateway, "x", fresh()).await;
    // Three may pass; the fourth is one too many.
    for _ in 0..4 {
        agent.send("nonsense").await;
    }
    let bad = ("bad_messages", &[][..], 4);
    counters.moved(&[REGISTERED, bad, ended(&[("reason", "bad_messages")])]).await;

    let mut agent = registered(&gateway, "hasty", fresh()).await;
    // Two pass, one more each second, and two are forgiven.
    for _ in 0..40 {
        let (_, offer) = agent.offer(&did, "x");
        if agent.socket.send(Message::text(offer)).await.is_err() {
            break;
        }
    }
    let labels = [("reason", "rate_limited")];
    let over = |scrape: &Scrape| scrape.count("conexus_sessions_ended_total", &labels) == 1;
    let scrape = Scrape::once(&gateway, "the end of who is over its rate", over).await;
    assert!(scrape.count("conexus_rate_limited_messages_total", &[]) >= 3);
}

#[tokio::test]
async fn what_does_not_become_a_session_is_counted_by_reason() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/gate.rhai", GATE)]);
    let gateway = Process::start(folder.path(), &["--set", "limits.connections=3"]).await;
    let mut counters = Counters::of(&gateway).await;
    let visitor = || gateway.connect(Subprotocol::V1_1, Identity::generate());
    let refused = "registrations_refused";

    drop(visitor().await);
    counters.moved(&[(refused, &[("reason", "broken")], 1)]).await;
    visitor().await.socket.close(None).await.unwrap();
    counters.moved(&[(refused, &[("reason", "closed")], 1)]).await;

    let mut agent = visitor().await;
    agent.send("nonsense").await;
    counters.moved(&[(refused, &[("reason", "malformed")], 1)]).await;

    let mut agent = visitor().await;
    let mut register = agent.registration();
    register.nonce = Some(visitor().await.nonce.unwrap());
    agent.send(Draft::new(agent.did(), register).sign(&agent.identity)).await;
    agent.refusal().await;
    let broken = (refused, &[("reason", "broken")][..], 1);
    counters.moved(&[(refused, &[("reason", "not_authenticated")], 1), broken]).await;

    let mut agent = visitor().await;
    let register = agent.with_metadata(named("stranger"));
    agent.send(Draft::new(agent.did(), register).sign(&agent.identity)).await;
    agent.refusal().await;
    counters.moved(&[(refused, &[("reason", "denied")], 1)]).await;
    drop(agent);

    // Or they would be too many.
    let none = |scrape: &Scrape| scrape.count("conexus_connections", &[]) == 0;
    Scrape::once(&gateway, "all connections to end", none).await;
    let connections = "connections_refused";
    dial(gateway.addr, &["soap"]).await.map(drop).unwrap_err();
    counters.moved(&[(connections, &[("reason", "subprotocol")], 1)]).await;
    assert_eq!(http::refused_upgrade(gateway.addr, "/ws?unwelcome").await.0, 403);
    counters.moved(&[(connections, &[("reason", "denied")], 1)]).await;
    assert_eq!(http::get(gateway.addr, "/ws", &[]).await.0, 426);
    counters.moved(&[(connections, &[("reason", "handshake")], 1)]).await;

    Scrape::once(&gateway, "all connections to end", none).await;
    let _three = [visitor().await, visitor().await, visitor().await];
    let scrape = Scrape::of(&gateway).await;
    let waiting = [("state", "handshake"), ("subprotocol", "ioap.v1.1")];
    assert_eq!(scrape.count("conexus_connections", &[]), 3);
    assert_eq!(scrape.count("conexus_connections_limit", &[]), 3);
    assert_eq!(scrape.count("conexus_sessions", &waiting), 3);
    assert!(dial(gateway.addr, &["ioap.v1.1"]).await.is_err());
    counters.moved(&[(connections, &[("reason", "connections_full")], 1)]).await;
}

#[tokio::test]
async fn whoever_does_not_register_in_time_is_counted() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &["--set", "limits.register_timeout=50ms"]).await;
    let mut counters = Counters::of(&gateway).await;
    let mut agent = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    assert_eq!(agent.close().await.0, 4002);
    counters.moved(&[("registrations_refused", &[("reason", "timeout")], 1)]).await;
}

#[tokio::test]
async fn leases_that_lapse_and_that_policy_extends_are_counted() {
    const EXTEND: &str = "fn on_expire(event) {\n    \
        if kv_cas(event.agent.did, (), 1) { extend(\"100ms\") }\n}\n";
    const EXPIRING: &str = "[presence]\ntimeout = \"300ms\"\nactivity = \"messages\"\n\
        [hook.grace]\nuse = \"script:grace\"\n[[chain.on_expire]]\nhook = \"grace\"\n";
    let folder = folder_with(&[("gateway.toml", EXPIRING), ("scripts/grace.rhai", EXTEND)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let mut counters = Counters::of(&gateway).await;
    let mut agent = gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    agent.register().await;
    assert!(agent.text().await.contains("silent for too long"));
    assert_eq!(agent.close().await.0, 4004);
    let expired = ended(&[("reason", "expired")]);
    counters
        .moved(&[REGISTERED, ("leases_lapsed", &[], 2), ("leases_extended", &[], 1), expired])
        .await;
}

#[tokio::test]
async fn what_nobody_fetches_in_time_is_no_longer_held_but_refused() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &["--set", "mailbox.hold=50ms"]).await;
    let mut sender = gateway.agent().await;
    sender.send_offer(Identity::generate().did(), "x").await;
    assert_eq!(sender.refusal().await.reason.as_deref(), Some("expired"));
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count("conexus_messages_refused_total", &[("reason", "expired")]), 1);
    assert_eq!(scrape.count("conexus_messages_held", &[]), 0);
}

#[tokio::test]
async fn bytes_and_latency_are_counted_where_messages_pass() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let (mut from, mut to) = (gateway.agent().await, gateway.agent().await);
    let before = Scrape::of(&gateway).await;
    let sdp = "x".repeat(10_000);
    for _ in 0..5 {
        from.send_offer(&to.did(), &sdp).await;
        to.text().await;
    }
    to.ping().await;
    let after = Scrape::of(&gateway).await;
    for (name, least) in [
        ("conexus_received_bytes_total", 50_000),
        ("conexus_sent_bytes_total", 50_000),
        ("conexus_message_latency_seconds_count", 5),
    ] {
        assert!(after.count(name, &[]) - before.count(name, &[]) >= least, "{name}");
    }
    assert!(after.sum("conexus_message_latency_seconds_sum", &[]) > 0.0);
    let all = after.count("conexus_message_latency_seconds_bucket", &[("le", "+Inf")]);
    assert_eq!(all, after.count("conexus_message_latency_seconds_count", &[]));
}
