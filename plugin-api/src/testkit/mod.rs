//! Tests of a plugin without a gateway: fabricated events, a host in memory, a virtual clock.
//!
//! A [`Kit`] makes an instance the way a gateway does, through the whole ABI, and asks it; its
//! [`TestHost`] remembers what the plugin did.
//!
//! ```
//! # use conexus_plugin_api::{*, testkit::{self, Kit}};
//! # use serde_json::json;
//! # struct Members(String);
//! # #[derive(serde::Deserialize)]
//! # struct Config { capability: String }
//! # impl Plugin for Members {
//! #     type Config = Config;
//! #     const POINTS: PointSet = PointSet::of(&[Point::Register]);
//! #     fn new(config: Config, _: Host) -> Result<Self, Error> { Ok(Self(config.capability)) }
//! #     fn on_register(&self, event: &Register<'_>, _: &Call<'_>) -> Outcome {
//! #         if event.agent().has_capability(&self.0) { return Ok(CONTINUE); }
//! #         Ok(deny(DenyCode::Denied, "not a member"))
//! #     }
//! # }
//! // #[test] fn only_members_register() { … }
//! let kit = Kit::<Members>::new(json!({ "capability": "chat" })).unwrap();
//! let member = testkit::agent("did:key:zAlice").capability("chat").build();
//! let guest = testkit::agent("did:key:zBob").build();
//!
//! assert_eq!(kit.register(testkit::register(&member)), Ok(CONTINUE));
//! assert_eq!(
//!     kit.register(testkit::register(&guest)),
//!     Ok(deny(DenyCode::Denied, "not a member")),
//! );
//! assert!(kit.host().lines().is_empty());
//! ```

mod fabricate;
mod host;
mod kit;

pub use fabricate::{
    AgentBuilder, ConnectBuilder, RegisterBuilder, RouteBuilder, agent, connect, delivered,
    disconnect, expire, hook_error, register, registered, replaced, route, unregister, watch,
};
pub use host::{START_MS, Sent, TestHost};
pub use kit::Kit;
