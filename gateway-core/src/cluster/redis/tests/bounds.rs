//! Too much of something.

use bytes::Bytes;
use conexus_plugin_api::host::StateError;

use super::*;
use crate::cluster::{
    backplane::{Announced, Release, StateOperation, StateRequest},
    ids::Bucket,
};

#[tokio::test]
async fn a_node_that_takes_nothing_loses_its_link() {
    let server = RedisServer::with(&["client-output-buffer-limit pubsub 1gb 1gb 60"]);
    let engine = |timeout| {
        let redis = RedisSettings { timeout, ..settings() };
        RedisBackplane::new(&server.url(), &Settings::default().cluster, &redis).unwrap()
    };
    let a = connect(&server.url(), &settings(), A).await.unwrap();
    // Too much at once.
    let (events, mut heard) = mpsc::channel(1);
    let b = engine(LONG).connect(B, events).await.unwrap();
    let frames = Bytes::from(vec![b'x'; 1 << 20]);
    while a.link.publish(B, frames.clone()).await.unwrap() {}
    let why = b.renew(B, &info(), LEASE).await.unwrap_err().to_string();
    assert!(why.contains("32 MiB came in that this node did not take"), "{why}");
    let mut taken = 0;
    let last = loop {
        match timeout(LONG, heard.recv()).await.unwrap().unwrap() {
            LinkEvent::Frames(_) => taken += 1,
            other => break other,
        }
    };
    assert!(taken <= 34, "{taken} MiB were kept");
    assert!(matches!(last, LinkEvent::Lost(Away(lost)) if *lost == *why));
    drop(b);
    // A little for too long.
    let (events, _heard) = mpsc::channel(1);
    let b = engine(Duration::from_millis(300)).connect(B, events).await.unwrap();
    for _ in 0..3 {
        a.link.publish(B, Bytes::from_static(b"x")).await.unwrap();
    }
    let lost = async {
        while b.renew(B, &info(), LEASE).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, lost).await.unwrap();
    let why = b.renew(B, &info(), LEASE).await.unwrap_err().to_string();
    assert!(why.contains("took nothing"), "{why}");
}

#[tokio::test]
async fn what_a_server_does_not_keep_for_a_listener_ends_the_link() {
    let server = RedisServer::with(&["client-output-buffer-limit pubsub 64kb 64kb 60"]);
    let a = connect(&server.url(), &settings(), A).await.unwrap();
    let b = connect(&server.url(), &settings(), B).await.unwrap();
    a.link.publish(B, Bytes::from(vec![b'x'; 1 << 20])).await.unwrap();
    let why = b.lost().await;
    assert!(why.contains("closed the connection") || why.contains("reset"), "{why}");
}

#[tokio::test]
async fn a_full_server_is_an_error_of_the_hook_and_no_end_of_the_link() {
    let server = RedisServer::start();
    let linked = connect(&server.url(), &settings(), A).await.unwrap();
    let agent = agent();
    let Claimed::Won { epoch, .. } = linked.claim(&agent).await.unwrap() else { panic!() };
    let request =
        |operation| StateRequest { namespace: "hook".into(), key: "k".to_owned(), operation };
    let incr = request(StateOperation::Incr { by: 1, ttl: None });
    linked.link.state(&incr).await.unwrap().unwrap();
    server.must(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(linked.link.state(&incr).await.unwrap(), Err(StateError::Full));
    // What gives room is done all the same.
    linked.link.state(&request(StateOperation::Get)).await.unwrap().unwrap();
    linked.link.state(&request(StateOperation::Delete)).await.unwrap().unwrap();
    let key = AgentKey::from_bytes(agent.key);
    linked.link.release(A, &[Release { key, epoch, reason: "closed" }]).await.unwrap();
    assert!(!linked.knows(&agent).await);
    let why = linked.claim(&agent).await.unwrap_err().to_string();
    assert!(why.contains("OOM"), "{why}");
}

#[tokio::test]
async fn a_hundred_thousand_agents_come_and_go() {
    let server = RedisServer::start();
    let linked = connect(&server.url(), &settings(), A).await.unwrap();
    let some = agent();
    let mut releases = Vec::new();
    for bucket in Bucket::all() {
        let announced = |number: u32| {
            let mut agent = Agent::clone(&some);
            agent.key[0] = bucket.0;
            agent.key[1..5].copy_from_slice(&number.to_be_bytes());
            Announced { agent: Arc::new(agent), epoch: Err(Duration::ZERO) }
        };
        let all: Vec<_> = (0..391).map(announced).collect();
        for outcome in linked.link.announce(A, bucket, &all).await.unwrap() {
            let Claimed::Won { epoch, .. } = outcome.claimed else { panic!() };
            releases.push(Release { key: outcome.key, epoch, reason: "closed" });
        }
    }
    assert!(releases.len() > 100_000);
    linked.link.release(A, &releases).await.unwrap();
    let left = server.must(&["KEYS", "*:dir"]);
    assert_eq!(left, "*0\r\n");
    assert_eq!(server.must(&["KEYS", "*:of:*"]), "*0\r\n");
}
