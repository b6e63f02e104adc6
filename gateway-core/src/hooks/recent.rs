//! Recent decisions that are worth seeing: rulings other than a plain pass, failures of hooks, and
//! verdicts in shadow mode that would have changed something. Plain passes would push those out; they are
//! in the decision log.
//!
//! Kept in memory, the latest [`KEPT`]; no more than [`PER_SECOND`] are taken in a second, the others
//! are counted. Nothing is allocated or locked for a decision to which every hook says `continue`.
//! Without payloads, credentials, headers and queries.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use conexus_plugin_api::{Answer, Verdict, host::Event};
use parking_lot::Mutex;
use serde::Serialize;

use super::{
    chain::{Entry, Outcome},
    hook::HookFault,
    record::REDACTED,
};
use crate::{
    config::{FailMode, Mode},
    telemetry::trace::traced,
};

/// How many are kept.
pub(crate) const KEPT: usize = 1000;
/// How many are taken in one second.
pub(crate) const PER_SECOND: u32 = 100;
/// Hooks of a chain whose time is remembered until something worth seeing comes up behind them.
const EARLY: usize = 8;
/// What a hook said so far that is not waited for.
const LATER: &str = "later";
/// What stands in place of a verdict of a hook that is not asked.
const QUARANTINED: &str = "error: quarantined";
/// The longest text, in characters: a hook or an agent may have written anything.
const MAX_CHARS: usize = 256;
const MAX_RULING_CHARS: usize = 1024;

/// One decision.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Decision)]
pub struct RecentDecision {
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// Which generation decided.
    pub generation: u64,
    /// Where: `on_route` and so on.
    pub point: &'static str,
    /// Whose registration, message or lease it was; none at `on_connect`.
    pub agent: Option<String>,
    /// Whom the message was for, as its sender wrote it.
    pub to: Option<String>,
    /// The message's type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The trace that it belongs to, 32 hexadecimal digits.
    pub trace: Option<String>,
    /// What it came to: `pass`, or one of `deny`, `redirect`, `hold`, `copy`, `extend`, `label`,
    /// `rate_class`, `metadata` with what belongs to it; `let go` of a lease; `shadow` of what a hook
    /// in shadow mode said later; `told` of observers.
    pub ruling: String,
    /// What each hook said, in order.
    pub steps: Vec<RecentStep>,
}

/// One hook's part in a decision.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = DecisionStep)]
pub struct RecentStep {
    /// The hook.
    #[schema(value_type = String)]
    pub hook: Arc<str>,
    /// Whether it was obeyed.
    pub mode: Mode,
    /// `continue`, `deny(denied): …` and the like, or `error: …`; `later` of a hook in shadow mode
    /// that was not waited for.
    pub said: String,
    /// How long it took; 0 where that was not noted.
    pub micros: u64,
    /// Whether it would have changed the ruling, had it been obeyed.
    pub mismatch: bool,
}

/// Told of every decision that is kept.
pub type DecisionListener = Box<dyn Fn(&Arc<RecentDecision>) + Send + Sync>;

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Recent {
    kept: Mutex<VecDeque<Arc<RecentDecision>>>,
    second: AtomicI64,
    in_second: AtomicU32,
    skipped: AtomicU64,
    listener: OnceLock<DecisionListener>,
}

impl Recent {
    /// Whether one more may be taken now. Cheap: asked before anything is written down.
    pub(crate) fn has_room(&self, now_ms: i64) -> bool {
        self.second.load(Relaxed) != now_ms / 1000 || self.in_second.load(Relaxed) < PER_SECOND
    }

    /// One was not taken, for want of room.
    pub(crate) fn skip(&self) {
        self.skipped.fetch_add(1, Relaxed);
    }

    pub(crate) fn enter(&self, decision: RecentDecision) {
        let second = decision.at_ms / 1000;
        if self.second.swap(second, Relaxed) != second {
            self.in_second.store(0, Relaxed);
        }
        if self.in_second.fetch_add(1, Relaxed) >= PER_SECOND {
            return self.skip();
        }
        let decision = Arc::new(decision);
        if let Some(listener) = self.listener.get() {
            listener(&decision);
        }
        let mut kept = self.kept.lock();
        let gone = if kept.len() == KEPT { kept.pop_front() } else { None };
        kept.push_back(decision);
        drop(kept);
        drop(gone);
    }

    /// Up to `limit` of the wanted ones, newest first.
    pub(crate) fn latest(
        &self,
        limit: usize,
        wanted: impl Fn(&RecentDecision) -> bool,
    ) -> Vec<Arc<RecentDecision>> {
        // A copy, so that nobody who decides waits while they are looked through.
        let kept = self.kept.lock().clone();
        kept.into_iter().rev().filter(|decision| wanted(decision)).take(limit).collect()
    }

    /// How many were not taken, ever.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.load(Relaxed)
    }

    pub(crate) fn on_decision(&self, listener: DecisionListener) {
        let _ = self.listener.set(listener);
    }
}

/// What one way along a chain notes of itself, in case it turns out to be worth seeing.
#[derive(Default)]
pub(super) struct Notes {
    took: [u32; EARLY],
    /// A bit for each of the first places whose hook is not waited for.
    asides: u32,
    /// A bit for each of the first places whose hook is quarantined, and nothing hangs on it.
    passed_over: u32,
    steps: Vec<RecentStep>,
    stage: Stage,
    failed: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Every hook said `continue` so far.
    #[default]
    Quiet,
    Noting,
    /// There is no room for it anyway.
    Skipped,
}

impl Notes {
    /// The hook at `place` was asked. `has_room` is asked once, when there is something to tell.
    pub(super) fn hook(
        &mut self,
        chain: &[Arc<Entry>],
        place: usize,
        outcome: &Outcome,
        event: &Event,
        has_room: impl Fn() -> bool,
    ) {
        let passed_over = chain.get(place).is_some_and(|entry| is_passed_over(entry, outcome));
        let says_nothing = matches!(&outcome.result, Ok(answer) if answer.is_continue());
        self.failed |= outcome.result.is_err() && !passed_over;
        if self.stage == Stage::Quiet {
            if says_nothing || passed_over {
                // The log and the dashboard name a quarantined hook; each message would only push
                // other decisions out.
                if let Some(bit) = bit(place).filter(|_| passed_over) {
                    self.passed_over |= bit;
                }
                if let Some(took) = self.took.get_mut(place) {
                    *took = u32::try_from(outcome.took.as_micros()).unwrap_or(u32::MAX);
                }
                return;
            }
            self.begin(chain, place, has_room());
        }
        if self.stage == Stage::Noting
            && let Some(entry) = chain.get(place)
        {
            self.steps.push(RecentStep::of(entry, said(entry, outcome, event), outcome.took));
        }
    }

    /// The hook at `place` is not waited for.
    pub(super) fn aside(&mut self, chain: &[Arc<Entry>], place: usize) {
        if self.stage == Stage::Noting
            && let Some(entry) = chain.get(place)
        {
            self.steps.push(RecentStep::of(entry, LATER.into(), Duration::ZERO));
        } else if let Some(bit) = bit(place) {
            self.asides |= bit;
        }
    }

    fn begin(&mut self, chain: &[Arc<Entry>], place: usize, has_room: bool) {
        if !has_room {
            self.stage = Stage::Skipped;
            return;
        }
        self.stage = Stage::Noting;
        let took = self.took.iter().copied().chain(std::iter::repeat(0));
        let quiet = chain.iter().take(place).zip(took).enumerate();
        let (asides, passed_over) = (self.asides, self.passed_over);
        self.steps.extend(quiet.map(|(place, (entry, micros))| {
            let is_in = |places: u32| bit(place).is_some_and(|bit| places & bit != 0);
            let said = match () {
                () if is_in(asides) => LATER,
                () if is_in(passed_over) => QUARANTINED,
                () => "continue",
            };
            RecentStep::of(entry, said.into(), Duration::from_micros(micros.into()))
        }));
    }

    /// The hook at `place` would have changed the ruling.
    pub(super) fn mismatch(&mut self, place: usize) {
        if let Some(step) = self.steps.get_mut(place) {
            step.mismatch = true;
        }
    }

    /// Whether every hook said `continue`, so that there is nothing to tell.
    pub(super) fn is_quiet(&self) -> bool {
        self.stage == Stage::Quiet
    }

    pub(super) const fn failed(&self) -> bool {
        self.failed
    }

    pub(super) fn is_skipped(&self) -> bool {
        self.stage == Stage::Skipped
    }

    /// The steps, if they were noted.
    pub(super) fn into_steps(self) -> Option<Vec<RecentStep>> {
        (self.stage == Stage::Noting).then_some(self.steps)
    }
}

/// Whether a hook is quarantined, and its silence changes nothing.
fn is_passed_over(entry: &Entry, outcome: &Outcome) -> bool {
    matches!(outcome.result, Err(HookFault::Quarantined))
        && (entry.mode == Mode::Shadow || entry.on_error == FailMode::Open)
}

const fn bit(place: usize) -> Option<u32> {
    if place < 32 { Some(1 << place) } else { None }
}

impl RecentStep {
    pub(super) fn of(entry: &Entry, said: String, took: Duration) -> Self {
        Self {
            hook: Arc::clone(&entry.instance.name),
            mode: entry.mode,
            said,
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            mismatch: false,
        }
    }
}

impl RecentDecision {
    pub(super) fn of(
        event: &Event,
        at_ms: i64,
        generation: u64,
        ruling: String,
        steps: Vec<RecentStep>,
    ) -> Self {
        let (to, kind) = match event {
            Event::Route(route) | Event::Undeliverable(route) => {
                (Some(route.to().to_owned()), Some(route.kind.clone().into_owned()))
            }
            Event::Watch(watch) => (Some(watch.did.clone()), None),
            _ => (None, None),
        };
        Self {
            at_ms,
            generation,
            point: event.point().name(),
            agent: event.agent().map(|agent| agent.did.clone()),
            to: to.map(|to| cut(to, MAX_CHARS)),
            kind,
            trace: traced(event).map(|trace| trace.to_string()),
            ruling: cut(ruling, MAX_RULING_CHARS),
            steps,
        }
    }
}

/// What a hook said, in few words.
pub(super) fn said(entry: &Entry, outcome: &Outcome, event: &Event) -> String {
    let words = match &outcome.result {
        Ok(answer) if answer.is_continue() => "continue".to_owned(),
        Ok(answer) => words(answer),
        // It may tell what the hook looked at.
        Err(_) if outcome.secret || !entry.instance.sees_only_the_record(event) => {
            format!("error: {REDACTED}")
        }
        Err(fault) => format!("error: {fault}"),
    };
    cut(words, MAX_CHARS)
}

fn words(answer: &Answer) -> String {
    let words = answer.verdicts().iter().map(|verdict| match verdict {
        Verdict::Deny { code, reason } if reason.is_empty() => format!("deny({})", code.as_str()),
        Verdict::Deny { code, reason } => format!("deny({}): {reason}", code.as_str()),
        Verdict::Redirect(did) => format!("redirect({did})"),
        Verdict::Copy(did) => format!("copy({did})"),
        Verdict::Hold(time) => format!("hold({time:?})"),
        Verdict::Extend(lease) => format!("extend({lease:?})"),
        // What is set is in the ruling.
        other => other.name().to_owned(),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn cut(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text,
        Some((end, _)) => text[..end].to_owned() + "…",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(at_ms: i64) -> RecentDecision {
        RecentDecision::of(&Event::Tick, at_ms, 1, "pass".into(), Vec::new())
    }

    #[test]
    fn a_second_has_room_for_so_many_and_the_others_are_counted() {
        let recent = Recent::default();
        for _ in 0..PER_SECOND {
            assert!(recent.has_room(5_000));
            recent.enter(decision(5_000));
        }
        assert!(!recent.has_room(5_999));
        recent.enter(decision(5_999));
        assert_eq!(recent.skipped(), 1);
        assert!(recent.has_room(6_000));
        recent.enter(decision(6_000));
        assert_eq!(recent.latest(usize::MAX, |_| true).len(), PER_SECOND as usize + 1);
    }

    #[test]
    fn the_latest_are_kept_and_told_to_whoever_listens() {
        let recent = Recent::default();
        let told = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&told);
        recent.on_decision(Box::new(move |_| {
            count.fetch_add(1, Relaxed);
        }));
        let total = i64::try_from(KEPT).unwrap() + 5;
        for number in 0..total {
            recent.enter(decision(number * 1000));
        }
        let latest = recent.latest(usize::MAX, |_| true);
        assert_eq!((latest.len(), latest[0].at_ms), (KEPT, (total - 1) * 1000));
        assert_eq!(recent.latest(3, |decision| decision.at_ms % 2000 == 0).len(), 3);
        assert_eq!(told.load(Relaxed), KEPT as u64 + 5);
    }
}
