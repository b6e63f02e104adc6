#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod config;
mod limit;
mod plugin;

pub use plugin::Quota;

conexus_plugin_api::declare_plugin!(Quota);
