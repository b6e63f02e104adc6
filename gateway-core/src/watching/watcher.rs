//! A session as a watcher: whom it watches, what it was told last, what it is owed.
//!
//! Whoever tells it something puts that into its outbox. While there is no room, the latest state
//! of each agent is kept here, and the session's own task fetches it once there is. An agent that
//! watches nobody has nothing of this but an empty place.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst},
    },
};

use conexus_protocol::AgentKey;
use parking_lot::Mutex;

use super::change::{Change, Spelling, Teller};
use crate::session::outbox::{Outbox, Refused};

/// An agent that is watched.
#[derive(Debug)]
struct Target {
    spelling: Spelling,
    /// The number of the change that it was told last, or the last one before it began.
    told: u64,
    owed: Option<Arc<Change>>,
}

#[derive(Debug, Default)]
struct Watching {
    targets: HashMap<AgentKey, Target>,
    /// Whose state is owed, each once.
    owing: VecDeque<AgentKey>,
}

#[derive(Debug, Default)]
struct Inner {
    watching: Option<Box<Watching>>,
    ended: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    owed: AtomicBool,
    inner: Mutex<Inner>,
}

/// How much became of something that was to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// PRESENCEs that were put into the outbox.
    pub(crate) told: usize,
    /// Changes in whose place a later one will be told.
    pub(crate) coalesced: usize,
}

impl Watcher {
    /// How many agents are watched.
    pub(crate) fn count(&self) -> usize {
        self.inner.lock().watching.as_ref().map_or(0, |watching| watching.targets.len())
    }

    /// How many would be watched if these distinct agents were, too.
    pub(crate) fn count_with(&self, keys: impl Iterator<Item = AgentKey>) -> usize {
        let inner = self.inner.lock();
        match &inner.watching {
            Some(watching) => {
                let targets = &watching.targets;
                targets.len() + keys.filter(|key| !targets.contains_key(key)).count()
            }
            None => keys.count(),
        }
    }

    #[cfg(test)]
    pub(super) fn owing(&self) -> usize {
        self.inner.lock().watching.as_ref().map_or(0, |watching| watching.owing.len())
    }

    /// Begins to watch an agent, or goes on by another spelling. False once it has ended.
    pub(crate) fn begin(&self, key: AgentKey, spelling: Spelling) -> bool {
        let mut inner = self.inner.lock();
        if inner.ended {
            return false;
        }
        let watching = inner.watching.get_or_insert_default();
        watching
            .targets
            .entry(key)
            .and_modify(|target| target.spelling = spelling)
            .or_insert(Target { spelling, told: 0, owed: None });
        true
    }

    /// What was up to this change is not news: the watch begins here.
    pub(super) fn knows(&self, key: AgentKey, number: u64) {
        let mut inner = self.inner.lock();
        let target = inner.watching.as_mut().and_then(|watching| watching.targets.get_mut(&key));
        if let Some(target) = target {
            target.told = number;
        }
    }

    /// Watches an agent no longer; whether it did.
    pub(crate) fn end(&self, key: AgentKey) -> bool {
        let mut inner = self.inner.lock();
        let Some(watching) = &mut inner.watching else { return false };
        let Some(target) = watching.targets.remove(&key) else { return false };
        if target.owed.is_some() {
            watching.owing.retain(|owing| *owing != key);
        }
        if watching.targets.is_empty() {
            inner.watching = None;
        }
        true
    }

    /// Whether it watches nobody any more, for good.
    pub(crate) fn has_ended(&self) -> bool {
        self.inner.lock().ended
    }

    /// Watches nobody any more, for good; whom it did.
    pub(crate) fn end_all(&self) -> Vec<AgentKey> {
        let mut inner = self.inner.lock();
        inner.ended = true;
        let watching = inner.watching.take();
        watching.map_or_else(Vec::new, |watching| watching.targets.into_keys().collect())
    }

    /// Tells what it does not know yet of one agent's changes, given oldest first.
    pub(crate) fn tell(
        &self,
        outbox: &Outbox,
        changes: &[Arc<Change>],
        teller: Teller<'_>,
    ) -> Told {
        self.tell_of(outbox, changes, teller, |change, told| change > told)
    }

    /// Tells the present state of an agent, also where it knows that.
    pub(crate) fn tell_anew(
        &self,
        outbox: &Outbox,
        latest: &Arc<Change>,
        teller: Teller<'_>,
    ) -> Told {
        // A later one was told since it asked: that will do.
        self.tell_of(outbox, std::slice::from_ref(latest), teller, |change, told| change >= told)
    }

    fn tell_of(
        &self,
        outbox: &Outbox,
        changes: &[Arc<Change>],
        teller: Teller<'_>,
        is_news: impl Fn(u64, u64) -> bool,
    ) -> Told {
        let mut outcome = Told::default();
        let mut inner = self.inner.lock();
        let Some(watching) = inner.watching.as_deref_mut() else { return outcome };
        let Watching { targets, owing } = watching;
        for change in changes {
            let Some(target) = targets.get_mut(&change.key()) else { return outcome };
            if !is_news(change.number(), target.told) {
                continue;
            }
            if let Some(owed) = &mut target.owed {
                if owed.number() < change.number() {
                    *owed = Arc::clone(change);
                    outcome.coalesced += 1;
                }
                continue;
            }
            match outbox.offer_notice(change.text(target.spelling, teller)) {
                Ok(()) => {
                    target.told = change.number();
                    outcome.told += 1;
                }
                Err(Refused::Full(_)) => {
                    target.owed = Some(Arc::clone(change));
                    owing.push_back(change.key());
                    self.owed.store(true, SeqCst);
                    // There may be room since.
                    outbox.nudge();
                }
                Err(Refused::Closed(_)) => return outcome,
            }
        }
        outcome
    }

    /// Whether anything is owed: asked at each turn of the session.
    pub(crate) fn is_owed(&self) -> bool {
        self.owed.load(Relaxed)
    }

    /// Puts what is owed into the outbox, as far as there is room; how much that was.
    pub(crate) fn settle(&self, outbox: &Outbox, teller: Teller<'_>) -> usize {
        let mut settled = 0;
        let mut inner = self.inner.lock();
        // Under the lock, as it is set.
        self.owed.store(false, SeqCst);
        let Some(watching) = inner.watching.as_deref_mut() else { return settled };
        while let Some(key) = watching.owing.pop_front() {
            let Some(target) = watching.targets.get_mut(&key) else { continue };
            let Some(change) = target.owed.take() else { continue };
            match outbox.offer_notice(change.text(target.spelling, teller)) {
                Ok(()) => {
                    target.told = change.number();
                    settled += 1;
                }
                Err(Refused::Full(_)) => {
                    target.owed = Some(change);
                    watching.owing.push_front(key);
                    self.owed.store(true, SeqCst);
                    break;
                }
                Err(Refused::Closed(_)) => break,
            }
        }
        settled
    }
}
