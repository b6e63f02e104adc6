//! Hooks and the policy that they make up: verdicts, failures, the breaker, reloads.

use crate::{
    hooks::setup::probe_library,
    metrics::{overview, problem},
    support::{
        agent::Agent,
        process::{Process, folder_with, write},
        scrape::Scrape,
    },
};

const CONFIG: &str = r#"
[policy]
watch = false
breaker_errors = 3
budget = "5s"

[hook.moody]
use = "script:moody"
[hook.touchy]
use = "plugin:probe"
config = { act = "panic_over_messages" }

[[chain.on_route]]
hook = "moody"
[[chain.on_route]]
hook = "touchy"
"#;

const MOODY: &str = r#"
fn on_route(event) {
    metric("asked");
    let says = event.payload.sdp;
    if says == "no" { return deny("denied", "no"); }
    if says == "fail" { throw "in a bad mood"; }
}
"#;

async fn start(folder: &std::path::Path) -> Process {
    let probe = format!("plugins.probe.path={:?}", probe_library());
    Process::start(folder, &["--set", &probe]).await
}

/// Says something to itself: whether it is told so.
async fn says(agent: &mut Agent, what: &str) -> bool {
    let (_, sent) = agent.send_offer(&agent.did(), what).await;
    let text = agent.text().await;
    if text == sent {
        return true;
    }
    agent.read_refusal(&text);
    false
}

#[tokio::test]
async fn verdicts_failures_and_the_breaker_are_counted_by_hook() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/moody.rhai", MOODY)]);
    let gateway = start(folder.path()).await;
    let mut agent = gateway.agent().await;
    let began = overview(&gateway).await["at_ms"].as_i64().unwrap();
    assert!(says(&mut agent, "hello").await);
    for what in ["no", "no", "fail", "panic"] {
        assert!(!says(&mut agent, what).await, "{what}");
    }
    agent.ping().await;
    let scrape = Scrape::of(&gateway).await;
    let moody = [("hook", "moody"), ("point", "on_route"), ("generation", "1")];
    let touchy = [("hook", "touchy"), ("point", "on_route"), ("generation", "1")];
    let with = |of: [(&'static str, &'static str); 3], more| [of[0], of[1], of[2], more];
    let count = |name: &str, labels: &[(&str, &str)]| scrape.count(name, labels);
    let verdicts = "conexus_hook_verdicts_total";
    assert_eq!(count(verdicts, &with(moody, ("verdict", "deny"))), 2);
    assert_eq!(count(verdicts, &with(moody, ("verdict", "continue"))), 2);
    assert_eq!(count(verdicts, &with(touchy, ("verdict", "continue"))), 1);
    let faults = "conexus_hook_faults_total";
    assert_eq!(count(faults, &with(moody, ("kind", "error"))), 1);
    assert_eq!(count(faults, &with(touchy, ("kind", "panic"))), 1);
    assert_eq!(count("conexus_hook_duration_seconds_count", &moody), 5);
    assert_eq!(count("conexus_hook_metric", &[("hook", "moody"), ("name", "asked")]), 5);
    assert_eq!(count("conexus_hook_breaker_open", &[]), 0);
    let failing = problem(&gateway, "hook_failing").await;
    assert!(
        ["moody at on_route", "touchy at on_route"].map(Into::into).contains(&failing["subject"])
    );

    for _ in 0..2 {
        assert!(!says(&mut agent, "fail").await);
    }
    // It is not asked any more, and what it should decide is denied.
    assert!(!says(&mut agent, "hello").await);
    agent.ping().await;
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count("conexus_hook_breaker_open", &moody), 1);
    assert_eq!(scrape.count("conexus_hook_breaker_open", &touchy), 0);
    assert_eq!(scrape.count(faults, &with(moody, ("kind", "quarantined"))), 1);
    let quarantined = problem(&gateway, "hook_quarantined").await;
    assert_eq!(quarantined["subject"], "moody at on_route");
    assert_eq!(
        (&quarantined["severity"], &quarantined["link"]),
        (&"critical".into(), &"#/hooks".into())
    );
    let since = quarantined["since_ms"].as_i64().unwrap();
    assert!((began..=overview(&gateway).await["at_ms"].as_i64().unwrap()).contains(&since));
    let policy = [("reason", "policy_error")];
    assert_eq!(scrape.count("conexus_messages_refused_total", &policy), 5);
}

#[tokio::test]
async fn reloads_are_counted_and_a_refused_one_is_a_problem_until_the_next() {
    let folder = folder_with(&[("gateway.toml", CONFIG), ("scripts/moody.rhai", MOODY)]);
    let gateway = start(folder.path()).await;
    let count = async |result: &str| {
        let scrape = Scrape::of(&gateway).await;
        scrape.count("conexus_reloads_total", &[("result", result)])
    };
    let script = folder.path().join("scripts/moody.rhai");
    write(&script, &MOODY.replace("\"no\"", "\"nay\""));
    assert_eq!(gateway.post("/api/v1/reload").await.0, 200);
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count("conexus_generation", &[]), 2);
    assert_eq!(scrape.values_of("conexus_hook_breaker_open", "generation"), ["2"].into());
    assert_eq!(gateway.post("/api/v1/rollback").await.0, 200);

    let before = overview(&gateway).await["at_ms"].as_i64().unwrap();
    write(&script, "fn on_route(event) { deny( }");
    assert_eq!(gateway.post("/api/v1/reload").await.0, 409);
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count("conexus_reload_refused", &[]), 1);
    let refused = problem(&gateway, "reload_refused").await;
    assert_eq!(refused["subject"], "policy");
    assert!(refused["text"].as_str().unwrap().contains("moody.rhai:1:"), "{refused}");
    assert!(refused["since_ms"].as_i64().unwrap() >= before, "{refused}");
    let named =
        |scrape: &Scrape| scrape.count("conexus_problems", &[("kind", "reload_refused")]) == 1;
    Scrape::once(&gateway, "the problem to be counted", named).await;

    write(&script, MOODY);
    assert_eq!(gateway.post("/api/v1/reload").await.0, 200);
    assert_eq!(Scrape::of(&gateway).await.count("conexus_reload_refused", &[]), 0);
    assert_eq!(
        (count("done").await, count("refused").await, count("rolled_back").await),
        (2, 1, 1)
    );
    let gone =
        |scrape: &Scrape| scrape.count("conexus_problems", &[("kind", "reload_refused")]) == 0;
    Scrape::once(&gateway, "the problem to be gone", gone).await;
}
