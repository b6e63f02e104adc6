//! What messages feel of `/agents` being read over and over, page by page.
//!
//! Both sides are the same gateway with the same crowd, so the reference is the quiet one.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    super::{
        http::Client,
        load::{Load, Report},
        row::{Figures, Kind, Row, Target},
        server::{Killed, Server, Subject},
        trial::Bench,
    },
    routing::{bare, paced},
};

const AGENTS: usize = 10_000;
const RATE: u64 = 2000;
const PATIENCE: Duration = Duration::from_secs(120);

/// What the crowd is told to stay for: it ends with the case.
const LONG: u64 = 3600;

pub(super) fn measure(bench: &Bench) -> Vec<Row> {
    let trials: Vec<_> = bench.gateways(&bare()).iter().map(|it| gateway(bench, it)).collect();
    let figures = |figure: fn(&Report) -> f64| {
        let of = |reports: &[Report]| -> Vec<_> {
            reports.iter().map(|report| figure(report) / 1000.0).collect()
        };
        let against = trials.get(1).map_or_else(Vec::new, |other| of(&other.listed));
        Figures { gateway: of(&trials[0].listed), reference: of(&trials[0].quiet), against }
    };
    let row = |name: &str, figure| Row::new(10, name, "ms", Kind::Difference, &figures(figure));
    let agents = bench.profile.scaled(AGENTS);
    let pages = trials[0].pages;
    let stall = row("worst latency while /agents is read", |report| report.latency().max);
    vec![
        stall
            .target(Target::at_most(5.0))
            .note(format!("{RATE} messages/s, {agents} agents, {pages:.0} pages/s of 1000")),
        row("p99 latency while /agents is read", |report| report.latency().p99),
    ]
}

#[derive(Default)]
struct Listing {
    quiet: Vec<Report>,
    listed: Vec<Report>,
    /// Read in a second.
    pages: f64,
}

fn gateway(bench: &Bench, gateway: &Subject) -> Listing {
    let server = Server::start(gateway);
    let _crowd = crowd(&server, bench.profile.scaled(AGENTS));
    let load = paced(bench, RATE);
    let mut listing = Listing::default();
    for round in 1..=bench.profile.rounds() {
        eprintln!("listing: round {round} of {}", bench.profile.rounds());
        listing.quiet.push(load.run(&server));
        let (report, pages) = while_listed(server.address, || load.run(&server));
        listing.listed.push(report);
        listing.pages = pages;
    }
    listing
}

/// Agents that stay, once all of them are there.
pub(super) fn crowd(server: &Server, agents: usize) -> Killed {
    staying(server, Load::new("idle").with("protocol", "v1"), agents)
}

/// The same, of agents that do what that load says.
pub(super) fn staying(server: &Server, load: Load, agents: usize) -> Killed {
    let load = load.with("agents", agents).with("settle", LONG).with("seconds", LONG);
    // Nobody reads what it finds.
    let crowd = load.start(&[server], "/dev/null".as_ref());
    let mut client = Client::connect(server.address);
    let deadline = Instant::now() + PATIENCE;
    let mut present = || {
        let health: Value = serde_json::from_str(&client.get("/health")).unwrap();
        health["connected_agents"].as_u64().unwrap()
    };
    while present() < agents as u64 {
        assert!(Instant::now() < deadline, "the crowd does not come");
        thread::sleep(Duration::from_millis(50));
    }
    crowd
}

/// Does something while a thread reads the list; also says how many pages a second it read.
fn while_listed<T>(address: SocketAddr, act: impl FnOnce() -> T) -> (T, f64) {
    let (over, pages) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| read_pages(address, &over, &pages));
        let over = OnDrop(&over);
        let began = Instant::now();
        let outcome = act();
        let rate = pages.load(Relaxed) as f64 / began.elapsed().as_secs_f64();
        drop(over);
        (outcome, rate)
    })
}

/// A panic, too, is to end the thread that is waited for.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn read_pages(address: SocketAddr, over: &AtomicBool, pages: &AtomicUsize) {
    let mut client = Client::connect(address);
    let mut cursor = String::new();
    while !over.load(Relaxed) {
        let page = client.get(&format!("/agents?limit=1000{cursor}"));
        // Not parsed as a whole: its reader shares the machine.
        let next = page.split(r#""next_cursor":""#).nth(1).and_then(|rest| rest.split('"').next());
        cursor = next.map_or_else(String::new, |next| format!("&cursor={next}"));
        pages.fetch_add(1, Relaxed);
    }
}
