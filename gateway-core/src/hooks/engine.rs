//! The engine: which generation judges, and how another takes its place.
//!
//! A candidate is built completely beside the running generation, then swapped in at once; one
//! that fails leaves everything as it was. What began with a generation ends with it, so an old
//! one lives until its last call has ended. The one before the running one is kept, to go back to.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{
            AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use conexus_plugin_api::{Point, StaticPlugin};
use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use serde::Serialize;
use tracing::{info, warn};

use super::{
    deferrals::Deferrals,
    facilities::{Surroundings, WallClock},
    generation::{Generation, Loader, Shared},
    instance::SourceFile,
    judge::{Judge, Policy, World},
    loader::StockLoader,
    observers::Observers,
    pool::Pool,
    recent::{DecisionListener, Recent, RecentDecision},
    record::Recorder,
    shared::{self, Reach, Tally},
    status::{Refusal, Status, about, chains},
    timers::Timers,
};
use crate::{
    config::{Chain, ChainEntry, Mode, Settings},
    state::{Metrics, Store},
};

/// How long observers may take for what was pushed before somebody asked whether they were told.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Why a candidate did not become the running generation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Scripts, plugins or chains are at fault; a line each.
    #[error("{}", .0.join("\n"))]
    Faulty(Vec<String>),
    /// Old generations still have calls running.
    #[error(
        "{0} generations are alive already (policy.generations): old ones still have calls running"
    )]
    TooManyAlive(usize),
    /// No hook of that name is in a chain, or in the one that was named.
    #[error("{0}")]
    NotChained(String),
    /// There is nothing to go back to.
    #[error("there is no former generation to go back to")]
    NoFormer,
    /// The decision log cannot be opened, or no thread started.
    #[error("the engine of hooks cannot start")]
    Io(#[from] io::Error),
}

/// The policy that the configuration describes: which generation judges, and how another takes its
/// place.
pub struct Engine {
    shared: Arc<Shared>,
    current: ArcSwap<Generation>,
    /// A bit for each point at which the current generation asks anybody: what every message looks
    /// at, without a reference to the generation.
    asked: AtomicU32,
    /// One reload at a time.
    changing: Mutex<()>,
    /// Never held for long.
    shown: Mutex<Changing>,
    newest: AtomicU64,
    reloads: ReloadCounts,
    told: OnceLock<Box<TellOfReload>>,
    max_alive: usize,
}

/// Is told of each reload, rollback and change of a mode.
type TellOfReload = dyn Fn(&ReloadEvent) + Send + Sync;

/// What came of a reload, a rollback or a change of a mode.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReloadEvent {
    /// This generation judges from now on.
    Generation(u64),
    /// Nothing has changed, for these reasons.
    Refused(Vec<String>),
}

#[derive(Default)]
struct ReloadCounts {
    done: AtomicU64,
    refused: AtomicU64,
    rolled_back: AtomicU64,
}

/// What came of reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reloads {
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) rolled_back: u64,
}

struct Changing {
    former: Option<Arc<Generation>>,
    refusal: Option<Refusal>,
    /// The chains of the configuration that was accepted last, whatever was changed since.
    configured: BTreeMap<Chain, Vec<ChainEntry>>,
}

impl Engine {
    /// Builds the first generation.
    ///
    /// # Errors
    /// [`ReloadError`]: all that is wrong with hooks and chains.
    pub fn start(settings: &Settings) -> Result<Self, ReloadError> {
        Self::start_with_linked(settings, &[])
    }

    /// The same with plugins of the program that the gateway is part of. Under its name such a
    /// plugin is used like one of the gateway's own: `plugin:NAME`, without `[plugins.NAME]`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_linked(
        settings: &Settings,
        plugins: &[(&str, StaticPlugin)],
    ) -> Result<Self, ReloadError> {
        let loader = StockLoader::with_linked(settings, plugins);
        Self::start_with(settings, Box::new(loader), WallClock::Real, false)
    }

    /// Loads and configures all that a start would, without starting it: no `on_start`, no tick, no
    /// decision log.
    ///
    /// # Errors
    /// [`ReloadError`]: all that is wrong with hooks and chains.
    pub fn check(settings: &Settings) -> Result<Vec<CheckedHook>, ReloadError> {
        let loader = Box::new(StockLoader::new(settings));
        let shared = shared(settings, loader, WallClock::Real, true)?;
        let checked = Generation::load(&shared, 1, settings, None).map_err(ReloadError::Faulty)?;
        let hooks = checked.instances.values().map(|instance| {
            let uses = |point: &Point| {
                let mut entries = checked.chain(*point).iter();
                let entry = entries.find(|entry| Arc::ptr_eq(&entry.instance, instance))?;
                Some((point.name(), entry.mode))
            };
            CheckedHook {
                hook: instance.name.to_string(),
                source: instance.source.clone(),
                asked: Point::ALL.iter().filter_map(uses).collect(),
            }
        });
        Ok(hooks.collect())
    }

    pub(crate) fn start_with(
        settings: &Settings,
        loader: Box<dyn Loader>,
        clock: WallClock,
        inline: bool,
    ) -> Result<Self, ReloadError> {
        let shared = shared(settings, loader, clock, inline)?;
        let first = Generation::build(&shared, 1, settings, None).map_err(ReloadError::Faulty)?;
        activate(&first, None);
        Ok(Self {
            shared,
            asked: AtomicU32::new(asked(&first)),
            current: ArcSwap::new(first),
            changing: Mutex::new(()),
            shown: Mutex::new(Changing {
                former: None,
                refusal: None,
                configured: settings.policies.chains.clone(),
            }),
            newest: AtomicU64::new(1),
            reloads: ReloadCounts::default(),
            told: OnceLock::new(),
            max_alive: settings.policy.generations,
        })
    }

    /// Builds a generation from these settings and lets it judge from now on; its number. Blocks
    /// for as long as it takes to compile and start what has changed.
    ///
    /// # Errors
    /// [`ReloadError`]; then the running generation runs on.
    pub fn reload(&self, settings: &Settings) -> Result<u64, ReloadError> {
        let _one_at_a_time = self.changing.lock();
        let reloaded = self.build_next(settings);
        match &reloaded {
            Ok(number) => {
                self.reloads.done.fetch_add(1, Relaxed);
                info!(generation = number, "hooks reloaded");
                self.tell(&ReloadEvent::Generation(*number));
            }
            Err(error) => self.note_refusal(error.to_string()),
        }
        reloaded
    }

    /// A candidate was refused before it came to hooks: its configuration is faulty.
    pub fn refuse(&self, reasons: &str) {
        self.note_refusal(reasons.to_owned());
    }

    fn note_refusal(&self, reasons: String) {
        self.reloads.refused.fetch_add(1, Relaxed);
        warn!(%reasons, generation = self.current.load().number, "not reloaded, the old generation runs on");
        let reasons: Vec<_> = reasons.lines().map(str::to_owned).collect();
        let at_ms = self.shared.around.clock.now_ms();
        self.shown.lock().refusal = Some(Refusal { at_ms, reasons: reasons.clone() });
        self.tell(&ReloadEvent::Refused(reasons));
    }

    fn build_next(&self, settings: &Settings) -> Result<u64, ReloadError> {
        self.make_room()?;
        let current = self.current.load_full();
        let number = self.newest.load(SeqCst) + 1;
        let next = Generation::build(&self.shared, number, settings, Some(&current))
            .map_err(ReloadError::Faulty)?;
        self.newest.store(number, SeqCst);
        self.swap(next, current, Some(settings));
        Ok(number)
    }

    /// Puts a hook into another mode, at one point or wherever a chain names it, by a new generation
    /// of the same instances; its number, or that of the running one where the hook is in that mode
    /// already. What the running generation was made from counts, not what the files say by now.
    ///
    /// # Errors
    /// [`ReloadError`]; then everything is as it was.
    pub fn set_mode(
        &self,
        hook: &str,
        point: Option<Point>,
        mode: Mode,
    ) -> Result<u64, ReloadError> {
        let _one_at_a_time = self.changing.lock();
        let current = self.current.load_full();
        let mut settings = current.settings().clone();
        let chains = settings.policies.chains.iter_mut();
        let asked = chains.filter(|(chain, _)| point.is_none_or(|point| chain.0 == point));
        let (mut named, mut changed) = (false, false);
        for entry in asked.flat_map(|(_, entries)| entries).filter(|entry| entry.hook == hook) {
            named = true;
            changed |= std::mem::replace(&mut entry.mode, mode) != mode;
        }
        if !named {
            let place =
                point.map_or_else(|| "no chain".to_owned(), |point| format!("no chain.{point}"));
            return Err(ReloadError::NotChained(format!("{place} names a hook {hook:?}")));
        }
        if !changed {
            return Ok(current.number);
        }
        self.make_room()?;
        let number = self.newest.load(SeqCst) + 1;
        let next = current.rechained(number, &settings).map_err(ReloadError::Faulty)?;
        self.newest.store(number, SeqCst);
        self.swap(next, current, None);
        let point = point.map(Point::name);
        info!(generation = number, hook, point, ?mode, "hook's mode changed");
        self.tell(&ReloadEvent::Generation(number));
        Ok(number)
    }

    /// There may be one more generation. The former one makes room for the present one.
    fn make_room(&self) -> Result<(), ReloadError> {
        let spare = usize::from(
            self.shown.lock().former.as_ref().is_some_and(|f| Arc::strong_count(f) == 1),
        );
        let alive = self.shared.alive.load(SeqCst) - spare;
        if alive >= self.max_alive {
            return Err(ReloadError::TooManyAlive(alive));
        }
        if alive >= self.max_alive * 3 / 4 {
            warn!(alive, max = self.max_alive, "many generations are alive");
        }
        Ok(())
    }

    /// Lets the next generation judge; `accepted` are the settings of a candidate. Whoever looks sees all of
    /// it or nothing.
    fn swap(&self, next: Arc<Generation>, current: Arc<Generation>, accepted: Option<&Settings>) {
        activate(&next, Some(&current));
        // One that is like its successor is none to go back to: the one before it stays that.
        let kept = (!next.is_like(&current)).then_some(current);
        // Never a moment without a question that one of the two asks.
        let asked = asked(&next);
        self.asked.fetch_or(asked, SeqCst);
        let mut shown = self.shown.lock();
        self.current.store(next);
        if let Some(settings) = accepted {
            shown.refusal = None;
            shown.configured.clone_from(&settings.policies.chains);
        }
        let gone = kept.and_then(|kept| shown.former.replace(kept));
        drop(shown);
        self.asked.store(asked, SeqCst);
        drop(gone);
    }

    /// Brings the former generation back, with its instances as they were; its number. The one that
    /// ran becomes the former one.
    ///
    /// # Errors
    /// [`ReloadError::NoFormer`].
    pub fn roll_back(&self) -> Result<u64, ReloadError> {
        let _one_at_a_time = self.changing.lock();
        let former = self.shown.lock().former.take().ok_or(ReloadError::NoFormer)?;
        let (number, current) = (former.number, self.current.load_full());
        info!(generation = number, instead_of = current.number, "hooks rolled back");
        self.swap(former, current, None);
        self.reloads.rolled_back.fetch_add(1, Relaxed);
        self.tell(&ReloadEvent::Generation(number));
        Ok(number)
    }

    /// Has somebody told of each [`ReloadEvent`] from now on; only the first one who asks.
    pub(crate) fn on_reload(&self, tell: impl Fn(&ReloadEvent) + Send + Sync + 'static) {
        let _ = self.told.set(Box::new(tell));
    }

    fn tell(&self, event: &ReloadEvent) {
        if let Some(tell) = self.told.get() {
            tell(event);
        }
    }

    /// What came of reloads so far.
    pub(crate) fn reloads(&self) -> Reloads {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let ReloadCounts { done, refused, rolled_back } = &self.reloads;
        Reloads { done: count(done), refused: count(refused), rolled_back: count(rolled_back) }
    }

    /// What runs, and how it fares.
    pub fn status(&self) -> Status {
        let changing = self.shown.lock();
        let current = self.current.load_full();
        Status {
            generation: about(&current),
            former: changing.former.as_deref().map(about),
            refusal: changing.refusal.clone(),
            alive: self.shared.alive.load(SeqCst),
            chains: chains(&current, &changing.configured),
            metrics: self.shared.around.metrics.snapshot(),
            pool: self.shared.pool.usage(),
            chores: self.shared.chores.usage(),
            deferred: self.shared.around.deferrals.len(),
            observers_dropped: self.shared.observers.dropped(),
            decisions_dropped: self.shared.recorder.as_ref().map_or(0, Recorder::dropped),
            state: self.shared.around.store.usage(),
        }
    }

    /// Recent decisions that are worth seeing, up to `limit` of the wanted ones, newest first; and how
    /// many were skipped so far, since there were too many within a second.
    pub fn recent(
        &self,
        limit: usize,
        wanted: impl Fn(&RecentDecision) -> bool,
    ) -> (Vec<Arc<RecentDecision>>, u64) {
        (self.shared.recent.latest(limit, wanted), self.shared.recent.skipped())
    }

    /// How many decisions worth seeing were not kept, for want of room.
    pub(crate) fn decisions_skipped(&self) -> u64 {
        self.shared.recent.skipped()
    }

    /// From now on `listener` is told of each of them, within the decision, so that it must not wait.
    /// Set once; later ones are ignored.
    pub fn on_decision(&self, listener: DecisionListener) {
        self.shared.recent.on_decision(listener);
    }

    /// What hooks of scope "cluster" asked their cluster for.
    pub(crate) fn shared_tally(&self) -> &Tally {
        self.shared.around.reach.tally()
    }

    /// The files that the running generation was made from.
    pub fn files(&self) -> Vec<SourceFile> {
        self.current.load().files()
    }

    /// Lets observers hear what is still to be told, then stops every instance. Blocks, for at
    /// most twice `patience`.
    pub fn stop(&self, patience: Duration) {
        if !self.shared.observers.flush(patience) {
            warn!("observers were not told everything");
        }
        let former = self.shown.lock().former.take();
        let generations = [Some(self.current.load_full()), former];
        let mut stopping = Vec::new();
        for instance in generations.iter().flatten().flat_map(|kept| kept.instances.values()) {
            let (done, is_done) = std::sync::mpsc::sync_channel(1);
            let hook = Arc::clone(instance);
            let submitted = self.shared.chores.submit(move || {
                hook.stop();
                let _ = done.send(());
            });
            if submitted.is_ok() {
                stopping.push((Arc::clone(&instance.name), is_done));
            }
        }
        let deadline = std::time::Instant::now() + patience;
        for (hook, is_done) in stopping {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if is_done.recv_timeout(left).is_err() {
                warn!(%hook, "the hook's end takes too long, it is left behind");
            }
        }
    }

    pub(crate) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }
}

impl Policy for Engine {
    fn hook_count(&self) -> usize {
        self.current.load().instances.len()
    }

    fn judge(&self) -> Arc<dyn Judge> {
        self.current.load_full()
    }

    fn asks(&self, point: Point) -> bool {
        self.asked.load(Relaxed) & 1 << point.index() != 0
    }

    fn told(&self) -> BoxFuture<'static, bool> {
        let shared = Arc::clone(&self.shared);
        let told = tokio::task::spawn_blocking(move || shared.observers.flush(TOLD_WITHIN));
        async move { told.await.unwrap_or(false) }.boxed()
    }

    fn serve(&self, world: Weak<dyn World>) {
        let around = &self.shared.around;
        let gateway = world.upgrade();
        if let Some(recorder) = &self.shared.recorder {
            recorder.name(gateway.as_ref().and_then(|world| world.node_id()));
        }
        let state = gateway.and_then(|world| world.shared_state());
        let _ = around.world.set(world);
        shared::serve(around, state);
    }
}

fn shared(
    settings: &Settings,
    loader: Box<dyn Loader>,
    clock: WallClock,
    inline: bool,
) -> Result<Arc<Shared>, ReloadError> {
    let around = Arc::new(Surroundings {
        store: Store::new(&settings.state),
        metrics: Metrics::default(),
        clock,
        world: OnceLock::new(),
        deferrals: Deferrals::new(settings.policy.deferred),
        timers: Timers::default(),
        reach: Reach::new(settings),
    });
    let recorder = if inline { None } else { Recorder::open(&settings.telemetry)? };
    Ok(Arc::new(Shared {
        around,
        pool: Arc::new(Pool::new(&settings.policy)),
        chores: Arc::new(Pool::new(&settings.policy)),
        observers: Observers::start(settings.policy.observer_queue)?,
        recorder,
        recent: Recent::default(),
        loader,
        alive: AtomicUsize::new(0),
        inline,
    }))
}

/// A bit for each point at which a generation asks anybody.
fn asked(generation: &Generation) -> u32 {
    let asks = Point::ALL.iter().filter(|point| generation.asks(**point));
    asks.fold(0, |asked, point| asked | 1 << point.index())
}

/// From now on the instances of one generation tick, and no others.
fn activate(next: &Generation, current: Option<&Generation>) {
    for instance in current.iter().flat_map(|current| current.instances.values()) {
        instance.active.store(false, SeqCst);
    }
    for instance in next.instances.values() {
        instance.active.store(true, SeqCst);
        let before = instance.facilities.generation.swap(next.number, SeqCst);
        if before != next.number && current.is_some_and(|current| current.has(instance)) {
            instance.carried_over();
        }
    }
}

/// A hook that [`Engine::check`] found nothing wrong with.
#[derive(Debug, Clone)]
pub struct CheckedHook {
    /// The instance.
    pub hook: String,
    /// `script:NAME` or `plugin:NAME`.
    pub source: String,
    /// The points at which a chain asks it, unless it is off there.
    pub asked: Vec<(&'static str, Mode)>,
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
