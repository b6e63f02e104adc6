//! The text that is served: Prometheus's own tool takes it, and the guide names all that is in it.

use std::collections::BTreeSet;

use super::deployed::{promtool, repository};
use crate::support::{
    http,
    process::{Process, folder_with},
    scrape::Scrape,
};

/// A gateway of which there is something to tell: traffic, a refusal, a hook.
async fn busy(folder: &std::path::Path) -> Process {
    let gateway = Process::start(folder, &[]).await;
    let (mut a, mut b) = (gateway.agent().await, gateway.agent().await);
    a.send_offer(&b.did(), "x").await;
    b.text().await;
    b.send_offer("did:key:zNobody", "x").await;
    b.refusal().await;
    gateway
}

const CONFIG: &str =
    "[hook.counts]\nuse = \"script:counts\"\n[[chain.on_route]]\nhook = \"counts\"\n";
const COUNTS: &str = "fn on_route(event) { metric(\"seen\"); }\n";

#[tokio::test]
async fn promtool_has_nothing_to_say_against_the_text() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/counts.rhai", COUNTS)]);
    let gateway = busy(folder.path()).await;
    let scrape = Scrape::of(&gateway).await;
    assert!(scrape.count("conexus_messages_received_total", &[]) > 0);
    let said = promtool(&["check", "metrics"], &scrape.text).await;
    assert_eq!(said, "");
}

#[tokio::test]
async fn open_metrics_is_served_to_those_who_ask_for_it() {
    let folder = folder_with(&[]);
    let gateway = busy(folder.path()).await;
    // What Prometheus sends.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,\
                  text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let (status, head, text) =
        http::get_raw(gateway.admin, "/metrics", &[("Accept", accept)]).await;
    assert_eq!(status, 200);
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    assert_eq!(text.matches("# EOF").count(), 1);
    assert!(text.contains("# TYPE conexus_messages_received counter\n"), "{text}");
    // The same families otherwise.
    let families = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        lines.map(|line| line.replace("_total counter", " counter")).collect()
    };
    assert_eq!(families(&text), families(&Scrape::of(&gateway).await.text));
}

#[tokio::test]
async fn the_guide_describes_every_metric_and_no_other() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let served: BTreeSet<_> = Scrape::of(&gateway)
        .await
        .types
        .into_iter()
        .map(|(name, kind)| format!("{name} {kind}"))
        .collect();
    let guide = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    // Rows of tables: | `name` | type | …
    let described: Vec<_> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name, rest.split_once(" |")?.0)))
        .filter(|(_, kind)| ["counter", "gauge", "histogram"].contains(kind))
        .map(|(name, kind)| format!("{name} {kind}"))
        .collect();
    let once: BTreeSet<_> = described.iter().cloned().collect();
    assert_eq!(once.len(), described.len(), "each once");
    let missing: Vec<_> = served.difference(&once).collect();
    let gone: Vec<_> = once.difference(&served).collect();
    assert!(missing.is_empty() && gone.is_empty(), "missing: {missing:#?}\nunknown: {gone:#?}");
}
