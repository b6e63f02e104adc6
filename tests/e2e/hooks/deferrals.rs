//! Verdicts that a plugin puts off: given twice, late, never; and what it may not put off.

use std::{sync::Arc, time::Duration};

use conexus_gateway::hooks::{Decision, Engine};
use conexus_plugin_api::Point;
use conexus_protocol::{RefusalReason, Subprotocol};
use serde_json::json;

use super::{
    events::{Ruled, ask, at, decided},
    setup::{Gate, Kept, Setup, counter, faults},
};
use crate::support::{agent::Agent, bystanders::Bystanders, gateway::TestGateway, http, until};

/// A hook that puts off what it is asked at these points.
fn deferring(act: &str, points: &[Point], budget: Option<Duration>) -> Arc<Engine> {
    let mut setup = Setup::new();
    setup.probe("slow", json!({ "act": act, "gate": Gate::did() }));
    for point in points {
        setup.at(*point, "slow").budget = budget;
    }
    setup.engine()
}

const SHORT: Option<Duration> = Some(Duration::from_millis(20));

#[tokio::test]
async fn of_two_verdicts_under_one_token_the_first_counts_and_the_second_is_refused() {
    for point in [Point::Connect, Point::Register] {
        let engine = deferring("defer_twice", &[point], None);
        let Decision::Later(later) = ask(&engine, at(point)) else { panic!("decided at once") };
        let ruled = crate::support::soon("the verdict", later).await;
        assert_eq!(ruled.refusal(), Some(RefusalReason::RateLimited));
        until("the second attempt", || counter(&engine, "slow", "second_refused") == 1).await;
        assert_eq!(counter(&engine, "slow", "first_taken"), 1);
        assert_eq!(counter(&engine, "slow", "second_taken"), 0);
        assert_eq!(engine.status().deferred, 0);
        assert_eq!(engine.status().chains[point.name()][0].counts.verdicts["deny"], 1);
    }
}

#[tokio::test]
async fn a_verdict_that_comes_late_is_refused_and_one_that_never_comes_is_a_time_out() {
    for act in ["defer_late", "defer_never"] {
        let engine = deferring(act, &[Point::Register], SHORT);
        let gate = Gate::of(&engine);
        let ruled = decided(&engine, at(Point::Register)).await;
        assert_eq!(ruled.refusal(), Some(RefusalReason::PolicyError), "{act}");
        assert_eq!(faults(&engine, Point::Register, 0, "timeout"), 1, "{act}");
        assert_eq!(engine.status().deferred, 0, "{act}: nobody waits any more");
        gate.open();
        if act == "defer_late" {
            until("the late attempt", || counter(&engine, "slow", "late_refused") == 1).await;
            assert_eq!(counter(&engine, "slow", "late_taken"), 0);
        }
        assert_eq!(engine.status().pool.lost, 0, "{act}: it takes no thread");
    }
}

#[tokio::test]
async fn a_verdict_that_is_dropped_fails_at_once() {
    let engine = deferring("defer_dropped", &[Point::Register], None);
    let ruled = decided(&engine, at(Point::Register)).await;
    assert_eq!(ruled.refusal(), Some(RefusalReason::PolicyError));
    assert_eq!(faults(&engine, Point::Register, 0, "error"), 1);
    assert_eq!(engine.status().deferred, 0);
}

#[tokio::test]
async fn who_puts_a_verdict_off_and_gives_one_all_the_same_leaves_nothing_behind() {
    let engine = deferring("defer_and_answer", &[Point::Register], None);
    for _ in 0..3 {
        decided(&engine, at(Point::Register)).await;
    }
    assert_eq!(engine.status().deferred, 0);
}

#[tokio::test]
async fn a_verdict_about_a_message_cannot_be_put_off() {
    let points = [Point::Route, Point::Undeliverable, Point::Watch, Point::Expire];
    let engine = deferring("defer_never", &points, None);
    for point in points {
        let ruled = decided(&engine, at(point)).await;
        assert!(ruled.refusal() == Some(RefusalReason::PolicyError) || ruled == Ruled::Lease(None));
        assert_eq!(faults(&engine, point, 0, "error"), 1, "{point}");
    }
}

#[tokio::test]
async fn only_who_a_deferred_verdict_is_about_waits_for_it() {
    let mut setup = Setup::new();
    setup.settings.policy.budget = Duration::from_secs(60);
    let engine = setup.engine();
    // The gate comes first: a gateway's world is the engine's only if it has none.
    let gate = Gate::of(&engine);
    let gateway = TestGateway::start_with_policy(Kept(engine.clone()), |_| {}).await;
    let mut bystanders = Bystanders::register(&gateway).await;
    setup.probe("slow", json!({ "act": "defer_late", "gate": Gate::did() }));
    setup.at(Point::Register, "slow");
    engine.reload(&setup.settings).unwrap();

    let mut agent = Agent::connect(&gateway, Subprotocol::V1_1).await;
    let (_, text) = agent.sign(&agent.did(), agent.registration());
    agent.send(text).await;
    until("the verdict to be put off", || gate.entered() == 1).await;
    for _ in 0..10 {
        bystanders.exchange().await;
    }
    let (_, health) = http::get(gateway.addr, "/health", &[]).await;
    assert!(health.is_object());
    assert_eq!(engine.status().deferred, 1, "still");
    gate.open();
    assert!(agent.text().await.contains("REGISTERED"));
    until("it to be noted", || counter(&engine, "slow", "late_taken") == 1).await;
}
