//! What a host of hooks (scripts, native plugins) offers the chain: instances that can be called.

use std::{sync::Arc, time::Instant};

use conexus_plugin_api::{
    Answer, PointSet,
    host::{Event, Services},
};

/// One call's surroundings.
#[derive(Clone)]
pub struct CallContext {
    /// What the hook may ask of the gateway. Its time stands still during the call.
    pub services: Arc<dyn Services>,
    /// When the call's budget ends. A script is stopped at it; native code cannot be.
    pub deadline: Instant,
}

/// An instance: loaded, configured, stateful. Called from many threads at once.
pub trait Hook: Send + Sync + 'static {
    /// The points that it implements.
    fn points(&self) -> PointSet;

    /// Asks it. Only called at points that it implements.
    ///
    /// # Errors
    /// [`HookFault`]: the hook failed, which is never mistaken for a denial.
    fn call(&self, event: &Event, context: &CallContext) -> Result<Returned, HookFault>;

    /// A timer that it asked for went off.
    ///
    /// # Errors
    /// As for a call.
    fn on_timer(&self, _tag: u64, _context: &CallContext) -> Result<(), HookFault> {
        Ok(())
    }

    /// No call will come any more. Called at least once before it is dropped.
    fn shut_down(&self) {}

    /// Whether its decisions follow from the event and what it read from the gateway alone.
    fn is_replayable(&self) -> bool {
        true
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Returned {
    /// Its verdicts.
    Answer(Answer),
    /// They will be given later under this token, by [`Services::complete`].
    Deferred(u64),
}

/// How a hook failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookFault {
    /// It said so: a script threw or broke a rule, a plugin returned an error. Text with its place.
    #[error("{0}")]
    Failed(String),
    /// It panicked.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It did not answer within its budget.
    #[error("no answer within its budget")]
    TimedOut,
    /// It answered something that has no meaning there.
    #[error("{0}")]
    BadReturn(String),
    /// It could not be asked: too much is waiting.
    #[error("too much is waiting")]
    Overloaded,
    /// It is not asked, since it failed too often.
    #[error("quarantined")]
    Quarantined,
}

impl HookFault {
    /// One word for logs, metrics and `on_hook_error`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Failed(_) => "error",
            Self::Panicked(_) => "panic",
            Self::TimedOut => "timeout",
            Self::BadReturn(_) => "bad_return",
            Self::Overloaded => "overload",
            Self::Quarantined => "quarantined",
        }
    }
}
