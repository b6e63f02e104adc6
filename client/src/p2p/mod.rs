//! Peer to peer: WebRTC data channels to other agents, signaled through the gateway.

#[cfg_attr(not(test), allow(dead_code, reason = "peers make channels"))]
mod channel;
#[cfg_attr(not(test), allow(dead_code, reason = "peers make channels"))]
mod framing;
pub mod transport;
pub mod webrtc;

/// A channel over a stack's own, without a peer: for what measures channels.
#[doc(hidden)]
pub fn channel_over(
    raw: std::sync::Arc<dyn transport::RawChannel>,
    connection: &std::sync::Arc<dyn transport::Connection>,
) -> Channel {
    Channel::theirs(raw, 16 * 1024 * 1024, connection)
}

pub use self::channel::{Channel, ChannelError, ChannelMessage, ChannelOptions};
