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
    recent::{Notes, RecentDecision, RecentStep, said},
    record::{DecisionRecord, FaultRecord, REDACTED, StepRecord, redacted},
    replay::ASIDE,
    shadow::{Shadows, Would},
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
    shadows: Shadows,
    notes: Notes,
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
        let (fold, shadows) = (Fold::default(), Shadows::default());
        Self { generation, event, fold, next: 0, shadows, notes: Notes::default(), trace }
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
                    let chain = self.generation.chain(self.event.point());
                    self.notes.aside(chain, self.next);
                    self.watch_aside(entry, outcome);
                    self.next += 1;
                }
                Asked::Later(outcome) => return Progress::Waiting { walk: self, outcome },
            }
        }
    }

    /// Takes the outcome of the hook that was asked last.
    fn take(&mut self, outcome: Outcome) -> Flow {
        let Self { generation, event, fold, next, shadows, notes, trace } = self;
        let chain = generation.chain(event.point());
        let place = *next;
        let Some(entry) = chain.get(place) else { return Flow::End };
        *next += 1;
        let Judged { result, flow, would } = judge(entry, fold, outcome.result, generation);
        let outcome = Outcome { result, ..outcome };
        match would {
            Some(would) => shadows.cast(place, would),
            None if entry.mode == Mode::Shadow => {}
            None => shadows.follow(entry, &outcome.result, &generation.terms),
        }
        let noticed = entry.settle(&outcome.result, outcome.took, event);
        generation.tell_of_fault(entry, event.point(), event, noticed);
        let has_room = || generation.recent().has_room(generation.now_ms());
        notes.hook(chain, place, &outcome, event, has_room);
        if let Some((_, steps)) = trace {
            steps.push(step(entry, event, outcome));
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
        let before = self.fold.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let outcome = outcome.await;
            let Judged { result, would, .. } =
                judge(&entry, &mut before.clone(), outcome.result, &generation);
            let outcome = Outcome { result, ..outcome };
            let noticed = entry.settle(&outcome.result, outcome.took, &event);
            generation.tell_of_fault(&entry, event.point(), &event, noticed);
            let mismatch = would.is_some_and(|would| would.differs_from(&before, event.point()));
            if mismatch {
                entry.stats.mismatched();
            }
            if mismatch || outcome.result.is_err() {
                let said = said(&entry, &outcome, &event);
                let step = RecentStep { mismatch, ..RecentStep::of(&entry, said, outcome.took) };
                generation.note(&event, ASIDE.into(), vec![step]);
            }
            if let Some(time_ms) = began {
                let steps = vec![step(&entry, &event, outcome)];
                generation.record(DecisionRecord {
                    node: None,
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

    /// Counts what hooks in shadow mode would have changed, and keeps the decision if it is worth
    /// seeing.
    fn show(&mut self, ruling: &Fold) {
        if self.notes.is_quiet() {
            return;
        }
        let point = self.event.point();
        let mut differs = false;
        for place in self.shadows.mismatches(ruling, point) {
            differs = true;
            if let Some(entry) = self.generation.chain(point).get(place) {
                entry.stats.mismatched();
            }
            self.notes.mismatch(place);
        }
        let notes = std::mem::take(&mut self.notes);
        let worth = differs || notes.failed() || self.trace.is_some() || !ruling.is_plain();
        if !worth {
            return;
        }
        if notes.is_skipped() {
            self.generation.recent().skip();
        } else if let Some(steps) = notes.into_steps() {
            self.generation.note(&self.event, ruling.summary(point), steps);
        }
    }

    fn finish(mut self) -> Fold {
        let fold = std::mem::take(&mut self.fold);
        self.show(&fold);
        if let Some((time_ms, steps)) = self.trace.take() {
            self.generation.record(DecisionRecord {
                node: None,
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

/// A hook's outcome once it was judged.
pub(crate) struct Judged {
    pub(crate) result: Result<Answer, HookFault>,
    pub(crate) flow: Flow,
    /// What a verdict in shadow mode would have made of it; none of `continue`.
    pub(crate) would: Option<Would>,
}

/// What a hook's outcome means for the fold: nothing in shadow mode, else as its verdicts or its
/// fail mode say. An answer that makes no sense becomes a fault here.
pub(crate) fn judge(
    entry: &Entry,
    fold: &mut Fold,
    result: Result<Answer, HookFault>,
    generation: &Generation,
) -> Judged {
    let shadow = entry.mode == Mode::Shadow;
    // Nothing to take, be it obeyed or not.
    if matches!(&result, Ok(answer) if answer.is_continue()) {
        return Judged { result, flow: Flow::Next, would: None };
    }
    let mut aside = shadow.then(|| fold.clone());
    let target = aside.as_mut().unwrap_or(fold);
    let taken = result.and_then(|answer| {
        let flow = target.take(entry.point, &answer, &generation.terms)?;
        Ok((answer, flow))
    });
    match taken {
        Ok((answer, flow)) => match aside {
            Some(fold) => {
                let would = Some(Would { fold, flow });
                Judged { result: Ok(answer), flow: Flow::Next, would }
            }
            None => Judged { result: Ok(answer), flow, would: None },
        },
        Err(fault) => {
            let closed = !shadow && entry.on_error == FailMode::Closed && entry.point.is_verdict();
            if closed {
                fold.deny(RefusalReason::PolicyError.into());
            }
            let flow = if closed { Flow::End } else { Flow::Next };
            Judged { result: Err(fault), flow, would: None }
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
    /// Keeps a decision that is worth seeing.
    fn note(&self, event: &Event, ruling: String, steps: Vec<RecentStep>) {
        let decision = RecentDecision::of(event, self.now_ms(), self.number, ruling, steps);
        self.recent().enter(decision);
    }

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
