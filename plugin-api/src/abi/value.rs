//! Values, errors and addresses, from one side to the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::types as raw;
use crate::{StateError, Value};

/// A view of a value, valid as long as the value.
pub(super) fn view(value: &Value) -> raw::Value {
    let (kind, int, bytes) = match value {
        Value::Int(int) => (raw::VALUE_INT, *int, raw::Slice::NONE),
        Value::Text(text) => (raw::VALUE_TEXT, 0, raw::Slice::of(text.as_bytes())),
        Value::Json(text) => (raw::VALUE_JSON, 0, raw::Slice::of(text.as_bytes())),
        Value::Bytes(bytes) => (raw::VALUE_BYTES, 0, raw::Slice::of(bytes)),
    };
    raw::Value { kind, int, bytes }
}

/// The value of a view; `None` where it is not valid.
///
/// # Safety
/// `value` is null or leads to a value whose bytes are valid as [`raw::Slice::bytes`] asks.
pub(super) unsafe fn read(value: *const raw::Value) -> Option<Value> {
    if value.is_null() || !value.is_aligned() {
        return None;
    }
    // SAFETY: not null, aligned, and otherwise the caller's promise.
    let value = unsafe { *value };
    // SAFETY: the caller's promise.
    let text = || unsafe { value.bytes.text() };
    match value.kind {
        raw::VALUE_INT => Some(Value::Int(value.int)),
        raw::VALUE_TEXT => Some(Value::Text(text()?.into())),
        raw::VALUE_JSON => Some(Value::Json(text()?.into())),
        // SAFETY: the caller's promise.
        raw::VALUE_BYTES => Some(Value::Bytes(unsafe { value.bytes.bytes() }?.into())),
        _ => None,
    }
}

/// The number of an error.
#[cfg(feature = "host")]
pub(super) const fn code(error: StateError) -> i32 {
    match error {
        StateError::Full => raw::FULL,
        StateError::TooLong => raw::TOO_LONG,
        StateError::NotANumber => raw::NOT_A_NUMBER,
        StateError::Overflow => raw::OVERFLOW,
        StateError::BadRate => raw::BAD_RATE,
        StateError::NoConnection => raw::NO_CONNECTION,
        StateError::Unavailable => raw::UNAVAILABLE,
    }
}

/// The error of a number.
pub(super) const fn error(code: i32) -> StateError {
    match code {
        raw::FULL => StateError::Full,
        // What is refused as invalid can only be too long: the safe side has no other way.
        raw::TOO_LONG | raw::INVALID => StateError::TooLong,
        raw::NOT_A_NUMBER => StateError::NotANumber,
        raw::OVERFLOW => StateError::Overflow,
        raw::BAD_RATE => StateError::BadRate,
        raw::NO_CONNECTION => StateError::NoConnection,
        _ => StateError::Unavailable,
    }
}

/// An address as it crosses.
#[cfg(feature = "host")]
pub(super) fn address(address: SocketAddr) -> raw::Address {
    let mut ip = [0; 16];
    let (family, scope) = match address {
        SocketAddr::V4(v4) => {
            ip[..4].copy_from_slice(&v4.ip().octets());
            (4, 0)
        }
        SocketAddr::V6(v6) => {
            ip = v6.ip().octets();
            (6, v6.scope_id())
        }
    };
    raw::Address { family, port: address.port(), scope, ip }
}

/// The address that crossed.
pub(super) fn socket_address(address: &raw::Address) -> SocketAddr {
    let raw::Address { family, port, scope, ip } = *address;
    if family == 6 {
        return SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into();
    }
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3])), port)
}
