//! What an author implements.

use std::{fmt, ops::BitOr};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    Answer, CONTINUE, Call, Connect, Delivered, Disconnect, Expire, HookError, Host, PointSet,
    Register, Registered, Replaced, Route, Unregister, Watch,
};

/// Why a hook failed: made from a text, or from any error by `?`.
///
/// A failure is never a denial. What the gateway does then is the hook's `on_error` in the
/// configuration; the text goes to the log, not to the agent.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a hook answers where it decides: verdicts, [`CONTINUE`] for none, or that it failed.
pub type Outcome = Result<Answer, Error>;

/// For a plugin that has nothing to configure: refuses every key.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// What a plugin needs of the gateway. A gateway that lacks one of them does not load it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Capabilities(pub(crate) u64);

impl Capabilities {
    /// Nothing beyond what every gateway offers.
    pub const NONE: Self = Self(0);
    /// [`Call::defer`].
    pub const DEFER: Self = Self(1);
    /// [`Host::timer`] and [`Plugin::on_timer`].
    pub const TIMER: Self = Self(2);
    /// Its answers depend on what it asks elsewhere (a file, the network, its own clock), so that
    /// a recorded decision cannot be replayed.
    pub const OUTSIDE: Self = Self(4);
    /// All that this version knows.
    pub const ALL: Self = Self(7);

    const NAMES: [(Self, &'static str); 3] =
        [(Self::DEFER, "defer"), (Self::TIMER, "timer"), (Self::OUTSIDE, "outside")];

    /// With others.
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether all of `others` are among them.
    #[must_use]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those that `others` lacks.
    #[must_use]
    pub const fn beyond(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// As bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// From bits, whether they are known or not.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, more: Self) -> Self {
        self.with(more)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::NAMES.into_iter().filter(|(one, _)| self.has(*one)).map(|(_, name)| name);
        let mut names: Vec<_> = known.map(String::from).collect();
        let unknown = self.beyond(Self::ALL).0;
        if unknown != 0 {
            names.push(format!("{unknown:#x} (unknown here)"));
        }
        f.write_str(&names.join(", "))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities({self})")
    }
}

/// A plugin: its type, made anew for each instance in the configuration.
///
/// Methods take `&self` and may run on several threads at once: state that changes lies behind
/// locks or atomics, or in the gateway ([`Host::kv_set`]), where it outlives a reload. It belongs
/// in `Self`, never in statics: two generations may share one library.
///
/// A method may not wait long: nothing can stop it, and what exceeds the hook's budget counts
/// against the hook. Whoever has to wait defers ([`Call::defer`]) or asks operators to configure
/// `blocking = true`. A panic is caught and counts as a failure.
#[allow(unused_variables, reason = "defaults")]
#[allow(clippy::missing_errors_doc, reason = "said once, at on_connect")]
pub trait Plugin: Sized + Send + Sync + 'static {
    /// What the instance's `config` is read into; an instance without one gets an empty table.
    /// Use `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused at load, and
    /// [`NoConfig`] where there is nothing to configure.
    type Config: DeserializeOwned;

    /// The points whose methods it implements. At others it is not called, and a chain that names
    /// it there is refused at load.
    const POINTS: PointSet;

    /// What it needs beyond what every gateway offers.
    const NEEDS: Capabilities = Capabilities::NONE;

    /// Makes an instance. Called at load and at reload, also by `conexus check`: nothing that
    /// others see should begin before [`on_start`](Self::on_start).
    ///
    /// # Errors
    /// Whatever keeps it from working; the gateway then does not start, or keeps the generation
    /// that runs.
    fn new(config: Self::Config, host: Host) -> Result<Self, Error>;

    /// Somebody asks for a WebSocket.
    ///
    /// # Errors
    /// As all methods below: whatever made it fail.
    fn on_connect(&self, event: &Connect<'_>, call: &Call<'_>) -> Outcome {
        Ok(CONTINUE)
    }

    /// A proof is valid, nothing is stored yet.
    fn on_register(&self, event: &Register<'_>, call: &Call<'_>) -> Outcome {
        Ok(CONTINUE)
    }

    /// A message is valid and verified.
    fn on_route(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        Ok(CONTINUE)
    }

    /// A message's target is absent.
    fn on_undeliverable(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
        Ok(CONTINUE)
    }

    /// An agent wants to follow another's presence.
    fn on_watch(&self, event: &Watch<'_>, call: &Call<'_>) -> Outcome {
        Ok(CONTINUE)
    }

    /// An agent's lease ran out: `CONTINUE` lets it go.
    fn on_expire(&self, event: &Expire<'_>, call: &Call<'_>) -> Outcome {
        Ok(CONTINUE)
    }

    /// An agent is registered, or has renewed its registration.
    fn on_registered(&self, event: &Registered<'_>, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// A newer session of the same key took over.
    fn on_replaced(&self, event: &Replaced<'_>, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// The kernel has a message's last byte.
    fn on_delivered(&self, event: &Delivered<'_>, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// A registered session ended, whatever the reason.
    fn on_disconnect(&self, event: &Disconnect<'_>, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// An agent said UNREGISTER; `on_disconnect` follows.
    fn on_unregister(&self, event: &Unregister<'_>, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Another hook failed, timed out or was quarantined.
    fn on_hook_error(&self, event: &HookError<'_>, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// The instance begins to serve.
    fn on_start(&self, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// The instance serves no more; calls that have begun may still end.
    fn on_stop(&self, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// A newer generation runs, and this instance was carried over into it.
    fn on_reload(&self, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Time passes: every `tick` of the instance's configuration.
    fn on_tick(&self, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// A timer that [`Host::timer`] began has run out. No point: it needs no place in
    /// [`POINTS`](Self::POINTS), but [`Capabilities::TIMER`].
    fn on_timer(&self, tag: u64, call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// The last call, after all others have ended: stop threads, write what is not yet written.
    /// Then the instance is dropped.
    fn shutdown(&self) {}
}
