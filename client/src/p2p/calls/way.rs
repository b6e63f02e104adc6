//! Where a message of ours goes: over the channel of a peer, or by way of the gateway.

use std::sync::Arc;

use conexus_protocol::{Draft, ErrorCode, Payload};

use crate::p2p::{
    PeerPath,
    channel::MAX_CONTROL_BYTES,
    control::{Control, Unsaid},
    core::Core,
    error::RequestError,
    peers::{Peers, refusal},
};

/// The way to an agent.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    Direct(Arc<Core>),
    Gateway,
}

impl Way {
    /// Which peer's channel it is; none is the gateway.
    pub(crate) fn serial(&self) -> Option<u64> {
        match self {
            Self::Direct(core) => Some(core.serial),
            Self::Gateway => None,
        }
    }

    /// Sends; returns when it is handed over, which waits while too much is unsent.
    pub(crate) async fn say(&self, peers: &Peers, draft: Draft) -> Result<(), RequestError> {
        let core = match self {
            Self::Direct(core) => core,
            Self::Gateway => {
                let sent = peers.gateway().send(draft).await;
                return sent.map_err(|error| RequestError::Unsent(Arc::new(error)));
            }
        };
        let text = signed(peers, &draft)?;
        control_of(core)?.say(text).await.map_err(|unsaid| match unsaid {
            Unsaid::Closed => RequestError::NotConnected,
            Unsaid::Lost => RequestError::Lost(None),
            Unsaid::Refused(error) => RequestError::Channel(Arc::new(error)),
        })
    }

    /// Sends what nobody waits for; where there is no room for it, it is not sent.
    pub(crate) fn say_later(&self, peers: &Peers, draft: Draft) {
        let core = match self {
            Self::Direct(core) => core,
            Self::Gateway => return peers.say_by_gateway(draft),
        };
        let queued = signed(peers, &draft).and_then(|text| {
            control_of(core)?.say_later(text).map_err(|_| RequestError::NotConnected)
        });
        if let Err(error) = queued {
            tracing::debug!(peer = core.did(), %error, "an answer was not sent");
        }
    }

    /// Says no to the message of that id.
    pub(crate) fn refuse(
        &self,
        peers: &Peers,
        (to, id): (&str, &str),
        (code, message, reason): (ErrorCode, &str, &str),
    ) {
        let draft = peers.draft(to, refusal(code, message, reason)).in_reply_to(id);
        self.say_later(peers, draft);
    }

    /// Answers the message of that id, without waiting.
    pub(crate) fn answer_later(
        &self,
        peers: &Peers,
        (to, id): (&str, &str),
        payload: impl Into<Payload>,
    ) {
        self.say_later(peers, peers.draft(to, payload).in_reply_to(id));
    }
}

fn control_of(core: &Core) -> Result<Control, RequestError> {
    let is_direct = core.path() == PeerPath::Direct;
    core.control().filter(|_| is_direct).ok_or(RequestError::NotConnected)
}

fn signed(peers: &Peers, draft: &Draft) -> Result<String, RequestError> {
    let text = draft.sign(peers.identity());
    match text.len() {
        bytes if bytes > MAX_CONTROL_BYTES => {
            Err(RequestError::TooLarge { bytes, limit: MAX_CONTROL_BYTES })
        }
        _ => Ok(text),
    }
}
