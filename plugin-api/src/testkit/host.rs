//! A gateway in memory, whose clock stands still until a test moves it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    Agent, AgentFilter, Answer, Level, MAX_AGENTS, Point, Refused, StateError, Value,
    host::{Connection, Event, Services},
};

/// Where the virtual clock begins, in Unix milliseconds: 2024-01-01, 00:00 UTC, a Monday.
pub const START_MS: i64 = 1_704_067_200_000;

/// The namespace of the one instance in connections' values.
const NAMESPACE: &str = "test";

/// A message that the plugin sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// To whom.
    pub did: String,
    /// Its type.
    pub kind: String,
    /// Its payload's JSON.
    pub payload: String,
}

/// What a plugin sees of a gateway, and what a test sees of the plugin. Clones are the same host.
///
/// State has no bounds here, and agents are present exactly if a test has added them.
#[derive(Clone)]
pub struct TestHost {
    world: Arc<World>,
    connection: Option<Arc<Connection>>,
    point: Option<Point>,
}

#[derive(Default)]
struct World {
    state: Mutex<State>,
    completed: Condvar,
}

#[derive(Default)]
struct State {
    /// Nanoseconds since [`START_MS`].
    now: u64,
    generation: u64,
    values: BTreeMap<String, (Value, Option<u64>)>,
    /// When the next one would be due if they came evenly.
    limits: BTreeMap<String, u64>,
    agents: BTreeMap<[u8; 32], Arc<Agent>>,
    connections: BTreeMap<String, Arc<Connection>>,
    timers: BTreeMap<(u64, u64), u64>,
    timers_begun: u64,
    tokens: u64,
    deferred: BTreeMap<u64, Option<Result<Answer, String>>>,
    lines: Vec<(Level, String)>,
    sent: Vec<Sent>,
    disconnected: Vec<(String, String)>,
    metrics: BTreeMap<String, i64>,
    secrets_read: bool,
    away: bool,
}

impl State {
    fn value(&mut self, key: &str) -> Option<&mut (Value, Option<u64>)> {
        let now = self.now;
        self.values.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        self.values.get_mut(key)
    }

    fn present(&self, did: &str) -> Option<Arc<Agent>> {
        self.agents.values().find(|agent| agent.did == did).cloned()
    }

    fn until(&self, ttl: Option<Duration>) -> Option<u64> {
        ttl.map(|ttl| self.now.saturating_add(nanos(ttl)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Default for TestHost {
    fn default() -> Self {
        Self::new()
    }
}

impl TestHost {
    /// An empty one, at [`START_MS`] and in generation 1.
    #[must_use]
    pub fn new() -> Self {
        let host = Self { world: Arc::default(), connection: None, point: None };
        host.state().generation = 1;
        host
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.world.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Self::state`], for what a cluster would be asked.
    fn shared(&self) -> Result<MutexGuard<'_, State>, StateError> {
        let state = self.state();
        if state.away { Err(StateError::Unavailable) } else { Ok(state) }
    }

    /// As a call about this event sees it.
    pub(super) fn during(&self, event: &Event) -> Self {
        let connection = event.connection().cloned().or_else(|| {
            let did = event.agent()?.did.clone();
            Some(Arc::clone(self.state().connections.entry(did).or_default()))
        });
        Self { world: Arc::clone(&self.world), connection, point: Some(event.point()) }
    }

    /// Moves the clock without running timers; [`Kit::advance`](super::Kit::advance) runs them.
    pub fn advance(&self, time: Duration) {
        let mut state = self.state();
        state.now = state.now.saturating_add(nanos(time));
    }

    /// The next timer due within `time`: moves the clock there and gives its tag; at the end moves
    /// the clock by what is left.
    pub(super) fn next_timer(&self, time: &mut Duration) -> Option<u64> {
        let mut state = self.state();
        let end = state.now.saturating_add(nanos(*time));
        let Some((&(due, nth), &tag)) =
            state.timers.first_key_value().filter(|(at, _)| at.0 <= end)
        else {
            state.now = end;
            return None;
        };
        state.timers.remove(&(due, nth));
        let step = due.saturating_sub(state.now);
        state.now += step;
        *time = time.saturating_sub(Duration::from_nanos(step));
        Some(tag)
    }

    /// Makes an agent present, in place of one with the same key.
    pub fn add_agent(&self, agent: &Arc<Agent>) {
        self.state().agents.insert(agent.key, Arc::clone(agent));
    }

    /// Takes an agent away; whether it was present.
    pub fn remove_agent(&self, agent: &Agent) -> bool {
        self.state().agents.remove(&agent.key).is_some()
    }

    /// Whether what an instance of scope "cluster" asks its cluster for cannot be reached: then its
    /// state and its lookups of agents answer [`StateError::Unavailable`].
    pub fn set_away(&self, away: bool) {
        self.state().away = away;
    }

    /// Another generation, as calls see it.
    pub fn set_generation(&self, generation: u64) {
        self.state().generation = generation;
    }

    /// What was logged so far.
    #[must_use]
    pub fn lines(&self) -> Vec<(Level, String)> {
        self.state().lines.clone()
    }

    /// What was sent so far.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.state().sent.clone()
    }

    /// Who was disconnected so far, and with what reason.
    #[must_use]
    pub fn disconnected(&self) -> Vec<(String, String)> {
        self.state().disconnected.clone()
    }

    /// A counter's sum.
    #[must_use]
    pub fn counter(&self, name: &str) -> i64 {
        self.state().metrics.get(name).copied().unwrap_or_default()
    }

    /// How many timers are running.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.state().timers.len()
    }

    /// Tokens of verdicts that were put off and have not come.
    #[must_use]
    pub fn open(&self) -> Vec<u64> {
        let state = self.state();
        let open = state.deferred.iter().filter(|(_, outcome)| outcome.is_none());
        open.map(|(token, _)| *token).collect()
    }

    /// Waits until a verdict that was put off has come; in real time, since other threads work on
    /// it. `None` when it has not come by then.
    #[must_use]
    pub fn completion(&self, token: u64, patience: Duration) -> Option<Result<Answer, String>> {
        let waiting = |state: &mut State| matches!(state.deferred.get(&token), Some(None));
        let waited = self.world.completed.wait_timeout_while(self.state(), patience, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.deferred.get(&token).cloned().flatten()
    }

    /// Whether something was looked at that the decision log leaves out.
    #[must_use]
    pub fn secrets_were_read(&self) -> bool {
        self.state().secrets_read
    }
}

impl fmt::Debug for TestHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHost").finish_non_exhaustive()
    }
}

impl Services for TestHost {
    fn now_ms(&self) -> i64 {
        START_MS + i64::try_from(self.state().now / 1_000_000).unwrap_or(i64::MAX - START_MS)
    }

    fn generation(&self) -> u64 {
        self.state().generation
    }

    fn log(&self, level: Level, text: &str) {
        self.state().lines.push((level, text.into()));
    }

    fn kv_get(&self, key: &str) -> Result<Option<Value>, StateError> {
        Ok(self.shared()?.value(key).map(|(value, _)| value.clone()))
    }

    fn kv_set(&self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), StateError> {
        let mut state = self.shared()?;
        let until = state.until(ttl);
        state.values.insert(key.into(), (value, until));
        Ok(())
    }

    fn kv_delete(&self, key: &str) -> Result<bool, StateError> {
        let mut state = self.shared()?;
        let was_there = state.value(key).is_some();
        state.values.remove(key);
        Ok(was_there)
    }

    fn kv_incr(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, StateError> {
        let mut state = self.shared()?;
        let until = state.until(ttl);
        let (old, until) = match state.value(key) {
            None => (0, until),
            Some((Value::Int(number), until)) => (*number, *until),
            Some(_) => return Err(StateError::NotANumber),
        };
        let sum = old.checked_add(by).ok_or(StateError::Overflow)?;
        state.values.insert(key.into(), (Value::Int(sum), until));
        Ok(sum)
    }

    fn kv_cas(
        &self,
        key: &str,
        expected: Option<&Value>,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<bool, StateError> {
        let mut state = self.shared()?;
        if state.value(key).map(|(value, _)| &*value) != expected {
            return Ok(false);
        }
        let until = state.until(ttl);
        state.values.insert(key.into(), (value, until));
        Ok(true)
    }

    fn kv_expire(&self, key: &str, ttl: Option<Duration>) -> Result<bool, StateError> {
        let mut state = self.shared()?;
        let new = state.until(ttl);
        Ok(state.value(key).map(|(_, until)| *until = new).is_some())
    }

    fn rate_limit(&self, key: &str, count: u32, per: Duration) -> Result<bool, StateError> {
        if count == 0 || per.is_zero() {
            return Err(StateError::BadRate);
        }
        let mut state = self.shared()?;
        let (now, per) = (state.now, nanos(per));
        let next = state.limits.get(key).map_or(now, |next| (*next).max(now));
        let next = next.saturating_add(per / u64::from(count));
        // A burst of `count` fills the whole period ahead.
        let within = next <= now.saturating_add(per);
        if within {
            state.limits.insert(key.into(), next);
        }
        Ok(within)
    }

    fn connection_get(&self, key: &str) -> Result<Option<Value>, StateError> {
        let connection = self.connection.as_ref().ok_or(StateError::NoConnection)?;
        Ok(connection.get(NAMESPACE, key))
    }

    fn connection_set(&self, key: &str, value: Option<Value>) -> Result<(), StateError> {
        let connection = self.connection.as_ref().ok_or(StateError::NoConnection)?;
        connection.set(NAMESPACE, key, value)
    }

    fn agent(&self, did: &str) -> Result<Option<Arc<Agent>>, StateError> {
        Ok(self.shared()?.present(did))
    }

    fn agents(&self, filter: &AgentFilter) -> Result<Vec<Arc<Agent>>, StateError> {
        let limit = if filter.limit == 0 { MAX_AGENTS } else { filter.limit.min(MAX_AGENTS) };
        let state = self.shared()?;
        let wanted = state.agents.values().filter(|agent| filter.wants(agent));
        Ok(wanted.take(limit).cloned().collect())
    }

    fn send(&self, did: &str, kind: &str, payload: &str) -> Result<(), Refused> {
        let is_object = serde_json::from_str::<serde_json::Map<_, _>>(payload).is_ok();
        if !is_object {
            return Err(Refused::Invalid("the payload is no JSON object".into()));
        }
        self.state().present(did).ok_or(Refused::Absent)?;
        let sent = Sent { did: did.into(), kind: kind.into(), payload: payload.into() };
        self.state().sent.push(sent);
        Ok(())
    }

    fn disconnect(&self, did: &str, reason: &str) -> bool {
        let mut state = self.state();
        let Some(agent) = state.present(did) else { return false };
        state.disconnected.push((did.into(), reason.into()));
        state.agents.remove(&agent.key).is_some()
    }

    fn metric(&self, name: &str, add: i64) -> Result<(), StateError> {
        *self.state().metrics.entry(name.into()).or_default() += add;
        Ok(())
    }

    fn timer(&self, after: Duration, tag: u64) -> Result<(), Refused> {
        let mut state = self.state();
        state.timers_begun += 1;
        let at = (state.now.saturating_add(nanos(after)), state.timers_begun);
        state.timers.insert(at, tag);
        Ok(())
    }

    fn defer(&self) -> Result<u64, Refused> {
        if !matches!(self.point, Some(Point::Connect | Point::Register)) {
            let why = "only verdicts of on_connect and on_register can be put off";
            return Err(Refused::Invalid(why.into()));
        }
        let mut state = self.state();
        state.tokens += 1;
        let token = state.tokens;
        state.deferred.insert(token, None);
        Ok(token)
    }

    fn complete(&self, token: u64, answer: Result<Answer, String>) -> bool {
        let mut state = self.state();
        let Some(open @ None) = state.deferred.get_mut(&token) else { return false };
        *open = Some(answer);
        self.world.completed.notify_all();
        true
    }

    fn secret_read(&self) {
        self.state().secrets_read = true;
    }
}
