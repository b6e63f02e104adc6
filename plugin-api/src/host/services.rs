//! What a hook may ask of the gateway.

use std::{sync::Arc, time::Duration};

use crate::{Agent, AgentFilter, Answer, Level, Refused, StateError, Value};

/// What the gateway does for one hook instance, during a call or outside of one. All keys are in
/// the instance's namespace. Nothing here waits for another agent; state and agents of scope
/// "cluster" wait for the network, for a bounded time.
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

    /// The agent of that DID, in either spelling, if it is present: on this node, or for an instance
    /// of scope "cluster" on any.
    ///
    /// # Errors
    /// [`StateError::Unavailable`]: the cluster cannot be asked.
    fn agent(&self, did: &str) -> Result<Option<Arc<Agent>>, StateError>;

    /// Present agents of the same scope, in the order of their keys.
    ///
    /// # Errors
    /// [`StateError::Unavailable`]: the cluster cannot be asked.
    fn agents(&self, filter: &AgentFilter) -> Result<Vec<Arc<Agent>>, StateError>;

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
