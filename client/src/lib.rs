//! The agent's SDK for a Conexus gateway.
//!
//! An agent has an [`Identity`], dials a gateway, registers, and exchanges signed messages
//! with other agents by their DIDs:
//!
//! ```no_run
//! use conexus_client::{Client, Identity, protocol::{Answer, Offer, Payload}};
//!
//! # async fn run(peer: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::builder("wss://gateway.example/ws", Identity::generate()).build()?;
//!
//! let handle = client.handle();
//! client.on_message_async(move |message| {
//!     let handle = handle.clone();
//!     async move {
//!         if let Payload::Offer(offer) = &message.payload {
//!             handle.reply(&message, Answer { sdp: offer.sdp.clone() }).await?;
//!         }
//!         Ok::<_, conexus_client::SendError>(())
//!     }
//! });
//! client.on_error(|error| eprintln!("{error}"));
//! client.connect().await?;
//!
//! let offer = Offer { sdp: "v=0".into() };
//! let answer = client.send_confirmed(peer, offer, None).await?;
//! println!("{} answers", answer.from);
//! client.close().await;
//! # Ok(()) }
//! ```
//!
//! # Connection
//!
//! A [`Client`] owns the connection, and dropping it closes the socket; a [`Handle`] is for
//! everyone else. The state is one of five, see [`ConnectionState`]. A lost connection is made
//! again as the [`ReconnectPolicy`] says, unless the gateway's close code makes that
//! pointless, see [`Close::is_final`].
//!
//! # Messages
//!
//! Incoming messages go to handlers ([`Handle::on_message`]) and streams
//! ([`Handle::messages`]). None is dropped: when nobody keeps up, the socket is not read.
//! Signatures are verified first, and what is not proven to be its sender's word reaches
//! error handlers alone. A valid signature says who wrote a message, not when nor for whom:
//! an application to which a repetition matters keeps track of ids.
//!
//! # Presence
//!
//! [`Handle::watch`] tells when other agents come and go:
//!
//! ```no_run
//! # async fn run(client: conexus_client::Client, peer: &str) -> Result<(), conexus_client::SendError> {
//! let mut watch = client.watch([peer])?;
//! while let Some(word) = watch.recv().await {
//!     match word {
//!         Ok(presence) => println!("{} is {}", presence.did, presence.state),
//!         Err(refused) => eprintln!("{refused}: {:?}", refused.reason),
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! [`Handle::find`] (feature `find`, on by default) looks for agents in the gateway's list, by
//! capability, name or label.
//!
//! # Peers
//!
//! With the feature `p2p`, [`Handle::connect_peer`] and [`Handle::on_peer`] connect agents directly, by
//! WebRTC data channels: see the module `p2p`.
//!
//! # Protocol
//!
//! `ioap.v1.1` where the gateway has it, else `ioap.v1` ([`Builder::min_protocol`] forbids
//! that). On v1.1 both sides prove who they are before anything else is said.
//!
//! # The code
//!
//! `driver` owns the socket and moves the state; it gets a registered `link` from `register`,
//! and that a socket from `dial`. `incoming` judges what arrives, `pending` matches answers,
//! `pace` keeps the heartbeat, `watching` knows whom the user
//! wants to be told of. `dispatch` calls the handlers on a task of its own.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backoff;
mod builder;
mod client;
mod dial;
mod dispatch;
mod driver;
mod endpoint;
mod error;
#[cfg(feature = "find")]
mod find;
mod handle;
mod handlers;
#[cfg(feature = "http")]
mod http;
mod ice;
mod incoming;
mod link;
mod messages;
#[cfg(feature = "p2p")]
pub mod p2p;
mod pace;
mod pending;
mod refusal;
mod register;
mod session;
mod shared;
mod state;
mod tls;
mod watching;

pub use conexus_protocol as protocol;
pub use conexus_protocol::{Identity, Message, Metadata, Subprotocol};
pub use rustls;

pub use backoff::ReconnectPolicy;
pub use builder::Builder;
pub use client::Client;
pub use endpoint::UrlError;
pub use error::{ClientError, ConnectError, Loss, SendError, UnverifiedReason};
#[cfg(feature = "find")]
pub use find::{AgentPage, AgentQuery, FindError, FoundAgent};
pub use handle::Handle;
pub use handlers::{HandlerFailure, HandlerId, Outcome};
#[cfg(feature = "http")]
pub use http::HttpError;
#[cfg(feature = "ice")]
pub use ice::outcome::{CandidateKind, CandidateProtocol, IceOutcome};
pub use messages::Messages;
#[cfg(feature = "p2p")]
pub use p2p::{
    AcceptOptions, Channel, ChannelError, ChannelMessage, ChannelOptions, IncomingChannels,
    IncomingPeers, IncomingRequest, PathStats, Peer, PeerError, PeerFault, PeerOptions, PeerPath,
    PeerStats, Reply, RequestError, RequestFailure, RequestOptions, Responses, WebRtc,
};
pub use refusal::{Close, Refusal};
pub use session::Session;
pub use state::ConnectionState;
pub use tls::CertificateFault;
pub use watching::{Watch, WatchError, WatchFault};

/// The snippets of the guide, which are to compile.
#[cfg(all(doctest, feature = "find", feature = "p2p"))]
#[doc = include_str!("../../docs/client.md")]
mod guide {}
