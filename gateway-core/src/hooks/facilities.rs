//! What the gateway does for one instance, during a call and outside of one.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use conexus_plugin_api::{
    Agent, AgentFilter, Answer, MAX_AGENTS,
    host::{Connection, Level, Refused, Services, StateError, Value},
};
use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use super::{
    deferrals::{Completed, Deferrals},
    judge::World,
    keep::Keep,
    shared::{Kind, Reach},
    tape::{Read, Tape},
    timers::Timers,
};
use crate::{
    config::{HookScope, HookSettings},
    state::{InstanceMetrics, Metrics, Store},
};

/// Timers that one instance may have set at once.
const MAX_TIMERS: usize = 1000;
/// Characters of one line that a hook writes to the log.
const MAX_LOG_CHARS: usize = 4096;

/// The wall clock, or in tests and replay one that is set by hand.
#[derive(Debug, Clone, Default)]
pub(crate) enum WallClock {
    #[default]
    Real,
    Virtual(Arc<AtomicI64>),
}

impl WallClock {
    pub(crate) fn now_ms(&self) -> i64 {
        match self {
            Self::Real => {
                let now = std::time::SystemTime::now();
                let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
            Self::Virtual(now) => now.load(SeqCst),
        }
    }
}

/// What all instances share, over all generations.
pub(crate) struct Surroundings {
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) clock: WallClock,
    pub(crate) world: OnceLock<Weak<dyn World>>,
    pub(crate) deferrals: Deferrals,
    pub(crate) timers: Timers,
    pub(crate) reach: Reach,
}

impl Surroundings {
    /// Whether instances of scope "cluster" share anything: a test or a replay has a time and a world
    /// of its own, so theirs keep their state here.
    fn shares(&self) -> bool {
        matches!(self.clock, WallClock::Real)
    }

    fn world(&self) -> Option<Arc<dyn World>> {
        self.world.get()?.upgrade()
    }
}

/// One instance's part of the gateway. As [`Services`] it serves an instance outside of calls.
pub(crate) struct Facilities {
    pub(crate) hook: Arc<str>,
    pub(crate) around: Arc<Surroundings>,
    /// Under which its state is kept: its own name, unless it shares it.
    space: Box<str>,
    keep: Keep,
    metrics: InstanceMetrics,
    /// The newest generation that has the instance.
    pub(crate) generation: AtomicU64,
    pub(crate) timers_set: AtomicUsize,
    /// For timers to find the instance by, once it exists.
    pub(crate) instance: OnceLock<Weak<super::instance::Instance>>,
}

impl Facilities {
    pub(crate) fn new(
        hook: &str,
        settings: &HookSettings,
        generation: u64,
        around: &Arc<Surroundings>,
    ) -> Self {
        let space = settings.namespace.as_deref().unwrap_or(hook);
        Self {
            hook: hook.into(),
            metrics: around.metrics.instance(hook),
            space: space.into(),
            keep: match settings.scope {
                HookScope::Cluster if around.shares() => Keep::Cluster(space.into()),
                HookScope::Cluster | HookScope::Local => Keep::Node(around.store.namespace(space)),
            },
            around: Arc::clone(around),
            generation: AtomicU64::new(generation),
            timers_set: AtomicUsize::new(0),
            instance: OnceLock::new(),
        }
    }

    /// Whether what it asks for is beyond a network: its calls wait.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.keep, Keep::Cluster(_))
    }

    fn look_up(&self, until: Option<Instant>, did: &str) -> Result<Option<Arc<Agent>>, StateError> {
        let Ok(key) = AgentKey::parse_did(did) else { return Ok(None) };
        let world = self.around.world();
        if !self.is_shared() {
            return Ok(world.and_then(|world| world.agent(key)));
        }
        let world = world.ok_or(StateError::Unavailable)?;
        let find = async move { world.find_agent(key).await };
        self.around.reach.wait(Kind::Agent, until, find)
    }

    fn search(
        &self,
        until: Option<Instant>,
        filter: &AgentFilter,
    ) -> Result<Vec<Arc<Agent>>, StateError> {
        let limit = if filter.limit == 0 { MAX_AGENTS } else { filter.limit.min(MAX_AGENTS) };
        let filter = AgentFilter { limit, ..filter.clone() };
        let world = self.around.world();
        if !self.is_shared() {
            return Ok(world.map(|world| world.agents(&filter)).unwrap_or_default());
        }
        let world = world.ok_or(StateError::Unavailable)?;
        let find = async move { world.find_agents(&filter).await };
        self.around.reach.wait(Kind::Agents, until, find)
    }
}

impl Services for Facilities {
    fn now_ms(&self) -> i64 {
        self.around.clock.now_ms()
    }

    fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    fn log(&self, level: Level, text: &str) {
        let text: String = text.chars().take(MAX_LOG_CHARS).collect();
        let (hook, text) = (&*self.hook, text.escape_debug());
        match level {
            Level::Trace => tracing::trace!(target: "conexus_gateway::hook", hook, "{text}"),
            Level::Debug => tracing::debug!(target: "conexus_gateway::hook", hook, "{text}"),
            Level::Info => tracing::info!(target: "conexus_gateway::hook", hook, "{text}"),
            Level::Warn => tracing::warn!(target: "conexus_gateway::hook", hook, "{text}"),
            Level::Error => tracing::error!(target: "conexus_gateway::hook", hook, "{text}"),
        }
    }

    fn kv_get(&self, key: &str) -> Result<Option<Value>, StateError> {
        self.keep.get(&self.around, None, key)
    }

    fn kv_set(&self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), StateError> {
        self.keep.set(&self.around, None, key, value, ttl)
    }

    fn kv_delete(&self, key: &str) -> Result<bool, StateError> {
        self.keep.delete(&self.around, None, key)
    }

    fn kv_incr(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, StateError> {
        self.keep.incr(&self.around, None, key, by, ttl)
    }

    fn kv_cas(
        &self,
        key: &str,
        expected: Option<&Value>,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<bool, StateError> {
        self.keep.cas(&self.around, None, key, expected, value, ttl)
    }

    fn kv_expire(&self, key: &str, ttl: Option<Duration>) -> Result<bool, StateError> {
        self.keep.expire(&self.around, None, key, ttl)
    }

    fn rate_limit(&self, key: &str, count: u32, per: Duration) -> Result<bool, StateError> {
        self.keep.rate_limit(&self.around, None, key, count, per)
    }

    fn connection_get(&self, _key: &str) -> Result<Option<Value>, StateError> {
        Err(StateError::NoConnection)
    }

    fn connection_set(&self, _key: &str, _value: Option<Value>) -> Result<(), StateError> {
        Err(StateError::NoConnection)
    }

    fn agent(&self, did: &str) -> Result<Option<Arc<Agent>>, StateError> {
        self.look_up(None, did)
    }

    fn agents(&self, filter: &AgentFilter) -> Result<Vec<Arc<Agent>>, StateError> {
        self.search(None, filter)
    }

    fn send(&self, did: &str, kind: &str, payload: &str) -> Result<(), Refused> {
        let to = AgentKey::parse_did(did).map_err(|error| Refused::Invalid(error.to_string()))?;
        self.around.world().ok_or(Refused::Absent)?.send(to, kind, payload)
    }

    fn disconnect(&self, did: &str, reason: &str) -> bool {
        let Ok(key) = AgentKey::parse_did(did) else { return false };
        self.around.world().is_some_and(|world| world.disconnect(key, reason))
    }

    fn metric(&self, name: &str, add: i64) -> Result<(), StateError> {
        self.metrics.add(name, add)
    }

    fn timer(&self, after: Duration, tag: u64) -> Result<(), Refused> {
        let Some(instance) = self.instance.get() else {
            return Err(Refused::Invalid("the instance is not made yet".into()));
        };
        if self.timers_set.fetch_add(1, SeqCst) >= MAX_TIMERS {
            self.timers_set.fetch_sub(1, SeqCst);
            return Err(Refused::Full);
        }
        self.around.timers.after(after, Weak::clone(instance), tag);
        Ok(())
    }

    fn defer(&self) -> Result<u64, Refused> {
        Err(Refused::Invalid("only a call at on_connect or on_register can be put off".into()))
    }

    fn complete(&self, token: u64, answer: Result<Answer, String>) -> bool {
        self.around.deferrals.complete(&self.hook, token, answer)
    }

    fn secret_read(&self) {}
}

/// What an instance reaches during one call: its time stands still, its reads go on the tape.
pub(crate) struct CallServices {
    base: Arc<Facilities>,
    generation: u64,
    now_ms: OnceLock<i64>,
    /// When its budget ends, once it has begun: nothing is waited for beyond that.
    until: OnceLock<Instant>,
    connection: Option<Arc<Connection>>,
    may_defer: bool,
    /// In shadow mode agents are to notice nothing.
    shadow: bool,
    deferred: Mutex<Option<(u64, oneshot::Receiver<Completed>)>>,
    secret: AtomicBool,
    tape: Tape,
}

impl CallServices {
    pub(crate) fn new(
        base: &Arc<Facilities>,
        generation: u64,
        connection: Option<&Arc<Connection>>,
        may_defer: bool,
        shadow: bool,
        tape: Tape,
    ) -> Self {
        Self {
            base: Arc::clone(base),
            generation,
            now_ms: OnceLock::new(),
            until: OnceLock::new(),
            connection: connection.cloned(),
            may_defer,
            shadow,
            deferred: Mutex::new(None),
            secret: AtomicBool::new(false),
            tape,
        }
    }

    /// The call begins, and has until then.
    pub(crate) fn begin(&self, until: Instant) {
        let _ = self.until.set(until);
    }

    fn until(&self) -> Option<Instant> {
        self.until.get().copied()
    }

    /// Where the verdict that was put off under a token will arrive.
    pub(crate) fn take_deferred(&self) -> Option<(u64, oneshot::Receiver<Completed>)> {
        self.deferred.lock().take()
    }

    pub(crate) fn give_up_deferred(&self, token: u64) {
        self.base.around.deferrals.give_up(token);
    }

    /// Whether it looked at something that is not in the record.
    pub(crate) fn read_beyond_the_record(&self) -> bool {
        self.secret.load(SeqCst) || self.tape.overflowed()
    }

    pub(crate) fn take_reads(&self) -> Vec<Read> {
        self.tape.take_reads()
    }

    fn send_now(&self, did: &str, kind: &str, payload: &str) -> Result<(), Refused> {
        if !self.shadow {
            return self.base.send(did, kind, payload);
        }
        if self.is_there(did) { Ok(()) } else { Err(Refused::Absent) }
    }

    fn disconnect_now(&self, did: &str, reason: &str) -> bool {
        if self.shadow { self.is_there(did) } else { self.base.disconnect(did, reason) }
    }

    fn is_there(&self, did: &str) -> bool {
        matches!(self.base.look_up(self.until(), did), Ok(Some(_)))
    }

    fn keep(&self) -> &Keep {
        &self.base.keep
    }

    fn around(&self) -> &Surroundings {
        &self.base.around
    }

    fn connection(&self) -> Result<&Connection, StateError> {
        self.connection.as_deref().ok_or(StateError::NoConnection)
    }
}

impl Drop for CallServices {
    fn drop(&mut self) {
        // Put off, and then answered or failed all the same.
        if let Some((token, _)) = self.deferred.get_mut().take() {
            self.base.around.deferrals.give_up(token);
        }
    }
}

impl Services for CallServices {
    fn now_ms(&self) -> i64 {
        *self.now_ms.get_or_init(|| self.tape.read(|| json!(["now"]), || self.base.now_ms()))
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn log(&self, level: Level, text: &str) {
        self.base.log(level, text);
    }

    fn kv_get(&self, key: &str) -> Result<Option<Value>, StateError> {
        self.tape
            .read(|| json!(["kv_get", key]), || self.keep().get(self.around(), self.until(), key))
    }

    fn kv_set(&self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), StateError> {
        self.tape.read(
            || json!(["kv_set", key, value, ttl]),
            || self.keep().set(self.around(), self.until(), key, value.clone(), ttl),
        )
    }

    fn kv_delete(&self, key: &str) -> Result<bool, StateError> {
        self.tape.read(
            || json!(["kv_delete", key]),
            || self.keep().delete(self.around(), self.until(), key),
        )
    }

    fn kv_incr(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, StateError> {
        self.tape.read(
            || json!(["kv_incr", key, by, ttl]),
            || self.keep().incr(self.around(), self.until(), key, by, ttl),
        )
    }

    fn kv_cas(
        &self,
        key: &str,
        expected: Option<&Value>,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<bool, StateError> {
        self.tape.read(
            || json!(["kv_cas", key, expected, value, ttl]),
            || self.keep().cas(self.around(), self.until(), key, expected, value.clone(), ttl),
        )
    }

    fn kv_expire(&self, key: &str, ttl: Option<Duration>) -> Result<bool, StateError> {
        self.tape.read(
            || json!(["kv_expire", key, ttl]),
            || self.keep().expire(self.around(), self.until(), key, ttl),
        )
    }

    fn rate_limit(&self, key: &str, count: u32, per: Duration) -> Result<bool, StateError> {
        self.tape.read(
            || json!(["rate_limit", key, count, per]),
            || self.keep().rate_limit(self.around(), self.until(), key, count, per),
        )
    }

    fn connection_get(&self, key: &str) -> Result<Option<Value>, StateError> {
        self.tape.read(
            || json!(["connection_get", key]),
            || Ok(self.connection()?.get(&self.base.space, key)),
        )
    }

    fn connection_set(&self, key: &str, value: Option<Value>) -> Result<(), StateError> {
        self.tape.read(
            || json!(["connection_set", key, value]),
            || self.connection()?.set(&self.base.space, key, value.clone()),
        )
    }

    fn agent(&self, did: &str) -> Result<Option<Arc<Agent>>, StateError> {
        let live = || Found::from(self.base.look_up(self.until(), did));
        self.tape.read(|| json!(["agent", did]), live).into_result()
    }

    fn agents(&self, filter: &AgentFilter) -> Result<Vec<Arc<Agent>>, StateError> {
        let live = || Found::from(self.base.search(self.until(), filter));
        self.tape.read(|| json!(["agents", filter]), live).into_result()
    }

    fn send(&self, did: &str, kind: &str, payload: &str) -> Result<(), Refused> {
        self.tape.read(|| json!(["send", did, kind, payload]), || self.send_now(did, kind, payload))
    }

    fn disconnect(&self, did: &str, reason: &str) -> bool {
        self.tape.read(|| json!(["disconnect", did, reason]), || self.disconnect_now(did, reason))
    }

    fn metric(&self, name: &str, add: i64) -> Result<(), StateError> {
        self.base.metric(name, add)
    }

    fn timer(&self, after: Duration, tag: u64) -> Result<(), Refused> {
        self.base.timer(after, tag)
    }

    fn defer(&self) -> Result<u64, Refused> {
        if !self.may_defer {
            return self.base.defer();
        }
        let mut deferred = self.deferred.lock();
        if deferred.is_some() {
            return Err(Refused::Invalid("this call is put off already".into()));
        }
        let (token, arrives) = self.base.around.deferrals.defer(&self.base.hook)?;
        *deferred = Some((token, arrives));
        Ok(token)
    }

    fn complete(&self, token: u64, answer: Result<Answer, String>) -> bool {
        self.base.complete(token, answer)
    }

    fn secret_read(&self) {
        self.secret.store(true, SeqCst);
    }
}

/// The result of a lookup as it is recorded: what was found, as it is.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Found<T> {
    Not {
        #[serde(rename = "Err")]
        error: StateError,
    },
    This(T),
}

impl<T> Found<T> {
    fn into_result(self) -> Result<T, StateError> {
        match self {
            Self::Not { error } => Err(error),
            Self::This(found) => Ok(found),
        }
    }
}

impl<T> From<Result<T, StateError>> for Found<T> {
    fn from(result: Result<T, StateError>) -> Self {
        result.map_or_else(|error| Self::Not { error }, Self::This)
    }
}
