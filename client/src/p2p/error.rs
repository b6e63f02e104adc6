//! What can go wrong between peers: [`PeerError`] ends a connection or an attempt at one,
//! [`RequestError`] a request, and [`PeerFault`] is what error handlers hear of.

use std::{sync::Arc, time::Duration};

use conexus_protocol::{DidError, MessageType};
use serde_json::Value;

use super::transport::TransportError;
use crate::{ChannelError, Refusal, SendError, UnverifiedReason};

/// Why there is no connection to an agent, or none any more.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The recipient is no agent.
    #[error("the recipient is no agent's did")]
    Recipient(#[source] DidError),
    /// The DID is one's own.
    #[error("nobody connects to oneself")]
    Oneself,
    /// There is no room for another; see [`Builder::max_peers`](crate::Builder::max_peers).
    #[error("there are {0} peers already")]
    TooMany(usize),
    /// The client is closed, was dropped or gave up.
    #[error("the client was closed")]
    ClientClosed,
    /// Closed by its user before it was open.
    #[error("the connection to the peer was closed")]
    Closed,
    /// The gateway or the agent says no; see [`reason`](Self::reason).
    #[error("no connection to the peer: refused by {}", .0.from)]
    Refused(#[source] Box<Refusal>),
    /// A description could not be sent.
    #[error("the gateway could not be told")]
    Unsent(#[source] Arc<SendError>),
    /// Nobody answered in time.
    #[error("the peer did not answer within {0:?}")]
    NoAnswer(Duration),
    /// Descriptions were exchanged, and no way between the two was found.
    #[error("no way between the two was found within {0:?}")]
    NoPath(Duration),
    /// All of it took too long.
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    /// The WebRTC stack failed.
    #[error("the webrtc stack failed")]
    Transport(#[source] TransportError),
    /// The connection failed, and could not be made again.
    #[error("the connection to the peer is lost after {restarts} restarts in a row")]
    Lost {
        /// How often a way was sought anew, to no avail.
        restarts: u32,
    },
    /// The other side does not know the connection any more.
    #[error("the peer has begun anew")]
    BegunAnew,
    /// The control channel broke.
    #[error("the control channel broke")]
    Broken(#[source] Arc<ChannelError>),
}

impl PeerError {
    /// Why the gateway or the agent says no, in the protocol's words: `unknown_agent`, `declined`, `busy` …
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => reason_of(refusal),
            _ => None,
        }
    }

    /// Whether another attempt would end the same way.
    pub(crate) fn is_pointless(&self) -> bool {
        use conexus_protocol::ErrorCode;
        match self {
            Self::Refused(refusal) => {
                matches!(
                    refusal.code,
                    ErrorCode::UnknownAgent
                        | ErrorCode::MalformedMessage
                        | ErrorCode::InvalidSignature
                        | ErrorCode::UnsupportedVersion
                ) || matches!(
                    reason_of(refusal),
                    Some("declined" | "denied" | "not_relayed" | "withdrawn" | "stale")
                )
            }
            Self::NoAnswer(_) | Self::NoPath(_) | Self::Transport(_) => false,
            Self::Unsent(error) => {
                !matches!(**error, SendError::NotConnected(_) | SendError::ConnectionLost)
            }
            _ => true,
        }
    }

    /// Whether the agent is not there.
    pub(crate) fn is_unknown_agent(&self) -> bool {
        matches!(self, Self::Refused(refusal)
            if refusal.code == conexus_protocol::ErrorCode::UnknownAgent)
    }
}

/// `details.reason`, whether the gateway's or a peer's.
pub(crate) fn reason_of(refusal: &Refusal) -> Option<&str> {
    refusal.details.as_ref()?.get("reason")?.as_str()
}

/// Why a request was not answered with a result.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The recipient is no agent.
    #[error("the recipient is no agent's did")]
    Recipient(#[source] DidError),
    /// There is no way to the peer at the moment.
    #[error("there is no way to the peer")]
    NotConnected,
    /// The gateway does not carry this, and there is no other way.
    #[error("the gateway does not carry {0}")]
    NotRelayed(MessageType),
    /// A PING by way of the gateway would be answered by the gateway.
    #[error("{0} goes over a direct way alone")]
    DirectOnly(MessageType),
    /// Too many are under way.
    #[error("{0} requests are under way already")]
    Busy(usize),
    /// The client did not send it.
    #[error("the request could not be sent by way of the gateway")]
    Unsent(#[source] Arc<SendError>),
    /// What is asked is no JSON object.
    #[error("the arguments are no json object")]
    Args,
    /// The message is too large for a channel.
    #[error("the message takes {bytes} bytes of at most {limit}")]
    TooLarge {
        /// The message's size.
        bytes: usize,
        /// What the control channel takes.
        limit: usize,
    },
    /// The channel did not take the message.
    #[error("the request could not be sent over the channel")]
    Channel(#[source] Arc<ChannelError>),
    /// The other side tried, and failed.
    #[error("the request failed: {error}")]
    Failed {
        /// What the other side says of it.
        error: String,
        /// What there is of a result.
        result: Option<Value>,
    },
    /// The other side or the gateway says no.
    #[error("refused by {}", .0.from)]
    Refused(#[source] Box<Refusal>),
    /// No result in time.
    #[error("no result within {0:?}")]
    Timeout(Duration),
    /// Something came that is no answer to the question.
    #[error("{0} is no answer to that")]
    OutOfTurn(MessageType),
    /// Parts came faster than they were read.
    #[error("more than {0} parts wait to be read")]
    SlowReader(usize),
    /// The connection to the peer ended first.
    #[error("the connection to the peer ended")]
    Lost(#[source] Option<Box<PeerError>>),
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
    /// Whoever asked does not want it any more, or the time for it is over: said to whoever reports on
    /// an [`IncomingRequest`](crate::IncomingRequest).
    #[error("the request is over")]
    Over,
}

impl RequestError {
    /// Why the other side or the gateway says no, in the protocol's words: `not_served`, `busy` …
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => reason_of(refusal),
            _ => None,
        }
    }
}

/// What error handlers hear of peers.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// A message that was signed for somebody else and passed on.
    #[error("it is addressed to somebody else")]
    NotForUs,
    /// A message that came before.
    #[error("it came before")]
    Replayed,
    /// A message whose timestamp is not of now.
    #[error("it is not of now")]
    Stale,
    /// The memory against replay has no room.
    #[error("the memory against replay is full")]
    MemoryFull,
    /// A first OFFER that is older than the connection that stands.
    #[error("it is older than the connection")]
    Outdated,
    /// Messages come faster than they are dealt with; this one was dropped.
    #[error("messages come faster than they are dealt with")]
    TooFast,
    /// A message over a channel that is not validly signed.
    #[error("it is not verified")]
    Unverified(#[source] UnverifiedReason),
    /// A message over a channel that is signed by another agent than the one whose channel it is.
    #[error("it is another agent's")]
    AnothersWord,
    /// A message over a channel that is none.
    #[error("it is malformed")]
    Malformed(#[source] conexus_protocol::Malformed),
    /// A message over a channel that has no place there.
    #[error("{0} has no place on a channel")]
    OutOfPlace(MessageType),
    /// Bytes on the control channel, where texts belong.
    #[error("bytes where a message was due")]
    Bytes,
    /// An agent that wanted to connect did not get that far.
    #[error("a connection that it began did not come about")]
    NotConnected(#[source] PeerError),
    /// A message of ours to it could not be sent.
    #[error("an answer could not be sent to it")]
    Unanswered(#[source] RequestError),
}
