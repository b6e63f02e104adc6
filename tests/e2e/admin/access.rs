//! Who may ask for what: tokens, scopes, and pages of other sites.

use std::collections::BTreeSet;

use super::*;
use crate::support::{events::Events, soon};

/// Every route, by method and path.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/whoami"),
    ("GET", "/api/v1/agents"),
    ("GET", "/api/v1/agents/{did}"),
    ("POST", "/api/v1/agents/{did}/disconnect"),
    ("POST", "/api/v1/agents/{did}/messages"),
    ("GET", "/api/v1/bans"),
    ("POST", "/api/v1/bans"),
    ("DELETE", "/api/v1/bans/{did}"),
    ("GET", "/api/v1/hooks"),
    ("PUT", "/api/v1/hooks/{hook}/mode"),
    ("POST", "/api/v1/reload"),
    ("POST", "/api/v1/rollback"),
    ("GET", "/api/v1/decisions"),
    ("GET", "/api/v1/config"),
    ("GET", "/api/v1/log"),
    ("PUT", "/api/v1/log"),
    ("GET", "/api/v1/audit"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/overview"),
    ("GET", "/api/v1/history"),
    ("GET", "/metrics"),
    // The last, since it is the end.
    ("POST", "/api/v1/drain"),
];

/// Its answer has no end of its own.
const STREAM: (&str, &str) = ("GET", "/events");

fn operations(description: &Value) -> BTreeSet<(String, String)> {
    let paths = description["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        let methods =
            methods.filter(|method| ["get", "put", "post", "delete"].contains(&&***method));
        methods.map(move |method| (method.to_ascii_uppercase(), path.clone()))
    });
    operations.collect()
}

#[tokio::test]
async fn the_description_has_every_route_and_is_openapi() {
    let desk = Desk::open().await;
    let answer = desk.client().get("/api/v1/openapi.json").await;
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let described = answer.is(200);
    assert!(described["openapi"].as_str().unwrap().starts_with("3.1."));
    serde_json::from_value::<utoipa::openapi::OpenApi>(described.clone()).unwrap();
    let named = ROUTES
        .iter()
        .chain([&STREAM])
        .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()));
    assert_eq!(operations(&described), named.collect());

    // Everything that it refers to is in it.
    let text = described.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(described.pointer(pointer).is_some(), "{pointer}");
    }
    // The audit calls things by these.
    let ids: Vec<_> = text.split("\"operationId\":\"").skip(1).collect();
    let ids: BTreeSet<_> = ids.iter().map(|id| id.split('"').next().unwrap()).collect();
    assert_eq!(ids.len(), ROUTES.len() + 1);
}

#[tokio::test]
async fn every_route_asks_for_its_scope() {
    let (desk, read, operate) = Desk::closed().await;
    let client = desk.client();
    let did = Identity::generate().did().to_owned();
    let body = json!({});
    let wrong = format!("{}x", &operate[..operate.len() - 1]);
    for (method, path) in ROUTES {
        let path = path.replace("{did}", &did).replace("{hook}", "a");
        let body = (*method != "GET").then_some(&body);
        for asking in [client, client.with(&wrong), client.with("")] {
            let answer = asking.ask(method, &path, body).await;
            assert!(answer.head.contains("www-authenticate: bearer"), "{method} {path}");
            answer.fault(401);
        }
        let reading = client.with(&read).ask(method, &path, body).await;
        if *method == "GET" {
            assert!(matches!(reading.status, 200 | 404), "{method} {path}: {reading:?}");
        } else {
            assert_eq!(reading.fault(403), "the scope operate is needed");
        }
        let operating = client.with(&operate).ask(method, &path, body).await;
        assert!(
            matches!(operating.status, 200 | 202 | 404 | 409 | 422),
            "{method} {path}: {operating:?}"
        );
    }
    assert!(desk.gateway.ended().await.success());
}

#[tokio::test]
async fn who_asks_is_told_who_they_are() {
    let (desk, read, operate) = Desk::closed().await;
    for (token, who, scopes) in
        [(&read, "board", json!(["read"])), (&operate, "ops", json!(["read", "operate"]))]
    {
        let told = desk.client().with(token).get("/api/v1/whoami").await.is(200);
        assert_eq!(told, json!({ "name": who, "scopes": scopes, "tokens_required": true }));
    }
    let told = Desk::open().await.client().get("/api/v1/whoami").await.is(200);
    let all = json!(["read", "operate"]);
    assert_eq!(told, json!({ "name": null, "scopes": all, "tokens_required": false }));
}

#[tokio::test]
async fn pages_of_other_sites_are_refused_and_without_tokens_so_are_other_names() {
    let (closed, read, _) = Desk::closed().await;
    let open = Desk::open().await;
    for (desk, token) in [(&closed, Some(&read)), (&open, None)] {
        let own = desk.gateway.admin.to_string();
        let origin = format!("http://{own}");
        let asking = match token {
            Some(token) => desk.client().with(token),
            None => desk.client(),
        };
        let closed = token.is_some();
        for (headers, status) in [
            (&[("Origin", &*origin)][..], 200),
            (&[("Origin", &*origin), ("Sec-Fetch-Site", "same-origin")], 200),
            (&[("Sec-Fetch-Site", "none")], 200),
            (&[("Origin", "http://evil.example")], 403),
            (&[("Origin", "null")], 403),
            (&[("Sec-Fetch-Site", "cross-site")], 403),
            (&[("Host", "evil.example"), ("Origin", &*origin)], 403),
            (&[("Host", "gateway.example")], if closed { 200 } else { 403 }),
            // As a page would come whose name was pointed here.
            (
                &[("Host", "evil.example"), ("Origin", "http://evil.example")],
                if closed { 200 } else { 403 },
            ),
        ] {
            let answer = asking.saying(headers).get("/api/v1/nodes").await;
            assert_eq!(answer.status, status, "{headers:?}");
        }
    }
    let page = open.client().saying(&[("Origin", "null")]);
    page.ask("POST", "/api/v1/drain", None).await.fault(403);
    assert_eq!(open.client().get("/api/v1/nodes").await.is(200)["nodes"][0]["phase"], "running");
}

#[tokio::test]
async fn what_is_not_there_is_said_so_and_to_nobody_without_a_token() {
    let (desk, read, operate) = Desk::closed().await;
    let client = desk.client();
    client.get("/api/v1/nothing").await.fault(401);
    client.with(&read).get("/api/v1/nothing").await.fault(404);
    client.with(&operate).ask("POST", "/api/v1/nodes", None).await.fault(405);
    let large = json!({ "level": "x".repeat(70_000) });
    client.with(&operate).ask("PUT", "/api/v1/log", Some(&large)).await.fault(413);
}

#[tokio::test]
async fn attempts_without_a_token_are_logged_without_what_was_presented() {
    let (desk, ..) = Desk::closed().await;
    desk.client().with("cxa_stolen").ask("POST", "/api/v1/drain", None).await.fault(401);
    let line = desk.gateway.logged("admin request without a valid token").await;
    assert!(line.contains("127.0.0.1"), "{line}");
    assert!(!desk.gateway.log().iter().any(|line| line.contains("cxa_stolen")));
}

#[tokio::test]
async fn a_reload_takes_tokens_over() {
    let (desk, read, operate) = Desk::closed().await;
    let client = desk.client().with(&operate);
    let late = new_token(&desk.folder, "late", "read").await;
    std::fs::remove_file(desk.folder.path().join("conf.d/board.toml")).unwrap();
    client.ask("POST", "/api/v1/reload", None).await.is(200);
    desk.client().with(&read).get("/api/v1/nodes").await.fault(401);
    desk.client().with(&late).get("/api/v1/nodes").await.is(200);
}

#[tokio::test]
async fn beyond_loopback_there_must_be_a_token() {
    let folder = folder_with(&[]);
    let beyond = ["check", "--set", "admin.listen=0.0.0.0:9100"];
    let refused = run(folder.path(), &beyond).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let said = format!("{}{}", refused.out, refused.err);
    assert!(said.contains("admin.listen") && said.contains("[admin_token.NAME]"), "{said}");
    new_token(&folder, "ops", "operate").await;
    assert_eq!(run(folder.path(), &beyond).await.code, Some(0));
}

#[tokio::test]
async fn commands_present_a_token_from_a_file_or_the_environment() {
    let (desk, _, operate) = Desk::closed().await;
    let folder = desk.folder.path();
    write(&folder.join("token"), &format!("{operate}\n"));
    let admin = desk.gateway.admin.to_string();
    let refused = run(folder, &["reload", "--admin", &admin]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("401"), "{}", refused.err);
    let reloaded = run(folder, &["reload", "--admin", &admin, "--token-file", "token"]).await;
    assert_eq!(reloaded.out, "generation 2 runs\n", "{}", reloaded.err);
    let mut shown = crate::support::process::conexus(folder, &["hooks", "--admin", &admin]);
    let shown = shown.env("CONEXUS_ADMIN_TOKEN", &operate).output().await.unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("generation 2"), "{shown}");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked_and_no_other_does() {
    let (desk, read, operate) = Desk::closed().await;
    let open = async |token| {
        let token = format!("Authorization: Bearer {token}\r\n");
        Events::open_saying(desk.gateway.admin, "topics=reload", &token).await
    };
    let (mut revoked, mut other) = (open(&read).await, open(&operate).await);
    let client = desk.client().with(&operate);
    client.ask("POST", "/api/v1/reload", None).await.is(200);
    assert_eq!(revoked.next_of("reload").await["generation"], 2);
    std::fs::remove_file(desk.folder.path().join("conf.d/board.toml")).unwrap();
    client.ask("POST", "/api/v1/reload", None).await.is(200);
    // Nothing that happens later; the reload itself came before the end, or did not.
    let rest = revoked.next().await;
    assert!(rest.is_none() || revoked.next().await.is_none(), "{rest:?}");
    client.ask("POST", "/api/v1/reload", None).await.is(200);
    for generation in 2..5 {
        assert_eq!(other.next_of("reload").await["generation"], generation);
    }
}

#[tokio::test]
async fn a_stream_without_a_token_ends_once_there_is_one() {
    let desk = Desk::open().await;
    let mut events = Events::open(desk.gateway.admin, "topics=session").await;
    new_token(&desk.folder, "late", "read").await;
    desk.client().ask("POST", "/api/v1/reload", None).await.is(200);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn the_last_token_leaves_the_door_shut() {
    let (desk, _, operate) = Desk::closed().await;
    let tokens = desk.folder.path().join("conf.d");
    std::fs::remove_dir_all(&tokens).unwrap();
    desk.client().with(&operate).ask("POST", "/api/v1/reload", None).await.is(200);
    desk.gateway.logged("no [admin_token.NAME] is left").await;
    for client in [desk.client(), desk.client().with(&operate)] {
        client.get("/api/v1/nodes").await.fault(401);
        client.ask("POST", "/api/v1/drain", None).await.fault(401);
    }
    // What they are told does not depend on how they call it.
    desk.client().saying(&[("Host", "gateway.example")]).get("/api/v1/nodes").await.fault(401);
    let again = new_token(&desk.folder, "again", "read").await;
    desk.gateway.signal("HUP").await;
    desk.gateway.logged("generation=3").await;
    soon("the new token to count", async {
        while desk.client().with(&again).get("/api/v1/nodes").await.status != 200 {}
    })
    .await;
    desk.client().get("/api/v1/nodes").await.fault(401);
}
