//! The codes by which a gateway says no: error codes, refusal reasons, close codes.
//!
//! A v1 peer knows seven error codes and no more, so every finer reason maps onto one of them.
//! `gateway-core` chooses among these; the client reads them back.

use crate::names::wire_names;

wire_names! {
    /// `code` of an ERROR: the seven that every v1 peer knows.
    pub enum ErrorCode {
        /// A signature, nonce, audience or sender that does not prove what it should.
        InvalidSignature = "INVALID_SIGNATURE",
        /// The addressee is not reachable.
        UnknownAgent = "UNKNOWN_AGENT",
        /// Understood and refused: policy, rate, room.
        ConnectionRefused = "CONNECTION_REFUSED",
        /// Silent for too long.
        Timeout = "TIMEOUT",
        /// Not a message by the rules of the protocol.
        MalformedMessage = "MALFORMED_MESSAGE",
        /// `version` is not one that is spoken here.
        UnsupportedVersion = "UNSUPPORTED_VERSION",
        /// The gateway failed, not the message.
        InternalError = "INTERNAL_ERROR",
    }
}

wire_names! {
    /// `details.reason` of a refused message (protocol, part 3, duty 5).
    pub enum RefusalReason {
        /// No agent of that key is present.
        UnknownAgent = "unknown_agent",
        /// Held for an absent agent that did not come back in time.
        Expired = "expired",
        /// The agent is on a node that cannot be reached.
        NodeUnreachable = "node_unreachable",
        /// A policy said no.
        Denied = "denied",
        /// The gateway does not route this type.
        NotRelayed = "not_relayed",
        /// The sender is over its rate.
        RateLimited = "rate_limited",
        /// The addressee's outbox or mailbox has no room.
        QueueFull = "queue_full",
        /// The gateway is about to stop.
        Draining = "draining",
        /// A hook failed, and fails closed.
        PolicyError = "policy_error",
    }
}

impl RefusalReason {
    /// The error code that a v1 peer is told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::UnknownAgent | Self::Expired | Self::NodeUnreachable => ErrorCode::UnknownAgent,
            Self::Denied
            | Self::NotRelayed
            | Self::RateLimited
            | Self::QueueFull
            | Self::Draining => ErrorCode::ConnectionRefused,
            Self::PolicyError => ErrorCode::InternalError,
        }
    }
}

/// Why a WebSocket is closed; its value is the close code (protocol, part 3, duty 13).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u16)]
pub enum CloseReason {
    /// An orderly end.
    Done = 1000,
    /// Broken framing.
    BadFraming = 1002,
    /// A text frame that is not UTF-8.
    InvalidUtf8 = 1007,
    /// A message over `limits.message_bytes`.
    TooBig = 1009,
    /// The gateway stops or restarts: come back.
    Restarting = 1012,
    /// A fault in the handshake.
    ProtocolError = 4000,
    /// No valid proof of the key.
    NotAuthenticated = 4001,
    /// No REGISTER in time.
    RegisterTimeout = 4002,
    /// A newer session holds this key.
    Replaced = 4003,
    /// Silent for too long.
    Expired = 4004,
    /// Too many bad messages.
    TooManyBadMessages = 4005,
    /// The peer does not drain its socket.
    TooSlow = 4006,
    /// A policy said no.
    Denied = 4007,
    /// Over the rate, again and again.
    RateLimited = 4008,
    /// Removed by an operator.
    Removed = 4009,
}

impl CloseReason {
    /// Every reason, by ascending code.
    pub const ALL: [Self; 15] = [
        Self::Done,
        Self::BadFraming,
        Self::InvalidUtf8,
        Self::TooBig,
        Self::Restarting,
        Self::ProtocolError,
        Self::NotAuthenticated,
        Self::RegisterTimeout,
        Self::Replaced,
        Self::Expired,
        Self::TooManyBadMessages,
        Self::TooSlow,
        Self::Denied,
        Self::RateLimited,
        Self::Removed,
    ];

    /// The close code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// A short text for the close frame; well under the 123 bytes that it may have (RFC 6455, 5.5).
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::BadFraming => "bad framing",
            Self::InvalidUtf8 => "invalid utf-8",
            Self::TooBig => "message too big",
            Self::Restarting => "restarting",
            Self::ProtocolError => "protocol error",
            Self::NotAuthenticated => "not authenticated",
            Self::RegisterTimeout => "register timeout",
            Self::Replaced => "replaced by a newer session",
            Self::Expired => "expired",
            Self::TooManyBadMessages => "too many bad messages",
            Self::TooSlow => "too slow",
            Self::Denied => "denied by policy",
            Self::RateLimited => "rate limited",
            Self::Removed => "removed by an operator",
        }
    }

    /// The reason of that close code, where it is one of ours.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_variant() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        }
        for reason in RefusalReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert_eq!(ErrorCode::parse("timeout"), None);
    }

    #[test]
    fn every_close_code_maps_back_and_fits_a_close_frame() {
        for reason in CloseReason::ALL {
            assert_eq!(CloseReason::from_code(reason.code()), Some(reason));
            assert!(reason.reason().len() <= 123);
        }
        assert!(CloseReason::ALL.is_sorted());
        assert_eq!(CloseReason::from_code(1001), None);
    }

    #[test]
    fn codes_serialize_as_their_wire_names() {
        let text = serde_json::to_string(&ErrorCode::UnknownAgent).unwrap();
        assert_eq!(text, r#""UNKNOWN_AGENT""#);
        assert_eq!(serde_json::from_str::<ErrorCode>(&text).unwrap(), ErrorCode::UnknownAgent);
    }
}
