//! Accounting: what became of every message (duty 5 of the protocol).
//!
//! The one invariant: at any quiet moment `received = delivered + refused + held`, in all and for
//! each type of message. A message is counted received once, and ends in exactly one of the others;
//! `held` goes down again when a mailbox gives a message up. `/health` and `/metrics` show the
//! numbers. Taps are counted apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use conexus_protocol::{MessageType, RefusalReason};
use serde::Serialize;

use crate::striped::Striped;

/// Why a message was refused, as it is counted: a reason of the protocol's, or none, where a
/// message was given up with the session that held it and nobody was there to be told.
pub(crate) const REFUSALS: usize = RefusalReason::COUNT + 1;

/// The name of the last one, beside those of the protocol.
const ABANDONED: &str = "abandoned";

const TYPES: usize = MessageType::COUNT;

/// The counters. Relaxed: they are read for reports, never to decide. What is taken back is taken
/// back by whichever thread it falls to, so only the sums over all threads mean something.
#[derive(Debug, Default)]
pub(crate) struct Accounting(Striped<Counters>);

#[derive(Debug, Default)]
struct Counters {
    received: [AtomicU64; TYPES],
    delivered: [AtomicU64; TYPES],
    held: [AtomicU64; TYPES],
    refused: [[AtomicU64; REFUSALS]; TYPES],
    taps_delivered: AtomicU64,
    taps_dropped: AtomicU64,
}

/// The counters at one moment, as `/health` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
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

/// The same for one type of message, with each reason of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfType {
    pub(crate) kind: MessageType,
    pub(crate) received: u64,
    pub(crate) delivered: u64,
    pub(crate) held: u64,
    /// By reason, where there were any.
    pub(crate) refused: Vec<(&'static str, u64)>,
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
    pub(crate) fn received(&self, kind: MessageType) {
        self.0.mine().received[kind.index()].fetch_add(1, Relaxed);
    }

    pub(crate) fn delivered(&self, kind: MessageType) {
        self.0.mine().delivered[kind.index()].fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self, kind: MessageType, reason: Option<RefusalReason>) {
        self.0.mine().refused[kind.index()][refusal(reason)].fetch_add(1, Relaxed);
    }

    pub(crate) fn held(&self, kind: MessageType) {
        self.0.mine().held[kind.index()].fetch_add(1, Relaxed);
    }

    pub(crate) fn released(&self, kind: MessageType) {
        self.0.mine().held[kind.index()].fetch_sub(1, Relaxed);
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
        let mut messages = Messages::default();
        for of in self.by_type() {
            messages.received += of.received;
            messages.delivered += of.delivered;
            messages.held += of.held;
            messages.refused += of.refused.iter().map(|(_, count)| count).sum::<u64>();
        }
        messages
    }

    /// The counters of each type of which there were any.
    pub(crate) fn by_type(&self) -> impl Iterator<Item = OfType> {
        MessageType::ALL.into_iter().filter_map(|kind| {
            let index = kind.index();
            let refused = |reason: usize| self.total(|counters| &counters.refused[index][reason]);
            let of = OfType {
                kind,
                received: self.total(|counters| &counters.received[index]),
                delivered: self.total(|counters| &counters.delivered[index]),
                // What one thread held and another released meanwhile may be seen half.
                held: self
                    .total(|counters| &counters.held[index])
                    .cast_signed()
                    .max(0)
                    .cast_unsigned(),
                refused: (0..REFUSALS)
                    .map(|reason| (refusal_name(reason), refused(reason)))
                    .filter(|(_, count)| *count > 0)
                    .collect(),
            };
            let any = of.received + of.delivered + of.held > 0 || !of.refused.is_empty();
            any.then_some(of)
        })
    }

    fn total(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.0.all().map(|counters| counter(counters).load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

fn refusal(reason: Option<RefusalReason>) -> usize {
    reason.map_or(REFUSALS - 1, |reason| reason as usize)
}

fn refusal_name(index: usize) -> &'static str {
    RefusalReason::ALL.get(index).map_or(ABANDONED, |reason| reason.as_str())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    const OFFER: MessageType = MessageType::Offer;

    #[test]
    fn what_one_thread_held_another_may_release() {
        let accounting = Arc::new(Accounting::default());
        for _ in 0..3 {
            accounting.received(OFFER);
            accounting.held(OFFER);
        }
        let other = Arc::clone(&accounting);
        thread::spawn(move || (0..2).for_each(|_| other.released(OFFER))).join().unwrap();
        assert_eq!(accounting.snapshot().held, 1);
    }

    #[test]
    fn each_type_has_its_own_accounts_and_each_refusal_its_reason() {
        let accounting = Accounting::default();
        for _ in 0..4 {
            accounting.received(OFFER);
        }
        accounting.received(MessageType::Answer);
        accounting.delivered(MessageType::Answer);
        accounting.refused(OFFER, Some(RefusalReason::QueueFull));
        accounting.refused(OFFER, Some(RefusalReason::PolicyError));
        accounting.refused(OFFER, None);
        accounting.delivered(OFFER);
        let accounts: Vec<_> = accounting.by_type().collect();
        assert_eq!(accounts.len(), 2);
        assert_eq!((accounts[0].kind, accounts[0].received, accounts[0].delivered), (OFFER, 4, 1));
        let refused = [("queue_full", 1), ("policy_error", 1), ("abandoned", 1)];
        assert_eq!(accounts[0].refused, refused);
        assert_eq!(accounts[1].refused, []);
        let all = accounting.snapshot();
        assert_eq!((all.received, all.delivered + all.refused + all.held), (5, 5));
    }
}
