//! Hooks as operators write them: scripts from files and a plugin from its library, asked by the
//! real engine, most of them behind a real gateway.
//!
//! The plugin is `tests/fixtures/probe`; `setup` and `events` are what these tests share.

mod agreement;
mod deferrals;
mod events;
mod faults;
mod outside;
mod panics;
mod refused_agents;
mod runaway;
pub(crate) mod setup;
