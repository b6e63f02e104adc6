//! Accounting: what became of every message (duty 5 of the protocol).
//!
//! The one invariant: at any quiet moment `received = delivered + refused + held`. A message is
//! counted received once, and ends in exactly one of the others; `held` goes down again when a
//! mailbox gives a message up. `/health` shows the numbers. Taps are counted apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// The counters. Relaxed: they are read for reports, never to decide.
#[derive(Debug, Default)]
pub(crate) struct Accounting {
    received: AtomicU64,
    delivered: AtomicU64,
    refused: AtomicU64,
    held: AtomicU64,
    taps_delivered: AtomicU64,
    taps_dropped: AtomicU64,
}

/// The counters at one moment, as `/health` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Messages {
    /// Messages that passed the checks of the session and are addressed to an agent.
    pub received: u64,
    /// Messages that the kernel accepted for the target's socket.
    pub delivered: u64,
    /// Messages answered with an ERROR, or with nothing where the sender was gone.
    pub refused: u64,
    /// Messages that wait in mailboxes right now.
    pub held: u64,
}

/// What became of copies that policy made beside the delivery, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Taps {
    /// Copies that the kernel accepted for their agent's socket.
    pub delivered: u64,
    /// Copies whose agent was absent, had no room, or left before they were written.
    pub dropped: u64,
}

impl Accounting {
    pub(crate) fn received(&self) {
        self.received.fetch_add(1, Relaxed);
    }

    pub(crate) fn delivered(&self) {
        self.delivered.fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn held(&self) {
        self.held.fetch_add(1, Relaxed);
    }

    pub(crate) fn released(&self, count: usize) {
        self.held.fetch_sub(count as u64, Relaxed);
    }

    pub(crate) fn tap_delivered(&self) {
        self.taps_delivered.fetch_add(1, Relaxed);
    }

    pub(crate) fn tap_dropped(&self) {
        self.taps_dropped.fetch_add(1, Relaxed);
    }

    pub(crate) fn taps(&self) -> Taps {
        Taps {
            delivered: self.taps_delivered.load(Relaxed),
            dropped: self.taps_dropped.load(Relaxed),
        }
    }

    pub(crate) fn snapshot(&self) -> Messages {
        Messages {
            received: self.received.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            refused: self.refused.load(Relaxed),
            held: self.held.load(Relaxed),
        }
    }
}
