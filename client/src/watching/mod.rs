//! Watching other agents: what the user wants is kept here, over all connections.
//!
//! A [`Watch`] is one user's wish to be told of some agents. Several that want the same agent share
//! it; while there is a connection its [link](link) keeps to what is wanted, and tells here what
//! the gateway says. So a lost connection, or two wishes that cross, need no care of their own.

pub(crate) mod link;
mod sink;

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use conexus_protocol::{AgentKey, Presence, Subprotocol};
use futures_util::{Stream, future::poll_fn};
use tokio::sync::Notify;

use self::sink::Sink;
use crate::Refusal;

/// What a watch tells: an agent's state, or that this agent is not to be watched.
type Item = Result<Presence, WatchError>;

/// An agent cannot be watched; the watch goes on for its others.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{did} cannot be watched")]
pub struct WatchError {
    /// Whom it is about, as the watch spells it.
    pub did: String,
    /// Why.
    #[source]
    pub reason: WatchFault,
}

/// Why an agent cannot be watched.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchFault {
    /// The gateway refused: by policy, or since it is one too many.
    #[error("the gateway refused")]
    Refused(#[source] Box<Refusal>),
    /// The gateway speaks no protocol that has this.
    #[error("the session speaks {0}, which has no presence")]
    Unsupported(Subprotocol),
}

/// An agent that somebody wants to be told of.
struct Target {
    /// Tells it from an earlier one of the same key.
    serial: u64,
    /// As the gateway is asked for it.
    did: String,
    /// What the gateway said last on this connection.
    latest: Option<Presence>,
    watchers: Vec<Watcher>,
}

/// One watch that wants it.
struct Watcher {
    id: u64,
    /// As that watch spells it.
    did: String,
    sink: Arc<Sink>,
}

impl Watcher {
    fn tell(&self, presence: &Presence) {
        self.sink.push(&self.did, Ok(Presence { did: self.did.clone(), ..presence.clone() }));
    }
}

#[derive(Default)]
struct Wanted {
    last_id: u64,
    /// Agents are asked for in this order: as the user gave them.
    last_serial: u64,
    targets: HashMap<AgentKey, Target>,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Watches {
    wanted: Mutex<Wanted>,
    /// Wakes the link.
    changed: Notify,
    /// The user sends WATCH by hand as well.
    by_hand: AtomicBool,
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").finish_non_exhaustive()
    }
}

impl Watches {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch of these agents, each given once.
    pub(crate) fn watch(self: &Arc<Self>, agents: Vec<(AgentKey, String)>) -> Watch {
        let sink = Arc::new(Sink::new(agents.len()));
        let mut wanted = self.wanted();
        wanted.last_id += 1;
        let id = wanted.last_id;
        let keys = agents.iter().map(|(key, _)| *key).collect();
        for (key, did) in agents {
            wanted.last_serial += 1;
            let serial = wanted.last_serial;
            let target = wanted.targets.entry(key).or_insert_with(|| Target {
                serial,
                did: did.clone(),
                latest: None,
                watchers: Vec::new(),
            });
            let watcher = Watcher { id, did, sink: Arc::clone(&sink) };
            if let Some(latest) = &target.latest {
                watcher.tell(latest);
            }
            target.watchers.push(watcher);
        }
        drop(wanted);
        self.changed.notify_one();
        Watch { id, keys, sink, watches: Arc::clone(self) }
    }

    fn unwatch(&self, id: u64, keys: &[AgentKey]) {
        let mut wanted = self.wanted();
        for key in keys {
            let Some(target) = wanted.targets.get_mut(key) else { continue };
            target.watchers.retain(|watcher| watcher.id != id);
            if target.watchers.is_empty() {
                wanted.targets.remove(key);
            }
        }
        drop(wanted);
        self.changed.notify_one();
    }

    /// The user sends WATCH without a [`Watch`]: message handlers are to see what comes of it.
    pub(crate) fn by_hand(&self) {
        self.by_hand.store(true, Ordering::Relaxed);
    }

    /// The gateway told of an agent; whether that was for a watch, and for nobody else.
    fn told(&self, presence: &Presence) -> bool {
        let Ok(key) = AgentKey::parse_did(&presence.did) else { return false };
        let mut wanted = self.wanted();
        let Some(target) = wanted.targets.get_mut(&key) else {
            // It was under way when the last watch of it ended.
            return !self.by_hand.load(Ordering::Relaxed);
        };
        target.latest = Some(presence.clone());
        for watcher in &target.watchers {
            watcher.tell(presence);
        }
        true
    }

    /// An agent cannot be watched: whoever wants that learns why, and wants it no longer.
    fn refused(&self, key: AgentKey, serial: u64, reason: &WatchFault) {
        let mut wanted = self.wanted();
        if wanted.targets.get(&key).is_some_and(|target| target.serial == serial)
            && let Some(target) = wanted.targets.remove(&key)
        {
            for Watcher { did, sink, .. } in target.watchers {
                let error = WatchError { did: did.clone(), reason: reason.clone() };
                sink.push(&did, Err(error));
            }
        }
    }

    /// The connection is lost: what was told on it may no longer be so.
    fn forget_states(&self) {
        for target in self.wanted().targets.values_mut() {
            target.latest = None;
        }
    }

    /// The client ends, and so does every watch.
    pub(crate) fn end_all(&self) {
        let targets = std::mem::take(&mut self.wanted().targets);
        for watcher in targets.into_values().flat_map(|target| target.watchers) {
            watcher.sink.end();
        }
    }
}

/// Word of some agents' presence: the state of each at first, then every change.
///
/// It survives reconnects: the client asks again by itself, and the state of each agent is told
/// anew. An agent that the gateway refuses to tell of is told as a [`WatchError`], once; the watch
/// goes on for the others. What is not read in time is not lost but replaced by what came of it
/// later: the last word about each agent is always kept. Dropping it ends it.
#[must_use = "dropping a watch ends it"]
pub struct Watch {
    id: u64,
    keys: Vec<AgentKey>,
    sink: Arc<Sink>,
    watches: Arc<Watches>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("agents", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Watch {
    /// The next word; none when the client was closed, dropped, or gave up. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Result<Presence, WatchError>> {
        poll_fn(|cx| self.sink.poll(cx)).await
    }
}

impl Stream for Watch {
    type Item = Result<Presence, WatchError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sink.poll(cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.unwatch(self.id, &self.keys);
    }
}
