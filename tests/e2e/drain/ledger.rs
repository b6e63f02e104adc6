//! What the agents saw: which messages arrived, which came back, how their connections ended.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use conexus_client::{Close, protocol::RefusalReason};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    Refused,
}

pub(crate) struct Summary {
    /// Written to a socket, or perhaps written.
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) refused: u64,
    pub(crate) refused_by_reason: HashMap<String, u64>,
    pub(crate) failed_attempts: u64,
    /// When each agent was told to come back.
    pub(crate) hints: Vec<Duration>,
    /// When agents registered.
    pub(crate) registered: Vec<Instant>,
    /// What must not happen and did.
    pub(crate) faults: Vec<String>,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Ledger {
    sent: AtomicU64,
    delivered: AtomicU64,
    failed_attempts: AtomicU64,
    fates: Mutex<HashMap<String, Fate>>,
    reasons: Mutex<HashMap<String, u64>>,
    hints: Mutex<Vec<Duration>>,
    registered: Mutex<Vec<Instant>>,
    faults: Mutex<Vec<String>>,
}

impl Ledger {
    /// A message is about to be sent, and may be.
    pub(crate) fn send(&self) {
        self.sent.fetch_add(1, SeqCst);
    }

    pub(crate) fn delivered(&self, id: &str) {
        self.delivered.fetch_add(1, SeqCst);
        self.end(id, Fate::Delivered);
    }

    pub(crate) fn refused(&self, id: Option<&str>, reason: Option<RefusalReason>) {
        let Some(id) = id else { return self.fault("an ERROR about nothing".into()) };
        self.end(id, Fate::Refused);
        let reason = reason.map_or("none", RefusalReason::as_str).to_owned();
        *self.reasons.lock().unwrap().entry(reason).or_default() += 1;
    }

    fn end(&self, id: &str, fate: Fate) {
        let before = self.fates.lock().unwrap().insert(id.to_owned(), fate);
        if let Some(before) = before {
            self.fault(format!("{id} is {fate:?}, was {before:?}"));
        }
    }

    pub(crate) fn closed(&self, close: Option<&Close>) {
        match close.and_then(Close::reconnect_in) {
            Some(hint) => self.hints.lock().unwrap().push(hint),
            None => self.fault(format!("a connection ended with {close:?}")),
        }
    }

    pub(crate) fn registered(&self) {
        self.registered.lock().unwrap().push(Instant::now());
    }

    pub(crate) fn failed_attempt(&self) {
        self.failed_attempts.fetch_add(1, SeqCst);
    }

    pub(crate) fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    pub(crate) fn delivered_so_far(&self) -> u64 {
        self.delivered.load(SeqCst)
    }

    pub(crate) fn summary(&self) -> Summary {
        let fates = self.fates.lock().unwrap();
        let count = |wanted| fates.values().filter(|fate| **fate == wanted).count() as u64;
        Summary {
            sent: self.sent.load(SeqCst),
            delivered: count(Fate::Delivered),
            refused: count(Fate::Refused),
            refused_by_reason: self.reasons.lock().unwrap().clone(),
            failed_attempts: self.failed_attempts.load(SeqCst),
            hints: self.hints.lock().unwrap().clone(),
            registered: self.registered.lock().unwrap().clone(),
            faults: self.faults.lock().unwrap().clone(),
        }
    }
}
