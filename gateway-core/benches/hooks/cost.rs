//! One call each, on one thread.

use std::{hint::black_box, sync::Arc, time::Duration};

use conexus_gateway::{
    config::StateSettings,
    hooks::Policy as _,
    state::{Namespace, Store},
};
use conexus_plugin_api::Point;
use divan::Bencher;

use super::policies::{Judging, Message, gateway, gateway_without_hooks};

/// What every message costs where no hook is at `on_route`: the router's question.
#[divan::bench]
fn empty_chain(bencher: Bencher<'_, '_>) {
    let engine = gateway_without_hooks();
    bencher.bench_local(|| engine.judge().asks(black_box(Point::Route)));
}

/// What a chain costs before its first hook: the event.
#[divan::bench]
fn event(bencher: Bencher<'_, '_>) {
    let message = Message::new();
    let parts = message.parts();
    bencher.bench_local(|| message.event(black_box(parts)));
}

/// One hook, the event being there.
#[divan::bench(args = [
    "plugin:no_op", "plugin:three_conditions", "plugin:increment", "plugin:rate_limit",
    "script:no_op", "script:three_conditions", "script:increment", "script:rate_limit",
])]
fn hook(bencher: Bencher<'_, '_>, source: &str) {
    let source = source.to_owned();
    let mut judging = Judging::new(move || Arc::new(gateway(&source)));
    bencher.bench_local(|| judging.judge());
}

/// The state that hooks keep, by itself. The time is handed in.
fn namespace() -> Namespace {
    Store::new(&StateSettings::default()).namespace("measured")
}

#[divan::bench]
fn kv_increment(bencher: Bencher<'_, '_>) {
    let state = namespace();
    bencher.bench_local(|| state.incr(black_box(1), black_box("messages"), 1, None));
}

#[divan::bench]
fn rate_limit(bencher: Bencher<'_, '_>) {
    let (state, mut now_ms) = (namespace(), 0);
    bencher.bench_local(|| {
        now_ms += 1;
        state.rate_limit(now_ms, black_box("messages"), 1_000_000, Duration::from_secs(1))
    });
}
