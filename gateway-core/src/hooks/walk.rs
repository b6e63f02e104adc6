//! One event's way along its chain: hook by hook, in order, to a ruling.
//!
//! As long as hooks answer at once all of it happens within the call; from the first one that
//! takes its time it is a future. A hook in shadow mode is asked, recorded and never waited for.

use std::{pin::Pin, sync::Arc};

use conexus_plugin_api::{
    Answer, Point,
    host::{Event, HookError},
};
use conexus_protocol::RefusalReason;

use super::{
    chain::{Asked, Entry, Noticed, Outcome},
    fold::{Flow, Fold},
    generation::Generation,
    hook::HookFault,
    judge::Decision,
    record::{DecisionRecord, FaultRecord, REDACTED, StepRecord, redacted},
    replay::ASIDE,
    tape::Tape,
};
use crate::{
    config::{FailMode, Mode},
    telemetry::trace::traced,
};

/// See the [module](self).
pub(crate) struct Walk {
    generation: Arc<Generation>,
    event: Event,
    fold: Fold,
    next: usize,
    /// Where decisions are recorded: when it began, and the steps so far.
    trace: Option<(i64, Vec<StepRecord>)>,
}

/// How far a walk got.
enum Progress {
    Done(Fold),
    Waiting { walk: Walk, outcome: Pin<Box<dyn Future<Output = Outcome> + Send>> },
}

impl Walk {
    pub(crate) fn new(generation: Arc<Generation>, event: Event) -> Self {
        let records = generation.records();
        let trace = records.then(|| (generation.now_ms(), Vec::new()));
        Self { generation, event, fold: Fold::default(), next: 0, trace }
    }

    /// Walks to the end.
    pub(crate) fn decide<T>(self, end: fn(Fold) -> T) -> Decision<T>
    where
        T: 'static,
    {
        match self.proceed() {
            Progress::Done(fold) => Decision::Now(end(fold)),
            Progress::Waiting { walk, outcome } => Decision::Later(Box::pin(async move {
                let (mut walk, mut outcome) = (walk, outcome);
                loop {
                    let fold = match walk.take(outcome.await) {
                        Flow::End => walk.finish(),
                        Flow::Next => match walk.proceed() {
                            Progress::Done(fold) => fold,
                            Progress::Waiting { walk: waiting, outcome: next } => {
                                (walk, outcome) = (waiting, next);
                                continue;
                            }
                        },
                    };
                    return end(fold);
                }
            })),
        }
    }

    fn proceed(mut self) -> Progress {
        loop {
            let Some(entry) = self.generation.chain(self.event.point()).get(self.next) else {
                return Progress::Done(self.finish());
            };
            let tape = if self.trace.is_some() { Tape::recording() } else { Tape::Off };
            match entry.ask(&self.event, self.generation.number, tape) {
                Asked::Now(outcome) => match self.take(outcome) {
                    Flow::Next => {}
                    Flow::End => return Progress::Done(self.finish()),
                },
                Asked::Later(outcome) if entry.mode == Mode::Shadow => {
                    let entry = Arc::clone(entry);
                    if let Some((_, steps)) = &mut self.trace {
                        // What it says comes too late for this record, and has one of its own.
                        steps.push(StepRecord::aside(&entry));
                    }
                    self.watch_aside(entry, outcome);
                    self.next += 1;
                }
                Asked::Later(outcome) => return Progress::Waiting { walk: self, outcome },
            }
        }
    }

    /// Takes the outcome of the hook that was asked last.
    fn take(&mut self, outcome: Outcome) -> Flow {
        let Self { generation, event, fold, next, trace } = self;
        let Some(entry) = generation.chain(event.point()).get(*next) else { return Flow::End };
        *next += 1;
        let (result, flow) = judge(entry, fold, outcome.result, generation);
        let noticed = entry.settle(&result, outcome.took, event.agent().map(|agent| &*agent.did));
        generation.tell_of_fault(entry, event.point(), event, noticed);
        if let Some((_, steps)) = trace {
            steps.push(step(entry, event, Outcome { result, ..outcome }));
        }
        flow
    }

    /// A hook in shadow mode takes its time: nobody waits for it.
    fn watch_aside(
        &self,
        entry: Arc<Entry>,
        outcome: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    ) {
        let (generation, event) = (Arc::clone(&self.generation), self.event.clone());
        let began = self.trace.as_ref().map(|(began, _)| *began);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let outcome = outcome.await;
            let (result, _) = judge(&entry, &mut Fold::default(), outcome.result, &generation);
            let about = event.agent().map(|agent| &*agent.did);
            let noticed = entry.settle(&result, outcome.took, about);
            generation.tell_of_fault(&entry, event.point(), &event, noticed);
            if let Some(time_ms) = began {
                let steps = vec![step(&entry, &event, Outcome { result, ..outcome })];
                generation.record(DecisionRecord {
                    time_ms,
                    generation: generation.number,
                    trace: traced(&event),
                    event: redacted(&event),
                    steps,
                    ruling: ASIDE.into(),
                });
            }
        });
    }

    fn finish(mut self) -> Fold {
        let fold = std::mem::take(&mut self.fold);
        if let Some((time_ms, steps)) = self.trace.take() {
            self.generation.record(DecisionRecord {
                time_ms,
                generation: self.generation.number,
                trace: traced(&self.event),
                event: redacted(&self.event),
                steps,
                ruling: fold.summary(self.event.point()),
            });
        }
        fold
    }
}

/// What a hook's outcome means for the fold: nothing in shadow mode, else as its verdicts or its
/// fail mode say. An answer that makes no sense becomes a fault here.
pub(crate) fn judge(
    entry: &Entry,
    fold: &mut Fold,
    result: Result<Answer, HookFault>,
    generation: &Generation,
) -> (Result<Answer, HookFault>, Flow) {
    let shadow = entry.mode == Mode::Shadow;
    let mut aside = shadow.then(|| fold.clone());
    let target = aside.as_mut().unwrap_or(fold);
    let taken = result.and_then(|answer| {
        let flow = target.take(entry.point, &answer, &generation.terms)?;
        Ok((answer, flow))
    });
    match taken {
        Ok((answer, _)) if shadow => (Ok(answer), Flow::Next),
        Ok((answer, flow)) => (Ok(answer), flow),
        Err(fault) => {
            let closed = !shadow && entry.on_error == FailMode::Closed && entry.point.is_verdict();
            if closed {
                fold.deny(RefusalReason::PolicyError.into());
            }
            (Err(fault), if closed { Flow::End } else { Flow::Next })
        }
    }
}

pub(crate) fn step(entry: &Entry, event: &Event, outcome: Outcome) -> StepRecord {
    let secret = outcome.secret || !entry.instance.sees_only_the_record(event);
    let (answer, fault) = match outcome.result {
        Ok(answer) => (Some(answer), None),
        Err(fault) => {
            // Both may tell what it looked at, and are of no use to a replay.
            let message = if secret { REDACTED.into() } else { fault.to_string() };
            (None, Some(FaultRecord { kind: fault.kind().into(), message }))
        }
    };
    StepRecord {
        hook: entry.instance.name.to_string(),
        mode: entry.mode,
        answer,
        fault,
        micros: u64::try_from(outcome.took.as_micros()).unwrap_or(u64::MAX),
        reads: if secret { Vec::new() } else { outcome.reads },
        replayable: !secret && entry.instance.is_replayable(),
    }
}

impl Generation {
    /// Tells `on_hook_error`, unless the fault is in there.
    pub(crate) fn tell_of_fault(
        self: &Arc<Self>,
        entry: &Entry,
        point: Point,
        event: &Event,
        noticed: Noticed,
    ) {
        let (kind, message, quarantined) = match noticed {
            Noticed::Nothing => return,
            Noticed::Fault { kind, message } => (kind, message, false),
            Noticed::Quarantined { kind, message } => (kind, message, true),
        };
        if point == Point::HookError || self.chain(Point::HookError).is_empty() {
            return;
        }
        let error = |kind: &'static str, message: String| {
            Event::HookError(Arc::new(HookError {
                hook: entry.instance.name.to_string(),
                point: point.name().into(),
                kind: kind.into(),
                message,
                agent: event.agent().map(|agent| agent.did.clone()),
            }))
        };
        self.push_observed(error(kind, message));
        if quarantined {
            self.push_observed(error("quarantined", "failed too often".into()));
        }
    }
}
