//! All that the gateway itself says, signed with its own key.
//!
//! Towards v1 peers too: nothing there checks the signature, but the messages look the same. An
//! ERROR repeats nothing of what a peer sent but the message's id and a member's name, and stays
//! under [`MAX_ERROR_BYTES`].

use std::sync::Arc;

use conexus_protocol::{
    Draft, ErrorCode, ErrorPayload, Identity, Malformed, Payload, RefusalReason,
};
use serde_json::{Map, Value};

use crate::hooks::Denial;

/// The protocol's bound on an ERROR of the gateway (duty 5).
pub(crate) const MAX_ERROR_BYTES: usize = 1024;

/// A member's name is somebody's text: this much of it is repeated.
const MAX_MEMBER_CHARS: usize = 64;

/// What policy says to agents is cut to this length, and to the shorter one where it does not fit.
const MAX_DENIAL_CHARS: usize = 256;
const SHORT_MESSAGE_CHARS: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Voice {
    identity: Identity,
}

/// What an ERROR says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) details: Vec<(&'static str, String)>,
}

impl Complaint {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    /// A routed message ends here.
    pub(crate) fn refusal(reason: RefusalReason) -> Self {
        let message = match reason {
            RefusalReason::UnknownAgent => "no such agent is present",
            RefusalReason::Expired => "the agent did not come back in time",
            RefusalReason::NodeUnreachable => "the agent's gateway node cannot be reached",
            RefusalReason::Denied => "refused by policy",
            RefusalReason::NotRelayed => "this gateway does not relay messages of this type",
            RefusalReason::RateLimited => "too many messages",
            RefusalReason::QueueFull => "the agent's queue is full",
            RefusalReason::Draining => "the gateway is stopping",
            RefusalReason::PolicyError => "a policy failed",
        };
        Self::new(reason.code(), message).with("reason", reason.as_str())
    }

    /// Policy refuses something, in its own words where it has any.
    pub(crate) fn denial(denial: &Denial) -> Self {
        let refusal = Self::refusal(denial.reason);
        match spoken(&denial.text) {
            text if text.is_empty() => refusal,
            message => Self { message, ..refusal },
        }
    }

    /// A text is no message.
    pub(crate) fn malformed(fault: &Malformed) -> Self {
        let complaint = Self::new(fault.code(), "the message is malformed");
        match fault.member() {
            Some(member) => complaint.about(member),
            None => complaint,
        }
    }

    /// Names the member that is at fault.
    pub(crate) fn about(self, member: &str) -> Self {
        let name: String = member.chars().take(MAX_MEMBER_CHARS).collect();
        // Escaped: this text is read by people and written to logs.
        let message = format!("{}: {}", self.message, name.escape_debug());
        Self { message, ..self }.with("member", name)
    }
}

/// A text of policy's as agents are told it: bounded, and without control characters.
pub(crate) fn spoken(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(MAX_DENIAL_CHARS).collect()
}

impl Voice {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn did(&self) -> &str {
        self.identity.did()
    }

    /// Any message, in reply to an id where there is one.
    pub(crate) fn say(
        &self,
        to: &str,
        in_reply_to: Option<&str>,
        payload: impl Into<Payload>,
    ) -> Arc<str> {
        let draft = Draft::new(to, payload);
        match in_reply_to {
            Some(id) => draft.in_reply_to(id),
            None => draft,
        }
        .sign(&self.identity)
        .into()
    }

    /// An ERROR. Its correlation id is left out where an id of nothing but characters that must be
    /// escaped would make it too long.
    pub(crate) fn error(
        &self,
        to: &str,
        in_reply_to: Option<&str>,
        complaint: &Complaint,
    ) -> Arc<str> {
        let details: Map<_, _> = complaint
            .details
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::String(value.clone())))
            .collect();
        let payload = |message: &str, details: Map<String, Value>| ErrorPayload {
            code: complaint.code,
            message: message.to_owned(),
            details: Some(details).filter(|details| !details.is_empty()),
        };
        let text = self.say(to, in_reply_to, payload(&complaint.message, details.clone()));
        if text.len() <= MAX_ERROR_BYTES {
            return text;
        }
        // First the explanation is cut and goes, then the member, or else the id.
        let short: String = complaint.message.chars().take(SHORT_MESSAGE_CHARS).collect();
        let reason_only: Map<_, _> =
            details.clone().into_iter().filter(|(name, _)| name == "reason").collect();
        for (message, details) in [(&*short, &details), ("", &details), ("", &reason_only)] {
            let text = self.say(to, in_reply_to, payload(message, details.clone()));
            if text.len() <= MAX_ERROR_BYTES {
                return text;
            }
        }
        self.say(to, None, payload("", details))
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::{Envelope, Rules};

    use super::*;

    fn parse(text: &Arc<str>) -> (Option<String>, ErrorPayload) {
        let envelope = Envelope::parse(text, Rules::V1_STRICT).unwrap();
        let payload = envelope.payload().unwrap();
        (envelope.correlation_id.map(Into::into), payload)
    }

    #[test]
    fn an_error_names_code_reason_and_the_id_it_answers() {
        let voice = Voice::new(Identity::generate());
        let text = voice.error("x", Some("m1"), &Complaint::refusal(RefusalReason::QueueFull));
        let (id, payload) = parse(&text);
        assert_eq!(id.as_deref(), Some("m1"));
        assert_eq!(payload.code, ErrorCode::ConnectionRefused);
        assert_eq!(payload.details.unwrap()["reason"], "queue_full");
    }

    #[test]
    fn what_policy_says_is_told_without_control_characters_and_not_at_any_length() {
        let voice = Voice::new(Identity::generate());
        let did = Identity::generate().did().to_owned();
        for (text, told) in [
            ("not today", "not today".to_owned()),
            ("", "refused by policy".to_owned()),
            ("\u{1b}[31m\n", "[31m".to_owned()),
            (&*"x".repeat(300), "x".repeat(256)),
            (&*"é".repeat(300), "é".repeat(64)),
        ] {
            let denial = Denial { reason: RefusalReason::Denied, text: text.into() };
            let error = voice.error(&did, Some("m1"), &Complaint::denial(&denial));
            assert!(error.len() <= MAX_ERROR_BYTES, "{} bytes", error.len());
            let (id, payload) = parse(&error);
            assert_eq!((id.as_deref(), payload.message), (Some("m1"), told));
            assert_eq!(payload.details.unwrap()["reason"], "denied");
        }
    }

    #[test]
    fn an_error_stays_small_whatever_it_is_about() {
        let voice = Voice::new(Identity::generate());
        let did = Identity::generate().did().to_owned();
        let long = "\u{1}".repeat(128);
        for id in ["m1", &"é".repeat(64), &long] {
            for member in ["payload.sdp", &"\u{1}".repeat(60_000), &"x".repeat(60_000)] {
                let complaint =
                    Complaint::new(ErrorCode::MalformedMessage, "unknown").about(member);
                let text = voice.error(&did, Some(id), &complaint);
                assert!(text.len() <= MAX_ERROR_BYTES, "{} bytes", text.len());
                let (answered, _) = parse(&text);
                assert_eq!(answered.as_deref(), Some(id).filter(|id| *id != long));
            }
        }
    }
}
