//! What it costs that two agents are on different nodes, and what a node costs Redis.
//!
//! All nodes are on this machine, as Redis and the load are: CPU per message is each process's own,
//! the other figures are what they leave each other.

mod hop;

use std::{thread, time::Duration};

use super::{
    super::{
        load::{Load, Report},
        redis::RedisServer,
        row::{Figures, Kind, Row, Target},
        server::{Config, Server},
        trial::Bench,
    },
    listing::staying,
    routing::{PAIRS, bare, offers, paced},
};

/// Messages a second at which latency is measured: far from what the machine can.
const RATE: u64 = 2000;

/// Agents of a node.
const FEW: usize = 100;
const MANY: usize = 10_000;

/// How long Redis' commands are counted: six renewals of each node.
const COUNTED: Duration = Duration::from_secs(10);

/// Nodes, and the Redis that they share.
struct Cluster {
    redis: RedisServer,
    nodes: Vec<Server>,
}

impl Cluster {
    fn start(bench: &Bench, nodes: usize) -> Self {
        let redis = RedisServer::start();
        let config = Config { redis: Some(redis.url()), ..bare() };
        let subject = &bench.gateways(&config)[0];
        Self { redis, nodes: (0..nodes).map(|_| Server::start(subject)).collect() }
    }

    fn nodes(&self) -> Vec<&Server> {
        self.nodes.iter().collect()
    }

    fn run(&self, load: &Load) -> Report {
        load.run_on(&self.nodes())
    }
}

/// CPU of a message between two nodes, both together, beside one that stays on a node of a cluster.
pub(super) fn cost(bench: &Bench) -> Vec<Row> {
    [1, 16].iter().map(|window| cost_at(bench, *window)).collect()
}

fn cost_at(bench: &Bench, window: usize) -> Row {
    let name = format!("an OFFER to another node, 50 pairs, window {window}");
    let load = offers(bench, PAIRS, window).flag("unsigned");
    let (mut figures, mut rates) = (Figures::default(), [0.0; 2]);
    for round in 1..=bench.profile.rounds() {
        eprintln!("{name}: round {round} of {}", bench.profile.rounds());
        let reports = [1, 2].map(|nodes| Cluster::start(bench, nodes).run(&load));
        rates = [0, 1].map(|nodes| reports[nodes].per_second);
        let [local, across] = reports.map(|report| report.cpu());
        figures.reference.push(local);
        figures.gateway.push(across);
    }
    let [local, across] = rates;
    Row::new(17, &name, "µs", Kind::Ratio, &figures)
        .target(Target::at_most(3.0))
        .note(format!("both nodes together; {across:.0}/s, {local:.0}/s on one node"))
}

/// What the way over Redis adds to a message's latency, beside a bare way over the same Redis.
pub(super) fn latency(bench: &Bench) -> Vec<Row> {
    let load = paced(bench, RATE);
    let (mut p99, mut p50, mut told) = (Figures::default(), Figures::default(), String::new());
    for round in 1..=bench.profile.rounds() {
        eprintln!("latency across nodes: round {round} of {}", bench.profile.rounds());
        let cluster = Cluster::start(bench, 2);
        let local = load.run(&cluster.nodes[0]);
        let across = cluster.run(&load);
        let (_, seconds) = bench.profile.seconds();
        let hop = hop::measure(&cluster.redis.url(), RATE, Duration::from_secs_f64(seconds));
        let [local, across] =
            [local, across].map(|report| [report.latency().p50, report.latency().p99]);
        p50.gateway.push(across[0] - local[0]);
        p50.reference.push(hop.p50);
        p99.gateway.push(across[1] - local[1]);
        p99.reference.push(hop.p99);
        told = format!(
            "{RATE} messages/s; in the last round p50 and p99 were {:.0} and {:.0} µs across nodes, {:.0} \
             and {:.0} on one",
            across[0], across[1], local[0], local[1]
        );
    }
    let row = |name: &str, figures| Row::new(18, name, "µs", Kind::Ratio, figures);
    vec![
        row("p99 latency that another node adds, beside a bare SPUBLISH", &p99)
            .target(Target::at_most(3.0))
            .note(told),
        row("p50 latency that another node adds, beside a bare SPUBLISH", &p50),
    ]
}

/// What more nodes can do: as they are on this machine, and as they would on one each.
pub(super) fn growth(bench: &Bench) -> Vec<Row> {
    let load = offers(bench, PAIRS, 16).flag("unsigned");
    let mut figures: [(Figures, Figures); 3] = Default::default();
    for round in 1..=bench.profile.rounds() {
        eprintln!("more nodes: round {round} of {}", bench.profile.rounds());
        for (nodes, (rates, cores)) in (1..).zip(&mut figures) {
            let report = Cluster::start(bench, nodes).run(&load);
            rates.gateway.push(report.per_second);
            cores.gateway.push(1e6 / report.busiest());
        }
    }
    let rows = (1..).zip(&figures).flat_map(|(nodes, (rates, cores))| {
        let nodes = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        let row = |what: &str, figures| {
            Row::new(19, &format!("{what}, {nodes}"), "/s", Kind::Absolute, figures)
        };
        [
            row("throughput on this machine", rates),
            row("messages for a core of the busiest node", cores),
        ]
    });
    rows.collect()
}

/// What three nodes ask of Redis while nobody comes or goes.
pub(super) fn leases(bench: &Bench) -> Vec<Row> {
    let mut figures = Figures::default();
    let mut told = Vec::new();
    for (agents, counted) in [(FEW, &mut figures.reference), (MANY, &mut figures.gateway)] {
        let agents = bench.profile.scaled(agents);
        eprintln!("leases: {agents} agents on each of three nodes");
        let cluster = Cluster::start(bench, 3);
        // One load for each, since each of its agents takes an open file.
        let idle = || Load::new("idle").with("protocol", "v1").with("sources", 4);
        let crowds = cluster.nodes.iter().map(|node| staying(node, idle(), agents));
        let _crowds: Vec<_> = crowds.collect();
        // What coming was still takes of Redis is not what is counted.
        thread::sleep(Duration::from_secs(2));
        cluster.redis.must(&["CONFIG", "RESETSTAT"]);
        thread::sleep(COUNTED);
        let stats = cluster.redis.must(&["INFO", "commandstats"]);
        let (calls, names) = commands(&stats);
        counted.push(calls as f64 / COUNTED.as_secs_f64());
        told.push(format!("{agents} agents on each: {}", names.join(", ")));
    }
    let name = "commands a second for three nodes, 10,000 agents each beside 100";
    vec![
        Row::new(20, name, "/s", Kind::Ratio, &figures)
            .target(Target::at_most(1.1))
            .note(format!("in {COUNTED:?}, by Redis' INFO; {}", told.join("; "))),
    ]
}

/// How many commands Redis was sent, and which it carried out: those that scripts call are in there, too.
fn commands(stats: &str) -> (u64, Vec<String>) {
    let sent = ["evalsha", "eval", "spublish", "ssubscribe", "ping", "info"];
    let mut all = 0;
    let mut names = Vec::new();
    for line in stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let Some((name, rest)) = line.split_once(":calls=") else { continue };
        let calls: u64 = rest.split(',').next().and_then(|calls| calls.parse().ok()).unwrap_or(0);
        names.push(format!("{name} {calls}"));
        if sent.contains(&name) {
            all += calls;
        }
    }
    (all, names)
}
