//! What crosses between a gateway and a plugin: `repr(C)` types and `extern "C"` functions.
//!
//! Authors of plugins need none of this: [`Plugin`](crate::Plugin) and
//! [`declare_plugin!`](crate::declare_plugin) are the safe side of it. `docs/plugin-abi.md` is the
//! reference, with the rules by which it may grow. This is the only module with `unsafe` code;
//! `plugin` is the plugin's half of it, `host` the gateway's.
//!
//! Nothing that one side allocates is freed by the other. What the gateway hands in is valid for
//! the call; what a plugin hands out is copied by the gateway before the function returns.

#![allow(unsafe_code, reason = "the ABI: each block has its proof")]

#[cfg(feature = "host")]
pub(crate) mod host;
mod layout;
pub(crate) mod plugin;
mod types;
mod value;

pub use layout::LAYOUT;
pub use plugin::{About, descriptor};
pub use types::*;
