//! The plugin's half: what the macro exports, and the handles that authors hold.

mod agent;
mod call;
mod encode;
mod exports;
mod host;
mod panics;

pub use agent::{AgentRef, AgentView};
pub use call::{Call, Deferred};
pub use exports::{About, descriptor};
pub use host::Host;

use super::types as raw;

/// What a function of the table wrote, if it did.
fn written<T>(empty: T, write: impl FnOnce(*mut T) -> i32) -> Option<T> {
    let mut out = empty;
    (write(&raw mut out) == raw::DONE).then_some(out)
}

/// A text that the gateway handed out.
///
/// # Safety
/// It came from a function of the gateway's table that gives texts, and is valid for `'a`.
unsafe fn text<'a>(slice: raw::Slice) -> Option<&'a str> {
    if slice.data.is_null() {
        return None;
    }
    // SAFETY: the gateway gives views of its own `str`s, so neither length nor encoding need a
    // look; the rest is the caller's promise.
    Some(unsafe {
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(slice.data, slice.len))
    })
}
