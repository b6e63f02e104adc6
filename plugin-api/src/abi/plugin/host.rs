//! The gateway, as an instance sees it.

use std::{ffi::c_void, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{AgentRef, encode, raw};
use crate::{
    AgentFilter, Answer, Error, Level, Refused, StateError, Value,
    abi::{types, value},
};

/// What an instance may ask of the gateway, from any thread and at any time.
///
/// Cheap to clone; a clone may outlive the instance. All keys lie in the instance's own namespace.
/// Nothing here waits for another agent. An instance of scope "cluster" waits for the network where
/// it asks for state or agents, for a bounded time. Within a call ask the
/// [`Call`](super::Call), which has all of this too: then what was read is noted for replay, and
/// the time stands still.
pub struct Host {
    table: &'static raw::HostTable,
    context: *const raw::Context,
}

// SAFETY: the functions of the table may be called from any thread, and the gateway counts
// references to a context atomically.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// A host of this context.
    ///
    /// # Safety
    /// Both came from one gateway; either with a reference of the context to give, or the host is
    /// neither dropped nor used beyond the call that the context belongs to.
    pub(super) const unsafe fn new(
        table: &'static raw::HostTable,
        context: *const raw::Context,
    ) -> Self {
        Self { table, context }
    }

    pub(super) const fn table(&self) -> &'static raw::HostTable {
        self.table
    }

    pub(super) const fn context(&self) -> *const raw::Context {
        self.context
    }

    /// The wall-clock time in Unix milliseconds; virtual in tests and replay.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        // SAFETY: the context is valid as long as this is, here and below.
        unsafe { (self.table.now_ms)(self.context) }
    }

    /// The generation of the configuration: that of the call within a call, else that of now.
    #[must_use]
    pub fn generation(&self) -> u64 {
        // SAFETY: as in `now_ms`.
        unsafe { (self.table.generation)(self.context) }
    }

    /// A line in the gateway's log, under the instance's name.
    pub fn log(&self, level: Level, text: impl AsRef<str>) {
        // SAFETY: as in `now_ms`. A line too long for the gateway is nobody's to handle.
        unsafe { (self.table.log)(self.context, level as u32, slice(text.as_ref())) };
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn kv_get(&self, key: &str) -> Result<Option<Value>, StateError> {
        // SAFETY: as in `now_ms`; the receiver is what `take_value` expects.
        taken(|receiver| unsafe {
            (self.table.kv_get)(self.context, slice(key), take_value, receiver)
        })
    }

    /// Sets a value, for a time or for good.
    ///
    /// # Errors
    /// [`StateError`]; what was there stays.
    pub fn kv_set(
        &self,
        key: &str,
        value: impl Into<Value>,
        ttl: Option<Duration>,
    ) -> Result<(), StateError> {
        let value = value.into();
        let (value, ttl) = (value::view(&value), types::maybe_nanos(ttl));
        // SAFETY: as in `now_ms`.
        done(unsafe { (self.table.kv_set)(self.context, slice(key), &raw const value, ttl) })
    }

    /// The value of a key that [`Self::kv_set_json`] has set.
    ///
    /// # Errors
    /// [`StateError`], or that it is no such JSON.
    pub fn kv_get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let value = self.kv_get(key)?;
        let json = value.as_ref().and_then(Value::as_text);
        Ok(json.map(serde_json::from_str).transpose()?)
    }

    /// Sets a value to JSON, for a time or for good.
    ///
    /// # Errors
    /// [`StateError`], or that it cannot be written as JSON.
    pub fn kv_set_json<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        Ok(self.kv_set(key, Value::Json(serde_json::to_string(value)?.into()), ttl)?)
    }

    /// Removes a value; whether there was one.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn kv_delete(&self, key: &str) -> Result<bool, StateError> {
        // SAFETY: as in `now_ms`.
        whether(unsafe { (self.table.kv_delete)(self.context, slice(key)) })
    }

    /// Adds to a number (0 where there is none) and gives the sum. `ttl` counts from when the
    /// entry was made, so that a counter with one is a window.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn kv_incr(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, StateError> {
        let (mut sum, ttl) = (0, types::maybe_nanos(ttl));
        // SAFETY: as in `now_ms`.
        done(unsafe { (self.table.kv_incr)(self.context, slice(key), by, ttl, &raw mut sum) })?;
        Ok(sum)
    }

    /// Sets a value if the present one is `expected` (`None`: there is none); whether it did.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn kv_cas(
        &self,
        key: &str,
        expected: Option<&Value>,
        value: impl Into<Value>,
        ttl: Option<Duration>,
    ) -> Result<bool, StateError> {
        let (value, expected) = (value.into(), expected.map(value::view));
        let value = value::view(&value);
        let expected = expected.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let ttl = types::maybe_nanos(ttl);
        // SAFETY: as in `now_ms`.
        whether(unsafe {
            (self.table.kv_cas)(self.context, slice(key), expected, &raw const value, ttl)
        })
    }

    /// Gives a value another time to live (`None`: for good); whether there was one.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn kv_expire(&self, key: &str, ttl: Option<Duration>) -> Result<bool, StateError> {
        let ttl = types::maybe_nanos(ttl);
        // SAFETY: as in `now_ms`.
        whether(unsafe { (self.table.kv_expire)(self.context, slice(key), ttl) })
    }

    /// Whether one more is within `count` per `per`, evenly spread with a burst of `count` (GCRA);
    /// counts it if so.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn rate_limit(&self, key: &str, count: u32, per: Duration) -> Result<bool, StateError> {
        let per = types::nanos(per);
        // SAFETY: as in `now_ms`.
        whether(unsafe { (self.table.rate_limit)(self.context, slice(key), count, per) })
    }

    /// The agent of that DID, in either spelling, if it is present: on this node, or for an instance
    /// of scope "cluster" on any.
    ///
    /// # Errors
    /// [`StateError::Unavailable`]: the cluster cannot be asked.
    pub fn agent(&self, did: &str) -> Result<Option<AgentRef>, StateError> {
        let mut found = Found { table: self.table, agents: Vec::new() };
        let receiver = (&raw mut found).cast();
        // SAFETY: as in `now_ms`; the receiver is what `take_agent` expects.
        let code = unsafe { (self.table.agent)(self.context, slice(did), take_agent, receiver) };
        looked_up(code).map(|()| found.agents.pop())
    }

    /// Present agents of the same scope, in the order of their keys; at most
    /// [`MAX_AGENTS`](crate::MAX_AGENTS).
    ///
    /// # Errors
    /// [`StateError::Unavailable`]: the cluster cannot be asked.
    pub fn agents(&self, filter: &AgentFilter) -> Result<Vec<AgentRef>, StateError> {
        let AgentFilter { capability, name, label, limit } = filter;
        let label = label.as_ref();
        let maybe = |text: Option<&String>| raw::Slice::maybe(text.map(String::as_str));
        let filter = raw::Filter {
            capability: maybe(capability.as_ref()),
            name: maybe(name.as_ref()),
            label: raw::Pair {
                name: maybe(label.map(|(name, _)| name)),
                value: maybe(label.map(|(_, value)| value)),
            },
            limit: *limit,
        };
        let mut found = Found { table: self.table, agents: Vec::new() };
        let receiver = (&raw mut found).cast();
        // SAFETY: as in `now_ms`; the receiver is what `take_agent` expects.
        let code =
            unsafe { (self.table.agents)(self.context, &raw const filter, take_agent, receiver) };
        looked_up(code).map(|()| found.agents)
    }

    /// Sends an agent a message of the gateway's own: `kind` is a type that agents send each
    /// other, `payload` its JSON object.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn send(&self, did: &str, kind: &str, payload: &str) -> Result<(), Refused> {
        let (did, kind, payload) = (slice(did), slice(kind), slice(payload));
        // SAFETY: as in `now_ms`; the receiver is what `take_value` expects.
        obeyed(|receiver| unsafe {
            (self.table.send)(self.context, did, kind, payload, take_value, receiver)
        })
    }

    /// Ends an agent's session as denied by policy; whether there was one.
    pub fn disconnect(&self, did: &str, reason: &str) -> bool {
        // SAFETY: as in `now_ms`.
        unsafe { (self.table.disconnect)(self.context, slice(did), slice(reason)) == raw::DONE }
    }

    /// Adds to a counter that operators see.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn metric(&self, name: &str, add: i64) -> Result<(), StateError> {
        // SAFETY: as in `now_ms`.
        done(unsafe { (self.table.metric)(self.context, slice(name), add) })
    }

    /// Calls [`Plugin::on_timer`](crate::Plugin::on_timer) with `tag` after a while, once. Needs
    /// [`Capabilities::TIMER`](crate::Capabilities::TIMER).
    ///
    /// # Errors
    /// [`Refused`].
    pub fn timer(&self, after: Duration, tag: u64) -> Result<(), Refused> {
        let after = types::nanos(after);
        // SAFETY: as in `now_ms`; the receiver is what `take_value` expects.
        obeyed(|receiver| unsafe {
            (self.table.timer)(self.context, after, tag, take_value, receiver)
        })
    }

    /// Gives a verdict that was put off; false when nobody waits for it any more.
    /// [`Deferred::complete`](super::Deferred::complete) is the surer way.
    pub fn complete(&self, token: u64, outcome: Result<Answer, Error>) -> bool {
        let complete = |verdicts, error| {
            // SAFETY: as in `now_ms`.
            unsafe { (self.table.complete)(self.context, token, verdicts, error) == raw::DONE }
        };
        match outcome {
            Ok(answer) => {
                encode::with_raw(&answer, |verdicts| complete(verdicts, raw::Slice::NONE))
            }
            Err(error) => complete(raw::List::of(&[]), slice(&encode::chain(&*error))),
        }
    }
}

macro_rules! levels {
    ($( $name:ident = $Level:ident, $doc:literal; )+) => {
        impl Host { $(
            #[doc = $doc]
            pub fn $name(&self, text: impl AsRef<str>) {
                self.log(Level::$Level, text);
            }
        )+ }
    };
}

levels! {
    debug = Debug, "Logs for whoever debugs the hook.";
    info = Info, "Logs what is worth knowing.";
    warn = Warn, "Logs what is worth looking at.";
    error = Error, "Logs what is worth waking somebody.";
}

impl Clone for Host {
    /// Of a [`Call`](super::Call) it gives the instance's own, which may outlive the call.
    fn clone(&self) -> Self {
        // SAFETY: the context is valid as long as this is, and the clone gets a reference of its
        // own.
        unsafe { Self::new(self.table, (self.table.retain)(self.context)) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: this has a reference to give, else it is never dropped.
        unsafe { (self.table.release)(self.context) };
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

const fn slice(text: &str) -> raw::Slice {
    raw::Slice::of(text.as_bytes())
}

pub(super) const fn done(code: i32) -> Result<(), StateError> {
    if code == raw::DONE { Ok(()) } else { Err(value::error(code)) }
}

/// Whatever else keeps an agent from being found, such as a text that is no DID, it is absent.
const fn looked_up(code: i32) -> Result<(), StateError> {
    if code == raw::UNAVAILABLE { Err(StateError::Unavailable) } else { Ok(()) }
}

const fn whether(code: i32) -> Result<bool, StateError> {
    match code {
        raw::DONE => Ok(true),
        raw::ABSENT | raw::NO => Ok(false),
        code => Err(value::error(code)),
    }
}

/// The value that `give` hands over, if it does.
pub(super) fn taken(give: impl FnOnce(*mut c_void) -> i32) -> Result<Option<Value>, StateError> {
    let mut value = None::<Value>;
    match give((&raw mut value).cast()) {
        raw::ABSENT => Ok(None),
        code => done(code).map(|()| value),
    }
}

/// What is refused, with the reason that the gateway hands over.
pub(super) fn obeyed(ask: impl FnOnce(*mut c_void) -> i32) -> Result<(), Refused> {
    let mut why = None::<Value>;
    let code = ask((&raw mut why).cast());
    let why = || why.as_ref().and_then(Value::as_text).map(String::from);
    match code {
        raw::DONE => Ok(()),
        raw::ABSENT => Err(Refused::Absent),
        raw::FULL => Err(Refused::Full),
        raw::INVALID => Err(Refused::Invalid("an argument is not valid".into())),
        _ => Err(Refused::Invalid(why().unwrap_or_else(|| "the gateway failed".into()))),
    }
}

/// Takes a copy into the `Option<Value>` that `receiver` is.
pub(super) unsafe extern "C" fn take_value(receiver: *mut c_void, value: *const raw::Value) {
    // SAFETY: `receiver` is what was handed in with this function, and nobody else looks at it
    // until the gateway's function returns; the value is the gateway's.
    unsafe { *receiver.cast::<Option<Value>>() = value::read(value) };
}

struct Found {
    table: &'static raw::HostTable,
    agents: Vec<AgentRef>,
}

/// Takes an agent into the [`Found`] that `receiver` is.
unsafe extern "C" fn take_agent(receiver: *mut c_void, agent: *const raw::Agent) {
    // SAFETY: as in `take_value`; the gateway gives a reference with each.
    unsafe {
        let found = &mut *receiver.cast::<Found>();
        found.agents.extend(AgentRef::new(found.table, agent));
    }
}
