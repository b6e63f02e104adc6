//! What nodes tell each other on their channels.
//!
//! A batch is what is published at once: a [`Head`], then frames. `postcard` writes them, which is
//! compact and lets texts be read in place. Nodes of another [`VERSION`] do not talk to each other.

use serde::{Deserialize, Serialize};

use super::ids::{Epoch, MemberId};

/// Of all that is in here. The first byte of a batch.
pub(crate) const VERSION: u8 = 1;

/// The bytes of an [`AgentKey`](conexus_protocol::AgentKey).
pub(crate) type KeyBytes = [u8; 32];

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) version: u8,
    pub(crate) from: MemberId,
    /// To whom: a channel's name is not part of what is received.
    pub(crate) to: MemberId,
    /// The how manieth link of its own the sender uses. What comes from an older one after a newer
    /// one was heard of lay about somewhere, and is dropped.
    pub(crate) link: u64,
}

/// One thing that a node tells another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Frame<'a> {
    /// A message for an agent that should be there, with this epoch. It is answered by an
    /// [`End`] of this number.
    Message {
        number: u64,
        to: KeyBytes,
        epoch: Epoch,
        #[serde(borrow)]
        text: &'a str,
    },
    /// A copy that policy made beside the delivery, or the gateway's own word to an agent.
    Aside {
        to: KeyBytes,
        epoch: Epoch,
        kind: Aside,
        text: &'a str,
    },
    /// What became of messages.
    Ends(Vec<(u64, End)>),
    /// Which of these messages wait there yet? The rest of what was not answered by then was lost.
    Unsettled {
        query: u64,
        numbers: Vec<u64>,
    },
    /// Those that do.
    Waiting {
        query: u64,
        numbers: Vec<u64>,
    },
    /// A question, which is answered by an [`Answer`](Self::Answer) of this number.
    Ask {
        number: u64,
        question: Question,
    },
    Answer {
        number: u64,
        answer: Answer,
    },
}

/// What an [`Aside`](Frame::Aside) is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Aside {
    Tap,
    Word,
}

/// What became of a message on the node of its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// The kernel has its last byte.
    Delivered,
    /// That registration of the target's is over: it is nowhere, or elsewhere, and has none of it.
    Gone,
    /// Its outbox has no room.
    Full,
}

/// What one node wants of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// A newer registration of the key, with this epoch, is on the node that asks: the session is to
    /// end. Answered when it has.
    Yield { key: KeyBytes, epoch: Epoch },
    /// Agents that are there, in the order of their keys.
    Page { after: Option<KeyBytes>, limit: u32, filter: Filter },
    /// The session of an agent is to be closed, by policy or an operator.
    Close { key: KeyBytes, close: u16, reason: String },
    /// Somebody was banned, or is so no more: look what bans there are.
    Bans,
}

/// Which agents are wanted. [`AgentFilter`](conexus_plugin_api::AgentFilter), without its limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    pub(crate) name: Option<String>,
    pub(crate) capability: Option<String>,
    pub(crate) label: Option<(String, String)>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Yielded,
    Page {
        agents: Vec<Shown>,
        total: u64,
        more: bool,
    },
    Closed(bool),
    /// The question makes no sense there, or cannot be answered now.
    Nothing,
}

/// An agent in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// [`Agent`](conexus_plugin_api::Agent) as JSON, which leaves out what there is none of.
    pub(crate) agent: String,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) connected_ms: i64,
    pub(crate) last_activity_ms: i64,
}
