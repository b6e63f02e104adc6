//! How agents got connected reaches the gateway's metrics, from those that want to tell.

use std::time::Duration;

use conexus_client::{AcceptOptions, Client, Identity, PeerError, PeerOptions};

use super::pair;
use crate::{
    ice::coturn::Coturn,
    support::{
        process::{Process, folder_with},
        scrape::Scrape,
        soon,
    },
};

async fn telling(url: &str) -> Client {
    let builder = Client::builder(url, Identity::generate()).report_outcomes(true);
    soon("the agent", builder.connect()).await.unwrap()
}

/// Waits until so many are counted.
async fn counted(gateway: &Process, outcome: &str, count: u64) -> Scrape {
    soon("the outcomes to be counted", async {
        loop {
            let scrape = Scrape::of(gateway).await;
            if scrape.count("conexus_ice_outcomes_total", &[("outcome", outcome)]) >= count {
                return scrape;
            }
        }
    })
    .await
}

#[tokio::test]
async fn who_wants_to_tell_is_counted_and_who_does_not_is_not() {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &["--set", "ice.outcomes=true"]).await;
    let url = format!("ws://{}/ws", gateway.addr);
    let (a, b) = (telling(&url).await, telling(&url).await);
    let silent = super::agent(&url).await;
    let (one, _other) = pair(&silent, &a, PeerOptions::default()).await;
    let scrape = counted(&gateway, "connected", 1).await;
    assert_eq!(scrape.count("conexus_ice_connect_seconds_count", &[]), 1);
    one.close().await;

    let _pair = pair(&a, &b, PeerOptions::default()).await;
    let scrape = counted(&gateway, "connected", 3).await;
    assert_eq!(scrape.count("conexus_ice_outcomes_total", &[]), 3);
    let udp = [("outcome", "connected"), ("transport", "udp")];
    assert_eq!(scrape.count("conexus_ice_outcomes_total", &udp), 3);
    let relayed = [("outcome", "connected"), ("local", "relay")];
    assert_eq!(scrape.count("conexus_ice_outcomes_total", &relayed), 0);
    assert_eq!(scrape.count("conexus_ice_connect_seconds_count", &[]), 3);
    assert_eq!(scrape.count("conexus_ice_reports_total", &[("outcome", "ok")]), 3);
}

#[tokio::test]
async fn a_way_that_was_sought_in_vain_is_counted_as_failed() {
    let folder = folder_with(&[]);
    // It relays nothing for those who know another secret than its own.
    let relay = Coturn::start("north").await;
    let servers = format!("ice.servers=[{{urls=[\"{}\"],secret=\"south\"}}]", relay.url());
    let settings = ["--set", "ice.outcomes=true", "--set", &servers];
    let gateway = Process::start(folder.path(), &settings).await;
    let url = format!("ws://{}/ws", gateway.addr);
    let (a, b) = (telling(&url).await, super::agent(&url).await);
    let _incoming = b.accept_peers(AcceptOptions::new());
    let open_timeout = Duration::from_secs(2);
    let options =
        PeerOptions { relay_only: true, open_timeout, attempts: 1, ..PeerOptions::default() };
    let connecting = soon("an end", a.connect_peer(b.did(), options)).await;
    assert!(matches!(connecting, Err(PeerError::NoPath(_))), "{connecting:?}");
    let scrape = counted(&gateway, "failed", 1).await;
    assert_eq!(scrape.count("conexus_ice_connect_seconds_count", &[]), 0);
}
