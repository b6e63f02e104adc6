//! `conexus replay`: what a gateway recorded, judged again by the same policy and by another one.

use std::{collections::BTreeSet, fs, path::Path};

use conexus_protocol::{Challenge, Envelope, Identity, Rules, Subprotocol};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{printed, says};
use crate::support::{
    agent::{Agent, dial_with},
    process::{Process, folder_with, run, write},
    soon,
};

const CONFIG: &str = r#"
[policy]
watch = false

[telemetry]
decision_log = "decisions.jsonl"

[hook.gate]
use = "script:gate"

[hook.rules]
use    = "script:rules"
config = { longest = 20 }

[[chain.on_connect]]
hook = "gate"

[[chain.on_register]]
hook = "gate"

[[chain.on_register]]
hook = "rules"

[[chain.on_registered]]
hook = "rules"

[[chain.on_route]]
hook = "rules"

[[chain.on_undeliverable]]
hook = "rules"
"#;

/// Looks at what is not recorded.
const GATE: &str = r#"
fn on_connect(event) {
    if event.query_param("token") == "query-sesame" { allow() }
}
fn on_register(event) {
    if event.credentials == "open sesame" { set(#{ labels: #{ vip: "yes" } }) }
}
"#;

/// Decides by all that it can ask for.
const RULES: &str = r#"
fn on_register(event) {
    set(#{ labels: #{ nth: `${incr("registrations")}` } })
}
fn on_registered(event) {
    conn_set("left", 12);
}
fn on_route(event) {
    if event.payload.sdp.len > config.longest {
        return deny("denied", "too long");
    }
    let left = (conn_get("left") ?? 12) - 1;
    conn_set("left", left);
    if left < 0 {
        return deny("denied", "that was all");
    }
    if agent(event.to) == () && kv_get(`waiting:${event.to}`) != () {
        return deny("unknown_agent", "waited for already");
    }
    if incr("routed", 1, "1h") % 5 == 0 {
        return deny("denied", "every fifth");
    }
    if !rate_limit(event.from.did, 7, "24h") {
        return deny("rate_limited", `from ${agents().len} agents`);
    }
}
fn on_undeliverable(event) {
    kv_set(`waiting:${event.to}`, now());
    hold("1m")
}
"#;

/// Lengths of what each agent sends.
const LENGTHS: [usize; 16] = [5, 30, 11, 10, 20, 21, 15, 1, 1, 1, 12, 2, 3, 18, 4, 16];

/// A log, and the ids of messages by their length.
struct Recorded {
    folder: TempDir,
    sent: Vec<(String, usize)>,
}

async fn agent(gateway: &Process, credentials: Option<&str>) -> Agent {
    // Which alone knows credentials.
    let subprotocol = Subprotocol::V1_1;
    let socket = TcpSocket::new_v4().unwrap();
    let (socket, _) = dial_with(gateway.addr, &[subprotocol.as_str()], socket).await.unwrap();
    let url = format!("ws://{}/ws", gateway.addr);
    let mut agent = Agent { identity: Identity::generate(), socket, subprotocol, nonce: None, url };
    let text = agent.text().await;
    let challenge = Envelope::parse(&text, Rules::V1_1).unwrap();
    agent.nonce = Some(challenge.payload::<Challenge>().unwrap().nonce);
    let mut register = agent.registration();
    register.credentials = credentials.map(str::to_owned);
    agent.register_with(register).await;
    agent
}

/// A WebSocket that is opened with secrets in header and query.
async fn connect_with_secrets(gateway: &Process) {
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    let request = "GET /ws?token=query-sesame HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nCookie: a=cookie-sesame\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: ioap.v1\r\n\
                   Authorization: Basic b3BlbjpzZXNhbWU=\r\nX-Api-Key: header-sesame\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    soon("the upgrade", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
}

/// Lets agents talk through a gateway that records.
async fn record(config: &str) -> Recorded {
    let folder = folder_with(&[
        ("gateway.toml", config),
        ("scripts/gate.rhai", GATE),
        ("scripts/rules.rhai", RULES),
    ]);
    let gateway = Process::start(folder.path(), &[]).await;
    connect_with_secrets(&gateway).await;
    let mut agents = [
        agent(&gateway, Some("open sesame")).await,
        agent(&gateway, Some("wrong sesame")).await,
        agent(&gateway, None).await,
    ];
    let absent = Identity::generate().did().to_owned();
    let mut sent = Vec::new();
    for (n, length) in LENGTHS.into_iter().enumerate() {
        for from in 0..agents.len() {
            let to = if n % 4 == 3 { absent.clone() } else { agents[(from + 1) % 3].did() };
            let (id, text) = agents[from].offer(&to, &"x".repeat(length));
            agents[from].send(text).await;
            sent.push((id, length));
        }
    }
    for agent in &mut agents {
        // Whatever was sent before has been judged when this is answered.
        let (_, text) = agent.sign("did:key:gateway", conexus_protocol::Ping { sequence: None });
        agent.send(text).await;
        while !agent.text().await.contains("\"PONG\"") {}
    }
    drop(agents);
    assert!(gateway.stop().await.success());
    Recorded { folder, sent }
}

fn lines(folder: &Path) -> Vec<Value> {
    let log = fs::read_to_string(folder.join("decisions.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn replayed(folder: &Path, arguments: &[&str], code: i32) -> Value {
    let arguments = [&["replay", "decisions.jsonl", "--json"], arguments].concat();
    let ended = run(folder, &arguments).await;
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    serde_json::from_str(&ended.out).unwrap()
}

#[tokio::test]
async fn the_same_policy_decides_the_same_again() {
    let Recorded { folder, sent } = record(CONFIG).await;
    let lines = lines(folder.path());
    let rulings: BTreeSet<_> = lines.iter().map(|line| line["ruling"].as_str().unwrap()).collect();
    for part in ["too long", "that was all", "waited for", "every fifth", "rate_limited", "hold"] {
        assert!(rulings.iter().any(|ruling| ruling.contains(part)), "{part} in {rulings:#?}");
    }
    let report = replayed(folder.path(), &["--expect-same"], 0).await;
    assert_eq!(
        (&report["changed"], &report["changes"]),
        (&0.into(), &Value::Array(vec![])),
        "{report:#}"
    );
    // Four connections; three registrations; the messages, and those that were held.
    let held = rulings.iter().filter(|ruling| ruling.contains("hold")).count();
    assert!(report["decisions"].as_u64().unwrap() as usize >= 7 + sent.len() + held, "{report:#}");
    // What looked at a secret is taken as it was, and named.
    assert_eq!(report["not_replayable"], serde_json::json!({ "gate": 7 }));
    let shown = printed(folder.path(), &["replay", "decisions.jsonl", "--expect-same"]).await;
    says(&shown, &["0 of ", "gate: 7 steps cannot be repeated and were taken as recorded"]);
}

#[tokio::test]
async fn another_rule_changes_the_decisions_that_it_touches_and_no_others() {
    let Recorded { folder, sent } = record(CONFIG).await;
    write(&folder.path().join("new.toml"), &CONFIG.replace("longest = 20", "longest = 10"));
    let touched: BTreeSet<_> = sent
        .iter()
        .filter(|(_, length)| (11..=20).contains(length))
        .map(|(id, _)| id.as_str())
        .collect();
    let report = replayed(folder.path(), &["--config", "new.toml"], 0).await;
    let mut changed = BTreeSet::new();
    for change in report["changes"].as_array().unwrap() {
        assert_eq!(change["point"], "on_route", "{change}");
        says(change["would_be"].as_str().unwrap(), &["too long"]);
        assert!(changed.insert(change["message"].as_str().unwrap()), "{change}");
    }
    assert_eq!(changed, touched);
    assert_eq!(report["changed"], touched.len());
    replayed(folder.path(), &["--config", "new.toml", "--expect-same"], 1).await;
    let shown = printed(
        folder.path(),
        &["replay", "decisions.jsonl", "--config", "new.toml", "--show", "1"],
    )
    .await;
    says(&shown, &["on_route did:key:z", "too long", &format!("and {} more", touched.len() - 1)]);
    says(
        &shown,
        &[&format!("{} of {} decisions would change", touched.len(), report["decisions"])],
    );
}

#[tokio::test]
async fn no_secret_is_recorded() {
    let Recorded { folder, .. } = record(CONFIG).await;
    let log = fs::read_to_string(folder.path().join("decisions.jsonl")).unwrap();
    for secret in ["sesame", "b3BlbjpzZXNhbWU"] {
        assert!(!log.contains(secret), "{secret}");
    }
    says(&log, &["\"connect\"", "\"authorization\",\"<redacted>\""]);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(folder.path().join("decisions.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn hooks_that_reach_outside_are_not_asked_again() {
    let audit = "\n[hook.audit]\nuse = \"plugin:audit-log\"\nconfig = { path = \"audit.jsonl\" }\n\
                 [[chain.on_route]]\nhook = \"audit\"\n";
    let Recorded { folder, sent } = record(&(CONFIG.to_owned() + audit)).await;
    let audited = || fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let before = audited();
    let report = replayed(folder.path(), &["--expect-same"], 0).await;
    let asked = report["not_replayable"]["audit"].as_u64().unwrap() as usize;
    // Not those that were denied before they came to it.
    assert!(asked > 0 && asked < sent.len(), "{report:#}");
    // Neither where it is new.
    let again = "\n[hook.more]\nuse = \"plugin:audit-log\"\nconfig = { path = \"more.jsonl\" }\n\
                 [[chain.on_route]]\nhook = \"more\"\n";
    write(&folder.path().join("new.toml"), &(CONFIG.to_owned() + audit + again));
    let report = replayed(folder.path(), &["--config", "new.toml"], 0).await;
    assert_eq!(report["not_replayable"]["more"].as_u64().unwrap() as usize, asked);
    assert_eq!(audited(), before);
    let more = fs::read_to_string(folder.path().join("more.jsonl")).unwrap_or_default();
    assert_eq!(more, "");
}

#[tokio::test]
async fn a_log_that_is_none_is_an_error_that_names_the_line() {
    let Recorded { folder, .. } = record(CONFIG).await;
    let path = folder.path().join("decisions.jsonl");
    let log = fs::read_to_string(&path).unwrap();
    let lines = log.lines().count();
    for (bad, at) in [
        (format!("{log}no JSON\n"), lines + 1),
        (format!("{{\"time_ms\":1}}\n{log}"), 1),
        (log[..log.len() - 10].to_owned(), lines),
    ] {
        fs::write(&path, bad).unwrap();
        let ended = run(folder.path(), &["replay", "decisions.jsonl", "--expect-same"]).await;
        // A log may be cut short; one whose first line is wrong is none.
        let (told, code) = if at == 1 { (&ended.err, 2) } else { (&ended.out, 1) };
        assert_eq!(ended.code, Some(code), "{ended:#?}");
        says(told, &[&format!("line {at} is no record of a decision")]);
    }
    let ended = run(folder.path(), &["replay", "gone.jsonl"]).await;
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    says(&ended.err, &["gone.jsonl cannot be read"]);
}
