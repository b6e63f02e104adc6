//! Hooks of scope "cluster": what one node counts, all of them have counted, as long as there is a
//! Redis to count in.

use super::nodes::{Cluster, Node, Setup};
use crate::support::{agent::Agent, scrape::Scrape};

/// Two agents of one node.
async fn pair(node: &Node) -> (Agent, Agent) {
    (node.agent().await, node.agent().await)
}

/// Whether a message of the one arrives at the other; else why it was refused.
async fn arrives(from: &mut Agent, to: &mut Agent) -> Result<(), String> {
    let (_, offer) = from.send_offer(&to.did(), "v=0").await;
    tokio::select! {
        text = to.text() => {
            assert_eq!(text, offer);
            Ok(())
        }
        refusal = from.refusal() => Err(refusal.reason.unwrap_or_default()),
    }
}

const LIMITED: &str = r#"
[hook.limit]
use    = "script:limit"
scope  = "cluster"
config = { key = "all" }

[hook.own]
use    = "script:limit"
config = { key = "all" }

[[chain.on_route]]
hook   = "limit"
budget = "10s"

[[chain.on_route]]
hook = "own"
"#;

/// Five of them now, and no further one within ten minutes.
const LIMIT: &str = r#"
fn on_route(event) {
    if !rate_limit(config.key, 5, "1h") { return deny("rate_limited"); }
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_one_over_all_nodes() {
    let setup = Setup {
        files: vec![("gateway.toml", LIMITED), ("scripts/limit.rhai", LIMIT)],
        ..Setup::default()
    };
    let cluster = Cluster::with(2, setup).await;
    let (mut a, mut b) = pair(&cluster.nodes[0]).await;
    let (mut c, mut d) = pair(&cluster.nodes[1]).await;
    for _ in 0..3 {
        assert_eq!(arrives(&mut a, &mut b).await, Ok(()));
    }
    for _ in 0..2 {
        assert_eq!(arrives(&mut c, &mut d).await, Ok(()));
    }
    let limited = Err("rate_limited".to_owned());
    assert_eq!(arrives(&mut a, &mut b).await, limited);
    assert_eq!(arrives(&mut c, &mut d).await, limited);
    // The one that counts for itself has not come to five on either.
    let scrape = Scrape::of(cluster.nodes[0].process()).await;
    let operations = "conexus_cluster_state_operations_total";
    let done = [("operation", "rate_limit"), ("outcome", "done")];
    assert_eq!(scrape.count(operations, &done), 4);
    assert_eq!(scrape.count("conexus_cluster_state_duration_seconds_count", &[]), 4);
    let own = [("hook", "own"), ("verdict", "deny")];
    assert_eq!(scrape.count("conexus_hook_verdicts_total", &own), 0);
}

/// After the first few failures it would not be asked for an hour.
const COUNTED: &str = r#"
[policy]
breaker_cooldown = "1h"

[hook.count]
use   = "script:count"
scope = "cluster"

[[chain.on_route]]
hook   = "count"
budget = "10s"
"#;

const COUNT: &str = r#"
fn on_start() {
    incr("starts");
}

fn on_route(event) {
    log(`message ${incr("messages", 1, "1h")}`);
}
"#;

/// The second node goes on without.
fn open_at_the_second(number: usize) -> Vec<(String, String)> {
    let chain = r#"[{ hook = "count", budget = "10s", on_error = "open" }]"#;
    let open = (number == 1).then(|| ("CONEXUS_CHAIN__ON_ROUTE".into(), chain.into()));
    open.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_hooks_do_as_on_error_says_and_with_it_they_go_on_by_themselves() {
    let setup = Setup {
        files: vec![("gateway.toml", COUNTED), ("scripts/count.rhai", COUNT)],
        environment: open_at_the_second,
        ..Setup::default()
    };
    let mut cluster = Cluster::with(2, setup).await;
    let (mut a, mut b) = pair(&cluster.nodes[0]).await;
    let (mut c, mut d) = pair(&cluster.nodes[1]).await;
    assert_eq!(arrives(&mut a, &mut b).await, Ok(()));
    assert_eq!(arrives(&mut c, &mut d).await, Ok(()));
    cluster.nodes[1].process().logged("message 2").await;

    cluster.redis.kill();
    for _ in 0..8 {
        assert_eq!(arrives(&mut a, &mut b).await, Err("policy_error".to_owned()));
        assert_eq!(arrives(&mut c, &mut d).await, Ok(()));
    }
    for node in &cluster.nodes {
        let scrape = Scrape::of(node.process()).await;
        assert_eq!(scrape.count("conexus_hook_breaker_open", &[("hook", "count")]), 1);
        let log = node.log();
        let says = |part: &str| log.iter().any(|line| line.contains(part));
        assert!(says("count.rhai:7:"), "{log:#?}");
        assert!(says("the shared state cannot be reached"), "{log:#?}");
        assert!(says("hooks cannot reach the state that the cluster shares"), "{log:#?}");
    }

    cluster.redis.start_again();
    while let Err(reason) = arrives(&mut a, &mut b).await {
        assert_eq!(reason, "policy_error");
    }
    let closed = async |node: &Node| {
        let scrape = Scrape::of(node.process()).await;
        scrape.count("conexus_hook_breaker_open", &[("hook", "count")]) == 0
    };
    assert!(closed(&cluster.nodes[0]).await);
    while !closed(&cluster.nodes[1]).await {
        assert_eq!(arrives(&mut c, &mut d).await, Ok(()));
    }
}
