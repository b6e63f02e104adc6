#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod config;
mod load;
mod plugin;

pub use plugin::CapabilityRouter;

conexus_plugin_api::declare_plugin!(CapabilityRouter);
