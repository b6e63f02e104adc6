//! The load generator, `conexus load`: what it is told, and what it found.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::Value;

use super::server::{Killed, Server};

/// How long a run may take beyond what it was told: to connect and register everybody.
const PATIENCE: Duration = Duration::from_secs(120);

/// A load: a mode of the generator, and its options.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    mode: &'static str,
    options: Vec<String>,
}

impl Load {
    pub(crate) fn new(mode: &'static str) -> Self {
        Self { mode, options: Vec::new() }
    }

    pub(crate) fn with(mut self, option: &str, value: impl ToString) -> Self {
        self.options.extend([format!("--{option}"), value.to_string()]);
        self
    }

    pub(crate) fn flag(mut self, option: &str) -> Self {
        self.options.push(format!("--{option}"));
        self
    }

    /// Puts it on a server, to the end.
    pub(crate) fn run(&self, server: &Server) -> Report {
        self.run_on(&[server])
    }

    /// Puts it on the nodes of a cluster, to which its agents go in turn.
    pub(crate) fn run_on(&self, nodes: &[&Server]) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let mut generator = self.start(nodes, &path);
        let deadline = Instant::now() + PATIENCE + self.time();
        let status = loop {
            if let Some(status) = generator.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{self:?} does not end");
            thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{self:?}: {status}");
        let report = fs::read(&path).unwrap();
        let report: Report = serde_json::from_slice(&report)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&report)));
        if counts(&report.errors) {
            let (name, errors) = (&nodes[0].name, &report.errors);
            eprintln!("errors at {name}, whose figures may mean nothing: {errors}");
        }
        report
    }

    /// Puts it on a server or the nodes of a cluster, until it is dropped.
    pub(crate) fn start(&self, nodes: &[&Server], report: &Path) -> Killed {
        let first = nodes[0];
        let mut command = Command::new(env!("CARGO_BIN_EXE_conexus"));
        command
            .args(["load", self.mode, &first.url, "--quiet"])
            .args(nodes[1..].iter().flat_map(|node| ["--node", &node.url]))
            .args(first.authority().iter().flat_map(|path| [Path::new("--ca"), path]))
            .args(nodes.iter().flat_map(|node| ["--pid".to_owned(), node.id().to_string()]))
            .args(&self.options)
            .arg("--json")
            .arg(report)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Killed(command.spawn().unwrap())
    }

    /// What it was told to take.
    fn time(&self) -> Duration {
        let told = |option: &str| -> Option<f64> {
            let at = self.options.iter().position(|it| it == option)?;
            self.options.get(at + 1)?.parse().ok()
        };
        let seconds =
            ["--seconds", "--warmup", "--settle"].into_iter().filter_map(told).sum::<f64>();
        Duration::from_secs_f64(seconds)
    }
}

/// What the generator found.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    #[serde(default)]
    pub(crate) per_second: f64,
    pub(crate) latency_us: Option<Latency>,
    /// What went wrong, by kind.
    errors: Value,
    server: Option<Usage>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// What the server used meanwhile.
#[derive(Debug, Deserialize)]
struct Usage {
    cpu_us_per_message: Option<f64>,
    bytes_per_agent: Option<f64>,
    bytes_per_agent_after_message: Option<f64>,
    #[serde(default)]
    processes: Vec<One>,
}

/// One of several nodes.
#[derive(Debug, Deserialize)]
struct One {
    cpu_us_per_message: Option<f64>,
}

impl Report {
    /// CPU time of the server per message or registration, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.usage(|usage| usage.cpu_us_per_message)
    }

    /// The same of the node that has most of it.
    pub(crate) fn busiest(&self) -> f64 {
        let nodes = self.server.iter().flat_map(|server| &server.processes);
        nodes
            .filter_map(|node| node.cpu_us_per_message)
            .max_by(f64::total_cmp)
            .unwrap_or(self.cpu())
    }

    /// Memory of the server per agent that has said nothing since it registered, in KiB.
    pub(crate) fn idle(&self) -> f64 {
        self.usage(|usage| usage.bytes_per_agent) / 1024.0
    }

    /// The same after a message each.
    pub(crate) fn idle_after_message(&self) -> f64 {
        self.usage(|usage| usage.bytes_per_agent_after_message) / 1024.0
    }

    fn usage(&self, figure: impl Fn(&Usage) -> Option<f64>) -> f64 {
        self.server.as_ref().and_then(figure).expect("the generator watched the server")
    }

    pub(crate) fn latency(&self) -> &Latency {
        self.latency_us.as_ref().expect("latencies of that mode")
    }
}

/// Whether there is a count above 0 in it.
fn counts(errors: &Value) -> bool {
    match errors {
        Value::Number(count) => count.as_u64() != Some(0),
        Value::Object(kinds) => kinds.values().any(counts),
        _ => false,
    }
}
