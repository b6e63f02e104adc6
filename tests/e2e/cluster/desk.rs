//! What operators do about agents, from whichever node.

use std::time::Duration;

use conexus_protocol::{CloseReason, Identity};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::nodes::{Cluster, Node};
use crate::{
    admin::client::{Answer, Client},
    support::{fault_proxy::Network, soon},
};

async fn ask(node: &Node, method: &str, path: &str, body: Option<&Value>) -> Answer {
    Client::new(node.process().admin).ask(method, path, body).await
}

async fn ban(node: &Node, did: &str) -> Value {
    let body = json!({ "did": did, "seconds": 600, "reason": "spam" });
    let answer = ask(node, "POST", "/api/v1/bans", Some(&body)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body
}

/// Whether a node knows of a ban.
async fn bans(node: &Node, did: &str) -> bool {
    let answer = ask(node, "GET", "/api/v1/bans", None).await;
    answer.body["bans"].as_array().unwrap().iter().any(|ban| ban["did"] == did)
}

async fn bans_soon(node: &Node, did: &str, is_banned: bool) {
    eventually("a ban to be known, or not", async || bans(node, did).await == is_banned).await;
}

/// Waits until something is so that has to be asked for.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn is_refused(node: &Node, me: &Identity) {
    let mut agent = node.connect(me).await;
    let (_, text) = agent.sign(me.did(), agent.registration());
    agent.send(text).await;
    agent.refusal().await;
    assert_eq!(agent.close().await.0, CloseReason::Denied.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_holds_on_all_nodes_and_outlives_each_of_them() {
    let mut cluster = Cluster::of(3).await;
    let me = Identity::generate();
    let mut agent = cluster.nodes[1].agent_of(&me).await;
    assert_eq!(ban(&cluster.nodes[0], me.did()).await["pending"], false);
    let (code, reason) = agent.close().await;
    assert_eq!((code, reason.as_str()), (CloseReason::Removed.code(), "spam"));
    for node in &cluster.nodes {
        bans_soon(node, me.did(), true).await;
        is_refused(node, &me).await;
    }
    for node in &mut cluster.nodes {
        node.kill().await;
    }
    cluster.nodes[2].run().await;
    bans_soon(&cluster.nodes[2], me.did(), true).await;
    cluster.redis.restart_empty();
    cluster.nodes[0].run().await;
    bans_soon(&cluster.nodes[0], me.did(), true).await;
    let path = format!("/api/v1/bans/{}", me.did());
    assert_eq!(ask(&cluster.nodes[0], "DELETE", &path, None).await.status, 204);
    bans_soon(&cluster.nodes[2], me.did(), false).await;
    cluster.nodes[2].agent_of(&me).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_on_a_node_that_is_apart_is_passed_on() {
    let cluster = Cluster::of(2).await;
    let [one, other] = [Identity::generate(), Identity::generate()];
    let mut agent = cluster.nodes[1].agent_of(&one).await;
    ban(&cluster.nodes[1], other.did()).await;
    bans_soon(&cluster.nodes[0], other.did(), true).await;
    cluster.nodes[0].network.set(Network::Cut);
    eventually("a list without the other node", async || {
        cluster.nodes[0].page("").await["partial"] == true
    })
    .await;
    assert_eq!(ban(&cluster.nodes[0], one.did()).await["pending"], true);
    is_refused(&cluster.nodes[0], &one).await;
    let path = format!("/api/v1/bans/{}", other.did());
    assert_eq!(ask(&cluster.nodes[0], "DELETE", &path, None).await.status, 204);
    assert!(bans(&cluster.nodes[1], other.did()).await);
    cluster.nodes[0].network.set(Network::Open);
    assert_eq!(agent.close().await.0, CloseReason::Removed.code());
    bans_soon(&cluster.nodes[1], other.did(), false).await;
    assert!(bans(&cluster.nodes[1], one.did()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_found_told_and_sent_away_wherever_it_is() {
    let cluster = Cluster::of(2).await;
    let mut agent = cluster.nodes[1].agent().await;
    cluster.lists([&agent]).await;
    let path = format!("/api/v1/agents/{}", agent.did());
    for node in &cluster.nodes {
        let found = ask(node, "GET", &path, None).await;
        assert_eq!(found.status, 200, "{found:?}");
        let body = found.body;
        assert_eq!((&body["node"], &body["present"]), (&json!("node-1"), &json!(true)));
        assert_eq!(body["did"], agent.did());
    }
    let message = json!({ "type": "INTENT", "payload": { "task": "pause" } });
    let sent = ask(&cluster.nodes[0], "POST", &format!("{path}/messages"), Some(&message)).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    assert!(agent.text().await.contains("pause"));
    let farewell = json!({ "reason": "maintenance" });
    let away = format!("{path}/disconnect");
    let ended = ask(&cluster.nodes[0], "POST", &away, Some(&farewell)).await;
    assert_eq!((ended.status, &ended.body["node"]), (200, &json!("node-1")), "{ended:?}");
    let (code, reason) = agent.close().await;
    assert_eq!((code, reason.as_str()), (CloseReason::Removed.code(), "maintenance"));
    cluster.lists(&[]).await;
    // Its node takes it out of the directory a moment later.
    eventually("nobody to be sent away", async || {
        ask(&cluster.nodes[0], "POST", &away, Some(&farewell)).await.status == 404
    })
    .await;
    let nobody = Identity::generate();
    let path = format!("/api/v1/agents/{}", nobody.did());
    assert_eq!(ask(&cluster.nodes[0], "GET", &path, None).await.status, 404);
}
