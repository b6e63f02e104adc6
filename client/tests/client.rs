//! The client against a gateway in the same process, over real sockets, scripted by each test.
//!
//! Nothing here sleeps for a guessed time: tests wait for what they expect, and a wait that
//! does not end fails after [`PATIENCE`].

#![allow(clippy::unwrap_used, reason = "clippy takes only the #[test] functions for tests")]

#[path = "client/connecting.rs"]
mod connecting;
#[cfg(feature = "find")]
#[path = "client/finding.rs"]
mod finding;
#[path = "client/gateway.rs"]
mod gateway;
#[path = "client/handling.rs"]
mod handling;
#[path = "client/lifecycle.rs"]
mod lifecycle;
#[cfg(feature = "p2p")]
#[path = "client/peers.rs"]
mod peers;
#[path = "client/reconnecting.rs"]
mod reconnecting;
#[path = "client/sending.rs"]
mod sending;
#[path = "client/tls.rs"]
mod tls;
#[path = "client/verifying.rs"]
mod verifying;
#[path = "client/watching.rs"]
mod watching;

use std::{future::Future, time::Duration};

use conexus_client::{Builder, Client, ConnectionState, Handle, Identity, ReconnectPolicy};
use gateway::{Gateway, Peer};
use tokio::sync::mpsc;

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test when what it waits for does not come.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happened")
}

/// A policy of milliseconds.
fn quick(max_attempts: u32) -> ReconnectPolicy {
    ReconnectPolicy {
        initial: Duration::from_millis(5),
        max: Duration::from_millis(20),
        max_attempts,
        stable_after: Duration::from_secs(60),
    }
}

fn builder(gateway: &Gateway) -> Builder {
    Client::builder(gateway.url(), Identity::generate()).reconnect(quick(5))
}

/// A client that is registered by v1.1, and the gateway's end of its connection.
async fn connected(gateway: &Gateway) -> (Client, Peer) {
    let mut client = builder(gateway).build().unwrap();
    let peer = connect(&mut client, gateway).await;
    (client, peer)
}

async fn connect(client: &mut Client, gateway: &Gateway) -> Peer {
    let (connected, peer) =
        soon(async { tokio::join!(client.connect(), gateway.register()) }).await;
    connected.unwrap();
    peer
}

/// What the handlers of one kind hear, one after the other.
struct Heard<T>(mpsc::UnboundedReceiver<T>);

impl<T> Heard<T> {
    async fn next(&mut self) -> T {
        soon(self.0.recv()).await.expect("the client has ended")
    }
}

fn states(client: &Handle) -> Heard<ConnectionState> {
    let (sender, heard) = mpsc::unbounded_channel();
    client.on_state(move |state| sender.send(state));
    Heard(heard)
}

/// The error handler's errors with their causes, in words.
fn errors(client: &Handle) -> Heard<String> {
    let (sender, heard) = mpsc::unbounded_channel();
    client.on_error(move |error| sender.send(in_words(error)));
    Heard(heard)
}

/// The message handler's messages, by their payload's text.
fn messages(client: &Handle) -> Heard<String> {
    let (sender, heard) = mpsc::unbounded_channel();
    client.on_message(move |message| sender.send(gateway::sdp(message)));
    Heard(heard)
}

fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
