//! What the tasks of a run share: how far it has come, and where they write down what happened.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::{register::SetupError, tally::Tally, wire::Lost};

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(super) enum Phase {
    /// Agents register.
    Setup,
    /// Load, not measured yet.
    Warmup,
    Measuring,
    /// Nothing new is sent; what is under way may arrive.
    Draining,
}

const PHASES: [Phase; 4] = [Phase::Setup, Phase::Warmup, Phase::Measuring, Phase::Draining];

/// When the load begins, and the measured time within it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) begin: Instant,
    pub(super) from: Instant,
    pub(super) until: Instant,
}

impl Span {
    /// From shortly after now, so that all are ready for it.
    pub(super) fn new(warmup: Duration, seconds: Duration) -> Self {
        let begin = Instant::now() + Duration::from_millis(10);
        let from = begin + warmup;
        Self { begin, from, until: from + seconds }
    }

    /// Whether a moment is within the measured time.
    pub(super) fn has(&self, moment: Instant) -> bool {
        self.from <= moment && moment < self.until
    }
}

/// See the [module](self).
pub(super) struct Board {
    phase: AtomicU8,
    span: OnceLock<Span>,
    start: watch::Sender<bool>,
    tallies: Box<[Mutex<Tally>]>,
    ready: AtomicUsize,
    failed: AtomicUsize,
    gone: AtomicUsize,
}

impl Board {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Setup as u8),
            span: OnceLock::new(),
            start: watch::Sender::new(false),
            tallies: (0..workers).map(|_| Mutex::new(Tally::new())).collect(),
            ready: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Relaxed))]
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Whether a closed loop goes on.
    pub(super) fn is_loaded(&self) -> bool {
        matches!(self.phase(), Phase::Warmup | Phase::Measuring)
    }

    /// Lets all begin.
    pub(super) fn start(&self, span: Span) {
        let set = self.span.set(span);
        debug_assert!(set.is_ok(), "a run starts once");
        self.enter(Phase::Warmup);
        self.start.send_replace(true);
    }

    /// When the load begins and is measured, once that is known.
    pub(super) fn span(&self) -> Option<&Span> {
        self.span.get()
    }

    /// Waits for the start.
    pub(super) async fn started(&self) {
        // The sender lives as long as this.
        let _ = self.start.subscribe().wait_for(|started| *started).await;
    }

    pub(super) fn tally(&self, worker: usize) -> MutexGuard<'_, Tally> {
        self.tallies[worker].lock()
    }

    /// All tallies together.
    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::new();
        for tally in &self.tallies {
            total.add(&tally.lock());
        }
        total
    }

    /// Counts alone: messages measured, and messages under way.
    pub(super) fn counts(&self) -> (u64, u64) {
        self.tallies.iter().fold((0, 0), |(messages, under_way), tally| {
            let tally = tally.lock();
            (messages + tally.messages, under_way + tally.sent - tally.settled)
        })
    }

    /// One of those that are set up is ready.
    pub(super) fn ready(&self) {
        self.ready.fetch_add(1, Relaxed);
    }

    /// One of those that are set up will never be.
    pub(super) fn failed(&self, worker: usize, error: &SetupError) {
        self.tally(worker).errors.setup(error);
        self.failed.fetch_add(1, Relaxed);
    }

    /// One that was ready is so no longer.
    pub(super) fn gone(&self, worker: usize, lost: &Lost) {
        self.tally(worker).errors.lost(lost);
        self.gone.fetch_add(1, Relaxed);
    }

    /// Whether all that were ready are gone.
    pub(super) fn is_deserted(&self) -> bool {
        let gone = self.gone.load(Relaxed);
        gone > 0 && gone >= self.ready.load(Relaxed)
    }

    /// How many are ready, and how many will never be.
    pub(super) fn set_up(&self) -> (usize, usize) {
        (self.ready.load(Relaxed), self.failed.load(Relaxed))
    }
}
