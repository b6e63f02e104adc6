//! What messages feel of an agent that comes and goes while a thousand others watch it.
//!
//! Both sides have the same crowd and the same agent; only on one side does the crowd watch it.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use conexus_client::{Client as Agent, Identity};

use super::{
    super::{
        http::Client,
        load::{Load, Report},
        row::{Figures, Kind, Row, Target},
        server::{Config, Server, Subject},
        trial::Bench,
    },
    listing::staying,
    routing::{bare, paced},
};

const WATCHERS: usize = 1000;
const RATE: u64 = 2000;

/// It comes or goes so often.
const CHANGE_EVERY: Duration = Duration::from_millis(100);

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn measure(bench: &Bench) -> Vec<Row> {
    let subject = &bench.gateways(&Config { admin: true, ..bare() })[0];
    let watchers = bench.profile.scaled(WATCHERS);
    let (mut figures, mut told) = ((Figures::default(), Figures::default()), 0.0);
    for round in 1..=bench.profile.rounds() {
        eprintln!("presence: round {round} of {}", bench.profile.rounds());
        let (quiet, _) = beside_a_flapping_agent(bench, subject, watchers, false);
        let (watched, per_second) = beside_a_flapping_agent(bench, subject, watchers, true);
        figures.0.reference.push(quiet.latency().p99);
        figures.0.gateway.push(watched.latency().p99);
        figures.1.reference.push(quiet.latency().p50);
        figures.1.gateway.push(watched.latency().p50);
        told = per_second;
    }
    let row = |name: &str, figures: &Figures| Row::new(14, name, "µs", Kind::Ratio, figures);
    vec![
        row("p99 latency, an agent that flaps, watched", &figures.0)
            .target(Target::at_most(1.5))
            .note(format!("{RATE} messages/s, {watchers} watchers, {told:.0} PRESENCEs/s")),
        row("p50 latency, an agent that flaps, watched", &figures.1),
    ]
}

/// What messages fared, and how many PRESENCEs were told in a second.
fn beside_a_flapping_agent(
    bench: &Bench,
    subject: &Subject,
    watchers: usize,
    watched: bool,
) -> (Report, f64) {
    let server = Server::start(subject);
    let identity = Identity::generate();
    let crowd = Load::new("idle");
    let crowd = if watched { crowd.with("watch", identity.did()) } else { crowd };
    let _crowd = staying(&server, crowd, watchers);
    let mut metrics = Client::connect(server.admin());
    let deadline = Instant::now() + PATIENCE;
    while watched && metric(&mut metrics, "conexus_watches ") < watchers as f64 {
        assert!(Instant::now() < deadline, "the crowd does not watch");
        thread::sleep(Duration::from_millis(20));
    }
    let (stop, stopped) = channel::<()>();
    let url = format!("ws://{}/ws", server.address);
    thread::scope(|scope| {
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            while stopped.recv_timeout(CHANGE_EVERY) == Err(RecvTimeoutError::Timeout) {
                let connecting = Agent::builder(&*url, identity.clone()).connect();
                let agent = runtime.block_on(connecting).unwrap();
                thread::sleep(CHANGE_EVERY);
                runtime.block_on(agent.close());
            }
        });
        // A panic, too, is to end the thread that is waited for.
        let _stop: Sender<()> = stop;
        let (before, began) = (metric(&mut metrics, TOLD), Instant::now());
        let report = paced(bench, RATE).run(&server);
        let told = metric(&mut metrics, TOLD) - before;
        (report, told / began.elapsed().as_secs_f64())
    })
}

const TOLD: &str = "conexus_presence_told_total ";

fn metric(client: &mut Client, name: &str) -> f64 {
    let text = client.get("/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).expect("a metric")
}
