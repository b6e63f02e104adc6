//! Messages of our own, from draft to signed wire text.
//!
//! What we send is canonical, so that receivers verify over the text as it is. The client and
//! the gateway's own answers are written here.

use uuid::Builder;

use crate::envelope::VERSION;
use crate::json::canonical::canonicalize_own;
use crate::json::string;
use crate::keys::Identity;
use crate::payload::Payload;
use crate::timestamp::Timestamp;

/// What is to be signed and sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// A fresh UUID v4, unless set.
    pub id: String,
    /// The id being answered.
    pub correlation_id: Option<String>,
    /// The time of writing.
    pub timestamp: Timestamp,
    /// Whom it is for.
    pub to: String,
    /// What it says, and thereby its type.
    pub payload: Payload,
    /// v1 REGISTER only: the URL that was dialed, as a member of the envelope.
    pub audience: Option<String>,
}

impl Draft {
    /// A message of now, with a fresh id, that answers nothing.
    #[must_use]
    pub fn new(to: impl Into<String>, payload: impl Into<Payload>) -> Self {
        Self {
            // From the thread's generator: a call of the system for each id would be felt.
            id: Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
            correlation_id: None,
            timestamp: Timestamp::now(),
            to: to.into(),
            payload: payload.into(),
            audience: None,
        }
    }

    /// Marks it as the answer to the message of that id.
    #[must_use]
    pub fn in_reply_to(self, id: impl Into<String>) -> Self {
        Self { correlation_id: Some(id.into()), ..self }
    }

    /// Gives it that id.
    #[must_use]
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }

    /// The signed wire text: canonical JSON, so that receivers need not rebuild it.
    ///
    /// Payloads nested beyond [`crate::MAX_DEPTH`] are written all the same; receivers refuse them.
    #[must_use]
    pub fn sign(&self, from: &Identity) -> String {
        let payload = serde_json::to_string(&self.payload).expect("payloads are plain data");
        // The canonical order of the envelope's members; `signature` comes between the halves.
        let mut text = String::with_capacity(payload.len() + 512);
        text.push('{');
        push_member(&mut text, "audience", self.audience.as_deref());
        push_member(&mut text, "correlation_id", self.correlation_id.as_deref());
        push_member(&mut text, "from", Some(from.did()));
        push_member(&mut text, "id", Some(&self.id));
        text.push_str("\"payload\":");
        text.push_str(&canonicalize_own(&payload));
        text.push(',');
        let signature_at = text.len();
        push_member(&mut text, "timestamp", Some(&self.timestamp.to_string()));
        push_member(&mut text, "to", Some(&self.to));
        push_member(&mut text, "type", Some(self.payload.kind().as_str()));
        push_member(&mut text, "version", Some(VERSION));
        text.pop(); // the last comma
        text.push('}');

        let signature = from.sign(text.as_bytes());
        text.insert_str(signature_at, &format!("\"signature\":\"{signature}\","));
        text
    }
}

/// Writes a member and a comma, if there is a value.
fn push_member(text: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        string::write(text, name);
        text.push(':');
        string::write(text, value);
        text.push(',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorCode, ErrorPayload, Offer, Register, canonicalize};

    #[test]
    fn a_draft_becomes_exactly_this_text() {
        let identity = Identity::from_seed(&[7; 32]);
        let mut draft = Draft::new("did:key:x", Offer { sdp: "é\r\n".into() })
            .with_id("m-1")
            .in_reply_to("m-0");
        draft.timestamp = Timestamp::from_unix_millis(1_775_797_231_075);
        draft.audience = Some("wss://h/ws".into());
        let text = draft.sign(&identity);
        let did = identity.did();
        let (head, tail) = (
            format!(
                r#"{{"audience":"wss://h/ws","correlation_id":"m-0","from":"{did}","id":"m-1","payload":{{"sdp":"\u00e9\r\n"}},"#
            ),
            r#""timestamp":"2026-04-10T05:00:31.075000Z","to":"did:key:x","type":"OFFER","version":"1.0"}"#,
        );
        let signature = identity.sign(format!("{head}{tail}").as_bytes());
        assert_eq!(text, format!(r#"{head}"signature":"{signature}",{tail}"#));
    }

    #[test]
    fn what_is_signed_is_canonical_whatever_the_order_of_its_parts() {
        let details = serde_json::json!({"z": 1e16, "a": [0.5, -0.0, "\u{7f}"], "é": null});
        let payload = ErrorPayload {
            code: ErrorCode::Timeout,
            message: "\u{1f600}".into(),
            details: details.as_object().cloned(),
        };
        let text = Draft::new("x", payload).sign(&Identity::generate());
        assert_eq!(canonicalize(&text).as_deref(), Ok(&*text));
    }

    #[test]
    fn two_drafts_have_two_ids() {
        let draft = || Draft::new("x", Register::default());
        assert_ne!(draft().id, draft().id);
    }
}
