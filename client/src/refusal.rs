//! How a gateway says no: with an ERROR, with a close code, or with one after the other.

use std::time::Duration;

use conexus_protocol::{CloseReason, ErrorCode, Message, Payload, RefusalReason};
use serde_json::{Map, Value};

/// An ERROR message: the gateway's refusal, or an agent's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct Refusal {
    /// Who sent it.
    pub from: String,
    /// The id of the message that it answers.
    pub correlation_id: Option<String>,
    /// One of the seven codes.
    pub code: ErrorCode,
    /// The gateway's finer reason (`details.reason`), if it is one that we know.
    pub reason: Option<RefusalReason>,
    /// A text for people.
    pub message: String,
    /// Whatever else it says.
    pub details: Option<Map<String, Value>>,
}

impl Refusal {
    /// Reads a message, if it is an ERROR.
    pub(crate) fn read(message: &Message) -> Option<Self> {
        let Payload::Error(error) = &message.payload else { return None };
        let reason = error.details.as_ref().and_then(|details| details.get("reason"));
        Some(Self {
            from: message.from.clone(),
            correlation_id: message.correlation_id.clone(),
            code: error.code,
            reason: reason.and_then(Value::as_str).and_then(RefusalReason::parse),
            message: error.message.clone(),
            details: error.details.clone(),
        })
    }
}

/// How the gateway closed a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("closed with {code} {reason:?}")]
pub struct Close {
    /// The WebSocket close code; 1005 when the gateway named none.
    pub code: u16,
    /// The gateway's text.
    pub reason: String,
}

impl Close {
    /// The code's meaning, where the protocol gives it one.
    pub fn known(&self) -> Option<CloseReason> {
        CloseReason::from_code(self.code)
    }

    /// Whether dialing again is pointless: the answer would be the same, or, after 4003,
    /// this client and the newer session would replace each other forever.
    pub fn is_final(&self) -> bool {
        matches!(
            self.known(),
            Some(
                CloseReason::NotAuthenticated
                    | CloseReason::Replaced
                    | CloseReason::Denied
                    | CloseReason::Removed
            )
        )
    }

    /// The wait that a restarting gateway asks for: reason `reconnect_in=MS` of code 1012.
    pub fn reconnect_in(&self) -> Option<Duration> {
        let wait = self.reason.strip_prefix("reconnect_in=")?;
        let restarting = self.known() == Some(CloseReason::Restarting);
        restarting.then(|| wait.trim().parse().ok().map(Duration::from_millis))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(code: u16, reason: &str) -> Close {
        Close { code, reason: reason.into() }
    }

    #[test]
    fn only_a_restart_tells_when_to_return() {
        for (close, wait) in [
            (close(1012, "reconnect_in=1500"), Some(1500)),
            (close(1012, "reconnect_in=-1"), None),
            (close(1012, "reconnect_in=99999999999999999999999"), None),
            (close(1012, "restarting"), None),
            (close(4004, "reconnect_in=1500"), None),
        ] {
            assert_eq!(close.reconnect_in(), wait.map(Duration::from_millis), "{close}");
        }
    }

    #[test]
    fn four_codes_are_final() {
        let is_final: Vec<u16> = (1000..5000).filter(|&code| close(code, "").is_final()).collect();
        assert_eq!(is_final, [4001, 4003, 4007, 4009]);
    }
}
