//! Questions to a service, and what becomes of its answers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod service;

use std::{fs, net::TcpListener, sync::Arc, time::Duration};

use conexus_plugin_api::{
    Agent, Answer, CONTINUE, DenyCode, allow, deny,
    host::{CallFault, Event, Returned},
    set,
    testkit::{self, Kit, START_MS},
};
use ring::hmac;
use serde_json::{Value, json};
use service::{Reply, Service};
use webhook::Webhook;

fn kit(url: &str, more: Value) -> Kit<Webhook> {
    let mut config = json!({"url": url, "timeout": "10s"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let kit = Kit::new(config).unwrap();
    kit.start().unwrap();
    kit
}

fn allowing() -> Reply {
    Reply::Json(json!({"verdict": "allow"}))
}

fn agent(name: &str) -> Arc<Agent> {
    testkit::agent(&format!("did:key:z{name}")).name(name).label("team", "red").build()
}

fn register(kit: &Kit<Webhook>, agent: &Arc<Agent>) -> Result<Answer, CallFault> {
    kit.register(testkit::register(agent))
}

fn failure(result: Result<Answer, CallFault>) -> String {
    match result {
        Err(CallFault::Failed(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_registration_is_put_off_until_the_service_has_answered() {
    let service = Service::new(Reply::Json(json!({
        "verdict": "continue", "labels": {"tier": "gold"}, "rate_class": "fast",
    })));
    let kit = kit(&service.url(), json!({}));
    let alice = agent("Alice");
    let event = Event::Register(Arc::new(testkit::register(&alice).into()));
    assert!(matches!(kit.call(&event), Ok(Returned::Deferred(_))));
    let expected = set().label("tier", "gold").rate_class("fast");
    assert_eq!(register(&kit, &alice), Ok(expected.into()));
    let asked = service.next();
    let body = json!({
        "point": "on_register", "renewal": false,
        "agent": {
            "did": "did:key:zAlice", "address": "127.0.0.1", "labels": {"team": "red"},
            "metadata": {"name": "Alice", "capabilities": [], "attributes": {}},
        },
    });
    assert_eq!(asked.json(), body);
    assert_eq!(asked.header("content-type"), "application/json");
    kit.shutdown().unwrap();
}

#[test]
fn a_message_is_asked_about_on_the_spot() {
    let denial = json!({"verdict": "deny", "code": "rate_limited", "reason": "later"});
    let service = Service::new(Reply::Json(denial));
    let (alice, bob) = (agent("Alice"), agent("Bob"));
    let message =
        || testkit::route(&alice, &bob).id("m").correlation_id("c").payload(json!({"sdp": "x"}));
    let kit_without = kit(&service.url(), json!({}));
    let denied = Ok(deny(DenyCode::RateLimited, "later"));
    assert_eq!(kit_without.route(message()), denied);
    let asked = service.next().json();
    assert_eq!(
        (&asked["message"]["id"], &asked["message"]["type"]),
        (&json!("m"), &json!("OFFER"))
    );
    assert_eq!(asked["message"]["target"]["did"], "did:key:zBob");
    assert_eq!(asked["message"].get("payload"), None);
    let kit_with = kit(&service.url(), json!({"send_payload": true}));
    assert_eq!(kit_with.route(message()), denied);
    assert_eq!(service.next().json()["message"]["payload"], json!({"sdp": "x"}));
}

#[test]
fn credentials_are_sent_only_when_asked() {
    let service = Service::new(allowing());
    let alice = agent("Alice");
    let register = testkit::register(&alice).credentials("sesame");
    for sent in [false, true] {
        let kit = kit(&service.url(), json!({"send_credentials": sent}));
        assert_eq!(kit.register(register.clone()), Ok(allow()));
        let asked = service.next().json();
        assert_eq!(asked.get("credentials"), sent.then_some(&json!("sesame")));
        kit.shutdown().unwrap();
    }
}

#[test]
fn requests_carry_the_headers_the_token_and_a_signature() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, token) = (folder.path().join("secret"), folder.path().join("token"));
    fs::write(&secret, "0123456789abcdef\n").unwrap();
    fs::write(&token, "sesame\n").unwrap();
    let service = Service::new(Reply::Status(204));
    let kit = kit(
        &service.url(),
        json!({"secret_file": secret, "token_file": token, "headers": {"X-Region": "eu"}}),
    );
    assert_eq!(register(&kit, &agent("Alice")), Ok(CONTINUE));
    let asked = service.next();
    assert_eq!(asked.header("x-region"), "eu");
    assert_eq!(asked.header("authorization"), "Bearer sesame");
    let timestamp = asked.header("x-conexus-timestamp");
    assert_eq!(timestamp, START_MS.to_string());
    let signed = [timestamp.as_bytes(), b".", &asked.body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef"), &signed);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(asked.header("x-conexus-signature"), format!("sha256={hex}"));
    kit.shutdown().unwrap();
}

#[test]
fn what_is_no_answer_fails_the_hook() {
    let service = Service::new(allowing());
    let config = json!({"circuit": {"failures": 1000}, "response_bytes": "1KiB"});
    let kit = kit(&service.url(), config);
    let alice = agent("Alice");
    let long = json!({"verdict": "deny", "reason": "x".repeat(2000)});
    let lies = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".to_vec();
    for (reply, words) in [
        (Reply::Status(500), "500"),
        (Reply::Status(404), "404"),
        (Reply::Status(302), "302"),
        (Reply::Status(307), ""),
        (Reply::Json(json!({"verdict": "perhaps"})), "perhaps"),
        (Reply::Json(json!({"verdict": "allow", "redirect": "did:key:zX"})), "redirect"),
        (Reply::Json(json!([])), "cannot be used"),
        (Reply::Json(long), ""),
        (Reply::Raw(b"not HTTP at all\r\n\r\n".to_vec()), ""),
        (Reply::Raw(Vec::new()), ""),
        (Reply::Raw(lies), ""),
    ] {
        service.answer(reply);
        let why = failure(register(&kit, &alice));
        assert!(why.contains(words), "{why}");
    }
    assert_eq!(kit.host().counter("failures"), 11);
    service.answer(allowing());
    assert_eq!(register(&kit, &alice), Ok(allow()));
}

#[test]
fn a_service_that_says_nothing_fails_at_the_timeout() {
    let service = Service::new(Reply::Silence);
    let kit = kit(&service.url(), json!({"timeout": "100ms"}));
    assert!(failure(register(&kit, &agent("Alice"))).contains("timeout"));
    kit.shutdown().unwrap();
}

#[test]
fn the_circuit_opens_after_failures_and_closes_after_a_success() {
    let service = Service::new(Reply::Status(503));
    let kit = kit(&service.url(), json!({"circuit": {"failures": 2, "open": "10s"}}));
    let alice = agent("Alice");
    for _ in 0..5 {
        register(&kit, &alice).unwrap_err();
    }
    assert_eq!((service.asked().len(), kit.host().counter("rejected")), (2, 3));
    kit.host().advance(Duration::from_secs(10));
    for _ in 0..5 {
        register(&kit, &alice).unwrap_err();
    }
    assert_eq!(service.asked().len(), 1);
    service.answer(allowing());
    kit.host().advance(Duration::from_secs(10));
    for _ in 0..5 {
        assert_eq!(register(&kit, &alice), Ok(allow()));
    }
    // One warning for the whole time, one line when it is back.
    assert_eq!(kit.host().lines().len(), 2);
}

#[test]
fn a_port_that_nobody_listens_at_fails() {
    let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let kit = kit(&format!("http://{address}/"), json!({}));
    assert!(failure(register(&kit, &agent("Alice"))).contains("cannot be reached"));
}

#[test]
fn answers_are_cached_by_what_they_depend_on() {
    let service = Service::new(allowing());
    let cache = json!({"ttl": "30s", "key": ["labels"]});
    let kit = kit(&service.url(), json!({"cache": cache}));
    let other = testkit::agent("did:key:zC").label("team", "blue").build();
    for agent in [agent("Alice"), agent("Bob"), other.clone(), other] {
        assert_eq!(register(&kit, &agent), Ok(allow()));
    }
    assert_eq!((service.asked().len(), kit.host().counter("cached")), (2, 2));
    let (alice, bob) = (agent("Alice"), agent("Bob"));
    assert_eq!(kit.route(testkit::route(&alice, &bob)), Ok(allow()));
    assert_eq!(service.asked().len(), 1);
    kit.host().advance(Duration::from_secs(30));
    assert_eq!(register(&kit, &alice), Ok(allow()));
    assert_eq!(service.asked().len(), 1);
}

#[test]
fn neither_failures_nor_answers_to_other_credentials_are_taken_from_the_cache() {
    let service = Service::new(Reply::Status(500));
    let more = json!({"cache": {"ttl": "30s", "key": ["did"]}, "send_credentials": true});
    let kit = kit(&service.url(), more);
    let alice = agent("Alice");
    let ask = |credentials: &str| kit.register(testkit::register(&alice).credentials(credentials));
    ask("a").unwrap_err();
    service.answer(allowing());
    for credentials in ["a", "a", "b"] {
        assert_eq!(ask(credentials), Ok(allow()));
    }
    assert_eq!(service.asked().len(), 3);
}

#[test]
fn registrations_beyond_the_queue_fail_at_once_and_those_in_it_at_the_stop() {
    let service = Service::new(Reply::Silence);
    let more = json!({"threads": 1, "queue": 1, "timeout": "300ms"});
    let kit = kit(&service.url(), more);
    let alice = agent("Alice");
    let event = Event::Register(Arc::new(testkit::register(&alice).into()));
    assert!(matches!(kit.call(&event), Ok(Returned::Deferred(_))));
    service.next();
    // The thread is busy: one waits, the next finds no room.
    assert!(matches!(kit.call(&event), Ok(Returned::Deferred(_))));
    assert!(failure(register(&kit, &alice)).contains("too many"));
    let host = kit.host().clone();
    kit.shutdown().unwrap();
    assert_eq!((host.open(), host.counter("rejected")), (vec![], 1));
    assert_eq!(service.asked().len(), 0);
}

#[test]
fn faults_of_the_configuration_name_their_key() {
    let url = "https://x.example/";
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short");
    fs::write(&short, "x").unwrap();
    for (config, key) in [
        (json!({}), "url"),
        (json!({"url": "nowhere"}), "url"),
        (json!({"url": "ftp://x.example/"}), "url"),
        (json!({"url": "https://a:b@x.example/"}), "url"),
        (json!({"url": "http://x.example/", "send_credentials": true}), "send_credentials"),
        (json!({"url": url, "timeout": "soon"}), "duration"),
        (json!({"url": url, "timeout": "0s"}), "timeout"),
        (json!({"url": url, "threads": 0}), "threads"),
        (json!({"url": url, "queue": 0}), "queue"),
        (json!({"url": url, "cache": {}}), "ttl"),
        (json!({"url": url, "cache": {"ttl": "1s", "entries": 0}}), "cache.entries"),
        (json!({"url": url, "cache": {"ttl": "1s", "key": []}}), "cache.key"),
        (json!({"url": url, "cache": {"ttl": "1s", "key": ["shoe"]}}), "shoe"),
        (json!({"url": url, "circuit": {"failures": 0}}), "circuit.failures"),
        (json!({"url": url, "headers": {"a b": "c"}}), "headers.a b"),
        (json!({"url": url, "headers": {"a": "c\n"}}), "headers.a"),
        (json!({"url": url, "proxy": "::"}), "proxy"),
        (json!({"url": url, "secret_file": "/nowhere/at/all"}), "secret_file"),
        (json!({"url": url, "secret_file": short}), "secret_file"),
        (json!({"url": url, "token_file": "/nowhere/at/all"}), "token_file"),
        (json!({"url": url, "ca_file": short}), "ca_file"),
        (json!({"url": url, "tiemout": "1s"}), "tiemout"),
    ] {
        let fault = Kit::<Webhook>::new(config.clone()).unwrap_err().to_string();
        assert!(fault.contains(key), "{config}: {fault}");
    }
}
