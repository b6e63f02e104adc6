//! The fail matrix: whatever way a hook fails in, wherever it is asked, as a script or as a plugin,
//! its fail mode decides, and the failure is counted and told.

use std::time::Duration;

use conexus_gateway::{
    config::{FailMode, Settings},
    hooks::{Admission, Decision, Engine, Fallback, Passage, Way},
};
use conexus_plugin_api::Point;
use conexus_protocol::RefusalReason;
use serde_json::json;

use super::{
    events::{Ruled, VERDICT_POINTS, ask, at, decided},
    setup::{Broken, Gate, Setup, counter, faults, hook},
};
use crate::support::{soon, until};

const GRANTED: Duration = Duration::from_secs(5);

/// Gives what the next hook's failure takes back, or not.
const GRANT: &str = r#"
    fn on_connect(e) {}
    fn on_register(e) { set(#{ labels: #{ granted: "yes" } }) }
    fn on_route(e) { hold(5) }
    fn on_undeliverable(e) { hold(5) }
    fn on_watch(e) {}
    fn on_expire(e) { extend(5) }
"#;

/// Counts what it is told of.
const WATCHER: &str = r#"
    fn on_hook_error(e) { metric(`${e.hook}_${e.point}_${e.kind}`); }
"#;

/// Too short for a hook that never answers, and long enough that it is asked at all.
const SHORT: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Script,
    Native,
}

/// The ways to fail, as they are counted.
const KINDS: [&str; 5] = ["error", "panic", "timeout", "bad_return", "overload"];

/// The body of a script's hook that fails in this way.
fn body(kind: &str, point: Point) -> String {
    let agent = format!("agent({:?});", Gate::did());
    match (kind, point) {
        ("error", _) => r#"throw "told to fail";"#.into(),
        // The world is one that panics, or a gate.
        ("panic" | "overload", _) => agent,
        ("timeout", _) => "loop {}".into(),
        (_, Point::Connect) => "true".into(),
        (_, Point::Route) => "extend(1)".into(),
        (_, Point::Undeliverable) => r#"[hold(1), "no verdict"]"#.into(),
        (_, Point::Expire) => "42".into(),
        _ => format!("redirect({:?})", Gate::did()),
    }
}

/// What grants, and behind it what fails, at every point where hooks decide.
fn failing(side: Side, kind: &str, mode: FailMode) -> Setup {
    let mut setup = Setup::new();
    setup.script("grant", GRANT);
    setup.script("watcher", WATCHER);
    setup.at(Point::HookError, "watcher");
    let faulty = match side {
        Side::Script => {
            let functions = VERDICT_POINTS.map(|point| {
                let body = body(kind, point);
                format!("fn {point}(e) {{ {body} }}\n")
            });
            setup.script("faulty", &functions.concat())
        }
        Side::Native => {
            let act = match kind {
                "timeout" | "overload" => "park",
                other => other,
            };
            setup.probe("faulty", json!({ "act": act, "gate": Gate::did() }))
        }
    };
    // A script is stopped wherever it runs; native code can only be abandoned on the pool.
    faulty.blocking = kind == "overload" || (kind == "timeout" && side == Side::Native);
    if kind == "overload" {
        (setup.settings.policy.blocking_threads, setup.settings.policy.blocking_queue) = (1, 1);
    }
    for point in VERDICT_POINTS {
        setup.at(point, "grant");
        let faulty = setup.at(point, "faulty");
        faulty.on_error = Some(mode);
        faulty.budget = (kind == "timeout").then_some(SHORT);
    }
    setup
}

/// What the chain comes to if the failure means nothing.
fn granted(point: Point) -> Ruled {
    match point {
        Point::Connect | Point::Watch => Ruled::Permission(Ok(())),
        Point::Register => Ruled::Admission(Ok(Admission {
            labels: [("granted".to_owned(), "yes".to_owned())].into(),
            ..Admission::default()
        })),
        Point::Route => {
            Ruled::Passage(Ok(Passage { way: Way::Hold(GRANTED), ..Passage::default() }))
        }
        Point::Undeliverable => Ruled::Fallback(Ok(Fallback::Hold(GRANTED))),
        _ => Ruled::Lease(Some(GRANTED)),
    }
}

fn check(ruled: &Ruled, point: Point, mode: FailMode, cell: &str) {
    match (mode, point) {
        (FailMode::Open, _) => assert_eq!(*ruled, granted(point), "{cell}"),
        // A lease is not refused, it ends.
        (FailMode::Closed, Point::Expire) => assert_eq!(*ruled, Ruled::Lease(None), "{cell}"),
        (FailMode::Closed, _) => {
            assert_eq!(ruled.refusal(), Some(RefusalReason::PolicyError), "{cell}");
        }
    }
}

/// Fills the pool with calls that wait at the gate until one is refused; the rest then pass.
async fn overload(engine: &Engine, gate: &Gate, point: Point, mode: FailMode, cell: &str) {
    let mut waiting = Vec::new();
    let refused = loop {
        match ask(engine, at(point)) {
            Decision::Now(ruled) => break ruled,
            Decision::Later(later) => waiting.push(later),
        }
    };
    check(&refused, point, mode, cell);
    assert!((1..=2).contains(&waiting.len()), "{cell}: one runs, one waits");
    gate.open();
    for later in waiting {
        assert_eq!(soon("a call that was taken", later).await, granted(point), "{cell}");
    }
}

async fn cells(side: Side, kind: &str, mode: FailMode) {
    let setup = failing(side, kind, mode);
    // An engine has one world for good, and one gate opens once.
    let shared = setup.engine();
    let (_gate, _broken);
    if kind == "panic" {
        (_broken, _gate) = (Some(Broken::of(&shared)), None);
    } else {
        (_broken, _gate) = (None, Some(Gate::of(&shared)));
    }
    for point in VERDICT_POINTS {
        let cell = format!("{point}, {kind}, {side:?}, {mode:?}");
        let engine = if kind == "overload" {
            let engine = setup.engine();
            let gate = Gate::of(&engine);
            overload(&engine, &gate, point, mode, &cell).await;
            engine
        } else {
            check(&decided(&shared, at(point)).await, point, mode, &cell);
            shared.clone()
        };
        assert_eq!(faults(&engine, point, 1, kind), 1, "{cell}");
        assert_eq!(hook(&engine, point, 1).counts.faults.len(), 1, "{cell}: no other failure");
        assert!(!hook(&engine, point, 1).counts.verdicts.contains_key("deny"), "{cell}: no denial");
        assert!(hook(&engine, point, 0).counts.faults.is_empty(), "{cell}: not of the other hook");
        let told = format!("faulty_{point}_{kind}");
        until(&format!("{cell}: on_hook_error"), || counter(&engine, "watcher", &told) == 1).await;
    }
}

async fn column(kind: &str) {
    assert!(KINDS.contains(&kind));
    for side in [Side::Script, Side::Native] {
        for mode in [FailMode::Closed, FailMode::Open] {
            cells(side, kind, mode).await;
        }
    }
}

#[tokio::test]
async fn an_error_is_what_the_fail_mode_says_at_every_point_on_both_sides() {
    column("error").await;
}

#[tokio::test]
async fn a_panic_is_what_the_fail_mode_says_at_every_point_on_both_sides() {
    column("panic").await;
}

#[tokio::test]
async fn a_call_out_of_time_is_what_the_fail_mode_says_at_every_point_on_both_sides() {
    column("timeout").await;
}

#[tokio::test]
async fn an_answer_out_of_place_is_what_the_fail_mode_says_at_every_point_on_both_sides() {
    column("bad_return").await;
}

#[tokio::test]
async fn a_full_pool_is_what_the_fail_mode_says_at_every_point_on_both_sides() {
    column("overload").await;
}

#[tokio::test]
async fn a_plugin_over_its_budget_is_obeyed_and_counted_and_feeds_the_breaker() {
    let mut setup = Setup::new();
    setup.settings.policy.breaker_errors = Settings::default().policy.breaker_errors;
    setup.script("watcher", WATCHER);
    setup.at(Point::HookError, "watcher");
    setup.probe("late", json!({ "act": "overrun", "busy_ms": 3 }));
    setup.at(Point::Route, "late").budget = Some(Duration::from_millis(1));
    let engine = setup.engine();
    for _ in 0..5 {
        let ruled = decided(&engine, at(Point::Route)).await;
        assert_eq!(ruled.refusal(), Some(RefusalReason::RateLimited), "its verdict counts");
    }
    let ruled = decided(&engine, at(Point::Route)).await;
    assert_eq!(ruled.refusal(), Some(RefusalReason::PolicyError), "quarantined");
    let counts = hook(&engine, Point::Route, 0).counts;
    assert_eq!((counts.overruns, counts.verdicts["deny"]), (5, 5));
    assert_eq!(counts.faults.into_iter().collect::<Vec<_>>(), [("quarantined", 1)]);
    until("on_hook_error", || counter(&engine, "watcher", "late_on_route_quarantined") == 1).await;
    assert_eq!(counter(&engine, "watcher", "late_on_route_overrun"), 5);
}

#[tokio::test]
async fn blocking_calls_that_never_return_cost_threads_up_to_a_cap_and_come_back() {
    let mut setup = Setup::new();
    setup.probe("stuck", json!({ "act": "park", "gate": Gate::did() })).blocking = true;
    setup.at(Point::Route, "stuck").budget = Some(SHORT);
    let policy = &mut setup.settings.policy;
    (policy.blocking_threads, policy.blocking_queue, policy.lost_threads) = (1, 4, 2);
    let engine = setup.engine();
    let gate = Gate::of(&engine);
    // Two are replaced, the third is not.
    for lost in 1..=3 {
        let ruled = decided(&engine, at(Point::Route)).await;
        assert_eq!(ruled.refusal(), Some(RefusalReason::PolicyError));
        assert_eq!(engine.status().pool.lost, lost);
    }
    assert_eq!(faults(&engine, Point::Route, 0, "timeout"), 3);
    let ruled = decided(&engine, at(Point::Route)).await;
    assert_eq!(ruled.refusal(), Some(RefusalReason::PolicyError));
    assert_eq!(faults(&engine, Point::Route, 0, "overload"), 1, "nobody is there to ask it");
    assert_eq!((engine.status().pool.lost, gate.entered()), (3, 3));
    gate.open();
    until("all threads to come back", || engine.status().pool.lost == 0).await;
    let ruled = decided(&engine, at(Point::Route)).await;
    assert_eq!(ruled.refusal(), None, "it is asked again");
}

#[tokio::test]
async fn a_panic_within_the_gateway_does_not_unwind_into_the_plugin_that_asked() {
    let mut setup = Setup::new();
    setup.probe("asking", json!({ "act": "park", "gate": Gate::did() }));
    setup.at(Point::Route, "asking");
    let engine = setup.engine();
    let _broken = Broken::of(&engine);
    assert_eq!(decided(&engine, at(Point::Route)).await.refusal(), None);
    assert_eq!(hook(&engine, Point::Route, 0).counts.verdicts["continue"], 1);
}
