//! Peer to peer: WebRTC data channels to other agents, signaled through the gateway.

pub mod transport;
pub mod webrtc;
