//! A chain's entries: how one hook is asked, and what is made of how it went.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use conexus_plugin_api::{
    Answer, Point,
    host::{Event, Services},
};
use tokio::sync::oneshot;
use tracing::{error, field, info, warn};

use super::{
    breaker::{Breaker, BreakerState},
    facilities::CallServices,
    hook::{CallContext, HookFault, Returned},
    instance::Instance,
    pool::{Pool, Ticket},
    stats::Stats,
    tape::{Read, Tape},
};
use crate::{
    config::{ChainEntry, FailMode, Mode, PolicySettings},
    telemetry::trace::traced,
};

/// A call on the pool that may not be given up at its budget, since native code's verdict counts
/// however late it is: this many budgets, and at least [`LEAST_PATIENCE`].
const PATIENCE: u32 = 20;
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// What is said of an instance that is not started yet.
const WAITS: &str = "not started: on_start is called once this node has joined its cluster";

/// One entry of `[[chain.on_POINT]]`.
pub(crate) struct Entry {
    pub(crate) instance: Arc<Instance>,
    pub(crate) point: Point,
    pub(crate) mode: Mode,
    pub(crate) on_error: FailMode,
    pub(crate) budget: Duration,
    pub(crate) warn: Duration,
    pub(crate) stats: Stats,
    /// In shadow mode its own: its failures are not to close what others obey.
    shadow: Option<Breaker>,
    /// Calls in shadow mode that are in the pool.
    aside: Arc<AtomicUsize>,
    pool: Arc<Pool>,
    /// Everything on the calling thread: there is no traffic to hold up.
    inline: bool,
}

/// How a call went.
pub(crate) struct Outcome {
    pub(crate) result: Result<Answer, HookFault>,
    pub(crate) took: Duration,
    pub(crate) reads: Vec<Read>,
    /// It looked at something that is left out of records.
    pub(crate) secret: bool,
}

/// An outcome, at once or later.
pub(crate) enum Asked {
    Now(Outcome),
    Later(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

/// What else was noticed when an outcome was taken down.
pub(crate) enum Noticed {
    Nothing,
    /// To be told to `on_hook_error`.
    Fault {
        kind: &'static str,
        message: String,
    },
    /// The same, and the breaker opened.
    Quarantined {
        kind: &'static str,
        message: String,
    },
}

impl Entry {
    pub(crate) fn new(
        instance: Arc<Instance>,
        point: Point,
        settings: &ChainEntry,
        policy: &PolicySettings,
        pool: &Arc<Pool>,
        inline: bool,
    ) -> Self {
        let budget = settings.budget.unwrap_or(policy.budget);
        // In a replay time is nobody's concern, but a script may still be one that does not end.
        let budget = if inline { budget * PATIENCE } else { budget };
        Self {
            instance,
            point,
            mode: settings.mode,
            on_error: settings.fail_mode(point),
            budget,
            warn: settings.warn.unwrap_or(budget / 2),
            stats: Stats::default(),
            aside: Arc::default(),
            shadow: (settings.mode == Mode::Shadow && !inline).then(|| Breaker::new(policy)),
            pool: Arc::clone(pool),
            inline,
        }
    }

    /// Asks the hook.
    pub(crate) fn ask(&self, event: &Event, generation: u64, tape: Tape) -> Asked {
        let started = Instant::now();
        if !self.the_breaker().admits(started) {
            return Asked::Now(Outcome::failed(HookFault::Quarantined));
        }
        if self.instance.waits() {
            return Asked::Now(Outcome::failed(HookFault::Failed(WAITS.into())));
        }
        let may_defer = matches!(self.point, Point::Connect | Point::Register);
        let services = Arc::new(CallServices::new(
            &self.instance.facilities,
            generation,
            event.connection(),
            may_defer,
            self.mode == Mode::Shadow,
            tape,
        ));
        let context = CallContext {
            services: Arc::clone(&services) as Arc<dyn Services>,
            deadline: started + self.budget,
        };
        if !self.inline && self.instance.is_slow(started) {
            return self.ask_on_pool(event.clone(), context, services, started);
        }
        services.begin(context.deadline);
        let returned = self.instance.invoke(event, &context);
        drop(context);
        let took = started.elapsed();
        self.instance.note_time(took);
        match returned {
            Ok(Returned::Deferred(_)) => self.await_deferred(event.clone(), services, started),
            Ok(Returned::Answer(answer)) => Asked::Now(Outcome::of(Ok(answer), took, &services)),
            Err(fault) => Asked::Now(Outcome::of(Err(fault), took, &services)),
        }
    }

    fn ask_on_pool(
        &self,
        event: Event,
        context: CallContext,
        services: Arc<CallServices>,
        started: Instant,
    ) -> Asked {
        let aside = (self.mode == Mode::Shadow).then(|| Aside::enter(&self.aside));
        if aside.as_ref().is_some_and(|aside| aside.1 >= MAX_ASIDE) {
            return Asked::Now(Outcome::failed(HookFault::Overloaded));
        }
        let (answer, answered) = oneshot::channel();
        let instance = Arc::clone(&self.instance);
        let (asked_about, asked_of) = (event.clone(), Arc::clone(&instance));
        let (blocking, budget) = (self.instance.blocking, self.budget);
        let (mut context, call) = (context, Arc::clone(&services));
        let submitted = self.pool.submit(move || {
            let _aside = aside;
            let began = Instant::now();
            // The time in the queue is not the hook's.
            if !blocking {
                context.deadline = began + budget;
            }
            call.begin(context.deadline);
            let returned = instance.invoke(&event, &context);
            let took = began.elapsed();
            instance.note_time(took);
            let _ = answer.send((returned, took));
        });
        let Ok(ticket) = submitted else {
            return Asked::Now(Outcome::failed(HookFault::Overloaded));
        };
        let patience = if self.instance.blocking {
            self.budget
        } else {
            (self.budget * PATIENCE).max(LEAST_PATIENCE)
        };
        let mut ticket = GiveUp(Some(ticket));
        let mut asked = self.unsettled();
        let budget = self.budget;
        Asked::Later(Box::pin(async move {
            let mut its_own = None;
            let returned = tokio::time::timeout_at((started + patience).into(), answered).await;
            let result = match returned {
                Ok(Ok((returned, took))) => {
                    ticket.is_back();
                    its_own = Some(took).filter(|_| !blocking);
                    match returned {
                        Ok(Returned::Answer(answer)) => Ok(answer),
                        Ok(Returned::Deferred(_)) => {
                            its_own = None;
                            let result = deferred(&services, (started + budget).into()).await;
                            result.map_err(|fault| asked_of.discreet(fault, &asked_about))
                        }
                        Err(fault) => Err(fault),
                    }
                }
                Ok(Err(_)) => Err(HookFault::Panicked("its thread broke".into())),
                Err(_) => {
                    let began = ticket.0.take().is_some_and(|ticket| ticket.give_up());
                    Err(if began { HookFault::TimedOut } else { HookFault::Overloaded })
                }
            };
            asked.is_settled();
            let took = its_own.unwrap_or_else(|| started.elapsed());
            Outcome::of(result, took, &services)
        }))
    }

    fn await_deferred(&self, event: Event, services: Arc<CallServices>, started: Instant) -> Asked {
        let deadline = started + self.budget;
        let instance = Arc::clone(&self.instance);
        let mut asked = self.unsettled();
        Asked::Later(Box::pin(async move {
            let result = deferred(&services, deadline.into()).await;
            let result = result.map_err(|fault| instance.discreet(fault, &event));
            asked.is_settled();
            Outcome::of(result, started.elapsed(), &services)
        }))
    }

    /// Counts how a call went, moves the breaker, writes the log.
    pub(crate) fn settle(
        &self,
        result: &Result<Answer, HookFault>,
        took: Duration,
        event: &Event,
    ) -> Noticed {
        match result {
            Err(HookFault::Quarantined) => {
                self.stats.failed(&HookFault::Quarantined);
                return Noticed::Nothing;
            }
            // Not the hook's own fault, and no reason not to ask it.
            Err(fault @ HookFault::Overloaded) => {
                self.stats.failed(fault);
                self.the_breaker().unsettled(Instant::now());
                self.log_failure(fault.kind(), &fault.to_string(), event);
                return Noticed::Fault { kind: fault.kind(), message: fault.to_string() };
            }
            _ => self.stats.took(took),
        }
        let (kind, message) = match result {
            Ok(answer) => {
                self.stats.answered(answer);
                if took <= self.budget {
                    if took > self.warn {
                        self.was_slow(took);
                    }
                    // Reading the clock costs as much as all the counting.
                    let breaker = self.the_breaker();
                    if !breaker.is_calm() && breaker.succeeded(Instant::now()) {
                        info!(hook = %self.instance.name, point = %self.point, "hook works again");
                    }
                    return Noticed::Nothing;
                }
                self.stats.overran();
                ("overrun", format!("took {took:?}, its budget is {:?}", self.budget))
            }
            Err(fault) => {
                self.stats.failed(fault);
                (fault.kind(), fault.to_string())
            }
        };
        // What takes too long harms everybody, however seldom it happens.
        let always = matches!(kind, "overrun" | "timeout");
        let opened = self.the_breaker().failed(Instant::now(), always);
        self.log_failure(kind, &message, event);
        if opened {
            error!(
                hook = %self.instance.name, point = %self.point, last = kind,
                "hook failed too often and is quarantined"
            );
            return Noticed::Quarantined { kind, message };
        }
        Noticed::Fault { kind, message }
    }

    fn was_slow(&self, took: Duration) {
        self.stats.was_slow();
        if let Some(more) = self.instance.lateness.open(self.instance.facilities.now_ms()) {
            warn!(hook = %self.instance.name, point = %self.point, ?took, more, "hook is slow");
        }
    }

    fn log_failure(&self, kind: &str, message: &str, event: &Event) {
        if let Some(more) = self.instance.failures.open(self.instance.facilities.now_ms()) {
            let agent = event.agent().map(|agent| &*agent.did);
            let trace = traced(event).map(field::display);
            let on_error = match self.on_error {
                FailMode::Closed => "closed",
                FailMode::Open => "open",
            };
            warn!(
                hook = %self.instance.name, point = %self.point, kind,
                message = %message.escape_debug(), agent, trace,
                on_error, mode = ?self.mode, more, "hook failed"
            );
        }
    }

    fn unsettled(&self) -> Unsettled {
        Unsettled(self.shadow.is_none().then(|| Arc::clone(&self.instance)))
    }

    fn the_breaker(&self) -> &Breaker {
        self.shadow.as_ref().unwrap_or(&self.instance.breaker)
    }

    pub(crate) fn breaker(&self) -> BreakerState {
        self.the_breaker().state()
    }
}

impl Outcome {
    fn of(result: Result<Answer, HookFault>, took: Duration, services: &CallServices) -> Self {
        Self {
            result,
            took,
            reads: services.take_reads(),
            secret: services.read_beyond_the_record(),
        }
    }

    fn failed(fault: HookFault) -> Self {
        Self { result: Err(fault), took: Duration::ZERO, reads: Vec::new(), secret: false }
    }
}

/// Calls of one entry in shadow mode that may be in the pool at once: nobody waits for them, so
/// nothing else keeps them from filling it.
const MAX_ASIDE: usize = 2;

/// A call in shadow mode, and how many there were before it.
struct Aside(Arc<AtomicUsize>, usize);

impl Aside {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        Self(Arc::clone(count), count.fetch_add(1, Ordering::SeqCst))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A call whose waiter went away is given up.
struct GiveUp(Option<Ticket>);

impl GiveUp {
    fn is_back(&mut self) {
        self.0.take();
    }
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.give_up();
        }
    }
}

/// A call whose waiter went away says nothing about the hook: another one may probe.
struct Unsettled(Option<Arc<Instance>>);

impl Unsettled {
    fn is_settled(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(instance) = self.0.take() {
            instance.breaker.unsettled(Instant::now());
        }
    }
}

async fn deferred(
    services: &CallServices,
    deadline: tokio::time::Instant,
) -> Result<Answer, HookFault> {
    /// Gives the token up, also when nobody waits any more.
    struct Token<'a>(&'a CallServices, u64);
    impl Drop for Token<'_> {
        fn drop(&mut self) {
            self.0.give_up_deferred(self.1);
        }
    }
    let Some((token, arrives)) = services.take_deferred() else {
        return Err(HookFault::BadReturn("put off without a token".into()));
    };
    let _token = Token(services, token);
    match tokio::time::timeout_at(deadline, arrives).await {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Ok(Err(message))) => Err(HookFault::Failed(message)),
        Ok(Err(_)) => Err(HookFault::Failed("its verdict was never given".into())),
        Err(_) => Err(HookFault::TimedOut),
    }
}
