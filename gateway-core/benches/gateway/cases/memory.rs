//! Memory of a registered agent that says nothing, above that of the process without any.

use super::super::{
    load::{Load, Report},
    options::Profile,
    relay::Mode,
    row::{Kind, Row, Target},
    server::Config,
    trial::Bench,
};

/// How long the allocator has to give back what registering took, in seconds.
const SETTLE: u64 = 3;

pub(super) fn measure(bench: &Bench) -> Vec<Row> {
    bench
        .profile
        .of(&[1000, 10_000, 15_000])
        .iter()
        .flat_map(|agents| crowd(bench, *agents))
        .collect()
}

/// The same over TLS; the relay has none.
pub(super) fn encrypted(bench: &Bench) -> Vec<Row> {
    let agents = 5000;
    let name = format!("memory of an idle agent over TLS, {agents} agents");
    let config = Config { tls: true, ..Config::default() };
    let trial = bench.compare(&name, &config, Mode::Plain, &idle(bench, agents));
    let idle = Row::new(15, &name, "KiB", Kind::Absolute, &trial.figures(Report::idle));
    let after = trial.figures(Report::idle_after_message);
    let name = format!("the same after a message each, {agents} agents");
    let after = Row::new(15, &name, "KiB", Kind::Absolute, &after);
    vec![idle.target(Target::at_most(16.0)), after.target(Target::at_most(17.0))]
}

fn idle(bench: &Bench, agents: usize) -> Load {
    let settle = if bench.profile == Profile::Smoke { 0 } else { SETTLE };
    Load::new("idle")
        .with("protocol", "v1")
        .with("agents", bench.profile.scaled(agents))
        .with("settle", settle)
        .flag("idle-message")
}

fn crowd(bench: &Bench, agents: usize) -> [Row; 2] {
    let name = format!("memory of an idle agent, {agents} agents");
    let trial = bench.compare(&name, &Config::default(), Mode::Plain, &idle(bench, agents));
    let idle = Row::new(8, &name, "KiB", Kind::Absolute, &trial.figures(Report::idle));
    let after = trial.figures(Report::idle_after_message);
    let name = format!("the same after a message each, {agents} agents");
    let after = Row::new(8, &name, "KiB", Kind::Absolute, &after);
    [idle.target(Target::at_most(8.0).beyond(5.0)), after.target(Target::at_most(9.0))]
}
