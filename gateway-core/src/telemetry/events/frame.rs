//! An event as its listeners get it.

use bytes::Bytes;
use conexus_protocol::AgentKey;
use serde::Serialize;

use super::topics::Topic;

/// An event as it lies in the ring.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) topic: Topic,
    /// The agents that it is about, where it is about some.
    pub(super) about: [Option<AgentKey>; 2],
    pub(super) frame: Bytes,
}

pub(super) const LAGGED: &str = "lagged";

/// How much a listener did not get.
#[derive(Serialize)]
pub(super) struct Lagged {
    pub(super) missed: u64,
}

/// An event as a frame of server-sent events. JSON has no line breaks of its own.
pub(super) fn frame(name: &str, event: &impl Serialize) -> Option<Bytes> {
    let json = serde_json::to_string(event).ok()?;
    Some(format!("event: {name}\ndata: {json}\n\n").into())
}
