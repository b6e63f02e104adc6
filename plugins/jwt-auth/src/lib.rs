#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod claims;
mod config;
mod crypto;
mod identity;
mod keys;
mod plugin;
mod verify;

pub use plugin::JwtAuth;

conexus_plugin_api::declare_plugin!(JwtAuth);
