//! The five states of a client, as everyone outside sees them.
//!
//! The driver alone moves between them; [`Handle::states`](crate::Handle::states) watches.

use std::fmt;

/// Where a client stands with its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// No connection: never made, closed, or waiting until the next attempt.
    Disconnected,
    /// Dialing or registering.
    Connecting,
    /// Registered; on `ioap.v1`, REGISTER is written.
    Connected,
    /// Saying goodbye.
    Disconnecting,
    /// Given up: the gateway's verdict is final, or the attempts are used up. Nothing
    /// happens until [`Client::connect`](crate::Client::connect) is called again.
    Error,
}

impl ConnectionState {
    /// The state in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnecting => "disconnecting",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
