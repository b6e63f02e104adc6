//! An instance: one hook of `[hook.NAME]`, loaded and configured, and what keeps it in check.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicI64, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use conexus_plugin_api::{
    Answer, Point, PointSet,
    host::{Event, Services},
};
use parking_lot::Mutex;
use tracing::{debug, info, warn};

use super::{
    breaker::Breaker,
    facilities::{CallServices, Facilities},
    hook::{CallContext, Hook, HookFault, Returned},
    pool::{Pool, PoolFull},
    secrets::Secrets,
    stats::LogGate,
    tape::Tape,
    timers::Due,
};
use crate::striped::Striped;

/// A hook that took this long, or [`SLOW_CALLS`] times [`SLOW_CALL`] within a second, is asked on
/// the pool for a while, so that it does not hold up the threads that carry messages. Once a little
/// late says nothing: the thread may have been the one that had to wait. On a busy machine that
/// happens many times a second, to any hook that is asked often enough, so slow calls count only
/// where they are one in [`SLOW_SHARE`].
const VERY_SLOW_CALL: Duration = Duration::from_millis(20);
const SLOW_CALL: Duration = Duration::from_millis(5);
const SLOW_CALLS: u32 = 3;
const SLOW_SHARE: u64 = 100;
const SLOW_FOR_MS: i64 = 10_000;
/// Calls of the instance's own life (start, stop, reload, ticks, timers) may take this long.
const LIFECYCLE_BUDGET: Duration = Duration::from_secs(5);

/// When a timer of an instance that does not serve is looked at again.
const LATER: Duration = Duration::from_secs(1);

/// A file that something was made from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct SourceFile {
    /// Where it lies.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// The SHA-256 of its content, hexadecimal.
    pub sha256: String,
}

/// Slow calls of late.
#[derive(Default)]
struct SlowCalls {
    /// When the first of them was.
    since: Option<Instant>,
    slow: u32,
    /// How many calls there had been by then.
    calls_before: u64,
}

impl SlowCalls {
    /// Another one, the latest of `calls`; whether they are often slow.
    fn another(&mut self, now: Instant, calls: u64) -> bool {
        if self.since.is_some_and(|since| now - since < Duration::from_secs(1)) {
            self.slow += 1;
        } else {
            *self = Self { since: Some(now), slow: 1, calls_before: calls };
        }
        let meanwhile = calls.saturating_sub(self.calls_before);
        self.slow >= SLOW_CALLS && meanwhile <= u64::from(self.slow) * SLOW_SHARE
    }
}

/// See the [module](self).
pub(crate) struct Instance {
    pub(crate) name: Arc<str>,
    pub(crate) source: String,
    pub(crate) facilities: Arc<Facilities>,
    pub(crate) breaker: Breaker,
    pub(crate) blocking: bool,
    native: bool,
    /// Equal keys make equal instances: a hash over code, configuration and files.
    pub(crate) key: [u8; 32],
    pub(crate) files: Vec<SourceFile>,
    pub(crate) failures: LogGate,
    pub(crate) lateness: LogGate,
    /// Whether the running generation has it; others do not tick.
    pub(crate) active: AtomicBool,
    hook: Arc<dyn Hook>,
    secrets: Secrets,
    pool: Arc<Pool>,
    points: PointSet,
    started: AtomicBool,
    /// Its `on_start` is still to come, once its cluster is there.
    waits: AtomicBool,
    /// That one is running.
    starts: AtomicBool,
    origin: Instant,
    slow_until_ms: AtomicI64,
    calls: Striped<AtomicU64>,
    slow_calls: Mutex<SlowCalls>,
    /// A tick does not begin before the last one has ended.
    ticking: Mutex<()>,
}

impl Instance {
    #[expect(clippy::too_many_arguments, reason = "a plain constructor of all that is known")]
    pub(crate) fn new(
        hook: Arc<dyn Hook>,
        source: String,
        facilities: Arc<Facilities>,
        breaker: Breaker,
        blocking: bool,
        native: bool,
        key: [u8; 32],
        files: Vec<SourceFile>,
        secrets: Secrets,
        pool: &Arc<Pool>,
    ) -> Arc<Self> {
        let instance = Arc::new(Self {
            name: Arc::clone(&facilities.hook),
            source,
            breaker,
            blocking,
            native,
            key,
            files,
            failures: LogGate::default(),
            lateness: LogGate::default(),
            active: AtomicBool::new(false),
            points: hook.points(),
            hook,
            secrets,
            pool: Arc::clone(pool),
            started: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            starts: AtomicBool::new(false),
            origin: Instant::now(),
            slow_until_ms: AtomicI64::new(i64::MIN),
            calls: Striped::default(),
            slow_calls: Mutex::default(),
            ticking: Mutex::new(()),
            facilities,
        });
        let _ = instance.facilities.instance.set(Arc::downgrade(&instance));
        instance
    }

    pub(crate) fn points(&self) -> PointSet {
        self.points
    }

    pub(crate) fn is_replayable(&self) -> bool {
        self.hook.is_replayable()
    }

    /// Whether what a record leaves out of this event was out of its sight. Scripts tell what they
    /// looked at; native code may have looked at anything.
    pub(crate) fn sees_only_the_record(&self, event: &Event) -> bool {
        match event {
            _ if !self.native => true,
            Event::Connect(_) => false,
            Event::Register(event) => event.credentials.is_none(),
            _ => true,
        }
    }

    /// Calls the hook on this thread. Panics become faults, and no fault tells a secret.
    pub(crate) fn invoke(
        &self,
        event: &Event,
        context: &CallContext,
    ) -> Result<Returned, HookFault> {
        self.calls.mine().fetch_add(1, Relaxed);
        contained(|| self.hook.call(event, context)).map_err(|fault| self.discreet(fault, event))
    }

    /// A fault of its call about that event, without what is nobody's business.
    pub(crate) fn discreet(&self, fault: HookFault, event: &Event) -> HookFault {
        self.secrets.hide_in(fault, Some(event))
    }

    /// Whether it should be asked on the pool.
    pub(crate) fn is_slow(&self, now: Instant) -> bool {
        self.blocking
            || self.facilities.is_shared()
            || self.millis(now) < self.slow_until_ms.load(SeqCst)
    }

    /// A call took so long.
    pub(crate) fn note_time(&self, took: Duration) {
        if took < SLOW_CALL {
            return;
        }
        let (now, calls) =
            (Instant::now(), self.calls.all().map(|calls| calls.load(Relaxed)).sum());
        let often = self.slow_calls.lock().another(now, calls);
        if often || took >= VERY_SLOW_CALL {
            self.slow_until_ms.store(self.millis(now) + SLOW_FOR_MS, SeqCst);
        }
    }

    fn millis(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(i64::MAX)
    }

    /// Calls `on_start`, and waits for it as long as such a call may take. What would ask a cluster
    /// before there is a gateway to join it starts when that has happened, and is not asked before:
    /// a gateway can start while its cluster is away.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), HookFault> {
        let begins = self.points.contains(Point::Start);
        if begins && self.facilities.is_shared() && self.facilities.around.reach.is_early() {
            self.waits.store(true, SeqCst);
            return Ok(());
        }
        self.started.store(true, SeqCst);
        if !begins {
            return Ok(());
        }
        let (done, is_done) = std::sync::mpsc::sync_channel(1);
        let this = Arc::clone(self);
        let submitted = self.pool.submit(move || drop(done.send(this.lifecycle(&Event::Start))));
        let ticket = submitted.map_err(|PoolFull| HookFault::Overloaded)?;
        is_done.recv_timeout(LIFECYCLE_BUDGET).unwrap_or_else(|_| {
            ticket.give_up();
            Err(HookFault::TimedOut)
        })
    }

    /// Whether its `on_start` is still to come.
    pub(crate) fn waits(&self) -> bool {
        self.waits.load(SeqCst)
    }

    /// Its cluster is there: `on_start` is called if it waits for that. Where the cluster has come
    /// `anew`, the hook is asked again although it failed. Whether it still has to start.
    pub(crate) fn cluster_is_there(self: &Arc<Self>, anew: bool) -> bool {
        if anew {
            self.breaker.retry(Instant::now());
        }
        if !self.waits() {
            return false;
        }
        if !self.starts.swap(true, SeqCst) {
            let this = Arc::clone(self);
            let submitted = self.pool.submit(move || {
                this.start_late();
                this.starts.store(false, SeqCst);
            });
            if submitted.is_err() {
                self.starts.store(false, SeqCst);
            }
        }
        true
    }

    fn start_late(&self) {
        self.started.store(true, SeqCst);
        match self.lifecycle(&Event::Start) {
            Ok(()) => {
                self.waits.store(false, SeqCst);
                self.breaker.retry(Instant::now());
                info!(hook = %self.name, "started, now that the cluster is there");
            }
            Err(fault) => {
                warn!(hook = %self.name, kind = fault.kind(), fault = %fault.to_string().escape_debug(), "on_start failed, it is tried again");
            }
        }
    }

    /// Calls `on_reload` on the pool: a newer generation has it, too.
    pub(crate) fn carried_over(self: &Arc<Self>) {
        if self.points.contains(Point::Reload) {
            let this = Arc::clone(self);
            let _ = self.pool.submit(move || this.lifecycle_logged(&Event::Reload));
        }
    }

    /// Calls `on_stop`, once, if it was started, and lets the hook go.
    pub(crate) fn stop(&self) {
        if self.started.swap(false, SeqCst) {
            self.lifecycle_logged(&Event::Stop);
        }
        self.hook.shut_down();
    }

    /// A tick or a timer of it is due.
    pub(crate) fn is_due(self: &Arc<Self>, due: Due) {
        let this = Arc::clone(self);
        let submitted = self.pool.submit(move || match due {
            Due::Tick(_) => {
                if this.active.load(SeqCst)
                    && !this.waits()
                    && let Some(_alone) = this.ticking.try_lock()
                {
                    this.lifecycle_logged(&Event::Tick);
                }
            }
            // Kept for a rollback; its timers wait as long.
            Due::Timer(tag) if !this.active.load(SeqCst) => {
                let again = Arc::downgrade(&this);
                this.facilities.around.timers.after(LATER, again, tag);
            }
            Due::Timer(tag) => {
                this.facilities.timers_set.fetch_sub(1, SeqCst);
                let context = this.context();
                if let Err(fault) = contained(|| this.hook.on_timer(tag, &context)) {
                    let fault = this.secrets.hide_in(fault, None);
                    warn!(hook = %this.name, tag, kind = fault.kind(), fault = %fault.to_string().escape_debug(), "timer failed");
                }
            }
        });
        if submitted.is_err() {
            if let Due::Timer(_) = due {
                self.facilities.timers_set.fetch_sub(1, SeqCst);
            }
            warn!(hook = %self.name, ?due, "skipped, too much is waiting");
        }
    }

    fn context(&self) -> CallContext {
        let generation = self.facilities.generation.load(SeqCst);
        let services =
            CallServices::new(&self.facilities, generation, None, false, false, Tape::Off);
        let deadline = Instant::now() + LIFECYCLE_BUDGET;
        services.begin(deadline);
        CallContext { services: Arc::new(services) as Arc<dyn Services>, deadline }
    }

    fn lifecycle(&self, event: &Event) -> Result<(), HookFault> {
        if !self.points.contains(event.point()) {
            return Ok(());
        }
        match self.invoke(event, &self.context())? {
            Returned::Answer(answer) if answer.is_continue() => Ok(()),
            _ => Err(HookFault::BadReturn(format!("{} decides nothing", event.point()))),
        }
    }

    fn lifecycle_logged(&self, event: &Event) {
        debug!(hook = %self.name, point = %event.point(), "lifecycle");
        if let Err(fault) = self.lifecycle(event) {
            warn!(hook = %self.name, point = %event.point(), kind = fault.kind(), fault = %fault.to_string().escape_debug(), "hook failed");
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // This may be a thread that carries messages, and the hook may take its time.
        let tell = self.started.swap(false, SeqCst) && self.points.contains(Point::Stop);
        let (name, context) = (Arc::clone(&self.name), self.context());
        let secrets = std::mem::take(&mut self.secrets);
        let hook = std::mem::replace(&mut self.hook, Arc::new(Gone));
        let submitted = self.pool.submit(move || {
            if tell && let Err(fault) = contained(|| hook.call(&Event::Stop, &context)) {
                let fault = secrets.hide_in(fault, None);
                warn!(hook = %name, kind = fault.kind(), fault = %fault.to_string().escape_debug(), "on_stop failed");
            }
            hook.shut_down();
        });
        if submitted.is_err() && tell {
            warn!(hook = %self.name, "on_stop was skipped, too much is waiting");
        }
    }
}

/// What is left of a hook that was handed over to be dropped.
struct Gone;

impl Hook for Gone {
    fn points(&self) -> PointSet {
        PointSet::EMPTY
    }

    fn call(&self, _: &Event, _: &CallContext) -> Result<Returned, HookFault> {
        Ok(Returned::Answer(Answer::CONTINUE))
    }
}

/// Turns a panic into a fault.
fn contained<T>(call: impl FnOnce() -> Result<T, HookFault>) -> Result<T, HookFault> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|payload| Err(HookFault::Panicked(said(payload.as_ref()))))
}

fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_often_slow_when_they_are_many_of_all_within_a_second() {
        let start = Instant::now();
        let slow_at = |calls: [(u64, u64); 4]| {
            let mut seen = SlowCalls::default();
            calls.map(|(millis, calls)| seen.another(start + Duration::from_millis(millis), calls))
        };
        assert_eq!(slow_at([(0, 1), (10, 2), (20, 3), (30, 4)]), [false, false, true, true]);
        assert_eq!(slow_at([(0, 0), (10, 0), (20, 0), (30, 0)]), [false, false, true, true]);
        // Too long ago.
        assert_eq!(slow_at([(0, 1), (10, 2), (1000, 3), (1010, 4)]), [false; 4]);
        // Few of many: it was the thread that had to wait.
        assert_eq!(slow_at([(0, 1), (10, 900), (20, 1800), (30, 2700)]), [false; 4]);
        assert_eq!(slow_at([(0, 1), (10, 90), (20, 301), (30, 302)]), [false, false, true, true]);
    }
}
