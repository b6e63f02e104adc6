//! The Conexus gateway: agents connect over WebSocket, prove who they are with an Ed25519
//! `did:key`, and exchange WebRTC signaling. This crate is the core and the `conexus` binary.
//!
//! The core moves messages. Everything that is a decision is asked of a [`hooks::Judge`].
//!
//! | module | what it is |
//! | --- | --- |
//! | [`config`] | from files, environment and command line to typed [`config::Settings`] |
//! | [`gateway`] | the composition root: [`gateway::Gateway`] is built, run and stopped |
//! | [`hooks`] | the points at which policy decides |
//! | [`state`] | what hooks keep: entries, counters, rate limits, metrics |
//! | [`plugin_host`] | native plugins, from a file to a hook |
//! | [`admin`] | the operator's own listener: the admin API |
//! | [`cli`] | the subcommands of `conexus` |
//! | [`tls`] | the certificate of the listeners, and how it becomes another one |
//! | `load` | the load generator; an agent's side, nothing of the server's |
//! | `http` | the public routes and the WebSocket upgrade |
//! | `session` | one connection's life: handshake, loop, bounded outbox, farewell |
//! | `router` | from a judged message to one of its ends |
//! | `telemetry` | what the gateway knows of itself: counts, times, events |
//! | `presence`, `mailbox` | who is reachable and until when; what waits for those who are not |
//! | `watching` | who is told when an agent comes or goes |
//!
//! A gateway within another program (or a test) takes three lines:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use conexus_gateway::{config::Settings, gateway::{Gateway, GatewayError}};
//! # use conexus_protocol::Identity;
//! # async fn example() -> Result<(), GatewayError> {
//! let gateway = Gateway::bind(Arc::new(Settings::default()), Identity::generate()).await?;
//! println!("listening on {}", gateway.local_addr());
//! gateway.run(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

// Not `forbid`: `plugin_host::open` loads libraries.
#![deny(unsafe_code)]

mod accounting;
pub mod admin;
mod assets;
mod audience;
mod bans;
pub mod cli;
mod clock;
mod cluster;
pub mod config;
mod core;
mod drain;
pub mod gateway;
pub mod hooks;
mod http;
mod http_client;
pub mod ice;
mod limits;
mod load;
mod log_level;
mod mailbox;
mod pace;
mod phase;
pub mod plugin_host;
mod presence;
pub mod reload;
mod replay;
mod router;
pub mod script;
mod session;
pub mod state;
mod striped;
mod telemetry;
pub mod tls;
mod voice;
mod watching;
mod world;

pub use accounting::{Messages, Taps};
