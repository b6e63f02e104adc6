//! Reload after reload while messages are judged.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{size, traffic::Traffic};
use crate::support::{
    http,
    process::{Process, folder_with, write},
    soon,
};

const CONFIG: &str = r#"
[policy]
watch = false
# On a machine that is busy with other tests, calls and agents are kept waiting.
budget = "10s"

[limits]
outbox_messages = 10_000

[hook.first]
use       = "script:first"
namespace = "judged"

[hook.second]
use       = "script:second"
namespace = "judged"

[[chain.on_route]]
hook = "first"

[[chain.on_route]]
hook = "second"

[[chain.on_undeliverable]]
hook = "second"
"#;

/// Each sender's messages are judged one after the other, so one entry per sender will do.
const FIRST: &str = r#"
import "lib/version" as version;
fn on_route(event) {
    kv_set(event.from.did, `${event.id} ${version::name()}`);
}
"#;

const SECOND: &str = r#"
import "lib/version" as version;
fn on_route(event) {
    let first = kv_get(event.from.did);
    if first != `${event.id} ${version::name()}` {
        return deny("denied", `${first} ${version::name()}`);
    }
}
fn on_undeliverable(event) {
    deny("unknown_agent", `${kv_get(event.from.did)} ${version::name()}`)
}
"#;

fn version(folder: &Path, text: &str) {
    write(&folder.join("scripts/lib/version.rhai"), &format!("fn name() {{ {text} }}"));
}

/// Resident bytes of a process.
fn resident(id: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{id}/statm")).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn mean(samples: &[u64]) -> u64 {
    samples.iter().sum::<u64>() / samples.len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_or_judged_by_two_generations_while_scripts_are_reloaded() {
    let reloads = size("RELOADS", 100);
    let folder = folder_with(&[
        ("gateway.toml", CONFIG),
        ("scripts/first.rhai", FIRST),
        ("scripts/second.rhai", SECOND),
    ]);
    version(folder.path(), "1");
    let gateway = Process::start(folder.path(), &["--set", "log.level=info"]).await;
    let traffic = Traffic::begin(&gateway, 8, Duration::from_millis(4)).await;
    let began = Instant::now();
    let mut memory = Vec::new();
    for wanted in 2..=reloads + 1 {
        if wanted % 5 == 0 {
            version(folder.path(), "1 +");
            let (status, refused) = gateway.post("/api/v1/reload").await;
            assert_eq!(status, 409, "{refused}");
            assert!(refused["reasons"].to_string().contains("lib/version.rhai:1:"), "{refused}");
            assert_eq!(gateway.generation().await, wanted - 1);
        }
        version(folder.path(), &wanted.to_string());
        let (status, reloaded) = gateway.post("/api/v1/reload").await;
        assert_eq!((status, reloaded["generation"].as_u64()), (200, Some(wanted)), "{reloaded}");
        memory.push(resident(gateway.id()));
    }
    let took = began.elapsed();
    let failed = gateway.log().into_iter().filter(|line| line.contains("hook failed"));
    assert_eq!(failed.collect::<Vec<_>>(), [""; 0]);
    let sent = traffic.end().await;

    for (first, second) in &sent.judged {
        assert_eq!(first, second, "judged by one generation from start to end");
    }
    let mut judges: Vec<u64> = sent.judged.iter().map(|(by, _)| by.parse().unwrap()).collect();
    judges.sort_unstable();
    judges.dedup();
    assert!(judges.len() > 2, "many generations judged: {judges:?}");
    let messages = settled(gateway.addr).await;
    assert_eq!(messages["received"], sent.to_somebody + sent.to_nobody);
    assert_eq!(
        (&messages["delivered"], &messages["refused"]),
        (&sent.to_somebody.into(), &sent.to_nobody.into())
    );

    let all = sent.to_somebody + sent.to_nobody;
    let thirds: Vec<_> = memory.chunks(memory.len().div_ceil(3)).map(mean).collect();
    println!(
        "{reloads} reloads in {took:?} under {:.0} messages/s ({all} in all), {} generations were \
         seen to judge; resident in thirds: {thirds:?}",
        all as f64 / took.as_secs_f64(),
        judges.len(),
    );
    // An allocator keeps pages that it was given back for some time, and reloads come faster than
    // that: what would be kept of each generation (an engine, syntax trees) is far more.
    let margin = (thirds[1] / 10).max(8 << 20);
    assert!(thirds[2] <= thirds[1] + margin, "memory grows: {thirds:?}");
    let alive = gateway.hooks().await["alive"].as_u64().unwrap();
    assert_eq!(alive, 2, "the running one and the former one");
    assert!(gateway.stop().await.success());
}

/// What became of messages, once each has its end: its receiver may have one a moment before the
/// gateway counts it.
async fn settled(addr: SocketAddr) -> Value {
    soon("the end of every message", async {
        loop {
            let (_, health) = http::get(addr, "/health", &[]).await;
            let count = |what: &str| health["messages"][what].as_u64().unwrap();
            if count("received") == count("delivered") + count("refused") + count("held") {
                return health["messages"].clone();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}
