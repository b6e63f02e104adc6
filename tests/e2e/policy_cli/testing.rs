//! `conexus test`: policy tests, as an operator and a CI run them.

use std::fs;

use super::{failed, printed, says};
use crate::support::process::folder_with;

const POLICY: &str = r#"
fn on_route(event) {
    log(`from ${event.from.name}`);
    if event.from.name == "mallory" { deny("denied", "not you") }
}
fn test_in_the_script_itself() { assert_eq(on_route(route_event()), ()); }
"#;

const TESTS: &str = r#"
fn from(name) { route_event(#{ from: test_agent(#{ name: name }) }) }
fn test_mallory_is_denied() { assert_eq(on_route(from("mallory")).verdict, "deny"); }
fn test_alice_is_denied() {
    let verdict = on_route(from("alice"));
    assert(verdict != (), "alice & <bob>");
}
"#;

#[tokio::test]
async fn all_tests_of_the_scripts_folder_run_and_each_failure_has_its_place() {
    let folder = folder_with(&[
        ("gateway.toml", "[scripts]\npath = \"policy\"\n"),
        ("policy/a.rhai", POLICY),
        ("policy/a.test.rhai", TESTS),
        ("policy/lib/x.rhai", "fn x() { 1 }\n"),
        ("policy/no_tests.rhai", "fn on_route(event) { }\n"),
    ]);
    let ended = failed(folder.path(), &["test", "--junit", "out.xml"]).await;
    says(
        &ended.out,
        &[
            "policy/a.rhai\n  ok      test_in_the_script_itself (",
            "policy/a.test.rhai\n  ok      test_mallory_is_denied (",
            "  FAILED  test_alice_is_denied (",
            "a.test.rhai:6:",
            "alice & <bob>",
            "log: info: from alice\n",
            "2 passed, 1 failed, in ",
        ],
    );
    assert!(!ended.out.contains("from mallory"), "only what failed shows its log");
    let xml = fs::read_to_string(folder.path().join("out.xml")).unwrap();
    says(
        &xml,
        &[
            "<testsuites name=\"conexus test\" tests=\"3\" skipped=\"0\" failures=\"1\" errors=\"0\"",
            "<testsuite name=\"policy/a.test.rhai\" tests=\"2\"",
            "<testcase name=\"test_alice_is_denied\" classname=\"policy/a.test.rhai\"",
            "alice &amp; &lt;bob&gt;",
        ],
    );

    let picked = ["test", "policy/a.rhai", "--filter", "mallory"];
    let shown = printed(folder.path(), &picked).await;
    says(&shown, &["test_mallory_is_denied", "1 passed, 0 failed"]);
    let shown = printed(folder.path(), &["test", "--filter", "a.rhai/"]).await;
    says(&shown, &["test_in_the_script_itself", "1 passed, 0 failed"]);
}

#[tokio::test]
async fn what_is_no_script_or_has_no_tests_is_a_failure() {
    let folder = folder_with(&[
        ("scripts/a.rhai", "fn on_route(event) { }\n"),
        ("other/b.rhai", "fn on_route(event) {\n  +\n}\n"),
    ]);
    let ended = failed(folder.path(), &["test"]).await;
    says(&ended.out, &["no test was found"]);
    let ended = failed(folder.path(), &["test", "other/b.rhai", "--junit", "out.xml"]).await;
    says(&ended.out, &["b.rhai:3:1", "0 passed, 1 failed"]);
    let xml = fs::read_to_string(folder.path().join("out.xml")).unwrap();
    says(&xml, &["errors=\"1\"", "b.rhai:3:1"]);
    let ended = failed(folder.path(), &["test", "gone.rhai"]).await;
    says(&ended.err, &["gone.rhai cannot be read"]);
    let ended = failed(folder.path(), &["test", "--set", "nonsense=1"]).await;
    says(&ended.err, &["nonsense"]);
}

#[tokio::test]
async fn the_stock_scripts_pass_their_tests() {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts");
    let folder = folder_with(&[]);
    let shown = printed(folder.path(), &["test", scripts]).await;
    says(&shown, &[" passed, 0 failed"]);
}
