//! Connections and attempts to connect, by address.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{agent_from, connect_from, gateway_with};
use crate::support::{scrape::Scrape, soon};

const REFUSED: &str = "conexus_connections_refused_total";

fn too_many() -> (u16, serde_json::Value) {
    (429, json!({ "error": "too many connections from this address" }))
}

#[tokio::test]
async fn one_address_has_its_places_and_another_its_own() {
    let (_folder, gateway) = gateway_with(&["limits.connections_per_address=2"]).await;
    let mut first = agent_from("127.0.0.2", gateway.addr).await.unwrap();
    first.register().await;
    let second = agent_from("127.0.0.2", gateway.addr).await.unwrap();
    for _ in 0..3 {
        assert_eq!(agent_from("127.0.0.2", gateway.addr).await.err(), Some(too_many()));
    }
    let mut other = agent_from("127.0.0.3", gateway.addr).await.unwrap();
    other.register().await;
    let (_, text) = other.send_offer(&first.did(), "x").await;
    assert_eq!(first.text().await, text, "who is in stays in");

    let full = [("reason", "address_full")];
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.count(REFUSED, &full), 3);
    assert_eq!(scrape.count("conexus_networks_connected", &[]), 2);
    let said = gateway.logged("connection refused").await;
    assert!(
        said.contains("limits.connections_per_address") && said.contains("127.0.0.2"),
        "{said}"
    );

    drop(second);
    let gone = |scrape: &Scrape| scrape.count("conexus_connections", &[]) == 2;
    Scrape::once(&gateway, "the place to be free", gone).await;
    agent_from("127.0.0.2", gateway.addr).await.unwrap();
    drop((first, other));
    let empty = |scrape: &Scrape| scrape.count("conexus_networks_connected", &[]) == 0;
    Scrape::once(&gateway, "nothing to be left", empty).await;
}

#[tokio::test]
async fn ipv6_counts_by_its_64_and_ipv4_by_itself_on_a_listener_for_both() {
    let (_folder, gateway) = gateway_with(&[
        "limits.connections_per_address=1",
        "server.listen=[::]:0",
        "server.public_urls=[\"ws://localhost/ws\"]",
    ])
    .await;
    let (v4, v6) = (
        format!("127.0.0.1:{}", gateway.addr.port()).parse().unwrap(),
        format!("[::1]:{}", gateway.addr.port()).parse().unwrap(),
    );
    let kept = agent_from("127.0.0.2", v4).await.unwrap();
    assert_eq!(agent_from("127.0.0.2", v4).await.err(), Some(too_many()));
    let other = agent_from("127.0.0.3", v4).await.unwrap();
    let sixth = agent_from("::1", v6).await.unwrap();
    assert_eq!(agent_from("::1", v6).await.err(), Some(too_many()));
    drop((kept, other, sixth));
}

#[tokio::test]
async fn attempts_over_the_rate_are_turned_away_before_anything_else() {
    let (_folder, gateway) = gateway_with(&[
        "limits.connects_per_second_per_address=1",
        "limits.connect_burst_per_address=5",
    ])
    .await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(agent_from("127.0.0.2", gateway.addr).await.map_err(|(status, _)| status));
    }
    let passed = statuses.iter().filter(|status| status.is_ok()).count();
    // Time goes by while they come.
    assert!((5..20).contains(&passed), "{passed}");
    assert!(statuses.iter().all(|status| matches!(status, Ok(_) | Err(429))));
    let mut bystander = agent_from("127.0.0.3", gateway.addr).await.unwrap();
    bystander.register().await;

    // Who says nothing at all is turned away, too.
    let turned_away = async |from: &str| {
        let mut stream = connect_from(from, gateway.addr).await;
        let mut said = String::new();
        soon("to be turned away", stream.read_to_string(&mut said)).await.unwrap();
        said
    };
    let said = turned_away("127.0.0.2").await;
    assert!(said.starts_with("HTTP/1.1 429 ") && said.contains("Retry-After: "), "{said}");
    let scrape = Scrape::of(&gateway).await;
    let refused = scrape.count(REFUSED, &[("reason", "address_rate")]);
    assert_eq!(refused, u64::try_from(21 - passed).unwrap());
    assert_eq!(scrape.count("conexus_limits_untracked_total", &[]), 0);
    let said = gateway.logged("connection refused").await;
    assert!(said.contains("limits.connects_per_second_per_address"), "{said}");
}

#[tokio::test]
async fn a_flood_over_its_limits_is_a_line_a_second_and_leaves_the_admin_listener_alone() {
    let (_folder, gateway) = gateway_with(&[
        "limits.connects_per_second_per_address=1",
        "limits.connections_per_address=1",
    ])
    .await;
    let began = std::time::Instant::now();
    for _ in 0..300 {
        let mut stream = connect_from("127.0.0.2", gateway.addr).await;
        // It may be gone before it is written to.
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    }
    let refused = |scrape: &Scrape| scrape.sum(REFUSED, &[]) >= 250.0;
    Scrape::once(&gateway, "the refusals", refused).await;
    let seconds = began.elapsed().as_secs() + 1;
    let lines = gateway.log().iter().filter(|line| line.contains("connection refused")).count();
    assert!(lines as u64 <= seconds + 1, "{lines} lines in {seconds} s");
}
