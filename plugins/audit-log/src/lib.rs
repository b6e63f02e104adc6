#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod config;
mod file;
mod plugin;
mod queue;
mod record;
mod writer;

pub use plugin::AuditLog;

conexus_plugin_api::declare_plugin!(AuditLog);
