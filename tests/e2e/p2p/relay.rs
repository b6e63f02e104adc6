//! Two agents that have nothing but a TURN server's relays: a real one, with the credentials that the gateway mints
//! for each.

use std::time::Duration;

use conexus_client::{CandidateKind, PeerError, PeerOptions};
use conexus_gateway::config::{IceServerSettings, Secret};

use super::{agent, asks, comes_back, echo, open, pair, twice};
use crate::{
    ice::coturn::Coturn,
    support::{gateway::TestGateway, soon},
};

fn turn(url: String, secret: &str) -> IceServerSettings {
    let secret = Some(Secret::new(secret));
    IceServerSettings { urls: vec![url], username: None, credential: None, secret }
}

fn relay_only() -> PeerOptions {
    PeerOptions { relay_only: true, ..PeerOptions::default() }
}

#[tokio::test]
async fn agents_that_hide_their_addresses_talk_through_a_relay_alone() {
    let server = Coturn::start("north").await;
    let url = server.url();
    let gateway = TestGateway::start_with(|s| s.ice.servers = vec![turn(url, "north")]).await;
    let (a, b) = (agent(&gateway.url()).await, agent(&gateway.url()).await);
    let (mine, theirs) = (&a.ice_servers()[0], &b.ice_servers()[0]);
    assert_ne!(mine.username, theirs.username, "each has a credential of its own");

    b.on_request(twice);
    let (there, back) = pair(&a, &b, relay_only()).await;
    for peer in [&there, &back] {
        let pair = peer.stats().await.pair.unwrap();
        assert_eq!((pair.local, pair.remote), (CandidateKind::Relay, CandidateKind::Relay));
    }
    echo(&back);
    asks(&there, 3).await;
    let channel = open(&there, "big").await;
    comes_back(&channel, vec![7; 500_000]).await;
    there.close().await;
    soon("an orderly end", back.closed()).await.unwrap();
}

#[tokio::test]
async fn without_a_relay_that_takes_its_credential_nothing_else_is_tried() {
    let server = Coturn::start("north").await;
    let url = server.url();
    let gateway = TestGateway::start_with(|s| s.ice.servers = vec![turn(url, "south")]).await;
    let (a, b) = (agent(&gateway.url()).await, agent(&gateway.url()).await);
    let _incoming = b.accept_peers(conexus_client::AcceptOptions::new().options(relay_only()));
    let short = Duration::from_secs(3);
    let options = PeerOptions { open_timeout: short, attempts: 1, ..relay_only() };
    let connecting = soon("an end", a.connect_peer(b.did(), options)).await;
    assert!(matches!(connecting, Err(PeerError::NoPath(_))), "{connecting:?}");
}
