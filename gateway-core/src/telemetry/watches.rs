//! What is counted of watching: how many watches there are, what was told, what was refused.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::sessions::Named;
use crate::watching::watcher::Told;

/// Why an agent may not watch another one.
const REFUSALS: [&str; 5] = ["limit", "denied", "rate_limited", "policy_error", "other"];

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct WatchCounts {
    watches: AtomicU64,
    told: AtomicU64,
    coalesced: AtomicU64,
    /// By the reason that the watcher is told; `limit` is `limits.watches`.
    pub(crate) refused: Named<{ REFUSALS.len() }>,
}

impl Default for WatchCounts {
    fn default() -> Self {
        Self {
            watches: AtomicU64::default(),
            told: AtomicU64::default(),
            coalesced: AtomicU64::default(),
            refused: Named::new(&REFUSALS),
        }
    }
}

impl WatchCounts {
    pub(crate) fn begun(&self) {
        self.watches.fetch_add(1, Relaxed);
    }

    pub(crate) fn ended(&self) {
        self.watches.fetch_sub(1, Relaxed);
    }

    pub(crate) fn told(&self, outcome: Told) {
        self.told.fetch_add(outcome.told as u64, Relaxed);
        self.coalesced(outcome.coalesced);
    }

    pub(crate) fn coalesced(&self, changes: usize) {
        self.coalesced.fetch_add(changes as u64, Relaxed);
    }

    /// Watches that there are.
    pub(crate) fn count(&self) -> u64 {
        self.watches.load(Relaxed)
    }

    /// PRESENCEs that were put into outboxes, and changes that a later one stands for.
    pub(crate) fn presences(&self) -> (u64, u64) {
        (self.told.load(Relaxed), self.coalesced.load(Relaxed))
    }
}
