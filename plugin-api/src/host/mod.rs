//! The gateway's side of the contract.
//!
//! [`Event`] is what a hook is asked about, owned and cheap to clone, so that a call may outlive
//! the moment; [`Services`] is what a hook may ask of the gateway in turn. Both hosts (scripts and
//! native plugins) and the test kit speak these. A native plugin is a [`Library`], whose
//! [`Instance`]s are called.

mod connection;
mod event;
mod services;
mod tls;

pub use crate::abi::host::{CallFault, Instance, Library, Mismatch, Returned};
pub use crate::{Level, Refused, StateError, Value};
pub use connection::{Connection, MAX_CONNECTION_BYTES, MAX_CONNECTION_VALUES};
pub use event::{
    Connect, Delivered, Disconnect, Event, Expire, HookError, Register, Registered, Replaced,
    Route, RouteParts, Text, Unregister, Watch,
};
pub use services::Services;
pub use tls::{ClientCertificate, Tls};
