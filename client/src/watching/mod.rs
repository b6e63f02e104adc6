//! Watching other agents: what the user wants is kept here, over all connections.
//!
//! A [`Watch`] is one user's wish to be told of some agents. Several that want the same agent share
//! it; while there is a connection its [link](link) keeps to what is wanted, and tells here what
//! the gateway says. So a lost connection, or two wishes that cross, need no care of their own.

pub(crate) mod link;
mod sink;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use conexus_protocol::{AgentKey, Payload, Presence, Subprotocol};
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
    /// Whom to wake for it, where nothing is locked any more.
    fn tell(&self, presence: &Presence) -> Option<Waker> {
        self.sink.push(&self.did, Ok(Presence { did: self.did.clone(), ..presence.clone() }))
    }
}

#[derive(Default)]
struct Wanted {
    last_id: u64,
    /// Agents are asked for in this order: as the user gave them.
    last_serial: u64,
    targets: HashMap<AgentKey, Target>,
    /// Whom the user asked for by a WATCH of its own, on this connection.
    by_hand: HashSet<AgentKey>,
    /// The client has ended, and has not begun anew.
    ended: bool,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Watches {
    wanted: Mutex<Wanted>,
    /// Wakes the link.
    changed: Notify,
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

    /// A watch of these agents, each given once; none once the client has ended.
    pub(crate) fn watch(self: &Arc<Self>, agents: Vec<(AgentKey, String)>) -> Option<Watch> {
        let sink = Arc::new(Sink::new(agents.len()));
        let mut wanted = self.wanted();
        if wanted.ended {
            return None;
        }
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
                // Nobody reads yet.
                let _ = watcher.tell(latest);
            }
            target.watchers.push(watcher);
        }
        drop(wanted);
        self.changed.notify_one();
        Some(Watch { id, keys, sink, watches: Arc::clone(self) })
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

    /// The user sends WATCH or UNWATCH without a [`Watch`]: message handlers are to see what comes of
    /// it.
    pub(crate) fn note_by_hand(&self, payload: &Payload) {
        let keys = |dids: &[String]| -> Vec<AgentKey> {
            dids.iter().filter_map(|did| AgentKey::parse_did(did).ok()).collect()
        };
        match payload {
            Payload::Watch(watch) => self.wanted().by_hand.extend(keys(&watch.dids)),
            Payload::Unwatch(unwatch) => {
                let keys = keys(&unwatch.dids);
                self.wanted().by_hand.retain(|key| !keys.contains(key));
            }
            _ => {}
        }
    }

    /// The gateway told of an agent; whether that was for a watch, and for nobody else.
    fn told(&self, presence: &Presence) -> bool {
        let Ok(key) = AgentKey::parse_did(&presence.did) else { return false };
        let mut wanted = self.wanted();
        let is_by_hand = wanted.by_hand.contains(&key);
        // It may have been under way when the last watch of it ended.
        let readers: Vec<Waker> = wanted.targets.get_mut(&key).map_or_else(Vec::new, |target| {
            target.latest = Some(presence.clone());
            target.watchers.iter().filter_map(|watcher| watcher.tell(presence)).collect()
        });
        drop(wanted);
        readers.into_iter().for_each(Waker::wake);
        !is_by_hand
    }

    /// An agent cannot be watched: whoever wants that learns why, and wants it no longer.
    fn refused(&self, key: AgentKey, serial: u64, reason: &WatchFault) {
        let mut wanted = self.wanted();
        if wanted.targets.get(&key).is_none_or(|target| target.serial != serial) {
            return;
        }
        let target = wanted.targets.remove(&key);
        drop(wanted);
        for Watcher { did, sink, .. } in target.into_iter().flat_map(|target| target.watchers) {
            let error = WatchError { did: did.clone(), reason: reason.clone() };
            if let Some(reader) = sink.push(&did, Err(error)) {
                reader.wake();
            }
        }
    }

    /// The connection is lost: what was told on it may no longer be so.
    fn forget_states(&self) {
        let mut wanted = self.wanted();
        wanted.by_hand.clear();
        for target in wanted.targets.values_mut() {
            target.latest = None;
        }
    }

    /// The client begins, or begins anew.
    pub(crate) fn begin(&self) {
        self.wanted().ended = false;
    }

    /// The client ends, and so does every watch.
    pub(crate) fn end_all(&self) {
        let targets = {
            let mut wanted = self.wanted();
            wanted.ended = true;
            std::mem::take(&mut wanted.targets)
        };
        for watcher in targets.into_values().flat_map(|target| target.watchers) {
            watcher.sink.end();
        }
    }
}

/// Word of some agents' presence: the state of each at first, then every change.
///
/// It survives reconnects: the client asks again by itself, and the state of each agent is told
/// anew. An agent that the gateway refuses to tell of is told as a [`WatchError`], once; the watch
/// goes on for the others. What is refused for the moment alone (`rate_limited`, `policy_error`,
/// `draining`) is asked for again first, for about a minute. What is not read in time is not lost but replaced by what came of it
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
