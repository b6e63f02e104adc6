//! The configuration: what an operator may decide, from files, environment and command line.
//!
//! `settings` declares the typed sections together with the table of keys. [`load`](fn@load) reads
//! the layers: `walk` looks at all that was written and finds every fault with its place, `rules`
//! judges what ties keys together, and figment lays the values over the defaults.
//!
//! Hooks, chains, plugins, rate classes and admin tokens have names of the operator's own: `named`
//! walks over them, `compose` makes them into [`Policies`] and [`AdminTokens`], and `handed` is what a
//! hook's `config` becomes.

mod choices;
mod compose;
mod document;
mod effective;
mod fault;
mod handed;
mod kind;
mod kind_told;
mod load;
mod named;
mod origins;
mod own_tables;
mod policies;
mod proxy_networks;
mod rules;
mod secret;
mod settings;
mod show;
mod table;
mod tokens;
pub(crate) mod units;
mod urls;
mod walk;

pub use choices::{
    Activity, AgentsAccess, ClientAuth, Compat, ForwardedHeader, LogFormat, RedisMode,
    RoutedSignatures, TlsVersion,
};
pub use document::{reference, schema, template};
pub use fault::{ConfigErrors, Fault, Origin, Position};
pub(crate) use kind::{is_log_level, is_name};
pub use load::{DEFAULT_FILE, Loaded, Sources, load};
pub(crate) use load::{admin_address, public_listener};
pub use origins::{AllowedOrigin, WebOrigin};
pub use policies::{
    Chain, ChainEntry, FailMode, HookScope, HookSettings, HookSource, Mode, PluginSettings,
    Policies, RateClass,
};
pub use proxy_networks::ProxyNetwork;
pub(crate) use rules::hints;
pub use secret::Secret;
pub use settings::*;
pub use show::Row;
pub(crate) use show::toml;
pub use table::Key;
pub use tokens::{AdminToken, AdminTokens, Scope, find_token};
pub(crate) use tokens::{LOOPBACK, UNKNOWN, taken_by_nobody};

#[cfg(test)]
mod tests;
