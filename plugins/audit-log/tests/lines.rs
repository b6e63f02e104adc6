//! Events as lines in a file.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use audit_log::AuditLog;
use conexus_plugin_api::{
    Agent, CONTINUE, Point,
    testkit::{self, Kit},
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn begun(more: Value) -> (Kit<AuditLog>, TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut config = json!({"path": path});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let kit = Kit::new(config).unwrap();
    kit.start().unwrap();
    (kit, folder, path)
}

fn agents() -> (Arc<Agent>, Arc<Agent>) {
    let alice = testkit::agent("did:key:zAlice").name("Alice").label("team", "red").build();
    (alice, testkit::agent("did:key:zBob").build())
}

/// All lines, after the last was written.
fn lines(kit: Kit<AuditLog>, path: &PathBuf) -> Vec<Value> {
    kit.shutdown().unwrap();
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_point_writes_its_line_and_none_decides() {
    let (kit, _folder, path) = begun(json!({}));
    let (alice, bob) = agents();
    assert_eq!(kit.connect(testkit::connect()), Ok(CONTINUE));
    assert_eq!(kit.register(testkit::register(&alice)), Ok(CONTINUE));
    kit.registered(testkit::registered(&alice)).unwrap();
    kit.host().advance(Duration::from_millis(1500));
    assert_eq!(kit.route(testkit::route(&alice, &bob).id("m1")), Ok(CONTINUE));
    assert_eq!(kit.undeliverable(testkit::route(&alice, &bob).absent()), Ok(CONTINUE));
    kit.delivered(testkit::delivered(&alice, &bob, "OFFER", 12)).unwrap();
    assert_eq!(kit.watch(testkit::watch(&alice, "did:key:zBob")), Ok(CONTINUE));
    assert_eq!(kit.expire(testkit::expire(&alice, Duration::from_secs(9))), Ok(CONTINUE));
    kit.replaced(testkit::replaced(&alice)).unwrap();
    kit.unregister(testkit::unregister(&alice)).unwrap();
    kit.disconnect(testkit::disconnect(&alice, "closed")).unwrap();
    kit.hook_error(testkit::hook_error("other", Point::Route, "panic", "oh")).unwrap();

    let lines = lines(kit, &path);
    let points: Vec<_> = lines.iter().map(|line| line["point"].as_str().unwrap()).collect();
    let expected = [
        "on_connect",
        "on_register",
        "on_registered",
        "on_route",
        "on_undeliverable",
        "on_delivered",
        "on_watch",
        "on_expire",
        "on_replaced",
        "on_unregister",
        "on_disconnect",
        "on_hook_error",
    ];
    assert_eq!(points, expected);
    let agent = json!({
        "did": "did:key:zAlice", "session": 1, "address": "127.0.0.1:50000", "name": "Alice",
        "labels": {"team": "red"},
    });
    let registered = json!({
        "at": "2024-01-01T00:00:00Z", "point": "on_registered", "generation": 1,
        "agent": agent, "renewal": false,
    });
    assert_eq!(lines[2], registered);
    assert_eq!(lines[3]["at"], "2024-01-01T00:00:01.5Z");
    let message = &lines[3]["message"];
    assert_eq!((&message["id"], &message["type"]), (&json!("m1"), &json!("OFFER")));
    assert_eq!((&message["present"], message.get("payload")), (&json!(true), None));
    assert_eq!((&lines[10]["reason"], &lines[10]["code"]), (&json!("closed"), &json!(1000)));
    assert_eq!((&lines[11]["hook"], &lines[11]["message"]), (&json!("other"), &json!("oh")));
}

#[test]
fn secrets_are_never_written_and_payloads_only_when_asked() {
    let (alice, bob) = agents();
    for payload in [false, true] {
        let (kit, _folder, path) = begun(json!({"payload": payload}));
        let connect = testkit::connect().header("authorization", "sesame").query("token=sesame");
        kit.connect(connect).unwrap();
        kit.register(testkit::register(&alice).credentials("sesame")).unwrap();
        kit.route(testkit::route(&alice, &bob).payload(json!({"sdp": "private"}))).unwrap();
        kit.shutdown().unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains("sesame"), "{text}");
        assert_eq!(text.contains("private"), payload, "{text}");
    }
}

#[test]
fn a_name_cannot_forge_a_line() {
    let (kit, _folder, path) = begun(json!({}));
    let forger = testkit::agent("did:key:zF").name("x\"}\n{\"point\":\"on_start\"}\r\n").build();
    kit.registered(testkit::registered(&forger)).unwrap();
    let lines = lines(kit, &path);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["agent"]["name"], "x\"}\n{\"point\":\"on_start\"}\r\n");
}

#[test]
fn files_rotate_and_no_line_is_lost_or_cut() {
    let (kit, folder, path) = begun(json!({"max_bytes": "4KiB", "keep": 100}));
    let (alice, bob) = agents();
    for id in 0..500 {
        kit.route(testkit::route(&alice, &bob).id(&id.to_string())).unwrap();
    }
    kit.shutdown().unwrap();
    let files = fs::read_dir(folder.path()).unwrap().count();
    let mut ids = Vec::new();
    for nth in (0..files).rev() {
        let end = if nth == 0 { String::new() } else { format!(".{nth}") };
        let text = fs::read_to_string(format!("{}{end}", path.display())).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            ids.push(line["message"]["id"].as_str().unwrap().parse::<u32>().unwrap());
        }
    }
    assert!(files > 1);
    assert_eq!(ids, (0..500).collect::<Vec<_>>());
}

#[test]
fn nothing_is_made_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let kit = Kit::<AuditLog>::new(json!({"path": path})).unwrap();
    assert!(!path.exists());
    assert!(kit.connect(testkit::connect()).is_err());
    kit.shutdown().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_disk_that_does_not_take_it_is_said_once_and_counted() {
    let (kit, folder, path) = begun(json!({}));
    let (alice, _) = agents();
    // A folder in its place cannot be opened for writing.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let host = kit.host().clone();
    for _ in 0..50 {
        kit.registered(testkit::registered(&alice)).unwrap();
    }
    kit.shutdown().unwrap();
    assert_eq!((host.lines().len(), host.counter("lost")), (1, 50));
    drop(folder);
}

#[test]
fn faults_of_the_configuration_name_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    for (config, key) in [
        (json!({}), "path"),
        (json!({"path": "/nowhere/at/all"}), "/nowhere"),
        (json!({"path": folder.path()}), "path"),
        (json!({"path": path, "max_bytes": "1B"}), "max_bytes"),
        (json!({"path": path, "max_bytes": "big"}), "big"),
        (json!({"path": path, "keep": 5000}), "keep"),
        (json!({"path": path, "queue": 0}), "queue"),
        (json!({"path": path, "queue_bytes": "1B"}), "queue_bytes"),
        (json!({"path": path, "fsnyc": true}), "fsnyc"),
    ] {
        let fault = Kit::<AuditLog>::new(config.clone()).unwrap_err().to_string();
        assert!(fault.contains(key), "{config}: {fault}");
    }
}
