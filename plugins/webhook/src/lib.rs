#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod cache;
mod circuit;
mod client;
mod config;
mod plugin;
mod pool;
mod reply;
mod request;
mod service;

pub use plugin::Webhook;

conexus_plugin_api::declare_plugin!(Webhook);
