//! Policy: modes that change at run time, and decisions that are worth seeing.

use super::*;

#[tokio::test]
async fn a_hook_is_put_into_another_mode_until_the_next_reload() {
    let desk = Desk::open().await;
    let client = desk.client();
    let mut agent = desk.gateway.agent().await;
    let did = agent.did();
    agent.send_offer(&did, "x").await;
    assert_eq!(agent.refusal_and_words().await.1, "not today");

    let path = "/api/v1/hooks/a/mode";
    let set = client.ask("PUT", path, Some(&json!({ "mode": "shadow" }))).await.is(200);
    assert_eq!(set["generation"], 2);
    assert!(set["note"].as_str().unwrap().contains("next reload"));
    let (_, text) = agent.send_offer(&did, "x").await;
    assert_eq!(agent.text().await, text);
    let hooks = client.get("/api/v1/hooks").await.is(200);
    let hook = &hooks["chains"]["on_route"][0];
    assert_eq!((&hook["mode"], &hook["counts"]["mismatches"]), (&json!("shadow"), &json!(1)));

    let at = json!({ "mode": "off", "point": "on_route" });
    assert_eq!(client.ask("PUT", path, Some(&at)).await.is(200)["generation"], 3);
    let hooks = client.get("/api/v1/hooks").await.is(200);
    let hook = &hooks["chains"]["on_route"][0];
    assert_eq!((&hook["hook"], &hook["mode"]), (&json!("a"), &json!("off")));
    assert_eq!(
        (&hook["configured_mode"], &hook["counts"]["calls"]),
        (&json!("enforce"), &json!(0))
    );
    let (_, text) = agent.send_offer(&did, "x").await;
    assert_eq!(agent.text().await, text);
    assert_eq!(client.ask("POST", "/api/v1/rollback", None).await.is(200)["generation"], 2);
    assert_eq!(client.ask("POST", "/api/v1/reload", None).await.is(200)["generation"], 4);
    let hooks = client.get("/api/v1/hooks").await.is(200);
    let hook = &hooks["chains"]["on_route"][0];
    assert_eq!((&hook["mode"], &hook["configured_mode"]), (&json!("enforce"), &Value::Null));

    for (path, body, status) in [
        ("/api/v1/hooks/b/mode", json!({ "mode": "off" }), 404),
        (path, json!({ "mode": "off", "point": "on_register" }), 404),
        (path, json!({ "mode": "off", "point": "on_nothing" }), 422),
        (path, json!({ "mode": "loud" }), 422),
        (path, json!({}), 422),
    ] {
        client.ask("PUT", path, Some(&body)).await.fault(status);
    }
}

#[tokio::test]
async fn decisions_that_are_worth_seeing_are_shown_newest_first() {
    let desk = Desk::open().await;
    let client = desk.client();
    let (mut a, b) = (desk.gateway.agent().await, desk.gateway.agent().await);
    a.send_offer(&b.did(), "secret words").await;
    a.refusal().await;
    client.ask("PUT", "/api/v1/hooks/a/mode", Some(&json!({ "mode": "shadow" }))).await.is(200);
    let (_, text) = a.send_offer(&a.did(), "x").await;
    assert_eq!(a.text().await, text);

    let told = client.get("/api/v1/decisions").await.is(200);
    assert_eq!(told["skipped"], 0);
    let decisions = told["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 2);
    let (late, early) = (&decisions[0], &decisions[1]);
    assert_eq!((&late["ruling"], &late["generation"]), (&json!("pass"), &json!(2)));
    assert_eq!(late["steps"][0]["mismatch"], true);
    assert_eq!((&early["agent"], &early["to"]), (&json!(a.did()), &json!(b.did())));
    assert_eq!((&early["type"], &early["point"]), (&json!("OFFER"), &json!("on_route")));
    assert_eq!(early["steps"][0]["said"], "deny(denied): not today");
    assert!(!told.to_string().contains("secret words"));

    let count = async |query: &str| {
        let told = client.get(&format!("/api/v1/decisions?{query}")).await.is(200);
        told["decisions"].as_array().unwrap().len()
    };
    assert_eq!(count(&format!("agent={}", b.did())).await, 1);
    assert_eq!(count(&format!("agent={}", a.did())).await, 2);
    assert_eq!(count("hook=a").await, 2);
    assert_eq!(count("hook=b").await, 0);
    assert_eq!(count("ruling=deny").await, 1);
    assert_eq!(count("point=on_register").await, 0);
    assert_eq!(count("limit=1").await, 1);
    client.get("/api/v1/decisions?agent=nobody").await.fault(400);
}
