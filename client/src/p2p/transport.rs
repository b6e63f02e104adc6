//! What a peer needs of a WebRTC stack: one connection, its descriptions, candidates and channels.
//!
//! A stack is handed the other side's words and tells its own as [`ConnectionEvent`]s. It knows nothing
//! of messages, signatures and agents, so another stack can take its place by these traits
//! alone.

use std::{fmt, sync::Arc, time::Duration};

use conexus_protocol::{IceCandidate, IceServer};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub use crate::ice::outcome::{CandidateKind, CandidateProtocol};

/// Events of one connection that wait to be taken. An honest one has some dozens, and they are taken at once but
/// while a step of the stack's is waited for.
pub const MAX_EVENTS: usize = 1024;

/// Makes connections: a WebRTC stack.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Begins a connection. It makes its control channel at once: negotiated, id 0, ordered and
    /// reliable, label `conexus`, protocol `ioap.v1.1`, told by [`Connection::control`].
    ///
    /// Events are sent until the connection is closed: states, its own candidates, and channels of the other
    /// side, of which there are [`ConnectionConfig::max_channels`] at most at a time. A stack does not wait for room, of which there is for [`MAX_EVENTS`]: one
    /// that finds none drops `events`, which ends the connection.
    fn connect(
        &self,
        config: ConnectionConfig,
        events: mpsc::Sender<ConnectionEvent>,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>, TransportError>>;
}

/// What a connection is made with.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    /// STUN and TURN servers, as the gateway told them.
    pub ice_servers: Vec<IceServer>,
    /// Whether everything goes by a relay, so that the other side does not learn this agent's address.
    pub relay_only: bool,
    /// Channels that the other side may have open at a time; one beyond is closed.
    pub max_channels: usize,
}

/// No servers, any way, 32 channels.
impl Default for ConnectionConfig {
    fn default() -> Self {
        Self { ice_servers: Vec::new(), relay_only: false, max_channels: 32 }
    }
}

/// One connection to another agent. Dropping the last reference closes it.
pub trait Connection: fmt::Debug + Send + Sync {
    /// A description for an OFFER, which is then what waits for its answer; `restart` looks for a way anew.
    fn offer(&self, restart: bool) -> BoxFuture<'_, Result<String, TransportError>>;

    /// Takes the other side's offer and returns the answer. Never called while an own offer
    /// waits: such a connection is rolled back before.
    fn answer(&self, sdp: String) -> BoxFuture<'_, Result<String, TransportError>>;

    /// Takes the answer to the own offer.
    fn answered(&self, sdp: String) -> BoxFuture<'_, Result<(), TransportError>>;

    /// Takes the own offer back, if the stack can; where it fails, the caller begins another connection.
    fn rollback(&self) -> BoxFuture<'_, Result<(), TransportError>>;

    /// A candidate of the other side's, whose description was applied before. `""` is the last one.
    fn add_candidate(&self, candidate: IceCandidate) -> BoxFuture<'_, Result<(), TransportError>>;

    /// The control channel.
    fn control(&self) -> Arc<dyn RawChannel>;

    /// Opens a channel (in band, by DCEP).
    fn open_channel(
        &self,
        label: String,
        options: RawChannelOptions,
    ) -> BoxFuture<'_, Result<Arc<dyn RawChannel>, TransportError>>;

    /// What the stack counts; none before a way is found.
    fn path(&self) -> BoxFuture<'_, Option<PathStats>>;

    /// The largest SCTP message in bytes that the other side takes, or 65,536 where it did not say.
    fn max_message_size(&self) -> usize;

    /// Ends it: tells the other side, and gives sockets back. Calling it again does nothing.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What a connection tells.
#[derive(Debug)]
pub enum ConnectionEvent {
    /// An own candidate; an empty text is the last one of its description. It may be told before the
    /// description has been returned.
    Candidate(IceCandidate),
    /// How the connection stands. That the other side ended it is told by the control channel, which closes.
    State(PathState),
    /// The other side opened a channel.
    Channel(Arc<dyn RawChannel>),
}

/// How a connection stands: ICE and DTLS together, as RTCPeerConnectionState.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// Nothing happened yet.
    New,
    /// A way is looked for.
    Connecting,
    /// There is one.
    Connected,
    /// It does not answer at the moment, and may come back by itself.
    Disconnected,
    /// It is gone; an ICE restart may find another.
    Failed,
    /// The connection has ended.
    Closed,
}

/// A data channel as the stack has it: one message is one SCTP message.
pub trait RawChannel: fmt::Debug + Send + Sync {
    /// Its label.
    fn label(&self) -> &str;

    /// What it was opened with. Of a channel of the other side's a stack may not know the reliability, and say none.
    fn options(&self) -> RawChannelOptions;

    /// The events of this channel: [`RawChannelEvent::Open`] once (or [`RawChannelEvent::Closed`]), then what
    /// arrives. To be taken once, later calls get none. The queue is bounded: who does not read makes the stack wait.
    fn events(&self) -> Option<mpsc::Receiver<RawChannelEvent>>;

    /// Hands a message over; does not wait for room.
    fn send(&self, data: RawMessage) -> BoxFuture<'_, Result<(), TransportError>>;

    /// Bytes handed over that the other side has not acknowledged.
    fn buffered_amount(&self) -> BoxFuture<'_, usize>;

    /// Waits until at most so many bytes are unsent, or the channel has closed.
    fn drained_to(&self, bytes: usize) -> BoxFuture<'_, ()>;

    /// Ends it, once what is handed over is sent.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// Waits until it has ended. What arrived before may have to be read first.
    fn closed(&self) -> BoxFuture<'_, ()>;
}

/// What a channel is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawChannelOptions {
    /// Whether messages arrive in the order in which they were sent.
    pub ordered: bool,
    /// When a message that got lost is given up; none is reliable.
    pub reliability: Option<Reliability>,
    /// The name of what is spoken on it.
    pub protocol: String,
    /// The stream's id where both sides open the channel by themselves, without telling each other.
    pub negotiated: Option<u16>,
}

/// When a message that got lost is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reliability {
    /// After so many retransmissions.
    MaxRetransmits(u16),
    /// After so long, in whole milliseconds of at most 65,535.
    MaxLifetime(Duration),
}

/// What happens on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawChannelEvent {
    /// Messages can be sent.
    Open,
    /// One arrived.
    Message(RawMessage),
    /// It has ended; nothing follows.
    Closed,
}

/// A message as SCTP carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawMessage {
    /// UTF-8.
    Text(String),
    /// Bytes.
    Binary(bytes::Bytes),
}

/// How two peers are connected: the pair of candidates in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStats {
    /// The own candidate.
    pub local: CandidateKind,
    /// The other side's.
    pub remote: CandidateKind,
    /// What the own candidate of the pair speaks; to a TURN server it may speak another.
    pub protocol: CandidateProtocol,
    /// The newest round trip of a connectivity check.
    pub round_trip: Option<Duration>,
    /// Bytes sent over all channels.
    pub bytes_sent: u64,
    /// Bytes received over all channels.
    pub bytes_received: u64,
}

/// What a WebRTC stack could not do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}: {why}")]
pub struct TransportError {
    /// What was to be done, as "make an offer".
    pub what: &'static str,
    /// Why it could not, in the stack's words.
    pub why: String,
}
