//! Who is there, and the queues of messages for them.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, OnceLock},
    task::Waker,
};

use parking_lot::{Mutex, RwLock};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::frame;

const SHARDS: usize = 64;

/// One connection's queue. Its task swaps it whole.
#[derive(Default)]
pub(crate) struct Inbox {
    messages: Mutex<Vec<Utf8Bytes>>,
    /// A task's waker stays the same, so it is set once.
    task: OnceLock<Waker>,
}

impl Inbox {
    pub(crate) fn of_task(waker: Waker) -> Self {
        Self { messages: Mutex::default(), task: waker.into() }
    }

    /// Only the first message of several wakes.
    pub(crate) fn push(&self, message: Utf8Bytes) {
        let mut messages = self.messages.lock();
        messages.push(message);
        let first = messages.len() == 1;
        drop(messages);
        if first && let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// Swaps what there is for an empty list, whose room is used again.
    pub(crate) fn swap(&self, for_empty: &mut Vec<Utf8Bytes>) {
        mem::swap(&mut *self.messages.lock(), for_empty);
    }
}

type Shard = RwLock<HashMap<Box<str>, Arc<Inbox>, ahash::RandomState>>;

/// Queues by the names of their agents, as texts.
pub(crate) struct Agents {
    hasher: ahash::RandomState,
    shards: [Shard; SHARDS],
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            hasher: ahash::RandomState::new(),
            shards: std::array::from_fn(|_| Shard::default()),
        }
    }
}

impl Agents {
    fn shard(&self, name: &str) -> &Shard {
        // The high bits: a map goes by the low ones, were it of the same seed.
        &self.shards[(self.hasher.hash_one(name) >> 58) as usize % SHARDS]
    }

    pub(crate) fn enter(&self, name: &str, inbox: Arc<Inbox>) {
        self.shard(name).write().insert(name.into(), inbox);
    }

    /// Unless a newer connection has taken the name.
    pub(crate) fn leave(&self, name: &str, inbox: &Arc<Inbox>) {
        let mut shard = self.shard(name).write();
        if shard.get(name).is_some_and(|entered| Arc::ptr_eq(entered, inbox)) {
            shard.remove(name);
        }
    }

    /// Puts it into the queue of whom it is for; without one it vanishes.
    pub(crate) fn forward(&self, message: Utf8Bytes) {
        let Some(to) = frame::to(&message) else { return };
        let shard = self.shard(to).read();
        if let Some(inbox) = shard.get(to) {
            inbox.push(message);
        }
    }
}
