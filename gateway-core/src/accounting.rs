//! Accounting: what became of every message (duty 5 of the protocol).
//!
//! The one invariant: at any quiet moment `received = delivered + refused + held`. A message is
//! counted received once, and ends in exactly one of the others; `held` goes down again when a
//! mailbox gives a message up. `/health` shows the numbers. Taps are counted apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::striped::Striped;

/// The counters. Relaxed: they are read for reports, never to decide. What is taken back is taken
/// back by whichever thread it falls to, so only the sums over all threads mean something.
#[derive(Debug, Default)]
pub(crate) struct Accounting(Striped<Counters>);

#[derive(Debug, Default)]
struct Counters {
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
        self.0.mine().received.fetch_add(1, Relaxed);
    }

    pub(crate) fn delivered(&self) {
        self.0.mine().delivered.fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.0.mine().refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn held(&self) {
        self.0.mine().held.fetch_add(1, Relaxed);
    }

    pub(crate) fn released(&self, count: usize) {
        self.0.mine().held.fetch_sub(count as u64, Relaxed);
    }

    pub(crate) fn tap_delivered(&self) {
        self.0.mine().taps_delivered.fetch_add(1, Relaxed);
    }

    pub(crate) fn tap_dropped(&self) {
        self.0.mine().taps_dropped.fetch_add(1, Relaxed);
    }

    pub(crate) fn taps(&self) -> Taps {
        Taps {
            delivered: self.total(|counters| &counters.taps_delivered),
            dropped: self.total(|counters| &counters.taps_dropped),
        }
    }

    pub(crate) fn snapshot(&self) -> Messages {
        Messages {
            received: self.total(|counters| &counters.received),
            delivered: self.total(|counters| &counters.delivered),
            refused: self.total(|counters| &counters.refused),
            // What one thread held and another released meanwhile may be seen half.
            held: self.total(|counters| &counters.held).cast_signed().max(0).cast_unsigned(),
        }
    }

    fn total(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.0.all().map(|counters| counter(counters).load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn what_one_thread_held_another_may_release() {
        let accounting = Arc::new(Accounting::default());
        for _ in 0..3 {
            accounting.held();
        }
        let other = Arc::clone(&accounting);
        thread::spawn(move || other.released(2)).join().unwrap();
        assert_eq!(accounting.snapshot().held, 1);
    }
}
