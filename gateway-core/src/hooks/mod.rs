//! Where policy decides.
//!
//! Everything that is a decision (who may register, what may be routed where, when a silent agent
//! is gone) is asked of a [`Judge`]: one generation of a [`Policy`]. The core knows these two and
//! nothing of what is behind them; `http` asks about connections, `session` about registrations and
//! expiry, `router` about messages. What hooks may ask of the core in turn is a [`World`].
//!
//! Behind it is the [`Engine`], in this order:
//!
//! - `engine`: which `generation` judges, and how another takes its place;
//! - `walk`: one event's way along its `chain`, folded (`fold`) to a ruling;
//! - `instance`: one configured [`Hook`], kept in check by its `breaker` and the `pool`;
//! - `keep`, `shared`: where it keeps its state; how one of scope "cluster" asks its cluster;
//! - `secrets`: what the words of a hook that failed must not repeat;
//! - `facilities`: what an instance may ask of the gateway; `tape`, `record` and `replay`
//!   keep what it was told, and let another policy judge it again;
//! - `shadow`: what a hook in shadow mode would have changed; `recent`: decisions worth seeing;
//! - `observers`, `timers`: what is told after the fact, and what is due.
//!
//! [`EmptyChain`] has no hook: everything goes the protocol's way.

mod breaker;
mod chain;
mod deferrals;
mod engine;
mod facilities;
mod fold;
mod generation;
mod hook;
mod instance;
mod judge;
mod keep;
mod loader;
mod observers;
mod pool;
mod recent;
mod record;
mod replay;
mod secrets;
mod shadow;
mod shared;
mod stats;
mod status;
mod tape;
mod timers;
mod walk;

pub use breaker::BreakerState;
pub use engine::{CheckedHook, Engine, ReloadError};
pub(crate) use generation::{hash_file, hexadecimal};
pub use hook::{CallContext, Hook, HookFault, Returned};
pub use instance::SourceFile;
pub use judge::{
    Admission, Decision, Denial, EmptyChain, Fallback, Fixed, Judge, Passage, Policy, Ruling, Way,
    World,
};
pub use pool::PoolUsage;
pub use recent::{DecisionListener, RecentDecision, RecentStep};
pub(crate) use record::PUBLIC_HEADERS;
pub use replay::{Change, ReplayError, Report, replay};
pub use shared::SharedState;
pub(crate) use stats::BUCKETS as HOOK_BUCKETS;
pub use stats::HookCounts;
pub(crate) use stats::LogGate;
pub use status::{GenerationStatus, HookStatus, Refusal, Status};
