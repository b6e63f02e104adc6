//! The runner of policy tests, and the tests of the stock scripts.

use std::{fs, path::Path};

use super::{Outcome, TestReport, files, run_tests};
use crate::{config::ScriptSettings, script::Scripts};

fn scripts(folder: &Path) -> Scripts {
    Scripts::new(&ScriptSettings { path: folder.to_owned(), ..ScriptSettings::default() })
}

fn run(policy: &str, tests: &str) -> Vec<TestReport> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.rhai"), policy).unwrap();
    fs::write(folder.path().join("p.test.rhai"), tests).unwrap();
    fs::write(folder.path().join("list.txt"), "alice\n").unwrap();
    run_tests(&scripts(folder.path()), &folder.path().join("p.test.rhai"))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn failures(reports: &[TestReport]) -> Vec<(&str, &str)> {
    let failed = |report: &TestReport| matches!(report.outcome, Outcome::Failed(_));
    reports
        .iter()
        .filter(|report| failed(report))
        .map(|report| match &report.outcome {
            Outcome::Failed(text) => (report.name.as_str(), text.as_str()),
            Outcome::Passed => unreachable!(),
        })
        .collect()
}

const POLICY: &str = r#"
fn limit() { config.most }
fn on_route(e) {
    if !rate_limit(e.from.did, limit(), "1s") { return deny("rate_limited", "slow down"); }
    conn_set("sent", (conn_get("sent") ?? 0) + 1);
    if e.payload.n == 13 { throw "unlucky"; }
    if e.payload.n == 14 { return 14; }
    if e.target == () { return hold("5s"); }
    if e.payload.copy != () { return [copy(e.payload.copy), allow()]; }
}
fn on_register(e) {
    log("warn", "hello " + e.agent.name);
    metric("registered");
    send(e.agent.did, "ERROR", #{ code: "x" });
    disconnect(e.agent.did, "bye");
    set(#{ labels: #{ at: `${now()}` }, rate_class: "slow" })
}
fn on_expire(e) { if e.silent > 60 { extend("1m") } }
fn on_connect(e) { if !cidr(e.ip, "10.0.0.0/8") || e.header("origin") != "x" { deny() } }
fn on_tick() { kv_set("ticked", true); }
"#;

#[test]
fn tests_see_what_their_policy_answers_and_does() {
    let tests = r#"
        const TEST_CONFIG = #{ most: 2 };
        fn offer(from, n) { route_event(#{ from: from, payload: #{ n: n } }) }
        fn test_rates() {
            let a = test_agent();
            assert(continues(on_route(offer(a, 1))));
            assert(continues(on_route(offer(a, 1))));
            let verdict = on_route(offer(a, 1));
            assert_eq(verdict.verdict, "deny");
            assert_eq(verdict.code, "rate_limited");
            assert_eq(verdict.reason, "slow down");
            assert_eq(verdict, deny("rate_limited", "slow down"));
            advance("1s");
            assert(continues(on_route(offer(a, 1))));
            assert(continues(on_route(offer(test_agent(), 1))));
        }
        fn test_state_is_fresh() { assert_eq(on_route(offer(test_agent(#{ did: test_did() }), 1)), ()); }
        fn test_several_verdicts() {
            let to = test_did();
            let verdicts = on_route(route_event(#{ payload: #{ copy: to } }));
            assert_eq(verdicts.len(), 2);
            assert_eq(verdicts[0].did, to);
            assert_eq(on_route(route_event(#{ present: false })).seconds, 5.0);
            let known = test_agent();
            assert_eq(on_route(route_event(#{ to: known.did })).verdict, "hold");
            add_agent(known);
            assert_eq(on_route(route_event(#{ to: known.did })), ());
        }
        fn test_what_was_done() {
            set_now("2030-01-01T00:00:00Z");
            let a = test_agent(#{ name: "A" });
            add_agent(a);
            let verdict = on_register(register_event(a));
            assert_eq(verdict.labels.at, "1893456000");
            assert_eq(verdict.rate_class, "slow");
            assert_eq(sent(), [#{ did: a.did, type: "ERROR", payload: #{ code: "x" } }]);
            assert_eq(disconnected(), [#{ did: a.did, reason: "bye" }]);
            assert_eq(metrics(), #{ registered: 1 });
            assert_eq(logged(), [#{ level: "warn", text: "hello A" }]);
            on_tick();
            assert_eq(kv_get("ticked"), true);
        }
        fn test_other_points() {
            assert_eq(on_expire(expire_event(#{ silent: "2m" })).seconds, 60.0);
            assert_eq(on_expire(expire_event(#{ silent: 5 })), ());
            let from = |ip| connect_event(#{ ip: ip, headers: #{ Origin: "x" } });
            assert_eq(on_connect(from.call("10.0.0.1")), ());
            assert_eq(on_connect(from.call("11.0.0.1")).verdict, "deny");
        }
        fn test_configuration_can_be_changed() {
            set_config(#{ most: 1 });
            let a = test_agent();
            on_route(offer(a, 1));
            assert_eq(on_route(offer(a, 1)).verdict, "deny");
            assert_eq(limit(), 1);
        }
        fn test_throwing() {
            assert_eq(throws(|| on_route(route_event(#{ payload: #{ n: 13 } }))), "unlucky");
            assert_eq(throws(|| 1), ());
        }
    "#;
    let reports = run(POLICY, tests);
    assert_eq!(failures(&reports), []);
    assert_eq!(reports.len(), 7);
    assert_eq!(reports[3].name, "test_what_was_done");
    assert_eq!(reports[3].log, ["warn: hello A"]);
}

#[test]
fn a_test_that_fails_says_where_and_why() {
    let tests = "const TEST_CONFIG = #{ most: 2 };
fn test_1() { assert(1 > 2); }
fn test_2() { assert(1 > 2, \"why\"); }
fn test_3() { assert_eq(1, \"x\"); }
fn test_4() { on_route(route_event(#{ payload: #{ n: 13 } })); }
fn test_5() { on_route(route_event(#{ payload: #{ n: 14 } })); }
fn test_6() { route_event(#{ form: 1 }); }
fn test_7() { on_route(register_event()); }
fn test_8() { loop { } }
fn test_9() { nothing_such(1); }";
    let reports = run(POLICY, tests);
    let expected = [
        "p.test.rhai:2:15: assert: it is false",
        "p.test.rhai:3:15: why",
        "p.test.rhai:4:15: assert_eq: 1 is not \"x\"",
        "p.rhai:6:28: unlucky, in on_route (p.rhai:6:28), in test_4 (p.test.rhai:5:15)",
        "p.rhai:3:16: on_route returned a number, which is no verdict",
        "p.test.rhai:7:15: route_event does not know \"form\": from, to, present, type",
        "on_route is asked about an event of its own",
        "more than 1000000 operations",
        "p.test.rhai:10:15: Function not found: nothing_such",
    ];
    let failures = failures(&reports);
    assert_eq!(failures.len(), expected.len(), "{failures:?}");
    for ((_, text), expected) in failures.iter().zip(expected) {
        assert!(text.contains(expected), "{text}\nexpected {expected}");
    }
}

#[test]
fn tests_may_lie_in_the_script_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.rhai");
    let text = r#"
        const TEST_CONFIG = #{ name: "a", file: "list.txt" };
        const NAME = config.name;
        fn helper() { lines("file").len }
        fn on_route(e) { if e.to == NAME || helper() == 1 { allow() } }
        fn event() { route_event() }
        fn test_it() { assert_eq(on_route(event()).verdict, "allow"); assert_eq(NAME, "a"); }
        fn test_other() { set_config(#{ name: "b", file: "none.txt" }); }
    "#;
    fs::write(&path, text).unwrap();
    fs::write(folder.path().join("list.txt"), "alice\n").unwrap();
    let reports = run_tests(&scripts(folder.path()), &path).unwrap();
    let failures = failures(&reports);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].1.contains("none.txt"), "{failures:?}");
}

#[test]
fn every_stock_script_passes_its_tests() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts"));
    let scripts = scripts(folder);
    let mut tested = Vec::new();
    for file in files(folder).unwrap() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let reports = run_tests(&scripts, &file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(failures(&reports), [], "{name}");
        match name.strip_suffix(".test.rhai") {
            Some(name) => {
                assert!(reports.len() >= 2, "{name}");
                tested.push(name.to_owned());
            }
            None => {
                let beside = file.with_file_name(name.replace(".rhai", ".test.rhai"));
                assert!(beside.exists(), "{name} has no tests");
            }
        }
    }
    let stock = [
        "allowlist",
        "ban_on_abuse",
        "business_hours",
        "certificates",
        "denylist",
        "grace",
        "private_ip_guard",
        "rate_limit",
        "region_routing",
    ];
    assert_eq!(tested, stock);
}

#[test]
fn what_conexus_new_makes_passes_its_own_tests() {
    let policy = include_str!("../../cli/templates/script.rhai");
    let tests = include_str!("../../cli/templates/script.test.rhai");
    let reports = run(policy, tests);
    assert_eq!((failures(&reports), reports.len()), (vec![], 2));
}
