//! Peer to peer: WebRTC data channels to other agents, signaled through the gateway.

#[cfg_attr(not(test), allow(dead_code, reason = "peers make channels"))]
mod channel;
#[cfg_attr(not(test), allow(dead_code, reason = "peers make channels"))]
mod framing;
pub mod transport;
pub mod webrtc;

pub use self::channel::{Channel, ChannelError, ChannelMessage, ChannelOptions};
