//! Who listens to what, counted.

use std::collections::{HashMap, HashSet};

use conexus_protocol::AgentKey;

use super::topics::{Topic, Topics};

/// Listeners at once.
pub(super) const MAX_LISTENERS: usize = 64;

/// There are as many listeners as may be.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_LISTENERS} others listen already")]
pub(crate) struct TooManyListeners;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Registry {
    listeners: usize,
    by_topic: [usize; Topic::ALL.len()],
    followed: HashMap<AgentKey, usize>,
}

impl Registry {
    /// One more listens, and follows an agent's messages where it named one.
    pub(super) fn enter(
        &mut self,
        topics: Topics,
        agent: Option<AgentKey>,
    ) -> Result<(), TooManyListeners> {
        if self.listeners >= MAX_LISTENERS {
            return Err(TooManyListeners);
        }
        self.listeners += 1;
        for topic in topics.iter() {
            self.by_topic[topic as usize] += 1;
        }
        if let Some(key) = agent.filter(|_| topics.contains(Topic::Message)) {
            *self.followed.entry(key).or_default() += 1;
        }
        Ok(())
    }

    /// One that had entered with these listens no more.
    pub(super) fn leave(&mut self, topics: Topics, agent: Option<AgentKey>) {
        self.listeners -= 1;
        for topic in topics.iter() {
            self.by_topic[topic as usize] -= 1;
        }
        if let Some(key) = agent.filter(|_| topics.contains(Topic::Message))
            && let Some(count) = self.followed.get_mut(&key)
        {
            *count -= 1;
            if *count == 0 {
                self.followed.remove(&key);
            }
        }
    }

    pub(super) const fn listeners(&self) -> usize {
        self.listeners
    }

    pub(super) const fn listeners_to(&self, topic: Topic) -> usize {
        self.by_topic[topic as usize]
    }

    /// The topics that somebody listens to.
    pub(super) fn topics(&self) -> Topics {
        let wanted = Topic::ALL.into_iter().filter(|topic| self.listeners_to(*topic) > 0);
        wanted.fold(Topics::default(), Topics::with)
    }

    /// The agents whose messages somebody follows.
    pub(super) fn followed(&self) -> HashSet<AgentKey, ahash::RandomState> {
        self.followed.keys().copied().collect()
    }
}
