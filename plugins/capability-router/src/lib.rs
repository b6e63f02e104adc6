//! An alias stands for whoever has a capability.
//!
//! Agents that want something done need not know who does it: they address an alias, itself a
//! `did:key` that the operator chose, and the least loaded agent with the capability gets the
//! message.
//!
//! ```toml
//! [routing]
//! relay = ["OFFER", "ANSWER", "ICE_CANDIDATE", "ERROR", "INTENT", "EXEC_REQUEST", "EXEC_RESPONSE"]
//!
//! [hook.router]
//! use = "plugin:capability-router"
//!
//! [[hook.router.config.aliases]]
//! did        = "did:key:z6Mk…"
//! capability = "translate"
//!
//! [[chain.on_route]]
//! hook = "router"
//!
//! [[chain.on_undeliverable]]
//! hook = "router"
//!
//! [[chain.on_registered]]
//! hook = "router"
//!
//! [[chain.on_disconnect]]
//! hook = "router"
//! ```
//!
//! # Configuration
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `aliases` | required | each `{ did, capability }`: a DID that no agent has, in either spelling, and what it stands for |
//! | `answer_within` | `"30s"` | how long a request counts as load while it is not answered |
//! | `refresh` | `"1s"` | how long a list of the capable is good for |
//! | `max_pending` | `10000` | requests that are counted as load at once; beyond them the oldest are forgotten |
//!
//! # What it does
//!
//! Only INTENT and EXEC_REQUEST are redirected. OFFER, ANSWER and ICE_CANDIDATE never are: the
//! answer would come from another identity than the one that was called. An alias is never its
//! sender's own: who asks for what it can do itself, gets somebody else.
//!
//! An agent's load is the number of messages that were redirected to it and neither answered (an
//! EXEC_RESPONSE or ERROR with the request's id) nor older than `answer_within`. Among equals they
//! take turns. Where the one that was chosen has gone meanwhile, `on_undeliverable` chooses
//! another. Where nobody has the capability, the sender gets `unknown_agent`.
//!
//! Without `on_registered` and `on_disconnect` in the chains, a newcomer is noticed after
//! `refresh`. An alias is worth a key that the operator holds or has thrown away: `conexus keygen`
//! makes one.
//!
//! Counters: `redirected`, `nobody`.

#![deny(unsafe_code)]

mod config;
mod load;
mod plugin;

pub use plugin::CapabilityRouter;

conexus_plugin_api::declare_plugin!(CapabilityRouter);
