//! What it costs to be looked at: dashboards that are open, and a scraper.
//!
//! A dashboard is played by whoever takes its stream of events, since a browser would take more of
//! the machine than the gateway does. What the counting itself costs, which nobody can turn off, is
//! what another commit's binary (`--against`) shows.

use std::{
    net::{Shutdown, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use super::{
    super::{
        http::Client,
        load::{Load, Report},
        row::{Figures, Kind, Row, Target},
        server::{Config, Server, Subject},
        trial::Bench,
    },
    listing::crowd,
    routing::{PAIRS, bare, offers, paced},
};

/// What a dashboard listens to (`admin/dashboard/stream.js`).
const EVENTS: &str = "/events?topics=overview,session,flow,decision,audit,reload";

/// Far more often than scrapers are set to.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

const AGENTS: usize = 10_000;
const RATE: u64 = 2000;

/// CPU of a message with a dashboard and a scraper, beside the same gateway without its operator's
/// listener.
pub(super) fn cost(bench: &Bench) -> Vec<Row> {
    [1, 16].iter().map(|window| cost_at(bench, *window)).collect()
}

fn cost_at(bench: &Bench, window: usize) -> Row {
    let name = format!("an OFFER, one dashboard, 50 pairs, window {window}");
    let load = offers(bench, PAIRS, window).flag("unsigned");
    let unwatched = bench.gateways(&bare());
    let watched = bench.gateways(&Config { admin: true, ..bare() });
    let (mut figures, mut read) = (Figures::default(), 0);
    for round in 1..=bench.profile.rounds() {
        eprintln!("{name}: round {round} of {}", bench.profile.rounds());
        let server = Server::start(&watched[0]);
        let (report, bytes) = while_watched(server.admin(), 1, || load.run(&server));
        figures.gateway.push(report.cpu());
        read += bytes;
        figures.reference.push(load.run(&Server::start(&unwatched[0])).cpu());
        // Another one may know of no dashboard.
        if let Some(other) = unwatched.get(1) {
            figures.against.push(load.run(&Server::start(other)).cpu());
        }
    }
    assert!(read > 0, "nothing was told to the dashboard");
    Row::new(12, &name, "µs", Kind::Ratio, &figures).target(Target::at_most(1.05))
}

/// The latency of messages with three dashboards, beside none, on the same gateway.
pub(super) fn latency(bench: &Bench) -> Vec<Row> {
    let subject = &bench.gateways(&Config { admin: true, ..bare() })[0];
    let (quiet, watched) = beside_a_crowd(bench, subject);
    let agents = bench.profile.scaled(AGENTS);
    let row = |name: &str, figure: fn(&Report) -> f64| {
        let of = |reports: &[Report]| reports.iter().map(figure).collect();
        let figures = Figures { gateway: of(&watched), reference: of(&quiet), against: Vec::new() };
        Row::new(13, name, "µs", Kind::Ratio, &figures)
            .note(format!("{RATE} messages/s, {agents} agents"))
    };
    vec![
        row("p99 latency, three dashboards", |report| report.latency().p99),
        row("p50 latency, three dashboards", |report| report.latency().p50),
    ]
}

fn beside_a_crowd(bench: &Bench, subject: &Subject) -> (Vec<Report>, Vec<Report>) {
    let server = Server::start(subject);
    let _crowd = crowd(&server, bench.profile.scaled(AGENTS));
    let load: Load = paced(bench, RATE);
    let (mut quiet, mut watched) = (Vec::new(), Vec::new());
    for round in 1..=bench.profile.rounds() {
        eprintln!("dashboards: round {round} of {}", bench.profile.rounds());
        quiet.push(load.run(&server));
        watched.push(while_watched(server.admin(), 3, || load.run(&server)).0);
    }
    (quiet, watched)
}

/// Does something while dashboards are open and a scraper scrapes; also says how many bytes the
/// dashboards were told.
fn while_watched<T>(admin: SocketAddr, dashboards: usize, act: impl FnOnce() -> T) -> (T, u64) {
    let told = AtomicU64::new(0);
    let streams: Vec<_> = (0..dashboards).map(|_| Client::connect(admin)).collect();
    let shutters = Shut(streams.iter().map(Client::shutter).collect());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        for stream in streams {
            let told = &told;
            scope.spawn(move || {
                stream.follow(EVENTS, |bytes| {
                    told.fetch_add(bytes.len() as u64, Relaxed);
                });
            });
        }
        scope.spawn(move || {
            let mut scraper = Client::connect(admin);
            while stopped.recv_timeout(SCRAPE_EVERY)
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                scraper.get("/metrics");
            }
        });
        // In this order, also when it panics: the threads are waited for.
        let (_shutters, _stop) = (shutters, stop);
        (act(), told.load(Relaxed))
    })
}

/// Ends the streams, by a panic as well.
struct Shut(Vec<std::net::TcpStream>);

impl Drop for Shut {
    fn drop(&mut self) {
        for stream in &self.0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
