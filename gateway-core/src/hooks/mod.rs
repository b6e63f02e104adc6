//! Where policy decides: the seam to whoever is asked, and to whoever hosts the hooks.
//!
//! Everything that is a decision (who may register, what may be routed where, when a silent agent
//! is gone) is asked of the [`Judge`] that a [`Policy`] gives at that moment; [`EmptyChain`] is the
//! one without hooks: everything goes the protocol's way. A decision may take its time
//! ([`Decision::Later`]); then it delays the one agent it is about and nobody else. Asked by `http`
//! (connect), `session` (register, expire) and `router` (route, undeliverable), which also tell it
//! what happened. In turn hooks reach the gateway as a [`World`].
//!
//! | module | what it is |
//! | --- | --- |
//! | `judge` | what the core asks, what may be answered, what hooks reach |
//! | `hook` | what a host of scripts or plugins offers: instances that can be called |

mod hook;
mod judge;

pub use hook::{CallContext, Hook, HookFault, Returned};
pub use judge::{
    Admission, Decision, Denial, EmptyChain, Fallback, Fixed, Judge, Passage, Policy, Ruling, Way,
    World,
};
