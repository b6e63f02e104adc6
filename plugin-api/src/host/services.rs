//! What a hook may ask of the gateway.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Agent, AgentFilter, Answer};

/// How loud a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For whoever debugs the gateway.
    Trace,
    /// For whoever debugs the hook.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warn,
    /// Worth waking somebody.
    Error,
}

/// A value of the key-value state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A number; what counters count.
    Int(i64),
    /// A text.
    Text(Arc<str>),
    /// Anything else that a script keeps: JSON.
    Json(Arc<str>),
    /// Whatever a plugin keeps.
    Bytes(Arc<[u8]>),
}

impl Value {
    /// What it counts for against the bounds in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Int(_) => 8,
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// Why the state did not do what was asked. What was there stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StateError {
    /// No room for a further entry, or for so many bytes.
    Full,
    /// The key or the value is longer than one may be.
    TooLong,
    /// There is a value, and it is no number.
    NotANumber,
    /// The number would leave the range of 64 bits.
    Overflow,
    /// A rate of zero, or over no time.
    BadRate,
    /// There is no connection here to keep a value for.
    NoConnection,
    /// The engine that holds shared state cannot be reached.
    Unavailable,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the state is full",
            Self::TooLong => "the key or the value is too long",
            Self::NotANumber => "the value is no number",
            Self::Overflow => "the number leaves the range of 64 bits",
            Self::BadRate => "a rate needs a count and a time above zero",
            Self::NoConnection => "no connection belongs to this call",
            Self::Unavailable => "the shared state cannot be reached",
        })
    }
}

impl std::error::Error for StateError {}

/// Why the gateway did not send, complete, or start what a hook asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refused {
    /// The agent is not here, or its session ended.
    Absent,
    /// Its outbox has no room, or the instance has too many timers.
    Full,
    /// It cannot be sent or done here; says why.
    Invalid(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the agent is not here"),
            Self::Full => f.write_str("there is no room for more"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refused {}

/// What the gateway does for one hook instance, during a call or outside of one. All keys are in
/// the instance's namespace. Nothing here waits for the network or another agent.
pub trait Services: Send + Sync {
    /// The wall-clock time in Unix milliseconds; virtual in tests and replay. Within one call it
    /// stands still.
    fn now_ms(&self) -> i64;

    /// The generation that this call belongs to.
    fn generation(&self) -> u64;

    /// A line in the gateway's log, under the instance's name.
    fn log(&self, level: Level, text: &str);

    /// The value of a key.
    ///
    /// # Errors
    /// [`StateError`].
    fn kv_get(&self, key: &str) -> Result<Option<Value>, StateError>;

    /// Sets a value, for a time or for good.
    ///
    /// # Errors
    /// [`StateError`].
    fn kv_set(&self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), StateError>;

    /// Removes a value; whether there was one.
    ///
    /// # Errors
    /// [`StateError`].
    fn kv_delete(&self, key: &str) -> Result<bool, StateError>;

    /// Adds to a number (0 where there is none) and gives the sum. `ttl` counts from when the
    /// entry was made, so that a counter with one is a window.
    ///
    /// # Errors
    /// [`StateError`].
    fn kv_incr(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, StateError>;

    /// Sets a value if the present one is `expected` (`None`: there is none); whether it did.
    ///
    /// # Errors
    /// [`StateError`].
    fn kv_cas(
        &self,
        key: &str,
        expected: Option<&Value>,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<bool, StateError>;

    /// Gives a value another time to live (`None`: for good); whether there was one.
    ///
    /// # Errors
    /// [`StateError`].
    fn kv_expire(&self, key: &str, ttl: Option<Duration>) -> Result<bool, StateError>;

    /// Whether one more is within `count` per `per`, evenly spread with a burst of `count` (GCRA);
    /// counts it if so.
    ///
    /// # Errors
    /// [`StateError`].
    fn rate_limit(&self, key: &str, count: u32, per: Duration) -> Result<bool, StateError>;

    /// A value of the connection that this call is about.
    ///
    /// # Errors
    /// [`StateError`].
    fn connection_get(&self, key: &str) -> Result<Option<Value>, StateError>;

    /// Sets a value of the connection that this call is about; `None` removes it.
    ///
    /// # Errors
    /// [`StateError`].
    fn connection_set(&self, key: &str, value: Option<Value>) -> Result<(), StateError>;

    /// The agent of that DID, in either spelling, if it is present.
    fn agent(&self, did: &str) -> Option<Arc<Agent>>;

    /// Present agents, in the order of their keys.
    fn agents(&self, filter: &AgentFilter) -> Vec<Arc<Agent>>;

    /// Sends an agent a message of the gateway's own: `kind` is a type that agents send each
    /// other, `payload` its JSON object.
    ///
    /// # Errors
    /// [`Refused`].
    fn send(&self, did: &str, kind: &str, payload: &str) -> Result<(), Refused>;

    /// Ends an agent's session as denied by policy (close 4007, then `reason`); whether there was one.
    fn disconnect(&self, did: &str, reason: &str) -> bool;

    /// Adds to a counter that operators see.
    ///
    /// # Errors
    /// [`StateError`].
    fn metric(&self, name: &str, add: i64) -> Result<(), StateError>;

    /// Calls the instance's `on_timer` with `tag` after a while, once. Native plugins only.
    ///
    /// # Errors
    /// [`Refused`].
    fn timer(&self, after: Duration, tag: u64) -> Result<(), Refused>;

    /// Puts this call's verdict off: it will be given by [`Self::complete`] with the token. Only
    /// within a call at on_connect or on_register, once.
    ///
    /// # Errors
    /// [`Refused`].
    fn defer(&self) -> Result<u64, Refused>;

    /// Gives a verdict that was put off, from any thread; `Err` fails the hook. False when nobody
    /// waits for it any more.
    fn complete(&self, token: u64, answer: Result<Answer, String>) -> bool;

    /// Notes that the hook looked at something that the decision log leaves out (a header, a
    /// credential): its decision cannot be replayed.
    fn secret_read(&self);
}
