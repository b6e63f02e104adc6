//! A gateway in memory: the real state, agents that a test adds, a clock that it moves.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conexus_plugin_api::{
    Agent, AgentFilter, Answer, MAX_AGENTS,
    host::{Connection, Level, Refused, Services, StateError, Value},
};
use conexus_protocol::{AgentKey, Identity, MessageType};
use parking_lot::{Mutex, MutexGuard};

use crate::{
    config::StateSettings,
    state::{Namespace, Store},
};

/// Where the clock begins: 2024-01-01, 00:00 UTC, a Monday.
const START_MS: i64 = 1_704_067_200_000;
/// The name of the policy's state.
const NAMESPACE: &str = "test";
/// Lines that are kept.
const MAX_LINES: usize = 1000;

/// One test's gateway. Clones are the same.
#[derive(Clone)]
pub(in crate::script) struct World(Arc<Inner>);

struct Inner {
    state: Namespace,
    seen: Mutex<Seen>,
}

/// What is there, and what was done.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) now_ms: i64,
    pub(super) agents: BTreeMap<[u8; 32], Arc<Agent>>,
    pub(super) sent: Vec<(String, String, String)>,
    pub(super) disconnected: Vec<(String, String)>,
    pub(super) metrics: BTreeMap<String, i64>,
    pub(super) lines: Vec<(Level, String)>,
    /// Of agents whose event names none: an agent keeps its connection through a test.
    connections: BTreeMap<String, Arc<Connection>>,
    /// Of the last on_connect: the next agent that has none yet comes over it.
    arrived: Option<Arc<Connection>>,
    secret_read: bool,
    /// How many agents were made.
    made: u8,
}

impl World {
    pub(in crate::script) fn new() -> Self {
        let state = Store::new(&StateSettings::default()).namespace(NAMESPACE);
        let seen = Seen { now_ms: START_MS, ..Seen::default() };
        Self(Arc::new(Inner { state, seen: Mutex::new(seen) }))
    }

    /// What a call reaches; with the values of that agent's connection.
    pub(in crate::script) fn services(&self, agent: Option<&str>) -> Arc<dyn Services> {
        let connection = agent.map(|did| {
            let seen = &mut *self.seen();
            let arrived = || seen.arrived.take().unwrap_or_default();
            seen.connections.entry(did.to_owned()).or_insert_with(arrived).clone()
        });
        Arc::new(Reached { world: self.clone(), connection })
    }

    /// What a call of on_connect reaches, with the values of a connection that begins.
    pub(super) fn services_of_a_connection(&self) -> Arc<dyn Services> {
        let connection = Some(Arc::default());
        self.seen().arrived.clone_from(&connection);
        Arc::new(Reached { world: self.clone(), connection })
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock()
    }

    /// Whether something was read that the decision log leaves out, since last asked.
    #[cfg(test)]
    pub(in crate::script) fn take_secret_read(&self) -> bool {
        std::mem::take(&mut self.seen().secret_read)
    }

    /// Everything logged, as `info: …`.
    pub(super) fn log(&self) -> Vec<String> {
        self.seen().lines.iter().map(|(level, text)| format!("{}: {text}", word(*level))).collect()
    }

    /// A DID that no agent of this test has yet.
    pub(super) fn next_did(&self) -> String {
        let mut seen = self.seen();
        seen.made = seen.made.wrapping_add(1);
        did(seen.made)
    }
}

/// The DID of a number.
pub(super) fn did(number: u8) -> String {
    Identity::from_seed(&[number; 32]).did().to_owned()
}

pub(super) const fn word(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

struct Reached {
    world: World,
    connection: Option<Arc<Connection>>,
}

impl Reached {
    fn state(&self) -> &Namespace {
        &self.world.0.state
    }

    fn connection(&self) -> Result<&Arc<Connection>, StateError> {
        self.connection.as_ref().ok_or(StateError::NoConnection)
    }
}

impl Services for Reached {
    fn now_ms(&self) -> i64 {
        self.world.seen().now_ms
    }

    fn generation(&self) -> u64 {
        1
    }

    fn log(&self, level: Level, text: &str) {
        let lines = &mut self.world.seen().lines;
        if lines.len() < MAX_LINES {
            lines.push((level, text.to_owned()));
        }
    }

    fn kv_get(&self, key: &str) -> Result<Option<Value>, StateError> {
        self.state().get(self.now_ms(), key)
    }

    fn kv_set(&self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), StateError> {
        self.state().set(self.now_ms(), key, value, ttl)
    }

    fn kv_delete(&self, key: &str) -> Result<bool, StateError> {
        self.state().delete(self.now_ms(), key)
    }

    fn kv_incr(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, StateError> {
        self.state().incr(self.now_ms(), key, by, ttl)
    }

    fn kv_cas(
        &self,
        key: &str,
        expected: Option<&Value>,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<bool, StateError> {
        self.state().cas(self.now_ms(), key, expected, value, ttl)
    }

    fn kv_expire(&self, key: &str, ttl: Option<Duration>) -> Result<bool, StateError> {
        self.state().expire(self.now_ms(), key, ttl)
    }

    fn rate_limit(&self, key: &str, count: u32, per: Duration) -> Result<bool, StateError> {
        self.state().rate_limit(self.now_ms(), key, count, per)
    }

    fn connection_get(&self, key: &str) -> Result<Option<Value>, StateError> {
        Ok(self.connection()?.get(NAMESPACE, key))
    }

    fn connection_set(&self, key: &str, value: Option<Value>) -> Result<(), StateError> {
        self.connection()?.set(NAMESPACE, key, value)
    }

    fn agent(&self, did: &str) -> Result<Option<Arc<Agent>>, StateError> {
        let key = AgentKey::parse_did(did).ok();
        Ok(key.and_then(|key| self.world.seen().agents.get(key.as_bytes()).cloned()))
    }

    fn agents(&self, filter: &AgentFilter) -> Result<Vec<Arc<Agent>>, StateError> {
        let most = if filter.limit == 0 { MAX_AGENTS } else { filter.limit.min(MAX_AGENTS) };
        let seen = self.world.seen();
        let wanted = seen.agents.values().filter(|agent| filter.wants(agent));
        Ok(wanted.take(most).cloned().collect())
    }

    fn send(&self, did: &str, kind: &str, payload: &str) -> Result<(), Refused> {
        if MessageType::parse(kind).is_none() {
            return Err(Refused::Invalid("not a type that agents send each other".into()));
        }
        if !matches!(self.agent(did), Ok(Some(_))) {
            return Err(Refused::Absent);
        }
        self.world.seen().sent.push((did.into(), kind.into(), payload.into()));
        Ok(())
    }

    fn disconnect(&self, did: &str, reason: &str) -> bool {
        let Ok(key) = AgentKey::parse_did(did) else { return false };
        let mut seen = self.world.seen();
        let there = seen.agents.remove(key.as_bytes()).is_some();
        if there {
            seen.disconnected.push((did.into(), reason.into()));
        }
        there
    }

    fn metric(&self, name: &str, add: i64) -> Result<(), StateError> {
        let mut seen = self.world.seen();
        let counted = seen.metrics.entry(name.to_owned()).or_default();
        *counted = counted.saturating_add(add);
        Ok(())
    }

    fn timer(&self, _after: Duration, _tag: u64) -> Result<(), Refused> {
        Err(Refused::Invalid("scripts have on_tick".into()))
    }

    fn defer(&self) -> Result<u64, Refused> {
        Err(Refused::Invalid("scripts answer at once".into()))
    }

    fn complete(&self, _token: u64, _answer: Result<Answer, String>) -> bool {
        false
    }

    fn secret_read(&self) {
        self.world.seen().secret_read = true;
    }
}
