//! Peer to peer: WebRTC data channels to other agents, signaled through the gateway.
//!
//! Two agents that have found each other by the gateway need not go on talking through it. What they agree
//! on, in whichever language, is docs/webrtc.md. Only what the agent's own key has signed counts, for this agent's
//! key, and once: whoever answers the DTLS handshake is the agent of that DID.
//!
//! ```no_run
//! use conexus_client::{
//!     AcceptOptions, Client, Identity, PeerOptions, Reply, RequestFailure, RequestOptions,
//! };
//! use serde_json::json;
//!
//! # async fn run(did: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("wss://gateway.example/ws", Identity::generate()).connect().await?;
//!
//! // Whoever connects may ask for something.
//! client.on_peer(AcceptOptions::new(), |peer| println!("{} has connected", peer.did()));
//! client.on_request(|request| async move {
//!     let Some(text) = request.args().and_then(|args| args.get("text")?.as_str()) else {
//!         return Err(RequestFailure::told("there is nothing to count"));
//!     };
//!     request.progress(json!({ "done": 0.5 })).await?;
//!     Ok(json!(text.len()))
//! });
//!
//! let peer = client.connect_peer(did, PeerOptions::default()).await?;
//! let length = peer.request(json!({ "text": "hello" }), RequestOptions::new()).await?;
//! println!("{length} letters, by {:?}", peer.stats().await.pair);
//!
//! let mut replies = peer.stream(json!({ "text": "hello" }), RequestOptions::new());
//! while let Some(reply) = replies.recv().await {
//!     match reply? {
//!         Reply::Progress(done) => println!("{done}"),
//!         Reply::Part(part) => println!("a part: {part}"),
//!         Reply::Result(length) => println!("{length} letters"),
//!     }
//! }
//! peer.close().await;
//! # Ok(()) }
//! ```
//!
//! # The code
//!
//! `peers` has all of them and sorts what arrives: `signal` proves whom it is for, `freshness` that it is new. Each
//! peer is a `session`, a task that does what `negotiation` and `upkeep` decide; `courier` takes its messages to
//! the gateway, over all connections that the client makes. `control` is the channel that `calls` asks and
//! answers on. [`transport`] is what all of this needs of a WebRTC stack.

mod calls;
mod channel;
mod channels;
mod control;
mod core;
mod courier;
mod error;
mod framing;
mod freshness;
pub(crate) mod gateway;
mod handle;
mod negotiation;
mod options;
mod peer;
pub(crate) mod peers;
mod session;
mod signal;
pub mod transport;
mod upkeep;
pub mod webrtc;

#[cfg(test)]
mod testing;

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::{
    ConnectionState,
    shared::{Config, Shared},
};

pub use calls::{IncomingRequest, Reply, RequestFailure, RequestOptions, Responses};
pub use channel::{Channel, ChannelError, ChannelMessage, ChannelOptions};
pub use channels::IncomingChannels;
pub use error::{PeerError, PeerFault, RequestError};
pub use options::{AcceptOptions, PeerOptions};
pub use peer::{IncomingPeers, Peer, PeerPath, PeerStats};
pub use transport::PathStats;
pub use webrtc::WebRtc;

/// The peers of a client that is being made.
pub(crate) fn of_client(
    client: Weak<Shared>,
    config: &Config,
    states: watch::Receiver<ConnectionState>,
) -> Arc<peers::Peers> {
    let gateway = Arc::new(gateway::OwnGateway::new(client, states));
    let transport = config.p2p.transport.clone().unwrap_or_else(|| Arc::new(webrtc::WebRtc::new()));
    peers::Peers::new(config.identity.clone(), gateway, transport, config.p2p.max_peers)
}

/// A channel over a stack's own, without a peer: for what measures channels.
#[doc(hidden)]
pub fn channel_over(
    raw: Arc<dyn transport::RawChannel>,
    connection: &Arc<dyn transport::Connection>,
) -> Channel {
    Channel::theirs(raw, 16 * 1024 * 1024, connection)
}
