//! A peer that is gone without a word, in a process of its own.

use std::time::Duration;

use conexus_client::{
    Client, ConnectionState, Peer, PeerError, PeerOptions, Reply, RequestError, RequestOptions,
    Responses,
};
use serde_json::json;
use tempfile::TempDir;

use super::{
    agent,
    examples::{Running, command},
};
use crate::support::{
    process::{Process, folder_with, signal},
    soon,
};

/// One who works on something that takes for ever, and the one who asked.
struct Asked {
    client: Client,
    peer: Peer,
    replies: Responses,
    worker: Running,
    _gateway: (Process, TempDir),
}

async fn asked() -> Asked {
    let folder = folder_with(&[]);
    let gateway = Process::start(folder.path(), &[]).await;
    let worker = Running::start(command(&gateway, "worker", folder.path(), &[])).await;
    let client = agent(&format!("ws://{}/ws", gateway.addr)).await;
    let options =
        PeerOptions { restarts: 1, open_timeout: Duration::from_secs(2), ..Default::default() };
    let peer = soon("the connection", client.connect_peer(&worker.did, options)).await.unwrap();
    let options = RequestOptions::new().timeout(Duration::from_secs(3600));
    let mut replies = peer.stream(json!({ "primes_below": 100_000_000 }), options);
    progresses(&mut replies).await;
    Asked { client, peer, replies, worker, _gateway: (gateway, folder) }
}

async fn progresses(replies: &mut Responses) {
    let word = soon("word of the work", replies.recv()).await.unwrap();
    assert!(matches!(word, Ok(Reply::Progress(_))), "{word:?}");
}

async fn becomes(peer: &Peer, state: ConnectionState) {
    let mut states = peer.states();
    soon("a state", states.wait_for(|now| *now == state)).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_is_killed_is_sought_and_then_lost_with_what_it_was_asked() {
    let Asked { client, peer, mut replies, mut worker, _gateway } = asked().await;
    worker.child.kill().await.unwrap();
    becomes(&peer, ConnectionState::Connecting).await;
    let lost = soon("the end", peer.closed()).await.unwrap_err();
    assert!(matches!(lost, PeerError::Lost { restarts: 1 }), "{lost:?}");
    assert_eq!(peer.state(), ConnectionState::Error);
    let end = loop {
        match soon("the request's end", replies.recv()).await.unwrap() {
            Ok(Reply::Progress(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(end, Err(RequestError::Lost(Some(_)))), "{end:?}");
    assert!(client.peers().is_empty());
    // The gateway knows, too, and nothing else has suffered.
    let again = client.connect_peer(&worker.did, PeerOptions::default());
    let refused = soon("a refusal", again).await.unwrap_err();
    assert_eq!(refused.reason(), Some("unknown_agent"), "{refused}");
    assert_eq!(client.state(), ConnectionState::Connected);
}

#[tokio::test]
async fn a_peer_that_was_only_frozen_comes_back_and_goes_on() {
    let Asked { client: _client, peer, mut replies, worker, _gateway } = asked().await;
    let process = worker.child.id().unwrap();
    signal(process, "STOP").await;
    becomes(&peer, ConnectionState::Connecting).await;
    signal(process, "CONT").await;
    becomes(&peer, ConnectionState::Connected).await;
    soon("a pong", peer.ping()).await.unwrap();
    progresses(&mut replies).await;
}
