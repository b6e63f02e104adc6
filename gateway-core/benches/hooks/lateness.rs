//! How late a script that never ends is stopped.
//!
//! The first time it runs on the thread of the message, as every hook does; from then on, being
//! slow, on the pool. The time is that until the decision is there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use conexus_gateway::{
    config::Settings,
    hooks::{Decision, Engine, Policy as _},
};

use super::policies::{Message, gateway_with};

const RUNS: usize = 41;
const BUDGET: Duration = Duration::from_millis(50);

pub(crate) fn report() {
    println!("\nlateness: an endless script with a budget of {BUDGET:?}, {RUNS} runs");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let message = Message::new();
    let decided = |engine: &Engine| {
        let event = message.event(message.parts());
        let started = Instant::now();
        let (ruling, place) = match engine.judge().on_route(event) {
            Decision::Now(ruling) => (ruling, "thread"),
            Decision::Later(ruling) => (runtime.block_on(ruling), "pool"),
        };
        let took = started.elapsed();
        assert!(ruling.is_err(), "it fails closed");
        (took, place)
    };
    let first: Vec<_> =
        (0..RUNS).map(|_| decided(&gateway_with("script:runaway", unhurried))).collect();
    show("on the message's thread", "thread", first);

    let engine = Arc::new(gateway_with("script:runaway", unhurried));
    decided(&engine);
    show("on the pool", "pool", (0..RUNS).map(|_| decided(&engine)).collect());
}

/// Only the budget stops it: neither the bound on operations, which would come first, nor the
/// breaker.
fn unhurried(settings: &mut Settings) {
    settings.policy.budget = BUDGET;
    settings.policy.breaker_errors = 1_000_000;
    settings.scripts.max_operations = 1_000_000_000;
}

fn show(what: &str, place: &str, runs: Vec<(Duration, &str)>) {
    assert!(runs.iter().all(|(_, ran)| *ran == place), "it ran elsewhere");
    let mut late: Vec<_> = runs.iter().map(|(took, _)| took.saturating_sub(BUDGET)).collect();
    late.sort_unstable();
    println!(
        "  {what:24} late by {:?} (median), {:?} (most)",
        late[late.len() / 2],
        late[late.len() - 1]
    );
}
