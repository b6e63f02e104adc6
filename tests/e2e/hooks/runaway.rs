//! Scripts that want too much, of time or of memory, get their sender refused and nothing else.

use std::{fs, time::Duration};

use conexus_gateway::config::Settings;
use conexus_plugin_api::Point;
use conexus_protocol::{ErrorCode, Metadata, RefusalReason, Subprotocol};

use super::{
    events::{at, decided},
    setup::{Kept, Setup, faults},
};
use crate::support::{agent::Agent, bystanders::Bystanders, gateway::TestGateway};

/// Exchanges that the others complete while a script runs away: for the busiest of machines.
const EXCHANGES: usize = 10;

async fn named(gateway: &TestGateway, name: &str) -> Agent {
    let mut agent = Agent::connect(gateway, Subprotocol::V1_1).await;
    let metadata = Metadata { name: Some(name.to_owned()), ..Metadata::default() };
    agent.register_with(agent.with_metadata(metadata)).await;
    agent
}

/// As many threads as a small machine's gateway has, and two for the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_script_that_never_ends_is_stopped_and_others_talk_meanwhile() {
    let mut setup = Setup::new();
    setup.script("endless", r#"fn on_route(e) { if e.from.name == "runaway" { loop {} } }"#);
    setup.at(Point::Route, "endless").budget = Some(Duration::from_secs(2));
    let engine = setup.engine();
    let gateway = TestGateway::start_with_policy(Kept(engine.clone()), |_| {}).await;
    let mut bystanders = Bystanders::register(&gateway).await;
    let mut target = Agent::v1(&gateway).await;
    let mut runaway = named(&gateway, "runaway").await;
    // The first on the threads that carry messages, the second on those for slow hooks.
    for round in 1..=2 {
        let (id, _) = runaway.send_offer(&target.did(), "x").await;
        let waiting = tokio::spawn(async move {
            let refusal = runaway.refusal().await;
            (runaway, refusal)
        });
        let mut exchanges = 0;
        while !waiting.is_finished() {
            bystanders.exchange().await;
            exchanges += 1;
        }
        let refusal;
        (runaway, refusal) = waiting.await.unwrap();
        assert_eq!(refusal.correlation_id, Some(id));
        assert_eq!(refusal.code, ErrorCode::InternalError);
        assert_eq!(refusal.reason.as_deref(), Some("policy_error"));
        assert!(exchanges >= EXCHANGES, "{exchanges} exchanges in round {round}");
        assert_eq!(faults(&engine, Point::Route, 0, "timeout"), round);
    }
    runaway.ping().await;
    target.ping().await;
    assert_eq!(engine.status().pool.lost, 0, "it did stop");
}

/// What wants more than it may have: the statements of a hook.
const BOMBS: [(&str, &str); 12] = [
    ("a text that doubles", r#"let s = "x"; loop { s += s; }"#),
    ("a text that is padded", r#"let s = "x"; s.pad(2_000_000_000, "y");"#),
    ("a text that is replaced", r#"let s = "x"; loop { s.replace("x", "xxxxxxxx"); }"#),
    ("an array in an array", "let a = [1]; loop { a.push(a); }"),
    ("an array that is padded", "let a = []; a.pad(2_000_000_000, 0);"),
    (
        "an array of texts",
        r#"let a = []; let s = "x"; s.pad(60_000, "y"); loop { a.push(s + a.len); }"#,
    ),
    ("a map that grows", "let m = #{}; let n = 0; loop { m[`${n}`] = n; n += 1; }"),
    ("a map in a map", "let m = #{}; loop { m = #{ a: m, b: m, c: m }; }"),
    ("bytes", "let b = blob(2_000_000_000); b.len;"),
    ("a long range", "let b = []; for x in 0..2_000_000_000 { b.push(x); }"),
    ("functions in functions", "deeper(1);"),
    (
        "closures that hold each other",
        "let f = || 1; let a = []; loop { let g = f; f = || call(g); a.push(f); }",
    ),
];

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_memory_bomb_is_an_error_of_its_hook_and_takes_little_memory() {
    for (name, bomb) in BOMBS {
        let mut setup = Setup::new();
        setup.settings.scripts.max_operations = Settings::default().scripts.max_operations;
        let text = format!("fn deeper(n) {{ deeper(n + 1) + 1 }}\nfn on_route(e) {{ {bomb} }}\n");
        setup.script("bomb", &text);
        setup.at(Point::Route, "bomb");
        let engine = match setup.start() {
            Ok(engine) => engine,
            Err(error) => panic!("{name}: {error}"),
        };
        let before = resident_bytes();
        for times in 1..=3 {
            let ruled = decided(&engine, at(Point::Route)).await;
            assert_eq!(ruled.refusal(), Some(RefusalReason::PolicyError), "{name}");
            assert_eq!(faults(&engine, Point::Route, 0, "error"), times, "{name}");
        }
        let more = resident_bytes().saturating_sub(before);
        assert!(more < 256 << 20, "{name}: {} MiB more", more >> 20);
    }
}
