//! Messages to an alias, and who gets them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use capability_router::CapabilityRouter;
use conexus_plugin_api::{
    Agent, Answer, CONTINUE, DenyCode, Verdict, deny,
    host::CallFault,
    redirect,
    testkit::{self, Kit},
};
use conexus_protocol::AgentKey;
use serde_json::json;

const ALIAS: AgentKey = AgentKey::from_bytes([9; 32]);

fn kit() -> Kit<CapabilityRouter> {
    let alias = json!({"did": ALIAS.legacy_did(), "capability": "translate"});
    Kit::new(json!({"aliases": [alias]})).unwrap()
}

fn alias() -> Arc<Agent> {
    let agent = testkit::agent(&ALIAS.did()).build();
    Arc::new(Agent { key: *ALIAS.as_bytes(), ..(*agent).clone() })
}

fn agent(name: &str) -> Arc<Agent> {
    testkit::agent(&format!("did:key:z{name}")).build()
}

fn worker(kit: &Kit<CapabilityRouter>, name: &str) -> Arc<Agent> {
    let agent = testkit::agent(&format!("did:key:z{name}")).capability("translate").build();
    kit.host().add_agent(&agent);
    agent
}

fn request(from: &Arc<Agent>, id: &str) -> testkit::RouteBuilder {
    testkit::route(from, &alias()).absent().kind("EXEC_REQUEST").id(id)
}

fn nobody() -> Result<Answer, CallFault> {
    Ok(deny(DenyCode::UnknownAgent, "nobody is here who can translate"))
}

/// To whom a request goes.
fn chosen(kit: &Kit<CapabilityRouter>, from: &Arc<Agent>, id: &str) -> String {
    match kit.route(request(from, id)).unwrap().verdicts() {
        [Verdict::Redirect(did)] => did.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_spread_evenly() {
    let (kit, alice) = (kit(), agent("Alice"));
    let workers = ["A", "B", "C"].map(|name| worker(&kit, name));
    let mut counts = BTreeMap::<_, usize>::new();
    for id in 0..30 {
        *counts.entry(chosen(&kit, &alice, &id.to_string())).or_default() += 1;
    }
    let expected = workers.iter().map(|worker| (worker.did.clone(), 10)).collect();
    assert_eq!(counts, expected);
    assert_eq!(kit.host().counter("redirected"), 30);
}

#[test]
fn who_has_answered_is_less_loaded() {
    let (kit, alice) = (kit(), agent("Alice"));
    let workers = ["A", "B"].map(|name| worker(&kit, name));
    for id in ["1", "2", "3", "4"] {
        chosen(&kit, &alice, id);
    }
    let who = chosen(&kit, &alice, "5");
    let busy = workers.into_iter().find(|worker| worker.did == who).unwrap();
    // 3 to 2, so far; an answer to what somebody else was asked changes nothing.
    let answer =
        |id| testkit::route(&busy, &alice).kind("EXEC_RESPONSE").id("r").correlation_id(id);
    for id in ["1", "2", "3", "4", "5"] {
        assert_eq!(kit.route(answer(id)), Ok(CONTINUE));
    }
    for id in ["6", "7"] {
        assert_eq!(chosen(&kit, &alice, id), busy.did);
    }
    assert_eq!(kit.route(answer("6")), Ok(CONTINUE));
    assert_eq!(chosen(&kit, &alice, "8"), busy.did);
}

#[test]
fn what_is_never_answered_stops_counting() {
    let (kit, alice) = (kit(), agent("Alice"));
    worker(&kit, "A");
    for id in 0..10 {
        chosen(&kit, &alice, &id.to_string());
    }
    let newcomer = worker(&kit, "B");
    kit.registered(testkit::registered(&newcomer)).unwrap();
    for id in 10..20 {
        assert_eq!(chosen(&kit, &alice, &id.to_string()), newcomer.did);
    }
    kit.host().advance(Duration::from_secs(30));
    let both: Vec<_> = (20..22).map(|id| chosen(&kit, &alice, &id.to_string())).collect();
    assert_ne!(both[0], both[1]);
}

#[test]
fn only_what_asks_for_work_is_redirected() {
    let (kit, alice, bob) = (kit(), agent("Alice"), worker(&kit(), "B"));
    worker(&kit, "A");
    for kind in ["OFFER", "ANSWER", "ICE_CANDIDATE", "EXEC_RESPONSE", "ERROR"] {
        let message = || testkit::route(&alice, &alias()).absent().kind(kind);
        assert_eq!(kit.route(message()), Ok(CONTINUE), "{kind}");
        assert_eq!(kit.undeliverable(message()), Ok(CONTINUE), "{kind}");
    }
    let to_bob = || testkit::route(&alice, &bob).kind("INTENT");
    assert_eq!(kit.route(to_bob()), Ok(CONTINUE));
    assert_eq!(kit.undeliverable(to_bob()), Ok(CONTINUE));
    let intent = testkit::route(&alice, &alias()).absent().kind("INTENT");
    assert_eq!(kit.route(intent), Ok(redirect("did:key:zA")));
}

#[test]
fn nobody_is_asked_for_what_it_asks_itself() {
    let kit = kit();
    let only = worker(&kit, "A");
    assert_eq!(kit.route(request(&only, "1")), nobody());
    let other = worker(&kit, "B");
    kit.registered(testkit::registered(&other)).unwrap();
    assert_eq!(chosen(&kit, &only, "1"), other.did);
    assert_eq!(kit.host().counter("nobody"), 1);
}

#[test]
fn another_is_chosen_where_the_first_has_gone() {
    let (kit, alice) = (kit(), agent("Alice"));
    let workers = ["A", "B"].map(|name| worker(&kit, name));
    let first = chosen(&kit, &alice, "1");
    let (gone, stays) = if workers[0].did == first { (0, 1) } else { (1, 0) };
    // Still listed as present: the race that on_undeliverable is for.
    assert_eq!(kit.undeliverable(request(&alice, "1")), Ok(redirect(&*workers[stays].did)));
    kit.host().remove_agent(&workers[stays]);
    kit.host().remove_agent(&workers[gone]);
    assert_eq!(kit.undeliverable(request(&alice, "1")), nobody());
}

#[test]
fn comings_and_goings_are_seen_at_once_with_events_and_soon_without() {
    let (kit, alice) = (kit(), agent("Alice"));
    assert_eq!(kit.route(request(&alice, "1")), nobody());
    let first = worker(&kit, "A");
    assert_eq!(kit.route(request(&alice, "2")), nobody());
    kit.host().advance(Duration::from_secs(1));
    assert_eq!(chosen(&kit, &alice, "3"), first.did);
    kit.host().remove_agent(&first);
    kit.disconnect(testkit::disconnect(&first, "closed")).unwrap();
    assert_eq!(kit.route(request(&alice, "4")), nobody());
}

#[test]
fn faults_of_the_configuration_name_their_key() {
    let alias = json!({"did": ALIAS.did(), "capability": "x"});
    let twice = json!({"did": ALIAS.legacy_did(), "capability": "y"});
    for (config, key) in [
        (json!({}), "aliases"),
        (json!({"aliases": []}), "aliases"),
        (json!({"aliases": [{"did": "did:key:zNope", "capability": "x"}]}), "aliases[0].did"),
        (json!({"aliases": [{"did": ALIAS.did(), "capability": ""}]}), "aliases[0].capability"),
        (json!({"aliases": [alias, twice]}), "aliases[1].did"),
        (json!({"aliases": [{"did": ALIAS.did()}]}), "capability"),
        (json!({"aliases": [alias], "max_pending": 0}), "max_pending"),
        (json!({"aliases": [alias], "refesh": "1s"}), "refesh"),
    ] {
        let fault = Kit::<CapabilityRouter>::new(config.clone()).unwrap_err().to_string();
        assert!(fault.contains(key), "{config}: {fault}");
    }
}
