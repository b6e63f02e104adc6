//! How much an agent may send in a minute, an hour or a day.
//!
//! A rate limit evens out a stream; a quota is a budget over a long time. Agents are told apart by
//! their keys, so that neither another spelling nor a new session begins a new budget.
//!
//! ```toml
//! [hook.quota]
//! use = "plugin:quota"
//!
//! [hook.quota.config]
//! class_label = "tier"
//! warn_at     = 0.8
//! default     = { messages_per_hour = 1000, bytes_per_day = "50MiB" }
//!
//! [hook.quota.config.classes]
//! gold  = { messages_per_hour = 20000, bytes_per_day = "5GiB" }
//! staff = {}
//!
//! [[chain.on_route]]
//! hook = "quota"
//! ```
//!
//! # Configuration
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `default` | required | the limits of agents that are in no class below |
//! | `classes` | `{}` | limits by class, in place of `default`; `{}` is no limit at all |
//! | `class_label` | none | the label whose value is an agent's class; without it, its rate class is |
//! | `types` | all | which types of messages count: `["OFFER", "INTENT"]` |
//! | `warn_at` | none | a share, above 0 and below 1: crossing it is logged once per window |
//!
//! Limits are `messages_per_minute`, `messages_per_hour`, `messages_per_day`, `bytes_per_minute`,
//! `bytes_per_hour` and `bytes_per_day`, all optional; 0 lets nothing through. Bytes are those of
//! whole messages.
//!
//! Windows are those of the clock, in UTC: a day begins at midnight. A message over a limit is
//! denied with `rate_limited`, counts towards nothing, and is told when the window ends. What was
//! used lies in the gateway's state, one entry per agent and limit for as long as the window; it
//! survives reloads, and restarts where the state does. Where the state is full, the hook fails,
//! and `on_error` decides. Put the hook last in its chain: what a later one denies has been counted.
//!
//! Counters: `denied`, `warned`.

#![deny(unsafe_code)]

mod config;
mod limit;
mod plugin;

pub use plugin::Quota;

conexus_plugin_api::declare_plugin!(Quota);
