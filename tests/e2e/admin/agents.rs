//! Agents: found, dismissed, banned and written to.

use conexus_protocol::{
    AgentToken, Draft, Envelope, ErrorCode, Metadata, Rules, Subprotocol, Timestamp,
};

use super::*;

#[tokio::test]
async fn agents_are_listed_found_and_shown() {
    let desk = Desk::open().await;
    let client = desk.client();
    let plain = desk.gateway.agent().await;
    let mut named = desk.gateway.connect(Subprotocol::V1_1, Identity::generate()).await;
    let metadata: Metadata =
        serde_json::from_value(json!({ "name": "Ada", "capabilities": ["sum"] })).unwrap();
    named.register_with(named.with_metadata(metadata)).await;

    let all = client.get("/api/v1/agents").await.is(200);
    assert_eq!((&all["count"], &all["next_cursor"]), (&json!(2), &Value::Null));
    for query in ["search=ada", "name=Ada", "capability=sum", "search=SUM"] {
        let found = client.get(&format!("/api/v1/agents?{query}")).await.is(200);
        assert_eq!(found["count"], 1, "{query}");
        assert_eq!(found["agents"][0]["did"], named.did(), "{query}");
    }
    assert_eq!(client.get("/api/v1/agents?search=nobody").await.is(200)["count"], 0);

    // A page at a time, each of them once.
    let first = client.get("/api/v1/agents?limit=1").await.is(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = client.get(&format!("/api/v1/agents?limit=1&cursor={cursor}")).await.is(200);
    assert_eq!(second["next_cursor"], Value::Null);
    let mut seen = [&first, &second].map(|page| page["agents"][0]["did"].as_str().unwrap());
    let (plain_did, named_did) = (plain.did(), named.did());
    let mut both = [&*plain_did, &*named_did];
    seen.sort_unstable();
    both.sort_unstable();
    assert_eq!(seen, both);

    let one = client.get(&format!("/api/v1/agents/{named_did}")).await.is(200);
    assert_eq!((&one["present"], &one["name"]), (&json!(true), &json!("Ada")));
    assert_eq!(one["capabilities"], json!(["sum"]));
    assert_eq!((&one["subprotocol"], &one["banned"]), (&json!("ioap.v1.1"), &Value::Null));
    for number in ["connected_at_ms", "lease_until_ms", "outbox_messages", "mailbox_messages"] {
        assert!(one[number].is_number(), "{number} of {one}");
    }
    let stranger = Identity::generate();
    client.get(&format!("/api/v1/agents/{}", stranger.did())).await.fault(404);
    for (path, about) in [
        ("/api/v1/agents?limit=0", "limit"),
        ("/api/v1/agents?limit=x", "limit"),
        ("/api/v1/agents?cursor=!", "cursor"),
        ("/api/v1/agents?nonsense=1", "nonsense"),
    ] {
        let fault = client.get(path).await.fault(400);
        assert!(fault.contains(about), "{path}: {fault}");
    }
    assert!(client.get("/api/v1/agents/nobody").await.fault(422).contains("did"));
}

#[tokio::test]
async fn a_dismissed_agent_is_told_why_and_may_come_back() {
    let (desk, _, operate) = Desk::closed().await;
    let client = desk.client().with(&operate);
    let mut agent = desk.gateway.agent().await;
    let path = format!("/api/v1/agents/{}/disconnect", agent.did());
    let unknown = json!({ "reason": "x", "nonsense": 1 });
    assert!(client.ask("POST", &path, Some(&unknown)).await.fault(422).contains("nonsense"));
    let reason = json!({ "reason": "maintenance" });
    client.ask("POST", &path, Some(&reason)).await.is(200);
    assert_eq!(agent.close().await, (4009, "maintenance".to_owned()));
    desk.gateway.logged("left: removed").await;
    // It is gone once its key is given up.
    let gone = loop {
        let answer = client.ask("POST", &path, None).await;
        if answer.status != 409 {
            break answer;
        }
    };
    gone.fault(404);
    let mut back = desk.gateway.agent_of(agent.identity).await;
    // Without a body there is a reason all the same.
    client.ask("POST", &path, None).await.is(200);
    assert_eq!(back.close().await, (4009, "removed by an operator".to_owned()));

    let trail = client.get("/api/v1/audit").await.is(200);
    let told: Vec<_> = trail["entries"].as_array().unwrap().iter().collect();
    let outcomes: Vec<_> = told.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes.first(), Some(&"done"));
    assert!(outcomes.contains(&"refused: no such agent is present"), "{outcomes:?}");
    let first = told.iter().find(|entry| entry["detail"] == "maintenance").unwrap();
    assert_eq!((&first["who"], &first["action"]), (&json!("ops"), &json!("disconnect")));
    assert_eq!(first["target"], back.did());
    assert!(first["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let line = desk.gateway.logged("conexus_gateway::audit").await;
    assert!(line.contains("admin request"), "{line}");
}

#[tokio::test]
async fn a_banned_agent_is_sent_away_and_refused_until_the_ban_is_lifted() {
    let (desk, _, operate) = Desk::closed().await;
    let client = desk.client().with(&operate);
    let mut agent = desk.gateway.agent().await;
    let did = agent.did();
    for (wrong, about) in [
        (json!({ "did": did, "seconds": 0 }), "seconds"),
        (json!({ "did": did, "seconds": "1" }), "seconds"),
        (json!({ "did": "did:web:x", "seconds": 1 }), "did"),
        (json!({ "did": did }), "seconds"),
    ] {
        let fault = client.ask("POST", "/api/v1/bans", Some(&wrong)).await.fault(422);
        assert!(fault.contains(about), "{fault}");
    }
    let ban = json!({ "did": did, "seconds": 3600, "reason": "spam" });
    let made = client.ask("POST", "/api/v1/bans", Some(&ban)).await.is(201);
    assert_eq!((&made["by"], &made["reason"]), (&json!("ops"), &json!("spam")));
    assert_eq!(agent.close().await, (4009, "spam".to_owned()));

    let mut again = desk.gateway.connect(Subprotocol::V1, agent.identity).await;
    let register = Draft::new(did.clone(), again.registration()).sign(&again.identity);
    again.send(register).await;
    let (refusal, words) = again.refusal_and_words().await;
    assert_eq!(refusal.code, ErrorCode::ConnectionRefused);
    assert_eq!((refusal.reason.as_deref(), &*words), (Some("denied"), "spam"));
    assert_eq!(again.close().await.0, 4007);

    let token = AgentToken::sign(
        &again.identity,
        &again.url,
        Timestamp::now(),
        std::time::Duration::from_secs(60),
    );
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    let (status, told) = crate::support::http::get(desk.gateway.addr, "/ice", &headers).await;
    assert_eq!((status, &told["error"]), (403, &json!("the agent is banned")));

    let bans = client.get("/api/v1/bans").await.is(200);
    assert_eq!(bans["bans"], json!([made]));
    let one = client.get(&format!("/api/v1/agents/{did}")).await.is(200);
    assert_eq!((&one["present"], &one["banned"]), (&json!(false), &made));
    let path = format!("/api/v1/bans/{did}");
    client.ask("DELETE", &path, None).await.is(204);
    client.ask("DELETE", &path, None).await.fault(404);
    desk.gateway.agent_of(again.identity).await;
}

#[tokio::test]
async fn a_ban_ends_by_itself() {
    let desk = Desk::open().await;
    let identity = Identity::generate();
    let did = identity.did().to_owned();
    let ban = json!({ "did": did, "seconds": 1 });
    let made = desk.client().ask("POST", "/api/v1/bans", Some(&ban)).await.is(201);
    assert_eq!(made["by"], "loopback");
    loop {
        let bans = desk.client().get("/api/v1/bans").await.is(200);
        if bans["bans"] == json!([]) {
            break;
        }
    }
    desk.gateway.agent_of(identity).await;
}

#[tokio::test]
async fn the_gateway_sends_agents_what_an_operator_says() {
    let desk = Desk::open().await;
    let mut agent = desk.gateway.agent().await;
    let path = format!("/api/v1/agents/{}/messages", agent.did());
    let message = json!({ "type": "INTENT", "payload": { "task": "pause" } });
    desk.client().ask("POST", &path, Some(&message)).await.is(202);
    let text = agent.text().await;
    let got = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
    assert_eq!(got.kind.as_str(), "INTENT");
    let gateway = conexus_protocol::AgentId::parse(&got.from).unwrap();
    got.verify(gateway.public_key()).unwrap();

    for wrong in [
        json!({ "type": "PRESENCE", "payload": {} }),
        json!({ "type": "INTENT", "payload": { "tusk": "x" } }),
        json!({ "type": "INTENT", "payload": [] }),
        json!({ "type": "INTENT", "payload": {}, "id": "1" }),
        json!({ "payload": {} }),
    ] {
        desk.client().ask("POST", &path, Some(&wrong)).await.fault(422);
    }
    let stranger = Identity::generate();
    let path = format!("/api/v1/agents/{}/messages", stranger.did());
    desk.client().ask("POST", &path, Some(&message)).await.fault(404);
    let trail = desk.client().get("/api/v1/audit").await.is(200);
    assert!(!trail.to_string().contains("pause"), "what was said is the agent's: {trail}");
}
