//! Ten thousand panics of a plugin, of every kind and everywhere: the gateway does not notice.

use std::sync::Arc;

use conexus_gateway::{
    config::Settings,
    hooks::{BreakerState, Engine, Policy},
};
use conexus_plugin_api::{
    Point,
    host::{Delivered, Disconnect, Event, Registered, Replaced, Unregister},
};
use conexus_protocol::RefusalReason;
use serde_json::json;

use super::{
    events::{VERDICT_POINTS, agent, at, decided},
    setup::{Kept, Setup, counter, faults, hook},
};
use crate::support::{agent::Agent, bystanders::Bystanders, gateway::TestGateway, until};

/// All but `on_hook_error`, which panics over each of the other panics.
const OBSERVERS: [Point; 5] =
    [Point::Registered, Point::Replaced, Point::Delivered, Point::Disconnect, Point::Unregister];

/// Panics that agents bring about by what they send; the others come of events out of thin air.
const SENT: usize = 1_000;
const DECIDED: usize = 1_000;
const OBSERVED: usize = 600;

fn observed(point: Point) -> Event {
    let (agent, other) = (Arc::new(agent(3)), Arc::new(agent(4)));
    match point {
        Point::Registered => {
            Event::Registered(Arc::new(Registered { agent, renewal: false, connection: None }))
        }
        Point::Replaced => Event::Replaced(Arc::new(Replaced { agent, connection: None })),
        Point::Delivered => Event::Delivered(Arc::new(Delivered {
            from: agent,
            to: other,
            kind: "OFFER".into(),
            bytes: 7,
        })),
        Point::Disconnect => Event::Disconnect(Arc::new(Disconnect {
            agent,
            reason: "closed".into(),
            code: None,
            lasted_ms: 1,
            epoch: None,
            connection: None,
        })),
        _ => Event::Unregister(Arc::new(Unregister { agent, connection: None })),
    }
}

async fn panics_when_asked(engine: &Engine) {
    for point in VERDICT_POINTS {
        for _ in 0..DECIDED {
            let ruled = decided(engine, at(point)).await;
            if point != Point::Expire {
                assert_eq!(ruled.refusal(), Some(RefusalReason::PolicyError));
            }
        }
        assert_eq!(faults(engine, point, 0, "panic"), DECIDED as u64, "{point}");
    }
}

async fn panics_when_told(engine: &Engine) {
    for point in OBSERVERS {
        for _ in 0..OBSERVED {
            engine.judge().observe(observed(point));
        }
        let told = || faults(engine, point, 0, "panic") == OBSERVED as u64;
        until(&format!("{point} to be told"), told).await;
    }
}

#[tokio::test]
async fn ten_thousand_panics_of_a_plugin_end_neither_the_process_nor_a_session() {
    // One that panics over what agents send, beside agents that are not concerned.
    let mut setup = Setup::new();
    setup.probe("touchy", json!({ "act": "panic_over_messages" }));
    setup.at(Point::Route, "touchy");
    let engine = setup.engine();
    let gateway = TestGateway::start_with_policy(Kept(engine.clone()), |_| {}).await;
    let mut bystanders = Bystanders::register(&gateway).await;
    let mut sender = Agent::v1_1(&gateway).await;
    for number in 0..SENT {
        let (id, _) = sender.send_offer(&sender.did(), "panic").await;
        let refusal = sender.refusal().await;
        assert_eq!(refusal.correlation_id, Some(id));
        assert_eq!(refusal.reason.as_deref(), Some("policy_error"));
        if number % 100 == 0 {
            bystanders.exchange().await;
        }
    }
    assert_eq!(faults(&engine, Point::Route, 0, "panic"), SENT as u64);

    // One that panics wherever it is asked or told something, in the same process.
    let mut setup = Setup::new();
    let everywhere = VERDICT_POINTS.iter().chain(&OBSERVERS).chain(&[Point::HookError]);
    let names: Vec<_> = everywhere.clone().map(|point| point.name()).collect();
    setup.probe("wild", json!({ "act": "panic", "at": names }));
    for point in everywhere {
        setup.at(*point, "wild");
    }
    let wild = setup.engine();
    panics_when_told(&wild).await;
    bystanders.exchange().await;
    panics_when_asked(&wild).await;
    assert_eq!(SENT + DECIDED * VERDICT_POINTS.len() + OBSERVED * OBSERVERS.len(), 10_000);

    assert!(faults(&wild, Point::HookError, 0, "panic") > 0, "nor did on_hook_error end anything");
    bystanders.exchange().await;
    sender.ping().await;
    let messages = gateway.settled().await;
    assert_eq!(messages.refused, SENT as u64);
}

#[tokio::test]
async fn the_fifth_panic_opens_the_breaker_and_the_plugin_is_asked_no_more() {
    let mut setup = Setup::new();
    setup.settings.policy.breaker_errors = Settings::default().policy.breaker_errors;
    setup.probe("touchy", json!({ "act": "panic_over_messages" }));
    setup.at(Point::Route, "touchy");
    let engine = setup.engine();
    let gateway = TestGateway::start_with_policy(Kept(engine.clone()), |_| {}).await;
    let (mut a, mut b) = (Agent::v1(&gateway).await, Agent::v1_1(&gateway).await);
    for panics in 1..=5 {
        assert_eq!(hook(&engine, Point::Route, 0).breaker, BreakerState::Closed);
        a.send_offer(&b.did(), "panic").await;
        assert_eq!(a.refusal().await.reason.as_deref(), Some("policy_error"));
        assert_eq!(faults(&engine, Point::Route, 0, "panic"), panics);
    }
    assert_eq!(hook(&engine, Point::Route, 0).breaker, BreakerState::Open);
    // It fails closed, also over what it would have let pass.
    b.send_offer(&a.did(), "calm").await;
    assert_eq!(b.refusal().await.reason.as_deref(), Some("policy_error"));
    let counts = hook(&engine, Point::Route, 0).counts;
    assert_eq!((counts.calls, counts.faults["quarantined"]), (5, 1));
    // A changed one is another instance, with a breaker of its own.
    setup.probe("touchy", json!({ "act": "pass" }));
    engine.reload(&setup.settings).unwrap();
    let (_, text) = b.send_offer(&a.did(), "panic").await;
    assert_eq!(a.text().await, text);
}

#[tokio::test]
async fn a_plugin_that_panics_as_it_begins_is_refused_and_the_old_generation_runs_on() {
    let mut setup = Setup::new();
    setup.probe("probe", json!({ "act": "pass" }));
    setup.at(Point::Route, "probe");
    let engine = setup.engine();
    for place in ["new", "on_start"] {
        let mut bad = Setup::new();
        bad.probe("probe", json!({ "act": "panic", "at": [place] }));
        bad.at(Point::Route, "probe");
        // Three times, since its panics take turns.
        for _ in 0..3 {
            let error = bad.start().err().expect("refused").to_string();
            assert!(error.starts_with("hook.probe: ") && error.contains("panic"), "{error}");
            let error = engine.reload(&bad.settings).unwrap_err().to_string();
            assert!(error.starts_with("hook.probe: ") && error.contains("panic"), "{error}");
        }
        let refusal = engine.status().refusal.expect("noted");
        assert!(refusal.reasons[0].starts_with("hook.probe: "), "{refusal:?}");
    }
    assert_eq!(engine.status().generation.number, 1);
    assert_eq!(decided(&engine, at(Point::Route)).await.refusal(), None);
}

#[tokio::test]
async fn panics_in_ticks_timers_and_at_the_end_are_contained() {
    let mut setup = Setup::new();
    let places = ["on_tick", "on_timer", "on_reload", "on_stop", "shutdown", "drop"];
    let wild = setup.probe("wild", json!({ "act": "panic", "at": places }));
    wild.tick = Some(std::time::Duration::from_millis(1));
    setup.at(Point::HookError, "wild");
    let engine = setup.engine();
    let told = async |place: &str, times: i64| {
        until(place, || counter(&engine, "wild", place) >= times).await;
    };
    told("on_tick", 4).await;
    told("on_timer", 1).await;
    engine.reload(&setup.settings).unwrap();
    told("on_reload", 1).await;
    // Twice without it, so that nobody can go back to it, and it goes.
    let mut calm = Setup::new();
    engine.reload(&calm.settings).unwrap();
    calm.settings.policy.budget *= 2;
    engine.reload(&calm.settings).unwrap();
    for place in ["on_stop", "shutdown", "drop"] {
        told(place, 1).await;
    }
    assert_eq!(engine.status().pool.lost, 0);
    assert!(engine.status().chores.threads > 0, "the pool's threads live");
}
