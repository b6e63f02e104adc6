//! Peer to peer between agents that share no process: with a browser, with a stack of others, through a real TURN
//! server, without the gateway that introduced them.
//!
//! And between programs with the client crate, by the real gateway (`programs`). What two of them say to each other in all
//! its detail is tested with that crate.

mod browser;
mod bulk;
mod examples;
mod foreign;
mod outcomes;
mod programs;
mod relay;
mod restart;
mod vanished;

use conexus_client::{
    AcceptOptions, Channel, ChannelMessage, ChannelOptions, Client, Handle, Identity,
    IncomingRequest, Peer, PeerOptions, RequestFailure, RequestOptions,
};
use serde_json::{Value, json};

use crate::support::soon;

/// A connected agent.
async fn agent(url: &str) -> Client {
    soon("the agent", Client::builder(url, Identity::generate()).connect()).await.unwrap()
}

/// What it is asked, it answers twice over.
async fn twice(request: IncomingRequest) -> Result<Value, RequestFailure> {
    let number = request.args().and_then(|args| args["n"].as_i64());
    let number = number.ok_or_else(|| RequestFailure::told("n: missing"))?;
    Ok(json!({ "twice": 2 * number }))
}

/// Both ends of a connection between two agents.
async fn pair(a: &Handle, b: &Handle, options: PeerOptions) -> (Peer, Peer) {
    let mut incoming = b.accept_peers(AcceptOptions::new().options(options.clone()));
    let there = soon("the connection", a.connect_peer(b.did(), options)).await.unwrap();
    let back = soon("the other end", incoming.recv()).await.unwrap();
    (there, back)
}

/// Sends back whatever comes over channels that the peer opens.
fn echo(peer: &Peer) {
    peer.on_channel(|channel| {
        tokio::spawn(async move {
            while let Some(Ok(message)) = channel.recv().await {
                if channel.send(message).await.is_err() {
                    break;
                }
            }
        });
    });
}

async fn open(peer: &Peer, label: &str) -> Channel {
    let opening = peer.open_channel(label, ChannelOptions::default());
    soon("a channel", opening).await.unwrap()
}

/// Whether a message comes back as it was sent.
async fn comes_back(channel: &Channel, message: impl Into<ChannelMessage>) {
    let message = message.into();
    soon("a message to go", channel.send(message.clone())).await.unwrap();
    let back = soon("it to come back", channel.recv()).await.unwrap().unwrap();
    assert!(back == message, "{} bytes came back for {}", back.len(), message.len());
}

async fn asks(peer: &Peer, number: i64) {
    let asked = peer.request(json!({ "n": number }), RequestOptions::new());
    let answer = soon("an answer", asked).await.unwrap();
    assert_eq!(answer, json!({ "twice": 2 * number }));
}
