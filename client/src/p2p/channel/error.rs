//! What can go wrong on a channel.

use std::time::Duration;

use crate::p2p::transport::TransportError;

/// Why a channel was not opened, why it ended, or why a message was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The label is for Conexus, or too long.
    #[error("a label has at most 65535 bytes and does not begin with `conexus`")]
    Label,
    /// The options do not fit together.
    #[error("the channel's options: {0}")]
    Options(&'static str),
    /// There is no direct way to the peer at the moment.
    #[error("there is no direct way to the peer")]
    NotConnected,
    /// It did not open in time.
    #[error("the channel did not open within {0:?}")]
    Timeout(Duration),
    /// It has ended.
    #[error("the channel is closed")]
    Closed,
    /// The connection was lost, and the channel with it.
    #[error("the connection to the peer was lost")]
    Lost,
    /// A message to send is larger than the channel takes.
    #[error("the message has {bytes} bytes, and the channel takes {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The channel's bound.
        limit: usize,
    },
    /// Too many messages wait to be sent.
    #[error("{waiting} messages wait to be sent already")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The other side sent a larger message than the channel takes, which ends the channel.
    #[error("a message of more than {limit} bytes arrived")]
    Oversized {
        /// The channel's bound.
        limit: usize,
    },
    /// The other side does not keep to the framing, which ends the channel.
    #[error("broken framing: {0}")]
    Framing(&'static str),
    /// The WebRTC stack did not do it.
    #[error("the webrtc stack failed")]
    Transport(#[from] TransportError),
}
