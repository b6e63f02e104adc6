//! What a routed OFFER costs, and how many a second there are when nothing else holds them up.
//!
//! Unsigned where nobody looks at signatures: the generator shares the machine.

use super::super::{
    load::{Load, Report},
    relay::Mode,
    row::{Kind, Row, Target},
    server::Config,
    trial::Bench,
};

/// Bytes of an OFFER with a session description.
const BYTES: usize = 1500;
pub(super) const PAIRS: usize = 50;
const WINDOW: usize = 16;

/// Routing is all it does.
pub(super) fn bare() -> Config {
    Config { signatures: Some("off"), ..Config::default() }
}

/// Pairs that send OFFERs, each as soon as one of the last `window` has arrived.
pub(super) fn offers(bench: &Bench, pairs: usize, window: usize) -> Load {
    let load = Load::new("route").with("protocol", "v1").with("bytes", BYTES);
    bench.timed(load).with("pairs", bench.profile.scaled(pairs)).with("window", window)
}

/// The same at a rate of all together, whatever arrives.
pub(super) fn paced(bench: &Bench, rate: u64) -> Load {
    let load = Load::new("rate").with("protocol", "v1").with("bytes", BYTES).flag("unsigned");
    bench.timed(load).with("pairs", bench.profile.scaled(PAIRS)).with("rate", rate)
}

pub(super) fn one_by_one(bench: &Bench) -> Vec<Row> {
    let name = "an OFFER, 50 pairs, window 1";
    let load = offers(bench, PAIRS, 1).flag("unsigned");
    let trial = bench.compare(name, &bare(), Mode::Plain, &load);
    let row = Row::new(1, name, "µs", Kind::Ratio, &trial.figures(Report::cpu));
    vec![row.target(Target::at_most(1.25).beyond(1.0))]
}

pub(super) fn window(bench: &Bench) -> Vec<Row> {
    let name = "an OFFER, 50 pairs, window 16";
    let load = offers(bench, PAIRS, WINDOW).flag("unsigned");
    let trial = bench.compare(name, &bare(), Mode::Plain, &load);
    let cpu = Row::new(2, name, "µs", Kind::Ratio, &trial.figures(Report::cpu));
    let rate = trial.figures(|report| report.per_second);
    let rate = Row::new(6, "throughput, 50 pairs, window 16", "/s", Kind::Ratio, &rate);
    vec![
        cpu.target(Target::at_most(1.5).beyond(1.1)),
        rate.target(Target::at_least(0.75).beyond(0.9)),
    ]
}

pub(super) fn crowds(bench: &Bench) -> Vec<Row> {
    let crowd = |&pairs: &usize| {
        let name = format!("an OFFER, {pairs} pairs, window 1");
        let load = offers(bench, pairs, 1).flag("unsigned");
        let trial = bench.compare(&name, &bare(), Mode::Plain, &load);
        let row = Row::new(3, &name, "µs", Kind::Ratio, &trial.figures(Report::cpu));
        // Of a single pair nothing is asked: it shows how cost grows from there.
        if pairs == 1 { row } else { row.target(Target::at_most(1.3)) }
    };
    bench.profile.of(&[500, 5000, 1]).iter().map(crowd).collect()
}

pub(super) fn signed(bench: &Bench) -> Vec<Row> {
    let config = Config { signatures: Some("required"), ..Config::default() };
    let verified = |&window: &usize| {
        let name = format!("an OFFER, verified, 50 pairs, window {window}");
        let load = offers(bench, PAIRS, window);
        let trial = bench.compare(&name, &config, Mode::Verify, &load);
        let row = Row::new(4, &name, "µs", Kind::Ratio, &trial.figures(Report::cpu));
        row.target(Target::at_most(1.15).beyond(0.75))
    };
    bench.profile.of(&[1, WINDOW]).iter().map(verified).collect()
}
