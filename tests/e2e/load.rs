//! `conexus load` against a gateway of its own: every mode counts what the gateway counts, and
//! whatever is wrong is said.

use std::{net::SocketAddr, path::Path, process::Output};

use conexus_protocol::Subprotocol;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::{
    http,
    process::{Ended, Process, conexus, folder_with, run},
    soon,
};

/// A gateway to load, and a folder for it.
struct Loaded {
    folder: TempDir,
    gateway: Process,
}

impl Loaded {
    async fn start(arguments: &[&str]) -> Self {
        let folder = folder_with(&[]);
        let gateway = Process::start(folder.path(), arguments).await;
        Self { folder, gateway }
    }

    fn url(&self) -> String {
        format!("ws://{}/ws", self.gateway.addr)
    }

    /// The arguments of a short run of that mode with its result as JSON.
    fn arguments(&self, options: &str) -> Vec<String> {
        let (mode, options) = options.split_once(' ').unwrap_or((options, ""));
        let (url, pid) = (self.url(), self.gateway.id());
        let mut line = format!("load {mode} {url} --pid {pid} --quiet --json - {options}");
        for (option, short) in [("--seconds", "0.5"), ("--warmup", "0.1"), ("--settle", "0")] {
            if !options.contains(option) {
                line.push_str(&format!(" {option} {short}"));
            }
        }
        line.split_ascii_whitespace().map(str::to_owned).collect()
    }

    async fn run(&self, options: &str) -> Value {
        let arguments = self.arguments(options);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = run(self.folder.path(), &arguments).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str(&ended.out).unwrap()
    }

    /// What the gateway counted: received, delivered, refused. Read once it balances.
    async fn counted(&self) -> (u64, u64, u64) {
        soon("the accounting to balance", async {
            loop {
                let messages = &health(self.gateway.addr).await["messages"];
                let count = |name: &str| messages[name].as_u64().unwrap();
                let (received, delivered) = (count("received"), count("delivered"));
                if received == delivered + count("refused") + count("held") {
                    return (received, delivered, count("refused"));
                }
            }
        })
        .await
    }

    /// Waits until nobody is registered any more.
    async fn is_left(&self) {
        soon("all agents to leave", async {
            while health(self.gateway.addr).await["connected_agents"] != 0 {}
        })
        .await;
    }
}

async fn health(gateway: SocketAddr) -> Value {
    let (status, health) = http::get(gateway, "/health", &[]).await;
    assert_eq!(status, 200);
    health
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no count: {value}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[track_caller]
fn is_without_errors(result: &Value) {
    let none = serde_json::json!({"refused": {}, "connect": 0, "closed": 0, "examples": []});
    assert_eq!(result["errors"], none);
}

#[tokio::test]
async fn route_counts_what_the_gateway_counts() {
    let loaded = Loaded::start(&[]).await;
    let result = loaded.run("route --pairs 3 --window 4 --bytes 2000").await;
    is_without_errors(&result);
    let (messages, sent) = (count(&result["messages"]), count(&result["sent"]));
    assert!(0 < messages && messages <= sent, "{result}");
    assert_eq!(loaded.counted().await, (sent, sent, 0));
    assert_eq!(result["latency_us"]["count"], messages);
    let latency = ["p50", "p90", "p99", "p99_9", "max"].map(|it| number(&result["latency_us"][it]));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{result}");
    assert!(
        (number(&result["per_second"]) * number(&result["seconds"])).round() as u64 == messages
    );
    for (member, value) in [("mode", "route"), ("protocol", "ioap.v1.1"), ("url", &loaded.url())] {
        assert_eq!(result[member], value);
    }
    assert_eq!((count(&result["pairs"]), count(&result["window"])), (3, 4));
    assert_eq!((&result["bytes"], &result["signed"]), (&2000.into(), &true.into()));
    let server = &result["server"];
    assert_eq!(count(&server["pid"]), u64::from(loaded.gateway.id()));
    assert!(number(&server["cpu_us_per_message"]) > 0.0, "{server}");
    assert!(count(&server["rss_bytes"]) > 1024 * 1024, "{server}");
    loaded.is_left().await;
}

#[tokio::test]
async fn route_on_v1_asks_each_agent_once_whether_it_is_in() {
    let loaded = Loaded::start(&[]).await;
    let result = loaded.run("route --protocol v1 --pairs 2 --unsigned").await;
    is_without_errors(&result);
    assert_eq!(result["protocol"], Subprotocol::V1.as_str());
    assert_eq!(result["signed"], false);
    // A message of each agent to itself, the one that tried first included.
    let received = count(&result["sent"]) + 4 + 1;
    assert_eq!(loaded.counted().await, (received, received, 0));
}

#[tokio::test]
async fn registrations_on_v1_pass_where_signatures_are_required() {
    let loaded = Loaded::start(&["--set", "signatures.routed=required"]).await;
    let result = loaded.run("route --protocol v1 --pairs 1").await;
    is_without_errors(&result);
    let sent = count(&result["sent"]);
    assert_eq!(loaded.counted().await, (sent, sent, 0));
}

#[tokio::test]
async fn rate_sends_what_was_asked_for() {
    let loaded = Loaded::start(&[]).await;
    let result = loaded.run("rate --pairs 4 --rate 200 --warmup 0 --threads 1").await;
    is_without_errors(&result);
    let sent = count(&result["sent"]);
    // Of half a second; the last ones may be cut off.
    assert!((90..=100).contains(&sent), "{result}");
    assert_eq!(result["latency_us"]["count"], sent, "all of them are in the measured time");
    assert_eq!(result["lateness_us"]["count"], sent);
    assert_eq!(loaded.counted().await, (sent, sent, 0));
}

#[tokio::test]
async fn register_counts_registrations() {
    let loaded = Loaded::start(&[]).await;
    for protocol in ["v1", "v1.1"] {
        let options = format!("register --protocol {protocol} --concurrency 4 --agents 100");
        let result = loaded.run(&options).await;
        is_without_errors(&result);
        let messages = count(&result["messages"]);
        assert!(messages > 0, "{result}");
        for part in ["latency_us", "connect_us", "proof_us", "signing_us"] {
            assert_eq!(result[part]["count"], messages, "{part}");
        }
        loaded.is_left().await;
    }
}

#[tokio::test]
async fn idle_agents_stay_and_each_gets_its_message() {
    let loaded = Loaded::start(&["--set", "presence.timeout=1s"]).await;
    let result = loaded.run("idle --agents 20 --idle-message --seconds 1").await;
    is_without_errors(&result);
    assert_eq!((count(&result["agents"]), count(&result["messages"])), (20, 20));
    assert_eq!(loaded.counted().await, (20, 20, 0));
    let server = &result["server"];
    for member in ["rss_bytes_before", "rss_bytes", "rss_bytes_after_message"] {
        assert!(count(&server[member]) > 1024 * 1024, "{member}");
    }
    let grown = number(&server["rss_bytes"]) - number(&server["rss_bytes_before"]);
    assert!((number(&server["bytes_per_agent"]) - grown / 20.0).abs() < 1.0, "{server}");
    assert!(server["bytes_per_agent_after_message"].is_number(), "{server}");
}

#[tokio::test]
async fn fanin_counts_refusals_of_a_full_queue() {
    let loaded = Loaded::start(&["--set", "limits.outbox_messages=4"]).await;
    let result = loaded.run("fanin --agents 8 --window 16").await;
    let (sent, refused) = (count(&result["sent"]), &result["errors"]["refused"]);
    let refused = refused.get("queue_full").map_or(0, count);
    assert!(count(&result["messages"]) > 0, "{result}");
    assert_eq!(count(&result["agents"]), 9, "the receiver included");
    assert_eq!(loaded.counted().await, (sent, sent - refused, refused));
}

#[tokio::test]
async fn churn_leaves_nobody_behind() {
    let loaded = Loaded::start(&[]).await;
    let result = loaded.run("churn --agents 6").await;
    is_without_errors(&result);
    assert!(count(&result["messages"]) > 0, "{result}");
    assert!(count(&result["registrations"]) >= 2 * count(&result["messages"]), "{result}");
    let sent = count(&result["sent"]);
    assert_eq!(loaded.counted().await, (sent, sent, 0));
    loaded.is_left().await;
}

#[tokio::test]
async fn refusals_are_counted_by_their_reason() {
    let limit = ["--set", "limits.messages_per_second=5", "--set", "limits.rate_strikes=10000"];
    let loaded = Loaded::start(&limit).await;
    let result = loaded.run("rate --pairs 2 --rate 400").await;
    let refused = count(&result["errors"]["refused"]["rate_limited"]);
    let sent = count(&result["sent"]);
    assert!(0 < refused && refused < sent, "{result}");
    assert_eq!(loaded.counted().await, (sent, sent - refused, refused));
    let said = result["errors"]["examples"][0].as_str().unwrap();
    assert!(said.contains("CONNECTION_REFUSED (rate_limited)"), "{said}");
}

#[tokio::test]
async fn the_table_and_the_plot_are_for_people() {
    let loaded = Loaded::start(&[]).await;
    let url = loaded.url();
    let arguments = ["load", "route", &url, "--pairs", "1", "--seconds", "0.2", "--warmup", "0"];
    let files = ["--json", "result.json", "--svg", "plot.svg", "--sources", "2"];
    let Ended { code, out, err } =
        run(loaded.folder.path(), &[&arguments[..], &files].concat()).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("route on ioap.v1.1, 1 pair, window 1, 1500 bytes, signed\n"), "{out}");
    for row in ["messages ", "latency ", "errors          none", "generator cpu "] {
        assert!(out.contains(&format!("\n  {row}")), "{row:?} in {out}");
    }
    assert!(err.contains("pairs: 1 set up"), "{err}");
    let written = |name: &str| std::fs::read_to_string(loaded.folder.path().join(name)).unwrap();
    let result: Value = serde_json::from_str(&written("result.json")).unwrap();
    assert!(count(&result["messages"]) > 0 && result["server"].is_null());
    assert!(written("plot.svg").starts_with("<svg "));
}

/// Runs a long one, does something once it is under way, and takes its result.
async fn interrupted(loaded: &Loaded, options: &str, act: &str) -> Value {
    let arguments = loaded.arguments(options);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let child = conexus(loaded.folder.path(), &arguments).spawn().unwrap();
    let pid = child.id().unwrap();
    soon("messages to flow", async {
        while health(loaded.gateway.addr).await["messages"]["delivered"].as_u64() < Some(100) {}
    })
    .await;
    match act {
        "interrupt the load" => signal("INT", pid).await,
        "stop the gateway" => loaded.gateway.signal("TERM").await,
        other => panic!("{other}"),
    }
    let Output { status, stdout, stderr } =
        soon("the load to end", child.wait_with_output()).await.unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

async fn signal(name: &str, pid: u32) {
    let kill =
        tokio::process::Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
    assert!(soon("the signal to be sent", kill).await.unwrap().success());
}

#[tokio::test]
async fn an_interrupt_prints_the_result_so_far() {
    let loaded = Loaded::start(&[]).await;
    let options = "route --pairs 2 --warmup 0 --seconds 3600";
    let result = interrupted(&loaded, options, "interrupt the load").await;
    assert_eq!(result["interrupted"], true);
    is_without_errors(&result);
    assert!(count(&result["messages"]) > 0 && number(&result["seconds"]) < 3600.0, "{result}");
}

#[tokio::test]
async fn a_gateway_that_stops_ends_the_run_and_its_reason_is_told() {
    let loaded = Loaded::start(&[]).await;
    let options = "route --pairs 2 --warmup 0 --seconds 3600";
    let result = interrupted(&loaded, options, "stop the gateway").await;
    assert_eq!(count(&result["errors"]["closed"]), 2, "{result}");
    let said = result["errors"]["examples"].to_string();
    assert!(said.contains("the server closed the connection: 1012 reconnect_in="), "{said}");
}

async fn failed(folder: &Path, arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let ended = run(folder, &arguments).await;
    assert_eq!((ended.code, &*ended.out), (Some(1), ""), "{ended:?}");
    ended.err
}

#[tokio::test]
async fn what_is_wrong_is_said_before_anything_begins() {
    let loaded = Loaded::start(&[]).await;
    let folder = loaded.folder.path();
    let url = loaded.url();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    for (arguments, said) in [
        (format!("load route ws://{nobody}/ws"), format!("nobody answers at {nobody}")),
        (format!("load rate {url}"), "rate needs --rate".to_owned()),
        (
            format!("load idle {url} --pid 4294967295"),
            "there is no process 4294967295 to watch".to_owned(),
        ),
        (
            format!("load route ws://{}/other", loaded.gateway.addr),
            "the server answered 404 to the upgrade".to_owned(),
        ),
        (
            format!("load route {url} --audience ws://elsewhere/ws"),
            "the server refused a registration: INVALID_SIGNATURE".to_owned(),
        ),
    ] {
        let err = failed(folder, &arguments).await;
        assert!(err.starts_with("error: ") && err.contains(&said), "{arguments}: {err}");
    }
}

#[tokio::test]
async fn agents_beyond_the_limit_of_open_files_are_refused() {
    let loaded = Loaded::start(&[]).await;
    let line = format!("ulimit -n 100 && exec \"$0\" load idle {} --agents 100", loaded.url());
    let program = env!("CARGO_BIN_EXE_conexus");
    let shell = tokio::process::Command::new("sh").args(["-c", &line, program]).output();
    let Output { status, stderr, .. } = soon("the command to end", shell).await.unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("165 open files are needed and 100 allowed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_of_a_pair_are_on_different_nodes_and_each_node_is_reported() {
    // Nodes of no cluster, so that nothing arrives: the receivers are on the first, the senders on the second.
    let (first, second) = (Loaded::start(&[]).await, Loaded::start(&[]).await);
    let options = format!(
        "rate --rate 200 --pairs 4 --unsigned --node {} --pid {}",
        second.url(),
        second.gateway.id()
    );
    let report = first.run(&options).await;
    let sent = report["sent"].as_u64().unwrap();
    assert_eq!(report["errors"]["refused"]["unknown_agent"], sent, "{report}");
    assert_eq!(first.counted().await, (0, 0, 0));
    assert_eq!(second.counted().await, (sent, 0, sent));
    let processes = report["server"]["processes"].as_array().unwrap();
    let pids: Vec<_> = processes.iter().map(|process| process["pid"].as_u64()).collect();
    assert_eq!(pids, [&first, &second].map(|node| Some(u64::from(node.gateway.id()))));
    let cpu = |value: &Value| value["cpu_seconds"].as_f64().unwrap();
    let sum: f64 = processes.iter().map(cpu).sum();
    assert!((cpu(&report["server"]) - sum).abs() < 1e-6);
}
