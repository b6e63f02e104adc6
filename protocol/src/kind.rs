//! What a message is (its type) and by which rules it is judged.
//!
//! Eleven types are v1; five more exist only on `ioap.v1.1`, and on v1 they are as unknown as
//! any other word. `schema` asks, everyone matches on the type.

use crate::names::wire_names;

wire_names! {
    /// `type` of a message.
    pub enum MessageType {
        /// An agent announces itself.
        Register = "REGISTER",
        /// An agent takes its leave.
        Unregister = "UNREGISTER",
        /// A WebRTC session description that asks.
        Offer = "OFFER",
        /// A WebRTC session description that answers.
        Answer = "ANSWER",
        /// A way to reach a peer.
        IceCandidate = "ICE_CANDIDATE",
        /// What an agent is asked to consider.
        Intent = "INTENT",
        /// What an agent is asked to do.
        ExecRequest = "EXEC_REQUEST",
        /// What came of it.
        ExecResponse = "EXEC_RESPONSE",
        /// A refusal.
        Error = "ERROR",
        /// Are you there?
        Ping = "PING",
        /// Yes.
        Pong = "PONG",
        /// v1.1: the gateway's nonce, its first frame.
        Challenge = "CHALLENGE",
        /// v1.1: a REGISTER was accepted.
        Registered = "REGISTERED",
        /// v1.1: tell me when these agents come and go.
        Watch = "WATCH",
        /// v1.1: no longer.
        Unwatch = "UNWATCH",
        /// v1.1: an agent came or went.
        Presence = "PRESENCE",
    }
}

impl MessageType {
    /// Whether v1 has this type.
    #[must_use]
    pub const fn is_v1(self) -> bool {
        !matches!(
            self,
            Self::Challenge | Self::Registered | Self::Watch | Self::Unwatch | Self::Presence
        )
    }

    /// Position in [`MessageType::ALL`]: an index for tables and counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

wire_names! {
    /// A WebSocket subprotocol, oldest first.
    pub enum Subprotocol {
        /// IoAP v1, as the reference speaks it.
        V1 = "ioap.v1",
        /// IoAP v1.1.
        V1_1 = "ioap.v1.1",
    }
}

/// By which rules a message is judged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rules {
    /// The subprotocol of the session.
    pub subprotocol: Subprotocol,
    /// Whether the quirks of the reference client are tolerated. Has an effect on v1 alone.
    pub compat: bool,
}

impl Rules {
    /// IoAP v1 to the letter.
    pub const V1_STRICT: Self = Self { subprotocol: Subprotocol::V1, compat: false };
    /// IoAP v1, and the reference client's quirks.
    pub const V1_COMPAT: Self = Self { subprotocol: Subprotocol::V1, compat: true };
    /// IoAP v1.1.
    pub const V1_1: Self = Self { subprotocol: Subprotocol::V1_1, compat: false };

    /// Whether the reference client's quirks are tolerated in this session.
    #[must_use]
    pub const fn tolerates_quirks(self) -> bool {
        self.compat && matches!(self.subprotocol, Subprotocol::V1)
    }

    /// Whether messages of this type exist under these rules.
    #[must_use]
    pub const fn knows(self, kind: MessageType) -> bool {
        kind.is_v1() || matches!(self.subprotocol, Subprotocol::V1_1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position_in_all() {
        for (position, kind) in MessageType::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), position);
        }
        assert_eq!(MessageType::COUNT, 16);
    }

    #[test]
    fn quirks_are_never_tolerated_on_v1_1() {
        let rules = Rules { subprotocol: Subprotocol::V1_1, compat: true };
        assert!(!rules.tolerates_quirks());
        assert!(Rules::V1_COMPAT.tolerates_quirks());
    }

    #[test]
    fn v1_knows_none_of_the_newer_types() {
        let known = MessageType::ALL.into_iter().filter(|kind| Rules::V1_STRICT.knows(*kind));
        assert_eq!(known.count(), 11);
        assert!(MessageType::ALL.into_iter().all(|kind| Rules::V1_1.knows(kind)));
    }
}
