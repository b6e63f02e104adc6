//! A generation: instances and chains as one configuration made them. It judges, and never changes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use conexus_plugin_api::{
    Point, PointSet,
    host::{Connect, Event, Expire, Register, Route, Watch},
};
use sha2::{Digest, Sha256};

use super::{
    breaker::Breaker,
    chain::Entry,
    facilities::{Facilities, Surroundings},
    fold::{Fold, Terms},
    hook::Hook,
    instance::{Instance, SourceFile},
    judge::{Admission, Decision, Fallback, Judge, Passage, Ruling},
    observers::Observers,
    pool::Pool,
    recent::Recent,
    record::{DecisionRecord, Recorder},
    secrets::Secrets,
    walk::Walk,
};
use crate::config::{HookSettings, HookSource, Mode, Settings};

/// What all generations share.
pub(crate) struct Shared {
    pub(crate) around: Arc<Surroundings>,
    pub(crate) pool: Arc<Pool>,
    /// Ticks, timers, ends of instances: one that hangs is not to keep decisions waiting.
    pub(crate) chores: Arc<Pool>,
    pub(crate) observers: Observers,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) recent: Recent,
    pub(crate) loader: Box<dyn Loader>,
    /// Generations that are not dropped yet.
    pub(crate) alive: AtomicUsize,
    /// Everything on the calling thread, and no breaker: nothing is in a hurry.
    pub(crate) inline: bool,
}

/// Finds the code of hooks.
pub(crate) trait Loader: Send + Sync {
    /// Reads, compiles or opens the code that a hook uses, without making an instance of it.
    ///
    /// # Errors
    /// What is wrong, with file and place.
    fn load(&self, hook: &HookSettings, settings: &Settings) -> Result<Code, String>;
}

/// A hook's code, ready to make instances.
pub(crate) struct Code {
    /// The files that it was read from.
    pub(crate) files: Vec<SourceFile>,
    /// Whether it is native code, of which is not known what it looked at.
    pub(crate) native: bool,
    /// Makes an instance.
    pub(crate) make: Box<Make>,
}

/// Makes an instance of a hook.
type Make = dyn FnOnce(&Arc<Facilities>) -> Result<Arc<dyn Hook>, String>;

/// What is at each point, in order.
type Chains = [Vec<Arc<Entry>>; Point::COUNT];

/// See the [module](self).
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) since_ms: i64,
    pub(crate) terms: Terms,
    pub(crate) instances: BTreeMap<String, Arc<Instance>>,
    /// Also those that are off: for whoever looks, not for events.
    entries: Chains,
    /// Those that are asked.
    chains: Chains,
    asks: PointSet,
    /// What chains and verdicts were made from, beside the instances.
    made_from: String,
    settings: Settings,
    shared: Arc<Shared>,
}

impl Generation {
    /// Loads and starts everything that the settings name. What is unchanged since `former` is
    /// carried over.
    ///
    /// # Errors
    /// All that is wrong. Nothing that was made remains then.
    pub(crate) fn build(
        shared: &Arc<Shared>,
        number: u64,
        settings: &Settings,
        former: Option<&Self>,
    ) -> Result<Arc<Self>, Vec<String>> {
        let built = Self::load(shared, number, settings, former)?;
        let fresh = |instance: &&Arc<Instance>| former.is_none_or(|former| !former.has(instance));
        let mut faults = Vec::new();
        for instance in built.instances.values().filter(fresh) {
            if let Err(fault) = instance.start() {
                faults.push(format!("hook.{}: on_start: {fault}", instance.name));
            }
        }
        if faults.is_empty() { Ok(built) } else { Err(faults) }
    }

    /// As [`Self::build`], without `on_start`.
    pub(crate) fn load(
        shared: &Arc<Shared>,
        number: u64,
        settings: &Settings,
        former: Option<&Self>,
    ) -> Result<Arc<Self>, Vec<String>> {
        let mut faults = Vec::new();
        let mut instances = BTreeMap::new();
        for (name, hook) in &settings.policies.hooks {
            match instance(shared, number, name, hook, settings, former) {
                Ok(instance) => drop(instances.insert(name.clone(), instance)),
                Err(fault) => faults.push(format!("hook.{name}: {fault}")),
            }
        }
        Self::assemble(shared, number, settings, instances, faults)
    }

    /// The same instances in the chains of other settings.
    ///
    /// # Errors
    /// A chain names a hook that has not its point.
    pub(crate) fn rechained(
        &self,
        number: u64,
        settings: &Settings,
    ) -> Result<Arc<Self>, Vec<String>> {
        Self::assemble(&self.shared, number, settings, self.instances.clone(), Vec::new())
    }

    fn assemble(
        shared: &Arc<Shared>,
        number: u64,
        settings: &Settings,
        instances: BTreeMap<String, Arc<Instance>>,
        mut faults: Vec<String>,
    ) -> Result<Arc<Self>, Vec<String>> {
        let entries = entries(shared, settings, &instances, &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let chains = entries.each_ref().map(|entries| {
            entries.iter().filter(|entry| entry.mode != Mode::Off).cloned().collect::<Vec<_>>()
        });
        let asks = Point::ALL.iter().copied().filter(|point| !chains[point.index()].is_empty());
        let asks = asks.fold(PointSet::EMPTY, PointSet::with);
        shared.alive.fetch_add(1, SeqCst);
        Ok(Arc::new(Self {
            number,
            since_ms: shared.around.clock.now_ms(),
            terms: Terms::new(settings),
            instances,
            entries,
            chains,
            asks,
            made_from: made_from(settings),
            settings: settings.clone(),
            shared: Arc::clone(shared),
        }))
    }

    /// What it was made from.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it judges as `other` does: the same instances in the same chains.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.made_from == other.made_from
            && self.instances.len() == other.instances.len()
            && self.instances.values().all(|instance| other.has(instance))
    }

    /// Whether this very instance is in it.
    pub(crate) fn has(&self, instance: &Arc<Instance>) -> bool {
        self.instances.get(&*instance.name).is_some_and(|mine| Arc::ptr_eq(mine, instance))
    }

    pub(crate) fn chain(&self, point: Point) -> &[Arc<Entry>] {
        &self.chains[point.index()]
    }

    /// The chain as it is written, with those that are off.
    pub(crate) fn entries(&self, point: Point) -> &[Arc<Entry>] {
        &self.entries[point.index()]
    }

    pub(crate) fn records(&self) -> bool {
        self.shared.recorder.is_some()
    }

    pub(crate) fn record(&self, record: DecisionRecord) {
        if let Some(recorder) = &self.shared.recorder {
            recorder.record(record);
        }
    }

    pub(crate) fn recent(&self) -> &Recent {
        &self.shared.recent
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.shared.around.clock.now_ms()
    }

    pub(crate) fn push_observed(self: &Arc<Self>, event: Event) {
        self.shared.observers.push(Arc::clone(self), event);
    }

    /// The files that it was made from, each once.
    pub(crate) fn files(&self) -> Vec<SourceFile> {
        let mut files: Vec<_> =
            self.instances.values().flat_map(|instance| instance.files.clone()).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup();
        files
    }

    fn decide<T: 'static>(self: Arc<Self>, event: Event, end: fn(Fold) -> T) -> Decision<T> {
        Walk::new(self, event).decide(end)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.shared.alive.fetch_sub(1, SeqCst);
    }
}

impl Judge for Generation {
    fn asks(&self, point: Point) -> bool {
        self.asks.contains(point)
    }

    fn on_connect(self: Arc<Self>, event: Arc<Connect>) -> Decision<Ruling<()>> {
        self.decide(Event::Connect(event), Fold::into_permission)
    }

    fn on_register(self: Arc<Self>, event: Arc<Register>) -> Decision<Ruling<Admission>> {
        self.decide(Event::Register(event), Fold::into_admission)
    }

    fn on_route(self: Arc<Self>, event: Arc<Route>) -> Decision<Ruling<Passage>> {
        self.decide(Event::Route(event), Fold::into_passage)
    }

    fn on_undeliverable(self: Arc<Self>, event: Arc<Route>) -> Decision<Ruling<Fallback>> {
        self.decide(Event::Undeliverable(event), Fold::into_fallback)
    }

    fn on_watch(self: Arc<Self>, event: Arc<Watch>) -> Decision<Ruling<()>> {
        self.decide(Event::Watch(event), Fold::into_permission)
    }

    fn on_expire(self: Arc<Self>, event: Arc<Expire>) -> Decision<Option<Duration>> {
        self.decide(Event::Expire(event), Fold::into_lease)
    }

    fn observe(self: Arc<Self>, event: Event) {
        if self.asks(event.point()) {
            self.push_observed(event);
        }
    }
}

fn instance(
    shared: &Arc<Shared>,
    number: u64,
    name: &str,
    hook: &HookSettings,
    settings: &Settings,
    former: Option<&Generation>,
) -> Result<Arc<Instance>, String> {
    let Code { mut files, native, make } = shared.loader.load(hook, settings)?;
    for path in &hook.files {
        files.push(SourceFile { sha256: hash_file(path)?, path: path.clone() });
    }
    let key = key(hook, &files, settings);
    if let Some(same) = former.and_then(|former| former.instances.get(name))
        && same.key == key
    {
        return Ok(Arc::clone(same));
    }
    let facilities = Arc::new(Facilities::new(name, hook, number, &shared.around));
    if facilities.is_shared() && shared.around.reach.is_without_cluster() {
        return Err("scope \"cluster\" takes a restart: this process runs without a cluster".into());
    }
    let secrets = Secrets::of(hook);
    let made = make(&facilities).map_err(|fault| secrets.hide(fault, None))?;
    let breaker = if shared.inline { Breaker::never() } else { Breaker::new(&settings.policy) };
    let source = String::from(hook.source.clone());
    let instance = Instance::new(
        made,
        source,
        facilities,
        breaker,
        hook.blocking,
        native,
        key,
        files,
        secrets,
        &shared.chores,
    );
    if instance.facilities.is_shared() {
        shared.around.reach.enlist(&instance);
    }
    if let Some(every) = hook.tick
        && instance.points().contains(Point::Tick)
        && !shared.inline
    {
        shared.around.timers.tick(every, Arc::downgrade(&instance));
    }
    Ok(instance)
}

fn entries(
    shared: &Arc<Shared>,
    settings: &Settings,
    instances: &BTreeMap<String, Arc<Instance>>,
    faults: &mut Vec<String>,
) -> Chains {
    let mut chains = [const { Vec::new() }; Point::COUNT];
    for (chain, entries) in &settings.policies.chains {
        let point = chain.0;
        for entry in entries {
            // One that is missing has its fault already.
            let Some(instance) = instances.get(&entry.hook) else { continue };
            if entry.mode != Mode::Off && !instance.points().contains(point) {
                faults.push(format!(
                    "chain.{point}: {} ({}) has no {point}; it has {}",
                    entry.hook,
                    instance.source,
                    names(instance.points())
                ));
                continue;
            }
            let instance = Arc::clone(instance);
            let policy = &settings.policy;
            let entry = Entry::new(instance, point, entry, policy, &shared.pool, shared.inline);
            chains[point.index()].push(Arc::new(entry));
        }
    }
    chains
}

fn made_from(settings: &Settings) -> String {
    let policies = &settings.policies;
    let (budget, metadata) = (settings.policy.budget, settings.limits.metadata_bytes);
    format!("{:?} {:?} {budget:?} {metadata}", policies.chains, policies.rate_classes)
}

fn names(points: PointSet) -> String {
    let names: Vec<_> = points.iter().map(Point::name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Equal keys make equal instances.
fn key(hook: &HookSettings, files: &[SourceFile], settings: &Settings) -> [u8; 32] {
    let limits = match hook.source {
        HookSource::Script(_) => format!("{:?}", settings.scripts),
        HookSource::Plugin(_) => String::new(),
    };
    let parts = serde_json::json!([
        hook.source,
        hook.config,
        hook.blocking,
        hook.tick,
        hook.namespace,
        hook.scope,
        files,
        limits,
        // An instance has its breaker for life.
        settings.policy.breaker_errors,
        settings.policy.breaker_window,
        settings.policy.breaker_cooldown
    ]);
    Sha256::digest(parts.to_string()).into()
}

/// The SHA-256 of a file's content; the empty text where there is none yet, since a hook may be
/// the one who writes it.
pub(crate) fn hash_file(path: &Path) -> Result<String, String> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let (mut hasher, mut block) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match std::io::Read::read(&mut file, &mut block) {
            Ok(0) => break,
            Ok(read) => hasher.update(&block[..read]),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(hexadecimal(&hasher.finalize()))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
