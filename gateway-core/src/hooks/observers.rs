//! Observers: hooks that are told, on threads of their own.
//!
//! Events of one agent are told in their order, since they all go through one queue. The queues
//! are bounded, whoever puts something in never waits, and what finds no room is dropped and
//! counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use conexus_plugin_api::host::Event;
use tracing::warn;

use super::{
    chain::{Asked, Outcome},
    fold::Fold,
    generation::Generation,
    recent::{RecentDecision, RecentStep, said},
    record::{DecisionRecord, redacted},
    stats::LogGate,
    tape::Tape,
    walk::{Judged, judge, step},
};
use crate::telemetry::trace::traced;

/// Queues, and threads that empty them.
const QUEUES: usize = 2;

/// The ruling of what was only told.
const TOLD: &str = "told";

enum Job {
    Tell(Arc<Generation>, Event),
    /// Answered when everything before it has been told.
    Flush(SyncSender<()>),
}

/// See the [module](self). The threads end with this.
pub(crate) struct Observers {
    queues: Vec<SyncSender<Job>>,
    dropped: AtomicU64,
    gate: LogGate,
}

impl Observers {
    /// `capacity` events may wait in all.
    pub(crate) fn start(capacity: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().ok();
        let start = |_| {
            let (queue, jobs) = sync_channel(capacity.div_ceil(QUEUES));
            let runtime = runtime.clone();
            thread::Builder::new()
                .name("conexus-observer".into())
                .stack_size(crate::script::STACK_BYTES)
                .spawn(move || serve(&jobs, runtime.as_ref()))?;
            Ok(queue)
        };
        let queues = (0..QUEUES).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { queues, dropped: AtomicU64::new(0), gate: LogGate::default() })
    }

    pub(crate) fn push(&self, generation: Arc<Generation>, event: Event) {
        // What is about no agent keeps its order, too.
        let key = event.agent().map_or(0, |agent| usize::from(agent.key[0]));
        let now_ms = generation.now_ms();
        let job = Job::Tell(generation, event);
        if self.queues[key % QUEUES].try_send(job).is_err() {
            self.dropped.fetch_add(1, Relaxed);
            if let Some(more) = self.gate.open(now_ms) {
                warn!(more, "observers do not keep up, an event is dropped");
            }
        }
    }

    /// Events that were not told, for want of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until all that was pushed has been told, or `patience` is over; whether it was.
    /// Blocks the thread.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let deadline = std::time::Instant::now() + patience;
        let left = || deadline.saturating_duration_since(std::time::Instant::now());
        let mut acknowledged = Vec::new();
        for queue in &self.queues {
            let (told, is_told) = sync_channel(1);
            let mut job = Job::Flush(told);
            // A full queue has room in a moment, unless a hook hangs.
            loop {
                match queue.try_send(job) {
                    Ok(()) => break,
                    Err(std::sync::mpsc::TrySendError::Full(back)) if !left().is_zero() => {
                        job = back;
                        thread::sleep(Duration::from_millis(1));
                    }
                    Err(_) => return false,
                }
            }
            acknowledged.push(is_told);
        }
        acknowledged.iter().all(|is_told| is_told.recv_timeout(left()).is_ok())
    }
}

fn serve(jobs: &Receiver<Job>, runtime: Option<&tokio::runtime::Handle>) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Tell(generation, event) => tell(&generation, &event, runtime),
            Job::Flush(told) => drop(told.send(())),
        }
    }
}

/// Tells every hook of the point's chain.
pub(crate) fn tell(
    generation: &Arc<Generation>,
    event: &Event,
    runtime: Option<&tokio::runtime::Handle>,
) {
    let records = generation.records();
    let (time_ms, mut steps) = (generation.now_ms(), Vec::new());
    let (mut told, mut failed) = (Vec::new(), false);
    for entry in generation.chain(event.point()) {
        let tape = if records { Tape::recording() } else { Tape::Off };
        let outcome = match (entry.ask(event, generation.number, tape), runtime) {
            (Asked::Now(outcome), _) => outcome,
            (Asked::Later(outcome), Some(runtime)) => runtime.block_on(outcome),
            (Asked::Later(_), None) => continue,
        };
        let Judged { result, .. } = judge(entry, &mut Fold::default(), outcome.result, generation);
        let outcome = Outcome { result, ..outcome };
        let noticed = entry.settle(&outcome.result, outcome.took, event);
        generation.tell_of_fault(entry, event.point(), event, noticed);
        failed |= outcome.result.is_err();
        if failed {
            told.push(RecentStep::of(entry, said(entry, &outcome, event), outcome.took));
        }
        if records {
            steps.push(step(entry, event, outcome));
        }
    }
    if failed {
        let ruling = TOLD.to_owned();
        let decision = RecentDecision::of(event, time_ms, generation.number, ruling, told);
        generation.recent().enter(decision);
    }
    if records {
        generation.record(DecisionRecord {
            node: None,
            time_ms,
            generation: generation.number,
            trace: traced(event),
            event: redacted(event),
            steps,
            ruling: TOLD.into(),
        });
    }
}
