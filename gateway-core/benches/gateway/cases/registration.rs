//! Connecting, and registering on `ioap.v1.1`.

use super::super::{
    load::{Load, Report},
    relay::Mode,
    row::{Kind, Row, Target},
    server::Config,
    trial::Bench,
};

/// Registrations that are under way at once.
const CONCURRENCY: usize = 32;

pub(super) fn measure(bench: &Bench) -> Vec<Row> {
    let name = "a registration on ioap.v1.1";
    let load = Load::new("register").with("protocol", "v1.1").with("concurrency", CONCURRENCY);
    let trial = bench.compare(name, &Config::default(), Mode::Register, &bench.timed(load));
    let cpu = Row::new(9, name, "µs", Kind::Ratio, &trial.figures(Report::cpu));
    let rate = trial.figures(|report| report.per_second);
    vec![
        cpu.target(Target::at_most(1.2)),
        Row::new(9, "registrations on ioap.v1.1", "/s", Kind::Ratio, &rate),
    ]
}
