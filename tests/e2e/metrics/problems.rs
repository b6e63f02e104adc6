//! What is wrong right now is named, with its subject and since when.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conexus_protocol::{Identity, Subprotocol};
use serde_json::Value;
use tokio::{net::TcpSocket, time::Instant};

use super::{overview, problem};
use crate::support::{
    PATIENCE,
    agent::Agent,
    process::{Process, folder_with},
    scrape::Scrape,
};

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// It is about that subject, and began between `began` and now.
fn is_about(problem: &Value, subject: &str, began: i64) {
    assert_eq!(problem["subject"], subject, "{problem}");
    let since = problem["since_ms"].as_i64().unwrap();
    // The gateway tells the wall's time from its own clock, whole milliseconds.
    assert!((began - 2..=now_ms() + 2).contains(&since), "{began} {problem}");
}

#[tokio::test]
async fn an_agent_that_stops_reading_is_named_until_it_is_ended() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &["--set", "limits.write_timeout=4s"]).await;
    let small = TcpSocket::new_v4().unwrap();
    small.set_recv_buffer_size(4096).unwrap();
    let identity = Identity::generate();
    let mut deaf = Agent::connect_at(gateway.addr, Subprotocol::V1, identity, small).await;
    deaf.register().await;
    let mut sender = gateway.agent().await;
    let (began, sdp) = (now_ms(), "x".repeat(60_000));
    // More than the kernel's buffers take, and then more than the outbox does.
    let tried = Instant::now();
    while Scrape::of(&gateway).await.count("conexus_slow_readers", &[]) == 0 {
        assert!(tried.elapsed() < PATIENCE, "nobody is slow");
        for _ in 0..20 {
            sender.send_offer(&deaf.did(), &sdp).await;
        }
    }
    let scrape = Scrape::of(&gateway).await;
    assert!(scrape.count("conexus_outbox_messages", &[]) > 0);
    assert!(scrape.count("conexus_outbox_bytes", &[]) > 60_000);
    assert!(scrape.count("conexus_outbox_messages_max", &[]) > 0);
    let slow = problem(&gateway, "slow_reader").await;
    is_about(&slow, &deaf.did(), began);
    assert_eq!(slow["link"], format!("#/agents/{}", deaf.did()));
    assert_eq!(slow["severity"], "warning");
    let ended = |scrape: &Scrape| {
        scrape.count("conexus_sessions_ended_total", &[("reason", "too_slow")]) == 1
    };
    Scrape::once(&gateway, "its end", ended).await;
    // Whatever waited for it has come to its end as well.
    let settled = |scrape: &Scrape| {
        let of = |name: &str| scrape.count(name, &[]);
        let (received, delivered) =
            (of("conexus_messages_received_total"), of("conexus_messages_delivered_total"));
        of("conexus_slow_readers") == 0
            && received == delivered + of("conexus_messages_refused_total")
    };
    let scrape = Scrape::once(&gateway, "what it left to come back", settled).await;
    assert!(scrape.count("conexus_messages_refused_total", &[("reason", "unknown_agent")]) > 0);
}

#[tokio::test]
async fn a_mailbox_without_room_is_named_for_its_agent_until_it_is_emptied() {
    let folder = folder_with(&[]);
    let hold = ["--set", "mailbox.hold=10m", "--set", "mailbox.messages_per_agent=3"];
    let gateway = Process::start(folder.path(), &hold).await;
    let (mut sender, away, began) = (gateway.agent().await, Identity::generate(), now_ms());
    for _ in 0..3 {
        sender.send_offer(away.did(), "x").await;
    }
    sender.send_offer(away.did(), "one too many").await;
    assert_eq!(sender.refusal().await.reason.as_deref(), Some("queue_full"));
    let full = problem(&gateway, "mailbox_full").await;
    is_about(&full, away.did(), began);
    assert_eq!(
        (&full["severity"], &full["link"]),
        (&"critical".into(), &format!("#/agents/{}", away.did()).into(),)
    );
    let shown = |scrape: &Scrape| scrape.count("conexus_mailboxes_full", &[]) == 1;
    let scrape = Scrape::once(&gateway, "a full mailbox", shown).await;
    assert_eq!(scrape.count("conexus_messages_held", &[("type", "OFFER")]), 3);
    assert_eq!(scrape.count("conexus_mailbox_agents", &[]), 1);
    assert!(scrape.count("conexus_mailbox_bytes", &[]) > 0);
    assert_eq!(overview(&gateway).await["mailbox"]["messages"], 3);

    let mut back = gateway.connect(Subprotocol::V1_1, away).await;
    back.register().await;
    for _ in 0..3 {
        back.text().await;
    }
    let empty = |scrape: &Scrape| {
        scrape.count("conexus_mailboxes_full", &[]) == 0
            && scrape.count("conexus_messages_held", &[]) == 0
            && scrape.count("conexus_mailbox_bytes", &[]) == 0
    };
    Scrape::once(&gateway, "an empty mailbox", empty).await;
}

#[tokio::test]
async fn connections_near_their_limit_and_turned_away_are_named() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &["--set", "limits.connections=2"]).await;
    let began = now_ms();
    let _two = (gateway.agent().await, gateway.agent().await);
    let full = problem(&gateway, "connections_full").await;
    is_about(&full, "limits.connections", began);
    assert!(full["text"].as_str().unwrap().starts_with("2 of 2 connections"), "{full}");
}

#[tokio::test]
async fn a_gateway_that_is_well_has_no_problems() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let (mut a, b) = (gateway.agent().await, gateway.agent().await);
    a.send_offer(&b.did(), "x").await;
    // After a look of the monitor's at that.
    let looked = |scrape: &Scrape| scrape.count("conexus_agents", &[]) == 2;
    Scrape::once(&gateway, "two agents", looked).await;
    let first = overview(&gateway).await["at_ms"].clone();
    let until = Instant::now() + Duration::from_secs(20);
    let now = loop {
        let now = overview(&gateway).await;
        if now["at_ms"] != first {
            break now;
        }
        assert!(Instant::now() < until, "it does not look");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(now["problems"], serde_json::json!([]));
}
