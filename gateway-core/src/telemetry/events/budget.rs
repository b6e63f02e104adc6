//! How many events may be made of what agents can make any number of.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

/// A number of events that may still be made until it is filled up again.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Budget(AtomicI32);

impl Budget {
    /// Takes one, if there is one left.
    pub(in crate::telemetry) fn take(&self) -> bool {
        self.0.load(Relaxed) > 0 && self.0.fetch_sub(1, Relaxed) > 0
    }

    pub(in crate::telemetry) fn fill(&self, events: i32) {
        self.0.store(events, Relaxed);
    }
}

/// Events of which there may be too many: so many are made, the others are counted.
#[derive(Debug, Default)]
pub(super) struct Rationed {
    budget: Budget,
    missed: AtomicU64,
}

impl Rationed {
    pub(super) fn take(&self) -> bool {
        let taken = self.budget.take();
        if !taken {
            self.missed.fetch_add(1, Relaxed);
        }
        taken
    }

    pub(super) fn fill(&self, events: i32) {
        self.budget.fill(events);
    }

    /// How many there were too many since this was asked last.
    pub(super) fn take_missed(&self) -> u64 {
        self.missed.swap(0, Relaxed)
    }
}
