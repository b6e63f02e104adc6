//! Latency at a rate that does not wait for anything to arrive.

use super::{
    super::{
        load::Report,
        options::Profile,
        relay::Mode,
        row::{Kind, Row, Target},
        spread::Spread,
        trial::{Bench, Trial},
    },
    routing::{bare, paced},
};

/// The rate that matters first, then what is tried where the machine cannot sustain it.
const RATES: [u64; 4] = [20_000, 15_000, 10_000, 5_000];

/// What of a rate has to arrive for it to be sustained.
const SUSTAINED: f64 = 0.98;

pub(super) fn measure(bench: &Bench) -> Vec<Row> {
    let mut rows = Vec::new();
    // A smoke test has no time for the rest.
    let rates = if bench.profile == Profile::Smoke { &RATES[3..] } else { &RATES[..] };
    for &rate in rates {
        let name = format!("p99 latency at {rate} messages/s");
        let trial = bench.compare(&name, &bare(), Mode::Plain, &paced(bench, rate));
        let p99 = trial.figures(|report| report.latency().p99);
        let row = Row::new(7, &name, "µs", Kind::Ratio, &p99);
        match shortfall(&trial, rate as f64) {
            None => {
                rows.push(row.target(Target::at_most(1.3)));
                break;
            }
            Some(shortfall) => rows.push(row.note(shortfall)),
        }
    }
    rows
}

/// Says what arrived, where that is not the rate.
fn shortfall(trial: &Trial, rate: f64) -> Option<String> {
    let arrived = |reports: &[Report]| Spread::of(reports.iter().map(|it| it.per_second)).median;
    let (gateway, relay) = (arrived(&trial.gateway), arrived(&trial.reference));
    (gateway.min(relay) < rate * SUSTAINED)
        .then(|| format!("not sustained: {gateway:.0}/s by the gateway, {relay:.0}/s by the relay"))
}
