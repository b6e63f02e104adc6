//! A running gateway and its operator: reload, rollback, status, by command, signal and request.

use serde_json::Value;
use tokio::net::TcpListener;

use super::{failed, printed, says};
use crate::support::{
    http,
    process::{Process, conexus, folder_with, post, write},
    soon,
};

const CONFIG: &str = r#"
[policy]
watch = false

[hook.a]
use = "script:a"

[[chain.on_route]]
hook = "a"
"#;

const SCRIPT: &str = "fn on_route(event) { deny(\"denied\", \"one\") }\n";
const OTHER: &str = "fn on_route(event) { deny(\"denied\", \"two\") }\n";
const BROKEN: &str = "fn on_route(event) {\n    deny(\n}\n";

/// What the gateway says about a message now.
async fn judged(gateway: &Process) -> String {
    let mut agent = gateway.agent().await;
    agent.send_offer(&agent.did(), "x").await;
    agent.refusal_and_words().await.1
}

#[tokio::test]
async fn commands_reload_roll_back_and_show_what_runs() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT)]);
    let script = folder.path().join("scripts/a.rhai");
    let gateway = Process::start(folder.path(), &[]).await;
    let url = format!("http://{}", gateway.admin);
    let admin = ["--admin", &url];
    let nothing = failed(folder.path(), &[&["rollback"][..], &admin].concat()).await;
    says(&nothing.out, &["refused, nothing has changed", "no former generation"]);
    assert_eq!(judged(&gateway).await, "one");

    write(&script, OTHER);
    let said = printed(folder.path(), &[&["reload"][..], &admin].concat()).await;
    assert_eq!(said, "generation 2 runs\n");
    assert_eq!(judged(&gateway).await, "two");

    write(&script, BROKEN);
    let refused = failed(folder.path(), &[&["reload"][..], &admin].concat()).await;
    says(&refused.out, &["refused, nothing has changed\n", "hook.a: a.rhai:3:1"]);
    let json = failed(folder.path(), &[&["reload", "--json"][..], &admin].concat()).await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    says(&json["reasons"].to_string(), &["a.rhai:3:1"]);
    assert_eq!(judged(&gateway).await, "two");

    let table = printed(folder.path(), &[&["hooks"][..], &admin].concat()).await;
    says(
        &table,
        &[
            "generation 2 since ",
            "former generation 1 since ",
            "last candidate refused ",
            "a.rhai:3:1",
        ],
    );
    let row = table.lines().find(|line| line.starts_with("on_route")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[..7], ["on_route", "a", "script:a", "enforce", "closed", "2", "deny:2"]);

    let said = printed(folder.path(), &[&["rollback"][..], &admin].concat()).await;
    assert_eq!(said, "generation 1 runs\n");
    assert_eq!(judged(&gateway).await, "one");
    let json = printed(folder.path(), &[&["hooks", "--json"][..], &admin].concat()).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["generation"]["number"], &json["former"]["number"]), (&1.into(), &2.into()));
    assert_eq!(json["chains"]["on_route"][0]["counts"]["verdicts"]["deny"], 2);
}

#[tokio::test]
async fn settings_that_a_reload_does_not_take_over_are_named() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let changed = "[limits]\nconnections = 77\n[scripts]\nmax_operations = 5000\n";
    let changed =
        CONFIG.replace("watch = false", "budget = \"70ms\"\nblocking_threads = 3") + changed;
    write(&folder.path().join("gateway.toml"), &changed);
    let (status, reloaded) = gateway.post("/api/v1/reload").await;
    assert_eq!(status, 200, "{reloaded}");
    let mut named: Vec<_> = reloaded["needs_restart"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap())
        .collect();
    named.sort_unstable();
    assert_eq!(named, ["limits.connections", "policy.blocking_threads", "policy.watch"]);
    assert_eq!(gateway.hooks().await["chains"]["on_route"][0]["budget_ms"], 70);
}

#[tokio::test]
async fn sighup_reloads_and_what_is_faulty_changes_nothing() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT)]);
    let script = folder.path().join("scripts/a.rhai");
    let gateway = Process::start(folder.path(), &[]).await;
    write(&script, BROKEN);
    gateway.signal("HUP").await;
    says(&gateway.logged("not reloaded, the old generation runs on").await, &["a.rhai:3:1"]);
    assert_eq!(judged(&gateway).await, "one");
    write(&script, OTHER);
    gateway.signal("HUP").await;
    gateway.logged("hooks reloaded").await;
    assert_eq!(judged(&gateway).await, "two");
    assert!(gateway.stop().await.success());
}

#[tokio::test]
async fn the_admin_listener_refuses_web_pages_and_what_it_does_not_know() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/a.rhai", SCRIPT)]);
    let gateway = Process::start(folder.path(), &[]).await;
    let admin = gateway.admin;
    let own = admin.to_string();
    for headers in [
        &[("Host", "evil.example")][..],
        &[("Host", &*own), ("Origin", "http://evil.example")],
        &[("Host", &*own), ("Origin", "null")],
        &[("Host", "127.0.0.1.evil.example:9100")],
        &[],
    ] {
        let (status, said) = post(admin, "/api/v1/reload", headers).await;
        // Without a Host it is not even HTTP/1.1.
        assert!(
            status == 403 || (headers.is_empty() && status == 400),
            "{headers:?}: {status} {said}"
        );
    }
    assert_eq!(gateway.generation().await, 1);
    assert_eq!(gateway.post("/api/v1/nothing").await.0, 404);
    assert_eq!(http::get(admin, "/nothing", &[]).await.0, 404);
    assert_eq!(http::get(admin, "/api/v1/reload", &[]).await.0, 405);
    assert_eq!(gateway.post("/api/v1/hooks").await.0, 405);
    let (status, said) = gateway.post("/api/v1/rollback").await;
    assert_eq!((status, said["error"].as_str()), (409, Some("refused, nothing has changed")));
    assert_eq!(gateway.post("/api/v1/reload").await.0, 200);
    // The public listener has none of it.
    assert_eq!(http::get(gateway.addr, "/api/v1/hooks", &[]).await.0, 404);
}

#[tokio::test]
async fn an_admin_port_that_is_taken_is_an_error_only_where_it_was_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = folder_with(&[]);
    let set = format!("admin.listen={address}");
    let ended = failed(folder.path(), &["--set", "server.listen=127.0.0.1:0", "--set", &set]).await;
    says(&ended.err, &[&format!("cannot listen on {address} (admin.listen)"), "in use"]);

    // Another test's gateway may have the default port already, which is as well.
    let _default = TcpListener::bind("127.0.0.1:9100").await;
    let mut child =
        conexus(folder.path(), &["--set", "server.listen=127.0.0.1:0"]).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stderr.take().unwrap()));
    let warning = soon("a warning", async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it runs");
            if line.contains("no admin listener") {
                return line;
            }
        }
    })
    .await;
    says(&warning, &["127.0.0.1:9100", "admin.listen"]);
    let mut out =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    let line = soon("the start", out.next_line()).await.unwrap().expect("it runs");
    says(&line, &["conexus listening on "]);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_an_error_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let folder = folder_with(&[]);
    for command in ["reload", "rollback", "hooks"] {
        let set = format!("admin.listen={address}");
        let ended = failed(folder.path(), &[command, "--set", &set]).await;
        says(&ended.err, &[&address]);
    }
}
