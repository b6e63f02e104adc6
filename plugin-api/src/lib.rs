//! The hook contract of the Conexus gateway: what a native plugin implements.
//!
//! The gateway moves messages; what is a decision, it asks of hooks. A plugin is a crate with a
//! type that implements [`Plugin`]: one method per [`Point`] that it has something to say about,
//! each given a typed event and answering with verdicts.
//!
//! ```
//! use std::time::Duration;
//!
//! use conexus_plugin_api::{
//!     CONTINUE, Call, DenyCode, Error, Host, Outcome, Plugin, Point, PointSet, Register, Route,
//!     declare_plugin, deny, set,
//! };
//! use serde::Deserialize;
//!
//! /// Lets in who has a capability, and caps how fast each agent sends.
//! struct Members {
//!     config: Config,
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     capability: String,
//!     #[serde(default = "ten")]
//!     messages_per_second: u32,
//! }
//!
//! fn ten() -> u32 {
//!     10
//! }
//!
//! impl Plugin for Members {
//!     type Config = Config;
//!     const POINTS: PointSet = PointSet::of(&[Point::Register, Point::Route]);
//!
//!     fn new(config: Config, host: Host) -> Result<Self, Error> {
//!         host.info(format!("members have the capability {}", config.capability));
//!         Ok(Self { config })
//!     }
//!
//!     fn on_register(&self, event: &Register<'_>, _: &Call<'_>) -> Outcome {
//!         if !event.agent().has_capability(&self.config.capability) {
//!             return Ok(deny(DenyCode::Denied, "not a member"));
//!         }
//!         Ok(set().label("member", "yes").into())
//!     }
//!
//!     fn on_route(&self, event: &Route<'_>, call: &Call<'_>) -> Outcome {
//!         let cap = self.config.messages_per_second;
//!         if call.rate_limit(&event.from().key_text(), cap, Duration::from_secs(1))? {
//!             Ok(CONTINUE)
//!         } else {
//!             Ok(deny(DenyCode::RateLimited, "too fast"))
//!         }
//!     }
//! }
//!
//! declare_plugin!(Members);
//! # fn main() {}
//! ```
//!
//! With `crate-type = ["cdylib", "rlib"]` in its manifest, `cargo build --release` makes a library
//! that a gateway loads:
//!
//! ```toml
//! [plugins.members]
//! path = "/opt/conexus/libmembers.so"
//!
//! [hook.members]
//! use    = "plugin:members"
//! config = { capability = "chat" }
//!
//! [[chain.on_register]]
//! hook = "members"
//!
//! [[chain.on_route]]
//! hook = "members"
//! ```
//!
//! # What is where
//!
//! | for | see |
//! | --- | --- |
//! | the points, and what may be answered where | [`Point`], [`Verdict::is_allowed_at`] |
//! | answers | [`CONTINUE`], [`allow`], [`deny`], [`redirect`], [`copy()`], [`hold`], [`extend`], [`set`], chained with [`Answer::and`] |
//! | events | [`Connect`], [`Register`], [`Route`], [`Watch`], [`Expire`], [`Registered`], [`Replaced`], [`Delivered`], [`Disconnect`], [`Unregister`], [`HookError`] |
//! | how a connection is encrypted, and whose certificate it has shown | [`Connect::tls`] |
//! | agents | [`AgentView`] during a call, [`AgentRef`] to keep |
//! | what the gateway does for a plugin | [`Call`] during a call, [`Host`] at any other time |
//! | deciding later | [`Call::defer`], [`Deferred`] |
//! | time | [`Plugin::on_tick`], [`Host::timer`] |
//! | tests without a gateway | `testkit`, with the feature of that name |
//! | what crosses between the two | [`abi`] |
//!
//! # Rules
//!
//! * An answer says what happens to this one event; `Err` and panics are failures, which the
//!   hook's `on_error` decides about (by default they deny where a hook decides).
//! * State lies in `Self` or in the gateway ([`Host::kv_set`]), not in statics: two generations of
//!   one plugin may run at once, in one library.
//! * No method waits for long; whoever must wait defers, or brings threads of its own, which it
//!   ends in [`Plugin::shutdown`]. The gateway's own runtime is never to be used.

#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod abi;
mod agent;
mod declare;
mod event;
#[cfg(feature = "host")]
pub mod host;
mod plugin;
mod point;
mod state;
#[cfg(feature = "testkit")]
pub mod testkit;
mod tls;
mod verdict;

pub use abi::plugin::{AgentRef, AgentView, Call, Deferred, Host};
pub use agent::{Agent, AgentFilter, MAX_AGENTS, Metadata};
pub use declare::StaticPlugin;
pub use event::{
    Connect, Delivered, Disconnect, Expire, HookError, Register, Registered, Replaced, Route,
    Unregister, Watch,
};
pub use plugin::{Capabilities, Error, NoConfig, Outcome, Plugin};
pub use point::{Point, PointKind, PointSet};
pub use state::{Level, Refused, StateError, Value};
pub use tls::{ClientCertificate, Tls};
pub use verdict::{
    Answer, CONTINUE, DenyCode, MAX_COPIES, Set, Verdict, allow, copy, deny, extend, hold,
    redirect, set,
};
