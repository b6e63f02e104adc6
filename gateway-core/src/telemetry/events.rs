//! The hub: what happens, for whoever listens right now.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use conexus_protocol::{AgentKey, MessageType, RefusalReason};

use crate::session::handle::SessionHandle;

/// How a message fared, for those who follow one of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The kernel has its last byte. How long that took, where it was not held in between.
    Delivered(Option<Duration>),
    /// It waits in a mailbox.
    Held,
    /// Its sender was told, or nobody was there to be told.
    Refused(Option<RefusalReason>),
}

/// A message at a turn of its way. The text is as received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passing<'a> {
    pub(crate) kind: MessageType,
    pub(crate) text: &'a str,
    pub(crate) sender: &'a SessionHandle,
    /// Its number among the messages of its session, from 1.
    pub(crate) number: u64,
    /// Whom it is for; none where that is nobody's key.
    pub(crate) to: Option<AgentKey>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// Whether anybody wants to know of messages.
    messages: AtomicBool,
}

impl Hub {
    /// Whether anybody wants to know of messages: all that one costs while nobody does.
    #[inline]
    pub(crate) fn watches_messages(&self) -> bool {
        self.messages.load(Relaxed)
    }

    /// A message came to a turn of its way. Called only where [somebody wants to
    /// know](Self::watches_messages); never under a lock.
    pub(crate) fn message(&self, _message: Passing<'_>, _outcome: Outcome) {}
}
