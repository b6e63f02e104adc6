//! Messages counted against quotas, on a virtual clock.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use conexus_plugin_api::{
    Agent, Answer, CONTINUE, DenyCode, Level, deny,
    host::CallFault,
    testkit::{self, Kit},
};
use quota::Quota;
use serde_json::{Value, json};

fn kit(config: Value) -> Kit<Quota> {
    Kit::new(config).unwrap()
}

fn agents() -> (Arc<Agent>, Arc<Agent>) {
    (testkit::agent("did:key:zAlice").build(), testkit::agent("did:key:zBob").build())
}

fn send(kit: &Kit<Quota>, from: &Arc<Agent>, to: &Arc<Agent>) -> Result<Answer, CallFault> {
    kit.route(testkit::route(from, to))
}

fn denied(reason: &str) -> Result<Answer, CallFault> {
    Ok(deny(DenyCode::RateLimited, reason))
}

#[test]
fn a_window_ends_with_the_clock_and_each_agent_has_its_own() {
    let (alice, bob) = agents();
    let kit = kit(json!({"default": {"messages_per_minute": 2}}));
    kit.host().advance(Duration::from_secs(15));
    for _ in 0..2 {
        assert_eq!(send(&kit, &alice, &bob), Ok(CONTINUE));
    }
    let over = denied("quota messages_per_minute of 2 used up, resets in 45s");
    assert_eq!(send(&kit, &alice, &bob), over);
    assert_eq!(send(&kit, &bob, &alice), Ok(CONTINUE));
    kit.host().advance(Duration::from_secs(45));
    assert_eq!(send(&kit, &alice, &bob), Ok(CONTINUE));
    assert_eq!(kit.host().counter("denied"), 1);
}

#[test]
fn a_denied_message_uses_up_nothing_of_the_longer_windows() {
    let (alice, bob) = agents();
    let kit = kit(json!({"default": {"messages_per_minute": 1, "messages_per_day": 3}}));
    for _ in 0..3 {
        assert_eq!(send(&kit, &alice, &bob), Ok(CONTINUE));
        for _ in 0..5 {
            assert!(!send(&kit, &alice, &bob).unwrap().is_continue());
        }
        kit.host().advance(Duration::from_secs(60));
    }
    let over = denied("quota messages_per_day of 3 used up, resets in 23h 57m");
    assert_eq!(send(&kit, &alice, &bob), over);
    kit.host().advance(Duration::from_secs(86_400));
    assert_eq!(send(&kit, &alice, &bob), Ok(CONTINUE));
}

#[test]
fn bytes_are_those_of_whole_messages() {
    let (alice, bob) = agents();
    let kit = kit(json!({"default": {"bytes_per_day": "1KiB"}}));
    let large = || testkit::route(&alice, &bob).payload(json!({"sdp": "x".repeat(1000)}));
    assert!(!kit.route(large()).unwrap().is_continue());
    // The one that did not fit has left the room to others.
    assert_eq!(send(&kit, &alice, &bob), Ok(CONTINUE));
}

#[test]
fn a_class_has_limits_of_its_own_by_label_or_by_rate_class() {
    let (_, bob) = agents();
    let classes = json!({"gold": {"messages_per_day": 2}, "staff": {}});
    let agent = |label: &str| testkit::agent("did:key:zC").label("tier", label).build();
    let kit = kit(json!({
        "default": {"messages_per_day": 1}, "classes": classes, "class_label": "tier",
    }));
    let let_through =
        |agent: &Arc<Agent>| (0..5).filter(|_| send(&kit, agent, &bob) == Ok(CONTINUE)).count();
    assert_eq!(let_through(&agent("silver")), 1);
    assert_eq!(let_through(&agent("staff")), 5);
    kit.host().advance(Duration::from_secs(86_400));
    assert_eq!(let_through(&agent("gold")), 2);
    let by_class =
        Kit::<Quota>::new(json!({"default": {"messages_per_day": 0}, "classes": classes}));
    let staff = testkit::agent("did:key:zD").rate_class("staff").build();
    assert_eq!(send(&by_class.unwrap(), &staff, &bob), Ok(CONTINUE));
}

#[test]
fn only_the_types_that_are_named_count() {
    let (alice, bob) = agents();
    let kit = kit(json!({"default": {"messages_per_day": 0}, "types": ["INTENT"]}));
    assert_eq!(send(&kit, &alice, &bob), Ok(CONTINUE));
    let intent = testkit::route(&alice, &bob).kind("INTENT");
    assert!(!kit.route(intent).unwrap().is_continue());
}

#[test]
fn a_warning_is_logged_once_per_window() {
    let (alice, bob) = agents();
    let kit = kit(json!({"default": {"messages_per_minute": 10}, "warn_at": 0.5}));
    for _ in 0..20 {
        send(&kit, &alice, &bob).unwrap();
    }
    let text = "did:key:zAlice has used 5 of 10 of its messages_per_minute".to_owned();
    assert_eq!(kit.host().lines(), [(Level::Warn, text)]);
    kit.host().advance(Duration::from_secs(60));
    for _ in 0..20 {
        send(&kit, &alice, &bob).unwrap();
    }
    assert_eq!((kit.host().lines().len(), kit.host().counter("warned")), (2, 2));
}

#[test]
fn faults_of_the_configuration_name_their_key() {
    for (config, key) in [
        (json!({}), "default"),
        (json!({"default": {}, "warn_at": 1.5}), "warn_at"),
        (json!({"default": {}, "warn_at": 0}), "warn_at"),
        (json!({"default": {}, "types": []}), "types"),
        (json!({"default": {}, "class_label": ""}), "class_label"),
        (json!({"default": {"messages_per_week": 1}}), "messages_per_week"),
        (json!({"default": {}, "classes": {"x": {"per_day": 1}}}), "per_day"),
        (json!({"default": {"bytes_per_day": "many"}}), "many"),
    ] {
        let fault = Kit::<Quota>::new(config.clone()).unwrap_err().to_string();
        assert!(fault.contains(key), "{config}: {fault}");
    }
}
