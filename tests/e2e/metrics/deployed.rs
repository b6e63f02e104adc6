//! `deploy/`: what is made for Prometheus and Grafana is right in itself, and asks for nothing that a
//! gateway does not serve.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use regex::Regex;
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::support::{
    process::{Process, folder_with},
    scrape::Scrape,
    soon,
};

pub(super) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn deployed(name: &str) -> PathBuf {
    repository().join("deploy").join(name)
}

/// What promtool says of its input, where it finds nothing wrong.
pub(crate) async fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("promtool ({error}); tests/run installs it, from Debian's package prometheus")
        });
    let mut stdin = child.stdin.take().unwrap();
    let (written, output) = soon("promtool", async {
        let write = async {
            let written = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            written
        };
        tokio::join!(write, child.wait_with_output())
    })
    .await;
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    written.unwrap();
    said
}

async fn accepts(arguments: &[&str], file: &str) {
    let path = deployed(file);
    promtool(&[arguments, &[path.to_str().unwrap()]].concat(), "").await;
}

#[tokio::test]
async fn promtool_takes_the_configuration_and_the_alerts_and_their_tests_pass() {
    // Not the files that it names: the token is the operator's.
    accepts(&["check", "config", "--syntax-only"], "prometheus/prometheus.yml").await;
    accepts(&["check", "rules"], "prometheus/alerts.yml").await;
    accepts(&["test", "rules"], "prometheus/alerts_test.yml").await;
}

/// Every series that a gateway serves; of histograms, those that are asked for.
async fn served() -> BTreeSet<String> {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let types = Scrape::of(&gateway).await.types;
    let series = types.into_iter().flat_map(|(name, kind)| match kind.as_str() {
        "histogram" => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).to_vec(),
        _ => vec![name],
    });
    series.collect()
}

/// The metrics of our own that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\b(?:conexus|process)_[a-z0-9_]+").unwrap();
    name.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

#[tokio::test]
async fn alerts_and_the_dashboard_ask_for_what_there_is() {
    let served = served().await;
    let alerts = fs::read_to_string(deployed("prometheus/alerts.yml")).unwrap();
    let expressions = expressions_of_rules(&alerts);
    assert!(expressions.len() > 10, "{expressions:#?}");
    let board = fs::read_to_string(deployed("grafana/conexus.json")).unwrap();
    let board: Value = serde_json::from_str(&board).unwrap();
    let mut asked = Vec::new();
    strings_at("expr", &board, &mut asked);
    strings_at("query", &board["templating"], &mut asked);
    assert!(asked.len() > 20, "{asked:#?}");
    for expression in expressions.into_iter().chain(asked) {
        for name in named(&expression) {
            assert!(served.contains(&name), "{name} in {expression}");
        }
    }
}

#[test]
fn alerts_name_pages_of_the_dashboard_that_there_are_and_say_what_to_do() {
    let app = repository().join("gateway-core/src/admin/dashboard/app.js");
    let app = fs::read_to_string(app).unwrap();
    let alerts = fs::read_to_string(deployed("prometheus/alerts.yml")).unwrap();
    let words: Vec<_> = alerts.split_whitespace().collect();
    let pages = Regex::new(r"page (\w+) of the dashboard").unwrap();
    let text = words.join(" ");
    assert!(pages.find_iter(&text).count() > 5);
    for page in pages.captures_iter(&text).map(|found| found[1].to_owned()) {
        assert!(app.contains(&format!("title: '{page}'")), "{page}");
    }
    let count = |what: &str| words.iter().filter(|word| **word == what).count();
    for every in ["expr:", "severity:", "summary:", "description:"] {
        assert_eq!(count(every), count("alert:"), "{every}");
    }
}

/// The texts behind `expr:`, be they in the same line or below it.
fn expressions_of_rules(rules: &str) -> Vec<String> {
    let mut expressions: Vec<String> = Vec::new();
    let mut inside = false;
    for line in rules.lines() {
        let text = line.trim();
        if let Some(expression) = text.strip_prefix("expr:") {
            expressions.push(expression.to_owned());
            inside = true;
        } else if text.starts_with("for:") || text.starts_with("labels:") {
            inside = false;
        } else if inside {
            expressions.last_mut().expect("one is begun").push_str(text);
        }
    }
    expressions
}

fn strings_at(key: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get(key).and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| strings_at(key, value, found));
        }
        Value::Array(elements) => elements.iter().for_each(|value| strings_at(key, value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_panel_of_the_dashboard_has_a_title_a_place_and_a_source() {
    let board = fs::read_to_string(deployed("grafana/conexus.json")).unwrap();
    let board: Value = serde_json::from_str(&board).unwrap();
    assert!(board["schemaVersion"].as_u64().unwrap() >= 39);
    let variables = board["templating"]["list"].as_array().unwrap();
    let names: Vec<_> =
        variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "node"]);
    let panels = board["panels"].as_array().unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = |member: &str| panel["gridPos"][member].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} lies over another panel");
            }
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title}");
            for target in targets {
                let expression = target["expr"].as_str().unwrap();
                assert!(expression.contains(r#"instance=~"$node""#), "{title}: {expression}");
            }
        }
    }
}
