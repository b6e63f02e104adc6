//! The envelope of a message: parsed once, checked whole, borrowed from its text.
//!
//! One scan yields everything: that it is JSON, where its members are, and whether the text is
//! its own canonical form, in which case the signed bytes are the text without its signature.
//! The gateway parses every message here and forwards the text; the payload stays as it is
//! until [`Envelope::payload`] asks for it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;

use crate::json::canonical::canonicalize;
use crate::json::index::{Index, Member};
use crate::json::scan::scan;
use crate::json::{Kind, Limits};
use crate::keys::{PublicKey, SignatureBytes, SignatureError};
use crate::kind::{MessageType, Rules};
use crate::malformed::{Malformed, MalformedReason, is_valid_id};
use crate::schema;
use crate::timestamp::Timestamp;

/// The only version there is, on v1 and v1.1 alike.
pub(crate) const VERSION: &str = "1.0";

/// One parsed, schema-checked message, borrowing from its text.
#[derive(Clone)]
pub struct Envelope<'a> {
    /// The message's id: opaque, 1 to 128 bytes.
    pub id: Cow<'a, str>,
    /// The id being answered.
    pub correlation_id: Option<Cow<'a, str>>,
    /// When it was written, by the sender's clock.
    pub timestamp: Option<Timestamp>,
    /// Who says to have sent it.
    pub from: Cow<'a, str>,
    /// Whom it is for.
    pub to: Cow<'a, str>,
    /// Its type.
    pub kind: MessageType,
    /// The signature, base64; unverified.
    pub signature: Cow<'a, str>,
    /// The envelope member `audience` of a REGISTER, where it is a string.
    pub audience: Option<Cow<'a, str>>,
    text: &'a str,
    rules: Rules,
    canonical: bool,
    payload: Range<usize>,
    /// The member `signature`, name and value.
    signature_member: Range<usize>,
    /// The value of `timestamp`.
    timestamp_value: Option<Range<usize>>,
    /// The value of `traceparent`, where it is a string; else empty, as no value is.
    traceparent: Range<usize>,
}

impl<'a> Envelope<'a> {
    /// Parses and checks the whole schema: JSON, envelope, payload by type. Never panics, on
    /// any text.
    ///
    /// # Errors
    /// [`Malformed`], with the first fault in that order.
    pub fn parse(text: &'a str, rules: Rules) -> Result<Self, Malformed> {
        let mut index = Index::default();
        let canonical = scan(text, Limits::Enforced, &mut index)
            .map_err(|error| Malformed::json(text, error, &index))?;
        if index.root != Some(Kind::Object) {
            return Err(Malformed::new(MalformedReason::NotObject, None));
        }
        let members = Members::new(text, &index.members);
        Self::check(&members, &index.payload, rules, canonical).map_err(|reason| {
            let id = members.string(members.id, "id").ok().flatten().filter(|id| is_valid_id(id));
            Malformed::new(reason, id.map(Cow::into_owned))
        })
    }

    fn check(
        members: &Members<'a, '_>,
        payload: &[Member<'a>],
        rules: Rules,
        canonical: bool,
    ) -> Result<Self, MalformedReason> {
        let text = members.text;
        let id = members.required_string(members.id, "id")?;
        if !is_valid_id(&id) {
            return Err(MalformedReason::BadId);
        }
        let correlation_id = match members.correlation_id {
            Some(member) if member.kind == Kind::Null => None,
            member => members.string(member, "correlation_id")?,
        };
        let timestamp = members.string(members.timestamp, "timestamp")?;
        let timestamp = timestamp
            .map(|text| Timestamp::parse(&text).ok_or(MalformedReason::BadTimestamp))
            .transpose()?;
        let from = members.required_string(members.from, "from")?;
        let to = members.required_string(members.to, "to")?;
        let word = members.required_string(members.kind, "type")?;
        let raw_payload = members.payload.ok_or(MalformedReason::MissingField("payload"))?;
        if raw_payload.kind != Kind::Object {
            return Err(MalformedReason::WrongType("payload"));
        }
        let signature_member =
            members.signature.ok_or(MalformedReason::MissingField("signature"))?;
        let signature = members.required_string(Some(signature_member), "signature")?;
        if members.string(members.version, "version")?.is_some_and(|version| version != VERSION) {
            return Err(MalformedReason::UnsupportedVersion);
        }
        let kind = MessageType::parse(&word)
            .filter(|kind| rules.knows(*kind))
            .ok_or(MalformedReason::UnknownType)?;
        let values = payload.iter().map(|m| (&*m.name, m.kind, &text[m.value.clone()]));
        schema::check(kind, rules, values)?;

        // Of an unknown member no type is asked.
        let audience = members.string(members.audience, "audience").ok().flatten();
        let traceparent = members.traceparent.filter(|member| member.kind == Kind::String);
        Ok(Self {
            id,
            correlation_id,
            timestamp,
            from,
            to,
            kind,
            signature,
            audience: audience.filter(|_| kind == MessageType::Register),
            traceparent: traceparent.map_or(0..0, |member| member.value.clone()),
            text,
            rules,
            canonical,
            payload: raw_payload.value.clone(),
            signature_member: signature_member.span.clone(),
            timestamp_value: members.timestamp.map(|member| member.value.clone()),
        })
    }

    /// The text as it was received.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The rules that it was judged by.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// The payload as it was received: the text of a JSON object.
    #[must_use]
    pub fn raw_payload(&self) -> &'a str {
        &self.text[self.payload.clone()]
    }

    /// The payload as its typed struct; null members count as absent.
    ///
    /// # Errors
    /// `wrong_type:payload` where `T` cannot hold it: another type's struct, or an integer
    /// beyond 64 bits where the struct has such.
    pub fn payload<T: Deserialize<'a>>(&self) -> Result<T, Malformed> {
        serde_json::from_str(self.raw_payload()).map_err(|_| self.unreadable_payload())
    }

    pub(crate) fn unreadable_payload(&self) -> Malformed {
        Malformed::new(MalformedReason::WrongType("payload"), Some(self.id.clone().into_owned()))
    }

    /// Whether the received text is its own canonical form, byte for byte.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// Whether there is a signature: `""` counts as none.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        !self.signature.is_empty()
    }

    /// The envelope member `traceparent`, where it is a string, as it is. To the protocol it is a
    /// member like any other unknown one; it names the trace that the message is part of to whoever
    /// traces (W3C Trace Context).
    #[must_use]
    pub fn traceparent(&self) -> Option<Cow<'a, str>> {
        let value = self.traceparent.clone();
        (!value.is_empty()).then(|| crate::json::string::decode(&self.text[value]))
    }

    /// The bytes under the signature: canonical JSON of the message without it.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        self.signed_text(None).into_bytes()
    }

    /// Verifies the signature; where the rules tolerate the reference client, also over the
    /// timestamp without its `Z`, which that client adds after it has signed.
    ///
    /// # Errors
    /// [`SignatureError`]: not the base64 of a signature, or not this key's.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureError> {
        let signature = SignatureBytes::parse(&self.signature)?;
        let verdict = key.verify(self.signed_text(None).as_bytes(), &signature);
        match (verdict, self.timestamp_without_z()) {
            (Err(_), Some(timestamp)) => {
                key.verify(self.signed_text(Some(&timestamp)).as_bytes(), &signature)
            }
            (verdict, _) => verdict,
        }
    }

    /// What the reference client signed for a timestamp that ends in `Z`, as a JSON literal.
    fn timestamp_without_z(&self) -> Option<String> {
        let value = self.timestamp_value.clone().filter(|_| self.rules.tolerates_quirks())?;
        let timestamp = crate::json::string::decode(&self.text[value]);
        // A timestamp has no characters to escape.
        timestamp.strip_suffix('Z').map(|local| format!("\"{local}\""))
    }

    /// The signed text, with another literal in the timestamp's place if there is one.
    fn signed_text(&self, timestamp: Option<&str>) -> String {
        let mut edits = [
            (with_one_comma(self.text, self.signature_member.clone()), ""),
            match (&self.timestamp_value, timestamp) {
                (Some(value), Some(timestamp)) => (value.clone(), timestamp),
                _ => (0..0, ""),
            },
        ];
        edits.sort_by_key(|(span, _)| span.start);
        let mut unsigned = String::with_capacity(self.text.len());
        let mut copied = 0;
        for (span, replacement) in edits {
            unsigned.push_str(&self.text[copied..span.start]);
            unsigned.push_str(replacement);
            copied = span.end;
        }
        unsigned.push_str(&self.text[copied..]);
        if self.canonical {
            return unsigned;
        }
        // It is JSON still, so this cannot fail; if it did, nothing would verify.
        canonicalize(&unsigned).unwrap_or(unsigned)
    }
}

/// A member's span and the comma that goes with it, so that what is left is an object.
fn with_one_comma(text: &str, member: Range<usize>) -> Range<usize> {
    const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];
    let after = text[member.end..].trim_start_matches(SPACE);
    if let Some(rest) = after.strip_prefix(',') {
        return member.start..text.len() - rest.len();
    }
    let before = text[..member.start].trim_end_matches(SPACE);
    let start = before.strip_suffix(',').map_or(member.start, str::len);
    start..member.end
}

/// The members of an envelope that mean something, found in one pass over all of them.
struct Members<'a, 'i> {
    text: &'a str,
    id: Option<&'i Member<'a>>,
    correlation_id: Option<&'i Member<'a>>,
    timestamp: Option<&'i Member<'a>>,
    from: Option<&'i Member<'a>>,
    to: Option<&'i Member<'a>>,
    kind: Option<&'i Member<'a>>,
    payload: Option<&'i Member<'a>>,
    version: Option<&'i Member<'a>>,
    signature: Option<&'i Member<'a>>,
    audience: Option<&'i Member<'a>>,
    traceparent: Option<&'i Member<'a>>,
}

impl<'a, 'i> Members<'a, 'i> {
    fn new(text: &'a str, members: &'i [Member<'a>]) -> Self {
        let mut found = Self {
            text,
            id: None,
            correlation_id: None,
            timestamp: None,
            from: None,
            to: None,
            kind: None,
            payload: None,
            version: None,
            signature: None,
            audience: None,
            traceparent: None,
        };
        for member in members {
            let place = match &*member.name {
                "id" => &mut found.id,
                "correlation_id" => &mut found.correlation_id,
                "timestamp" => &mut found.timestamp,
                "from" => &mut found.from,
                "to" => &mut found.to,
                "type" => &mut found.kind,
                "payload" => &mut found.payload,
                "version" => &mut found.version,
                "signature" => &mut found.signature,
                "audience" => &mut found.audience,
                "traceparent" => &mut found.traceparent,
                _ => continue,
            };
            *place = Some(member);
        }
        found
    }

    /// The value of an optional member, which must be a string.
    fn string(
        &self,
        member: Option<&Member<'a>>,
        name: &'static str,
    ) -> Result<Option<Cow<'a, str>>, MalformedReason> {
        let Some(member) = member else { return Ok(None) };
        member.string(self.text).map(Some).ok_or(MalformedReason::WrongType(name))
    }

    fn required_string(
        &self,
        member: Option<&Member<'a>>,
        name: &'static str,
    ) -> Result<Cow<'a, str>, MalformedReason> {
        self.string(member, name)?.ok_or(MalformedReason::MissingField(name))
    }
}

/// Leaves out text and payload, which may hold credentials.
impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("correlation_id", &self.correlation_id)
            .field("timestamp", &self.timestamp)
            .field("from", &self.from)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Draft, Identity, Intent, Offer, Ping};

    const UNSIGNED: &str = r#"{"from":"a","id":"1","payload":{},"to":"b","type":"PING"}"#;

    #[test]
    fn the_signature_is_cut_out_wherever_it_stands() {
        for text in [
            r#"{"signature":"","from":"a","id":"1","payload":{},"to":"b","type":"PING"}"#,
            r#"{"from":"a","id":"1","payload":{},"to":"b","type":"PING","signature":""}"#,
            r#"{"from":"a","id":"1","payload":{},"signature":"","to":"b","type":"PING"}"#,
            r#" {"from" : "a", "signature" : "" , "type":"PING","id":"1","payload":{ },"to":"b"} "#,
            r#"{"type":"PING","id":"1","payload":{},"to":"b","from":"a" , "signature":"" }"#,
            r#"{"type":"PING","\u0069d":"1","payload":{},"to":"b","from":"a","signature":""}"#,
        ] {
            let envelope = Envelope::parse(text, Rules::V1_STRICT).unwrap();
            assert_eq!(String::from_utf8(envelope.signed_bytes()).unwrap(), UNSIGNED, "{text}");
        }
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        let text = Draft::new("x", Ping::default()).sign(&Identity::from_seed(&[1; 32]));
        let envelope = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
        assert!(matches!(envelope.id, Cow::Borrowed(_)));
        assert!(matches!(envelope.from, Cow::Borrowed(_)));
        assert_eq!(envelope.raw_payload(), "{}");
    }

    #[test]
    fn an_id_has_one_to_128_bytes() {
        let with_id = |id: &str| {
            let text = format!(
                r#"{{"from":"a","id":"{id}","payload":{{}},"signature":"","to":"b","type":"PING"}}"#
            );
            Envelope::parse(&text, Rules::V1_STRICT).map(|_| ()).map_err(|error| error.reason)
        };
        assert_eq!(with_id("1"), Ok(()));
        assert_eq!(with_id(&"é".repeat(64)), Ok(()));
        assert_eq!(with_id(""), Err(MalformedReason::BadId));
        assert_eq!(with_id(&"é".repeat(65)), Err(MalformedReason::BadId));
    }

    #[test]
    fn a_timestamp_may_be_signed_without_its_z_by_the_reference_client_alone() {
        let identity = Identity::from_seed(&[1; 32]);
        let local = r#"{"from":"a","id":"1","payload":{},"timestamp":"2026-01-12T10:00:00","#;
        let signed = format!(r#"{local}"to":"b","type":"PING"}}"#);
        let signature = identity.sign(signed.as_bytes());
        for z in ["Z", r"\u005a"] {
            let text = format!(
                r#"{{"signature": "{signature}", "from":"a","id":"1","payload":{{}},
                "timestamp":"2026-01-12T10:00:00{z}", "to":"b","type":"PING"}}"#
            );
            let verify =
                |rules| Envelope::parse(&text, rules).unwrap().verify(identity.id().public_key());
            assert_eq!(verify(Rules::V1_COMPAT), Ok(()));
            assert_eq!(verify(Rules::V1_STRICT), Err(SignatureError::Mismatch));
            assert_eq!(verify(Rules::V1_1), Err(SignatureError::Mismatch));
        }
    }

    #[test]
    fn an_empty_signature_counts_as_none_and_never_verifies() {
        let text = r#"{"from":"a","id":"1","payload":{},"signature":"","to":"b","type":"PING"}"#;
        let envelope = Envelope::parse(text, Rules::V1_COMPAT).unwrap();
        assert!(!envelope.is_signed());
        let key = Identity::from_seed(&[1; 32]);
        assert_eq!(envelope.verify(key.id().public_key()), Err(SignatureError::Encoding));
    }

    #[test]
    fn the_deepest_payload_that_is_taken_can_be_read() {
        // The envelope, the payload and `params` are three of the levels.
        let levels = crate::MAX_DEPTH - 3;
        let with_levels = |levels| {
            let deep = "[".repeat(levels) + &"]".repeat(levels);
            format!(
                r#"{{"from":"","id":"1","payload":{{"params":{{"x":{deep}}}}},"signature":"","to":"","type":"INTENT"}}"#
            )
        };
        let text = with_levels(levels);
        let envelope = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
        assert!(envelope.payload::<Intent>().unwrap().params.is_some());
        assert!(Envelope::parse(&with_levels(levels + 1), Rules::V1_STRICT).is_err());
    }

    #[test]
    fn a_payload_read_as_another_type_is_an_error() {
        let text = Draft::new("x", Ping::default()).sign(&Identity::from_seed(&[1; 32]));
        let envelope = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
        let error = envelope.payload::<Offer>().unwrap_err();
        assert_eq!(error.to_string(), "wrong_type:payload");
        assert_eq!(error.id.as_deref(), Some(&*envelope.id));
    }

    #[test]
    fn a_traceparent_is_an_unknown_member_that_can_be_asked_for() {
        let identity = Identity::from_seed(&[1; 32]);
        let rest = r#""from":"a","id":"1","payload":{},"to":"b""#;
        let signed = format!(r#"{{{rest},"traceparent":"00-x","type":"PING"}}"#);
        let signature = identity.sign(signed.as_bytes());
        let text =
            format!(r#"{{"signature":"{signature}",{rest},"type":"PING","traceparent":"00-x"}}"#);
        let envelope = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
        assert!(matches!(envelope.traceparent(), Some(Cow::Borrowed("00-x"))));
        envelope.verify(identity.id().public_key()).unwrap();
        for other in ["null", "7", "[]", r#"{"a":"b"}"#] {
            let text = text.replace(r#""00-x""#, other);
            let envelope = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
            assert_eq!(envelope.traceparent(), None, "{other}");
            assert!(envelope.verify(identity.id().public_key()).is_err());
        }
    }

    #[test]
    fn debug_shows_no_payload() {
        let text = Draft::new("x", Offer { sdp: "s3cret".into() }).sign(&Identity::generate());
        let envelope = Envelope::parse(&text, Rules::V1_STRICT).unwrap();
        assert!(!format!("{envelope:?}").contains("s3cret"));
    }
}
