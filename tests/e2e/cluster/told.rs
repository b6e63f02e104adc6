//! What operators are told of a cluster: by the admin API, `conexus nodes`, metrics, problems, `/health`,
//! `/ready`, and the dashboard.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::nodes::{Cluster, Node, Setup};
use crate::{
    dashboard::{assert_no_complaints, visit},
    metrics::problem,
    support::{
        browser::Browser,
        fault_proxy::Network,
        http,
        process::{Process, run},
        scrape::Scrape,
        soon,
    },
};

/// What a node answers, once it is so.
async fn nodes_when(process: &Process, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    soon(what, async {
        loop {
            let (status, answer) = http::get(process.admin, "/api/v1/nodes", &[]).await;
            assert_eq!(status, 200, "{answer}");
            if is_so(&answer) {
                return answer;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

fn reached(answer: &Value) -> usize {
    let nodes = answer["nodes"].as_array().unwrap().iter();
    nodes.filter(|node| node["reachable"] == true).count()
}

fn agents_of<'a>(answer: &'a Value, id: &str) -> &'a Value {
    let mut nodes = answer["nodes"].as_array().unwrap().iter();
    &nodes.find(|node| node["id"] == id).unwrap()["agents"]
}

async fn get(node: &Node, path: &str) -> (u16, Value) {
    http::get(node.process().addr, path, &[]).await
}

#[tokio::test]
async fn each_node_tells_of_all_and_of_what_goes_between_them() {
    let cluster = Cluster::of(3).await;
    let [a, b, _] = &cluster.nodes[..] else { unreachable!() };
    let (mut alice, mut bob) = (a.agent().await, b.agent().await);
    let answer = nodes_when(a.process(), "what the others tell", |answer| {
        reached(answer) == 3 && *agents_of(answer, "node-1") == 1
    })
    .await;
    let nodes = answer["nodes"].as_array().unwrap();
    let ids: Vec<_> = nodes.iter().map(|node| node["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["node-0", "node-1", "node-2"], "this one first, then by name");
    assert_eq!((&nodes[0]["this"], &nodes[1]["this"]), (&json!(true), &json!(false)));
    assert_eq!(nodes[0]["member"], answer["cluster"]["member"]);
    let lease = answer["cluster"]["lease_ms"].as_u64().unwrap();
    for node in nodes {
        let left = node["lease_left_ms"].as_u64().unwrap();
        assert!(left > 0 && left <= lease, "{node}");
        assert_eq!((&node["phase"], &node["why_not"]), (&json!("running"), &Value::Null));
        assert!(node["member"].as_str().is_some_and(|member| member.len() == 16), "{node}");
    }

    let folder = tempfile::tempdir().unwrap();
    let admin = b.process().admin.to_string();
    let table = run(folder.path(), &["nodes", "--admin", &admin]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    let lines: Vec<_> = table.out.lines().collect();
    assert!(lines[0].starts_with("joined since ") && lines[0].contains(" as member "), "{table:?}");
    assert!(lines[3].starts_with("node-1 (this)  running"), "{table:?}");
    assert!(lines[4].starts_with("node-0 ") && lines[4].ends_with("yes"), "{table:?}");
    let asked = run(folder.path(), &["nodes", "--admin", &admin, "--json"]).await;
    let asked: Value = serde_json::from_str(&asked.out).unwrap();
    assert_eq!((reached(&asked), &asked["cluster"]["joined"]), (3, &json!(true)));

    for _ in 0..3 {
        let (_, text) = alice.send_offer(&bob.did(), "over").await;
        assert_eq!(bob.text().await, text);
    }
    let health = get(a, "/health").await.1;
    assert_eq!(health["cluster"], json!({ "state": "joined", "nodes": 3 }));
    assert_eq!(get(a, "/ready").await, (200, json!({ "status": "ready", "cluster": "joined" })));

    // The word that the last one has arrived may be on its way yet.
    let outcome = [("outcome", "delivered")];
    let scrape = soon("the ends of three messages", async {
        loop {
            let scrape = Scrape::of(a.process()).await;
            if scrape.count("conexus_cluster_forwarded_messages_total", &outcome) == 3 {
                return scrape;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(scrape.count("conexus_cluster_joined", &[]), 1);
    assert_eq!(scrape.count("conexus_cluster_nodes", &[]), 3);
    assert_eq!(scrape.count("conexus_cluster_round_trip_seconds_count", &[]), 3);
    assert!(scrape.count("conexus_cluster_leases_total", &[("outcome", "renewed")]) > 0);
    assert!(scrape.sum("conexus_cluster_engine_latency_seconds", &[("of", "median")]) > 0.0);
    let peers = scrape.values_of("conexus_cluster_under_way_messages", "peer");
    assert_eq!(peers.into_iter().collect::<Vec<_>>(), ["node-1", "node-2"]);
    let arrived = Scrape::of(b.process()).await;
    assert_eq!(arrived.count("conexus_cluster_arrived_messages_total", &outcome), 3);
}

#[tokio::test]
async fn a_node_that_is_apart_says_so_everywhere_and_goes_on() {
    let cluster = Cluster::of(2).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let (mut alice, mut anna) = (a.agent().await, a.agent().await);
    a.network.set(Network::Cut);
    let apart =
        nodes_when(a.process(), "a node apart", |answer| answer["cluster"]["joined"] == false)
            .await;
    assert!(apart["cluster"]["why"].as_str().is_some_and(|why| !why.is_empty()), "{apart}");
    assert_eq!((reached(&apart), &apart["cluster"]["member"]), (1, &Value::Null));
    let told = problem(a.process(), "cluster_apart").await;
    assert_eq!((&told["subject"], &told["severity"]), (&json!("node-0"), &json!("critical")));
    let ready = json!({ "status": "ready", "cluster": "apart" });
    assert_eq!(get(a, "/ready").await, (200, ready), "its agents are served");
    let (_, text) = alice.send_offer(&anna.did(), "here").await;
    assert_eq!(anna.text().await, text);
    assert_eq!(Scrape::of(a.process()).await.count("conexus_cluster_joined", &[]), 0);

    let gone = nodes_when(b.process(), "the end of its lease", |answer| reached(answer) == 1).await;
    if let Some(lost) = gone["nodes"].as_array().unwrap().get(1) {
        assert!(lost["why_not"].as_str().unwrap().contains("lease is over"), "{gone}");
    }
    a.network.set(Network::Open);
    nodes_when(a.process(), "its return", |answer| reached(answer) == 2).await;
    nodes_when(b.process(), "its return to the other", |answer| reached(answer) == 2).await;
}

#[tokio::test]
async fn two_nodes_of_one_name_are_a_problem() {
    let cluster = Cluster::with(2, Setup::default().with("server.node_id=twin")).await;
    let told = problem(cluster.nodes[0].process(), "node_id_twice").await;
    assert_eq!(told["subject"], "twin");
    let scrape = Scrape::of(cluster.nodes[0].process()).await;
    let peers = scrape.values_of("conexus_cluster_under_way_messages", "peer");
    assert_eq!(peers.into_iter().collect::<Vec<_>>(), ["twin"], "one series, not two");
}

#[tokio::test]
async fn the_dashboard_shows_the_nodes_and_the_one_that_is_apart() {
    let cluster = Cluster::of(3).await;
    let [a, b, _] = &cluster.nodes[..] else { unreachable!() };
    let _agents = [a.agent().await, b.agent().await, b.agent().await];
    let browser = Browser::start().await;
    visit(&browser, a.process(), "nodes", "Nodes").await;
    browser.find_saying("tbody tr", "node-0").await;
    let other = browser.find_saying("tbody tr", "node-1").await.text().await.unwrap();
    assert!(other.contains("running"), "{other}");
    browser.find_saying(".figure", "Reachable nodes\n3").await;
    browser.find_saying(".figure", "Agents in all\n3").await;
    let gauges = "return [...document.querySelectorAll('.fill.lease, .fill.late')].length";
    assert_eq!(browser.script(gauges).await, 3);
    let widths = "return [...document.querySelectorAll('.fill')].every((fill) => {
        const width = parseFloat(fill.style.width);
        return width >= 0 && width <= 100;
    })";
    assert_eq!(browser.script(widths).await, true);
    assert!(browser.lacks(".note.critical").await);

    a.network.set(Network::Cut);
    browser.find_saying(".note.critical", "Apart from the cluster").await;
    browser.find_saying("tbody tr", "unreachable").await;
    browser.find_saying("#problems .problem", "apart from the cluster").await;
    a.network.set(Network::Open);
    browser.gone(".station .note.critical").await;
    browser.find_saying(".figure", "Reachable nodes\n3").await;
    visit(&browser, a.process(), "", "Overview").await;
    browser.find_saying("dl.facts", "joined, 3 nodes").await;
    assert_no_complaints(&browser).await;
    browser.quit().await;
}
