//! The node itself: its settings, its log, its end.

use super::*;
use crate::support::{http, scrape::Scrape};

#[tokio::test]
async fn settings_are_shown_with_their_origin_and_without_secrets() {
    let (desk, read, operate) = Desk::closed().await;
    let shown = desk.client().with(&read).get("/api/v1/config").await.is(200);
    assert_eq!(shown["policy.watch"]["value"], false);
    assert!(shown["policy.watch"]["origin"].as_str().unwrap().starts_with("gateway.toml:"));
    assert_eq!(shown["presence.timeout"], json!({ "value": "5m", "origin": "default" }));
    assert_eq!(shown["admin_token.ops.scope"]["value"], "operate");
    assert_eq!(shown["admin_token.ops.sha256"]["value"], "<secret>");
    assert_eq!(shown["chain.on_route"]["value"][0]["hook"], "a");
    assert!(!shown.to_string().contains("hunter2"));

    // What needs a restart is shown as it is in effect.
    let changed = CONFIG.replace("watch = false", "watch = true\nbudget = \"70ms\"");
    write(&desk.folder.path().join("gateway.toml"), &changed);
    desk.client().with(&operate).ask("POST", "/api/v1/reload", None).await.is(200);
    let shown = desk.client().with(&read).get("/api/v1/config").await.is(200);
    assert_eq!(shown["policy.watch"]["value"], false);
    assert_eq!(shown["policy.budget"]["value"], "70ms");
}

#[tokio::test]
async fn the_level_of_the_log_changes_at_run_time() {
    let desk = Desk::open().await;
    let client = desk.client();
    assert_eq!(client.get("/api/v1/log").await.is(200), json!({ "level": "info" }));
    for wrong in [json!({ "level": "inof" }), json!({ "level": "tungstenite::x=trace" })] {
        assert!(client.ask("PUT", "/api/v1/log", Some(&wrong)).await.fault(422).contains("level"));
    }
    let level = json!({ "level": "trace" });
    assert_eq!(client.ask("PUT", "/api/v1/log", Some(&level)).await.is(200), level);
    assert_eq!(client.get("/api/v1/log").await.is(200), level);
    let mut agent = desk.gateway.agent().await;
    let did = agent.did();
    agent.send_offer(&did, "secret words").await;
    agent.refusal().await;
    desk.gateway.logged("message refused").await;
    let quiet = json!({ "level": "off" });
    client.ask("PUT", "/api/v1/log", Some(&quiet)).await.is(200);
    assert!(!desk.gateway.log().iter().any(|line| line.contains("secret words")));
}

#[tokio::test]
async fn a_gateway_that_is_alone_is_its_only_node_and_names_no_cluster() {
    let desk = Desk::open().await;
    let answer = desk.client().get("/api/v1/nodes").await.is(200);
    assert_eq!(answer["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(answer["cluster"], json!(null));
    let admin = desk.gateway.admin.to_string();
    let table = run(desk.folder.path(), &["nodes", "--admin", &admin]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    assert!(table.out.starts_with("this gateway is alone"), "{table:?}");
    assert_eq!(table.out.lines().count(), 4, "{table:?}");
    let (_, health) = http::get(desk.gateway.addr, "/health", &[]).await;
    assert_eq!(health["cluster"], json!(null), "{health}");
    let (_, ready) = http::get(desk.gateway.addr, "/ready", &[]).await;
    assert_eq!(ready, json!({ "status": "ready" }));
    let scrape = Scrape::of(&desk.gateway).await;
    assert!(scrape.types.contains_key("conexus_cluster_joined"));
    // What hooks of the scope "cluster" ask for is counted all the same: it fails.
    let of_hooks = |name: &str| name.starts_with("conexus_cluster_state_");
    let mut names = scrape.samples().map(|sample| sample.name.as_str());
    let told = names.find(|name| name.starts_with("conexus_cluster_") && !of_hooks(name));
    assert_eq!(told, None);
}

#[tokio::test]
async fn a_drain_ends_the_gateway_as_sigterm_does_and_this_api_answers_meanwhile() {
    let desk = Desk::open().await;
    let client = desk.client();
    let node = client.get("/api/v1/nodes").await.is(200)["nodes"][0].clone();
    assert_eq!((&node["this"], &node["phase"]), (&json!(true), &json!("running")));
    assert!(node["did"].as_str().unwrap().starts_with("did:key:"));
    assert_eq!((&node["reachable"], &node["lease_left_ms"]), (&json!(true), &json!(null)));
    // Its socket is not read, so that the stop takes a while.
    let mut agent = desk.gateway.agent().await;
    let begun = client.ask("POST", "/api/v1/drain", None).await.is(202);
    assert!(begun["within_ms"].is_number());
    assert_eq!(agent.close().await.0, 1012);
    desk.gateway.logged("stopping, by the admin API").await;
    assert!(desk.gateway.ended().await.success());
}
