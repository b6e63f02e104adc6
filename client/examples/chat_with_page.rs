//! A Rust agent that chats with the demo page in a browser, tab to program.
//!
//! ```text
//! cargo run --release -- --set http.demo=true
//! cargo run -p conexus-client --features p2p --example chat_with_page
//! ```
//!
//! and <http://127.0.0.1:8000/demo/> in a browser: the agent is in the list of who is here. What you write there shows
//! here, and the other way round; a line goes to everybody who is connected. With a DID as argument it connects to that
//! agent instead of waiting. The gateway is that of `CONEXUS_URL`.

use anyhow::Context as _;
use conexus_client::{
    AcceptOptions, Channel, ChannelOptions, Client, Identity, Metadata, Peer, PeerOptions,
    ReconnectPolicy,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::mpsc,
};

const DEFAULT_URL: &str = "ws://127.0.0.1:8000/ws";
/// What the page looks for in the gateway's list, and its channel.
const CAPABILITY: &str = "conexus-demo";
const LABEL: &str = "chat";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt::init();
    let url = std::env::var("CONEXUS_URL").unwrap_or_else(|_| DEFAULT_URL.into());
    let mut client = Client::builder(&url, Identity::generate())
        .metadata(Metadata {
            name: Some("A Rust agent".into()),
            capabilities: vec![CAPABILITY.into()],
            ..Metadata::default()
        })
        .reconnect(ReconnectPolicy { max_attempts: 0, ..ReconnectPolicy::default() })
        .build()?;
    client.on_error(|error| eprintln!("{error}"));
    let mut peers = client.accept_peers(AcceptOptions::new());
    client.connect().await.with_context(|| format!("no connection to {url}"))?;
    println!("{}", client.did());

    // Whoever opened the channel, it ends up here.
    let (opened, mut channels) = mpsc::channel(16);
    if let Some(did) = std::env::args().nth(1) {
        let peer = client.connect_peer(did, PeerOptions::default()).await?;
        opened.send(peer.open_channel(LABEL, ChannelOptions::default()).await?).await?;
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut talks: Vec<Channel> = Vec::new();
    loop {
        tokio::select! {
            peer = peers.recv() => {
                let peer = peer.context("the client has ended")?;
                println!("* {} has connected", peer.did());
                tokio::spawn(hand_on(peer, opened.clone()));
            }
            Some(channel) = channels.recv() => {
                tokio::spawn(show(channel.clone()));
                talks.push(channel);
            }
            line = lines.next_line() => {
                let Some(line) = line? else { break };
                talks.retain(|talk| !talk.is_closed());
                for talk in &talks {
                    talk.send(line.as_str()).await?;
                }
            }
        }
    }
    client.close().await;
    Ok(())
}

/// The channels that a peer opens.
async fn hand_on(peer: Peer, opened: mpsc::Sender<Channel>) {
    let mut channels = peer.channels();
    while let Some(channel) = channels.recv().await {
        if channel.label() != LABEL || opened.send(channel).await.is_err() {
            break;
        }
    }
    match peer.closed().await {
        Ok(()) => println!("* {} has gone", peer.did()),
        Err(error) => println!("* {} is lost: {error}", peer.did()),
    }
}

/// What is said on a channel, until it ends.
async fn show(channel: Channel) {
    while let Some(message) = channel.recv().await {
        match message {
            Ok(message) => println!("> {}", message.as_text().unwrap_or("(bytes)")),
            Err(error) => println!("* {error}"),
        }
    }
}
