//! The messages of the load: OFFERs of an exact size, and what an answer that is none says.

use std::fmt;

use conexus_protocol::{Draft, Identity, Offer, Unregister};
use serde_json::Value;

/// Whether OFFERs carry a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signing {
    Signed,
    Unsigned,
}

/// Of a text, the start in which an OFFER of ours has its id.
const ID_WITHIN: usize = 256;

/// An OFFER in canonical form, of exactly so many bytes unless what must be in it is longer. Its
/// id has `number` in it, for [`number`] to find.
pub(super) fn offer(
    from: &Identity,
    to: &str,
    number: u32,
    bytes: usize,
    signing: Signing,
) -> String {
    let id = format!("{number:08x}-0000-4000-8000-{:012x}", rand::random::<u64>() >> 16);
    let with = |sdp: String| Draft::new(to, Offer { sdp }).with_id(id.clone());
    let empty = with(String::new());
    let written = |draft: &Draft| {
        let text = draft.sign(from);
        match signing {
            Signing::Signed => text,
            Signing::Unsigned => unsigned(text),
        }
    };
    let filler = bytes.saturating_sub(written(&empty).len());
    let offer = Draft { timestamp: empty.timestamp, ..with("x".repeat(filler)) };
    written(&offer)
}

/// The same message with an empty signature, which counts as none; still in canonical form.
fn unsigned(mut text: String) -> String {
    const MEMBER: &str = "\"signature\":\"";
    if let Some(at) = text.find(MEMBER).map(|at| at + MEMBER.len())
        && let Some(length) = text[at..].find('"')
    {
        text.replace_range(at..at + length, "");
    }
    text
}

/// An agent's farewell.
pub(super) fn unregister(from: &Identity) -> String {
    Draft::new(from.did(), Unregister::default()).sign(from)
}

/// The id of an OFFER of ours.
pub(super) fn id(text: &str) -> &str {
    let value = text.split_once("\"id\":\"").map_or("", |(_, value)| value);
    value.split_once('"').map_or("", |(id, _)| id)
}

/// The `number` of an OFFER that arrived, also where its server wrote it anew.
pub(super) fn number(text: &[u8]) -> Option<u32> {
    const MEMBER: &[u8] = b"\"id\"";
    let text = &text[..text.len().min(ID_WITHIN)];
    let at = text.windows(MEMBER.len()).position(|part| part == MEMBER)?;
    let value = &text[at + MEMBER.len()..];
    let digits = value.iter().position(u8::is_ascii_hexdigit)?;
    let digits = std::str::from_utf8(value.get(digits..digits + 8)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

/// What a text is to its receiver.
pub(super) enum Arrival {
    Message,
    Refusal(Refusal),
}

impl Arrival {
    /// What begins as the sender's OFFERs do is one, and so is what is no ERROR. Only of the rest is
    /// more than the start looked at.
    pub(super) fn of(text: &[u8], expected: &[u8]) -> Self {
        if text.starts_with(expected) {
            return Self::Message;
        }
        Refusal::read(text).map_or(Self::Message, Self::Refusal)
    }
}

/// How a canonical message of that sender begins.
pub(super) fn start_of_messages(from: &Identity) -> Vec<u8> {
    format!("{{\"from\":\"{}\",", from.did()).into_bytes()
}

/// An ERROR, as the server worded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    code: String,
    reason: Option<String>,
    message: String,
}

impl Refusal {
    /// Reads a text that is an ERROR.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        const ERROR: &[u8] = b"\"ERROR\"";
        if !text.windows(ERROR.len()).any(|part| part == ERROR) {
            return None;
        }
        let json: Value = serde_json::from_slice(text).ok()?;
        if json["type"] != "ERROR" {
            return None;
        }
        let payload = &json["payload"];
        let words = |value: &Value| value.as_str().map(str::to_owned);
        Some(Self {
            code: words(&payload["code"]).unwrap_or_else(|| "ERROR".to_owned()),
            reason: words(&payload["details"]["reason"]),
            message: words(&payload["message"]).unwrap_or_default(),
        })
    }

    /// The name by which it is counted: the reason, or the code where there is none.
    pub(super) fn name(&self) -> &str {
        self.reason.as_deref().unwrap_or(&self.code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, reason, message } = self;
        match reason {
            Some(reason) => write!(f, "{code} ({reason}): {message}"),
            None => write!(f, "{code}: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::{Envelope, Rules, canonicalize};

    use super::*;

    fn identities() -> (Identity, Identity) {
        (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]))
    }

    #[test]
    fn an_offer_has_the_size_asked_for_and_the_form_that_is_fast_to_verify() {
        let (a, b) = identities();
        for signing in [Signing::Signed, Signing::Unsigned] {
            for bytes in [600, 1500, 60_000] {
                let text = offer(&a, b.did(), 7, bytes, signing);
                assert_eq!(text.len(), bytes, "{signing:?}");
                assert_eq!(canonicalize(&text).as_deref(), Ok(&*text));
                let envelope = Envelope::parse(&text, Rules::V1_1).unwrap();
                assert_eq!(envelope.is_signed(), signing == Signing::Signed);
                let verified = envelope.verify(a.id().public_key());
                assert_eq!(verified.is_ok(), signing == Signing::Signed);
            }
        }
        let smallest = offer(&a, b.did(), 7, 1, Signing::Unsigned);
        assert!(Envelope::parse(&smallest, Rules::V1_1).is_ok());
    }

    #[test]
    fn an_offer_tells_its_number_also_when_it_was_written_anew() {
        let (a, b) = identities();
        let text = offer(&a, b.did(), 0x00ab_cdef, 1500, Signing::Signed);
        assert_eq!(number(text.as_bytes()), Some(0x00ab_cdef));
        assert!(id(&text).starts_with("00abcdef-") && id(&text).len() == 36);
        assert!(text.as_bytes().starts_with(&start_of_messages(&a)));
        assert_eq!(number(br#"{"type": "OFFER", "id": "0000000a-0000"}"#), Some(10));
        assert_eq!(number(br#"{"from":"x"}"#), None);
    }

    #[test]
    fn an_error_is_told_from_an_offer_and_named_by_its_reason() {
        let (a, b) = identities();
        let expected = start_of_messages(&a);
        let text = offer(&a, b.did(), 1, 600, Signing::Signed);
        assert!(matches!(Arrival::of(text.as_bytes(), &expected), Arrival::Message));
        assert!(matches!(
            Arrival::of(br#"{"type": "OFFER", "from": "did:key:z"}"#, &expected),
            Arrival::Message
        ));
        let error = br#"{"payload":{"code":"CONNECTION_REFUSED","details":{"reason":"queue_full"},"message":"full"},"type":"ERROR"}"#;
        let Arrival::Refusal(refusal) = Arrival::of(error, &expected) else { panic!("an error") };
        assert_eq!(refusal.name(), "queue_full");
        assert_eq!(refusal.to_string(), "CONNECTION_REFUSED (queue_full): full");
        let bare = Refusal::read(br#"{"payload":{"code":"TIMEOUT"},"type":"ERROR"}"#).unwrap();
        assert_eq!(bare.name(), "TIMEOUT");
    }
}
