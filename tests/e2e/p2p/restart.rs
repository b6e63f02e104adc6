//! What two agents have opened lives on without the gateway that introduced them.

use conexus_client::{Client, ConnectionState, Identity, PeerOptions, ReconnectPolicy};
use std::time::Duration;

use super::{asks, comes_back, echo, open, pair, twice};
use crate::support::{
    process::{Process, folder_with},
    soon,
};

/// That comes back soon, and for ever.
async fn lasting(url: &str) -> Client {
    let initial = Duration::from_millis(50);
    let policy = ReconnectPolicy { initial, max_attempts: 0, ..ReconnectPolicy::default() };
    let connecting = Client::builder(url, Identity::generate()).reconnect(policy).connect();
    soon("the agent", connecting).await.unwrap()
}

async fn is(client: &Client, state: ConnectionState) {
    let mut states = client.states();
    soon("a state", states.wait_for(|now| *now == state)).await.unwrap();
}

#[tokio::test]
async fn a_channel_outlives_the_gateway_and_the_next_one_introduces_others() {
    let folder = folder_with(&[]);
    let mut first = Process::start(folder.path(), &[]).await;
    let (addr, url) = (first.addr, format!("ws://{}/ws", first.addr));
    let (a, b) = (lasting(&url).await, lasting(&url).await);
    b.on_request(twice);
    let (there, back) = pair(&a, &b, PeerOptions::default()).await;
    echo(&back);
    let channel = open(&there, "lasting").await;
    comes_back(&channel, "with a gateway").await;

    first.signal("KILL").await;
    soon("it to end, and its address to be free", first.wait()).await;
    for client in [&a, &b] {
        let mut states = client.states();
        let gone = states.wait_for(|now| *now != ConnectionState::Connected);
        soon("the gateway to be missed", gone).await.unwrap();
    }
    comes_back(&channel, "without one").await;
    asks(&there, 5).await;
    comes_back(&open(&there, "opened meanwhile").await, "still there").await;

    let again = format!("server.listen={addr}");
    let _second = Process::start(folder.path(), &["--set", &again]).await;
    is(&a, ConnectionState::Connected).await;
    is(&b, ConnectionState::Connected).await;
    assert_eq!(there.state(), ConnectionState::Connected);
    comes_back(&channel, "with another gateway").await;
    let c = lasting(&url).await;
    let (third, _) = pair(&c, &b, PeerOptions::default()).await;
    asks(&third, 6).await;
}
