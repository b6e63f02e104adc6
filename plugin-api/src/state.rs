//! Values that hooks keep in the gateway, and what may keep it from obeying.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// How loud a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For whoever debugs the gateway.
    Trace,
    /// For whoever debugs the hook.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warn,
    /// Worth waking somebody.
    Error,
}

/// A value of the key-value state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A number; what counters count.
    Int(i64),
    /// A text.
    Text(Arc<str>),
    /// Anything else that a script keeps: JSON.
    Json(Arc<str>),
    /// Whatever a plugin keeps.
    Bytes(Arc<[u8]>),
}

impl Value {
    /// The number, if it is one.
    #[must_use]
    pub const fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The text, if it is one; JSON counts as text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) | Self::Json(text) = self { Some(text) } else { None }
    }

    /// The bytes of whatever it is but a number.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Int(_) => None,
            Self::Text(text) | Self::Json(text) => Some(text.as_bytes()),
            Self::Bytes(bytes) => Some(bytes),
        }
    }

    /// What it counts for against the bounds in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Int(_) => 8,
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// Why the state did not do what was asked. What was there stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StateError {
    /// No room for a further entry, or for so many bytes.
    Full,
    /// The key or the value is longer than one may be.
    TooLong,
    /// There is a value, and it is no number.
    NotANumber,
    /// The number would leave the range of 64 bits.
    Overflow,
    /// A rate of zero, or over no time.
    BadRate,
    /// There is no connection here to keep a value for.
    NoConnection,
    /// The engine that holds shared state cannot be reached.
    Unavailable,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the state is full",
            Self::TooLong => "the key or the value is too long",
            Self::NotANumber => "the value is no number",
            Self::Overflow => "the number leaves the range of 64 bits",
            Self::BadRate => "a rate needs a count and a time above zero",
            Self::NoConnection => "no connection belongs to this call",
            Self::Unavailable => "the shared state cannot be reached",
        })
    }
}

impl std::error::Error for StateError {}

/// Why the gateway did not send, complete, or start what a hook asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refused {
    /// The agent is not here, or its session ended.
    Absent,
    /// Its outbox has no room, or the instance has too many timers.
    Full,
    /// It cannot be sent or done here; says why.
    Invalid(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the agent is not here"),
            Self::Full => f.write_str("there is no room for more"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refused {}
