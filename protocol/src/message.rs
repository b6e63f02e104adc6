//! A message that outlives its text: what the client hands to its handlers.
//!
//! An [`Envelope`] with everything owned and the payload read.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::envelope::Envelope;
use crate::kind::{MessageType, Rules};
use crate::malformed::{Malformed, MalformedReason};
use crate::payload::Payload;
use crate::timestamp::Timestamp;

/// An owned message, parsed. Its signature is not verified; that is [`Envelope::verify`]'s.
#[derive(Clone, PartialEq)]
pub struct Message {
    /// The message's id.
    pub id: String,
    /// The id being answered.
    pub correlation_id: Option<String>,
    /// When it was written, by the sender's clock.
    pub timestamp: Option<Timestamp>,
    /// Who says to have sent it.
    pub from: String,
    /// Whom it is for.
    pub to: String,
    /// What it says.
    pub payload: Payload,
    /// The signature, base64.
    pub signature: String,
    /// The text, as received.
    pub text: Arc<str>,
}

impl Message {
    /// Parses, checks the schema and reads the payload.
    ///
    /// # Errors
    /// As [`Envelope::parse`] and [`Envelope::payload`].
    pub fn parse(text: &str, rules: Rules) -> Result<Self, Malformed> {
        Self::try_from(&Envelope::parse(text, rules)?)
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> MessageType {
        self.payload.kind()
    }
}

impl TryFrom<&Envelope<'_>> for Message {
    type Error = Malformed;

    fn try_from(envelope: &Envelope<'_>) -> Result<Self, Malformed> {
        let payload = Payload::read(envelope.kind, envelope.raw_payload())
            .map_err(|_| envelope.unreadable_payload())?;
        Ok(Self {
            id: envelope.id.clone().into_owned(),
            correlation_id: envelope.correlation_id.clone().map(|id| id.into_owned()),
            timestamp: envelope.timestamp,
            from: envelope.from.clone().into_owned(),
            to: envelope.to.clone().into_owned(),
            payload,
            signature: envelope.signature.clone().into_owned(),
            text: envelope.text().into(),
        })
    }
}

impl Payload {
    /// Reads a payload that somebody wrote by hand, checked as that of a message of this type.
    ///
    /// # Errors
    /// As [`Envelope::parse`] and [`Envelope::payload`].
    pub fn parse(kind: MessageType, json: &str, rules: Rules) -> Result<Self, Malformed> {
        let fault = |_| Malformed::new(MalformedReason::WrongType("payload"), None);
        let payload: &RawValue = serde_json::from_str(json).map_err(fault)?;
        let text = format!(
            r#"{{"from":"","id":"-","payload":{payload},"signature":"","to":"","type":"{kind}"}}"#
        );
        Message::parse(&text, rules).map(|message| message.payload)
    }
}

/// Leaves out the text, which may hold credentials.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("correlation_id", &self.correlation_id)
            .field("timestamp", &self.timestamp)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Draft, Identity, Ping, Register};

    #[test]
    fn a_message_keeps_its_text_and_its_payload() {
        let text = Draft::new("x", Ping { sequence: Some(7_i64.into()) })
            .in_reply_to("m-0")
            .sign(&Identity::from_seed(&[1; 32]));
        let message = Message::parse(&text, Rules::V1_STRICT).unwrap();
        assert_eq!(message.kind(), MessageType::Ping);
        assert_eq!(message.payload, Ping { sequence: Some(7_i64.into()) }.into());
        assert_eq!(message.correlation_id.as_deref(), Some("m-0"));
        assert_eq!(&*message.text, text);
    }

    #[test]
    fn a_payload_written_by_hand_is_checked_like_any_other() {
        let parse = |kind, json| Payload::parse(kind, json, Rules::V1_STRICT);
        let offer = parse(MessageType::Offer, r#" {"sdp": "v=0"} "#).unwrap();
        assert_eq!(offer, crate::Offer { sdp: "v=0".into() }.into());
        for (kind, json, member) in [
            (MessageType::Offer, "{}", "payload.sdp"),
            (MessageType::Offer, r#"{"sdp":1}"#, "payload.sdp"),
            (MessageType::Offer, r#"{"sdp":"x"},"to":"y""#, "payload"),
            (MessageType::Offer, "nope", "payload"),
            (MessageType::Ping, "[]", "payload"),
        ] {
            assert_eq!(parse(kind, json).unwrap_err().member(), Some(member), "{json}");
        }
    }

    #[test]
    fn null_members_read_as_absent() {
        let text = r#"{"from":"","id":"1","payload":{"reason":null,"sequence":null},
            "signature":"","to":"","type":"PING"}"#;
        let message = Message::parse(text, Rules::V1_COMPAT).unwrap();
        assert_eq!(message.payload, Ping::default().into());
    }

    #[test]
    fn debug_does_not_show_credentials() {
        let register = Register {
            nonce: Some("n".into()),
            audience: Some("a".into()),
            credentials: Some("s3cret".into()),
            ..Default::default()
        };
        let text = Draft::new("x", register).sign(&Identity::generate());
        let message = Message::parse(&text, Rules::V1_1).unwrap();
        assert!(!format!("{message:?}").contains("s3cret"));
    }
}
