//! Engines with scripts in a folder of their own and the probe in its library.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use conexus_gateway::{
    config::{Chain, ChainEntry, HookSettings, HookSource, Mode, PluginSettings, Settings},
    hooks::{Engine, HookStatus, Judge, Policy, ReloadError, World},
};
use conexus_plugin_api::{Agent, AgentFilter, Point, host::Refused};
use conexus_protocol::AgentKey;
use parking_lot::{Condvar, Mutex};
use serde_json::Value;
use tempfile::TempDir;

/// A budget that no call exceeds, however busy the machine is.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);

/// The probe's library: cargo builds it beside the tests that depend on it, without a hash in its
/// name since it is one that programs load.
pub(crate) fn probe_library() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let library = tests.with_file_name(format!("{DLL_PREFIX}probe{DLL_SUFFIX}"));
    assert!(library.is_file(), "{} is not built", library.display());
    library
}

/// Settings in the making. The folder of its scripts goes with it.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) folder: TempDir,
}

impl Setup {
    /// No hooks so far; ample budgets, and a breaker that stays closed.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.scripts.path = folder.path().into();
        settings.scripts.max_operations = 1_000_000_000;
        settings.policy.budget = AMPLE;
        settings.policy.breaker_errors = 1_000_000;
        let probe = PluginSettings { path: probe_library(), ..PluginSettings::default() };
        settings.policies.plugins.insert("probe".into(), probe);
        Self { settings, folder }
    }

    /// A hook whose code is this text.
    pub(crate) fn script(&mut self, hook: &str, text: &str) -> &mut HookSettings {
        fs::write(self.folder.path().join(format!("{hook}.rhai")), text).unwrap();
        self.hook(hook, HookSource::Script(hook.into()))
    }

    /// A hook that is the probe, configured.
    pub(crate) fn probe(&mut self, hook: &str, config: Value) -> &mut HookSettings {
        let settings = self.hook(hook, HookSource::Plugin("probe".into()));
        let Value::Object(config) = config else { panic!("a configuration is a table") };
        settings.config = config;
        settings
    }

    pub(crate) fn hook(&mut self, hook: &str, source: HookSource) -> &mut HookSettings {
        self.settings.policies.hooks.insert(hook.into(), HookSettings::new(source));
        self.settings.policies.hooks.get_mut(hook).unwrap()
    }

    /// Another hook at the end of a chain.
    pub(crate) fn at(&mut self, point: Point, hook: &str) -> &mut ChainEntry {
        let entries = self.settings.policies.chains.entry(Chain(point)).or_default();
        let (mode, hook) = (Mode::Enforce, hook.to_owned());
        entries.push(ChainEntry { hook, mode, on_error: None, budget: None, warn: None });
        entries.last_mut().unwrap()
    }

    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::new(self.start().unwrap_or_else(|error| panic!("{error}")))
    }

    pub(crate) fn start(&self) -> Result<Engine, ReloadError> {
        Engine::start(&self.settings)
    }
}

/// A gateway's policy that the test keeps a hold of.
pub(crate) struct Kept(pub(crate) Arc<Engine>);

impl Policy for Kept {
    fn hook_count(&self) -> usize {
        self.0.hook_count()
    }

    fn judge(&self) -> Arc<dyn Judge> {
        self.0.judge()
    }

    fn serve(&self, world: Weak<dyn World>) {
        self.0.serve(world);
    }
}

/// How the hook at that place of a chain fares.
pub(crate) fn hook(engine: &Engine, point: Point, place: usize) -> HookStatus {
    engine.status().chains[point.name()][place].clone()
}

/// How often it failed in that way.
pub(crate) fn faults(engine: &Engine, point: Point, place: usize, kind: &str) -> u64 {
    hook(engine, point, place).counts.faults.get(kind).copied().unwrap_or(0)
}

/// A counter that a hook keeps.
pub(crate) fn counter(engine: &Engine, hook: &str, name: &str) -> i64 {
    let all = engine.status().metrics;
    let found = all.iter().find(|counter| &*counter.instance == hook && &*counter.name == name);
    found.map_or(0, |counter| counter.value)
}

/// A world in which whoever asks for an agent waits until the gate is opened: so a test holds a
/// hook up for exactly as long as it wants to. Dropping it opens it.
pub(crate) struct Gate(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    open: Mutex<bool>,
    opened: Condvar,
    entered: AtomicUsize,
}

impl Gate {
    /// Shut, as the world of this engine. Comes before a gateway of the engine's.
    pub(crate) fn of(engine: &Engine) -> Self {
        let waiting = Arc::new(Waiting::default());
        let world: Arc<dyn World> = Arc::clone(&waiting) as _;
        engine.serve(Arc::downgrade(&world));
        Self(waiting)
    }

    pub(crate) fn open(&self) {
        *self.0.open.lock() = true;
        self.0.opened.notify_all();
    }

    /// How many came to it.
    pub(crate) fn entered(&self) -> usize {
        self.0.entered.load(SeqCst)
    }

    /// The agent to ask for: any.
    pub(crate) fn did() -> String {
        AgentKey::from_bytes([9; 32]).did()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl World for Waiting {
    fn agent(&self, _: AgentKey) -> Option<Arc<Agent>> {
        self.entered.fetch_add(1, SeqCst);
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
        None
    }

    fn agents(&self, _: &AgentFilter) -> Vec<Arc<Agent>> {
        Vec::new()
    }

    fn send(&self, _: AgentKey, _: &str, _: &str) -> Result<(), Refused> {
        Err(Refused::Absent)
    }

    fn disconnect(&self, _: AgentKey, _: &str) -> bool {
        false
    }
}

/// A world that panics when it is asked for an agent. Scripts cannot panic by themselves, nor may
/// what they call; should it do so all the same, the script's call has to contain it.
pub(crate) struct Broken;

impl Broken {
    /// As the world of this engine, for as long as the test keeps it.
    pub(crate) fn of(engine: &Engine) -> Arc<dyn World> {
        let world: Arc<dyn World> = Arc::new(Self);
        engine.serve(Arc::downgrade(&world));
        world
    }
}

impl World for Broken {
    fn agent(&self, _: AgentKey) -> Option<Arc<Agent>> {
        panic!("the world is broken")
    }

    fn agents(&self, _: &AgentFilter) -> Vec<Arc<Agent>> {
        Vec::new()
    }

    fn send(&self, _: AgentKey, _: &str, _: &str) -> Result<(), Refused> {
        Err(Refused::Absent)
    }

    fn disconnect(&self, _: AgentKey, _: &str) -> bool {
        false
    }
}
