//! Why a text is no message, in a form fit to be told to whoever sent it.
//!
//! Display is for logs and speaks the test vectors' notation; peers get [`Malformed::code`] and
//! [`Malformed::member`]. `envelope` makes these.

use crate::codes::ErrorCode;
use crate::json::index::Index;
use crate::json::scan::scan;
use crate::json::{JsonError, JsonErrorKind, Limits, string};
use crate::schema::PayloadFault;

/// The longest `id`, in bytes; the shortest is one.
pub(crate) const MAX_ID_BYTES: usize = 128;

/// How much of a member's name is repeated. All known ones are far shorter.
const MAX_NAME_BYTES: usize = 64;

/// Why a text is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    /// What is wrong.
    pub reason: MalformedReason,
    /// The message's id, where it was a valid one: what an answer may refer to.
    pub id: Option<String>,
    member: Option<String>,
}

impl Malformed {
    /// A fault that the reason itself places.
    #[must_use]
    pub fn new(reason: MalformedReason, id: Option<String>) -> Self {
        let member = reason.member();
        Self { reason, id, member }
    }

    /// A fault of JSON, met while `index` was made.
    pub(crate) fn json(text: &str, error: JsonError, index: &Index<'_>) -> Self {
        let (reason, member) = match error.kind {
            JsonErrorKind::DuplicateMember => {
                let name = name_at(text, error.offset);
                let path = index.path_of(&name);
                (MalformedReason::DuplicateMember(clip(&name)), path)
            }
            JsonErrorKind::LoneSurrogate => (MalformedReason::InvalidUnicode, index.stopped_in()),
            // Without grammar nothing can be told from what.
            JsonErrorKind::Syntax => (MalformedReason::NotJson(error), None),
            _ => (MalformedReason::NotJson(error), index.stopped_in()),
        };
        let id = if error.kind == JsonErrorKind::Syntax { None } else { only_id(text) };
        Self { reason, id, member: member.as_deref().map(clip) }
    }

    /// The error code that fits.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self.reason {
            MalformedReason::UnsupportedVersion => ErrorCode::UnsupportedVersion,
            _ => ErrorCode::MalformedMessage,
        }
    }

    /// The member at fault, as a path: `timestamp`, `payload.sdp`. At most 64 bytes of it.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }
}

/// What is wrong with a message. Displayed as the test vectors call it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedReason {
    /// Not JSON, or beyond the protocol's limits.
    #[error("not_json")]
    NotJson(JsonError),
    /// JSON, but not an object.
    #[error("not_object")]
    NotObject,
    /// Two members of one object, at whatever depth, have this name.
    #[error("duplicate_member")]
    DuplicateMember(String),
    /// Half a surrogate pair.
    #[error("invalid_unicode")]
    InvalidUnicode,
    /// The envelope lacks a member.
    #[error("missing_field:{0}")]
    MissingField(&'static str),
    /// A member of the envelope has another type than it should.
    #[error("wrong_type:{0}")]
    WrongType(&'static str),
    /// `type` is not one that these rules know.
    #[error("unknown_type")]
    UnknownType,
    /// `version` is not `1.0`.
    #[error("unsupported_version")]
    UnsupportedVersion,
    /// `timestamp` is not one.
    #[error("bad_timestamp")]
    BadTimestamp,
    /// `id` is not 1 to 128 bytes long.
    #[error("bad_id")]
    BadId,
    /// The payload has a member that its type does not.
    #[error("unknown_payload_field:{0}")]
    UnknownPayloadField(String),
    /// The payload lacks a member.
    #[error("missing_payload_field:{0}")]
    MissingPayloadField(&'static str),
    /// A member of the payload has another type than it should.
    #[error("wrong_payload_type:{0}")]
    WrongPayloadType(&'static str),
    /// `code` of an ERROR is not one of the seven.
    #[error("unknown_error_code")]
    UnknownErrorCode,
}

impl MalformedReason {
    fn member(&self) -> Option<String> {
        match self {
            Self::NotJson(_) | Self::NotObject | Self::InvalidUnicode => None,
            Self::DuplicateMember(name) => Some(name.clone()),
            Self::MissingField(name) | Self::WrongType(name) => Some((*name).to_owned()),
            Self::UnknownType => Some("type".to_owned()),
            Self::UnsupportedVersion => Some("version".to_owned()),
            Self::BadTimestamp => Some("timestamp".to_owned()),
            Self::BadId => Some("id".to_owned()),
            Self::UnknownPayloadField(name) => Some(clip(&format!("payload.{name}"))),
            Self::MissingPayloadField(name) | Self::WrongPayloadType(name) => {
                Some(format!("payload.{name}"))
            }
            Self::UnknownErrorCode => Some("payload.code".to_owned()),
        }
    }
}

impl From<PayloadFault<'_>> for MalformedReason {
    fn from(fault: PayloadFault<'_>) -> Self {
        match fault {
            PayloadFault::Unknown(name) => Self::UnknownPayloadField(clip(name)),
            PayloadFault::Missing(name) => Self::MissingPayloadField(name),
            PayloadFault::Shape(name) => Self::WrongPayloadType(name),
            PayloadFault::ErrorCode => Self::UnknownErrorCode,
        }
    }
}

/// The start of a name that a stranger chose.
fn clip(name: &str) -> String {
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= MAX_NAME_BYTES;
    name.char_indices().take_while(fits).map(|(_, c)| c).collect()
}

/// The string whose opening quote is at `at`.
fn name_at(text: &str, at: usize) -> String {
    string::read(text, at, Limits::Lifted)
        .map(|literal| string::decode(&text[at..literal.end]).into_owned())
        .unwrap_or_default()
}

/// The `id` of a message that breaks a limit, so that its sender can still be told which it was.
/// None where there are two.
fn only_id(text: &str) -> Option<String> {
    let mut index = Index::default();
    scan(text, Limits::Lifted, &mut index).ok()?;
    let mut ids = index.members.iter().filter(|member| member.name == "id");
    let member = ids.next()?;
    // It must be whole itself: with a lone surrogate it could only be repeated as something else.
    string::read(text, member.value.start, Limits::Enforced).ok()?;
    let id = member.string(text)?;
    (ids.next().is_none() && is_valid_id(&id)).then(|| id.into_owned())
}

pub(crate) fn is_valid_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Envelope, Rules};

    fn fault(text: &str) -> Malformed {
        Envelope::parse(text, Rules::V1_STRICT).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_message_beyond_the_limits_still_names_its_id_and_member() {
        let digits = "1".repeat(crate::MAX_INTEGER_DIGITS + 1);
        let deep = "[".repeat(200) + &"]".repeat(200);
        for (payload, path) in [
            (format!(r#"{{"sequence":{digits}}}"#), "payload.sequence"),
            (format!(r#"{{"args":{{"x":{deep}}}}}"#), "payload.args"),
            (r#"{"sdp":"\ud800"}"#.to_owned(), "payload.sdp"),
            (r#"{"sdp":"a","sdp":"a"}"#.to_owned(), "payload.sdp"),
            (r#"{"args":{"x":1,"x":2},"z":1}"#.to_owned(), "payload.args"),
            (r#"{"sequence":1e999}"#.to_owned(), "payload.sequence"),
        ] {
            let malformed = fault(&format!(r#"{{"payload":{payload},"id":"m-1"}}"#));
            assert_eq!(malformed.id.as_deref(), Some("m-1"));
            assert_eq!(malformed.member(), Some(path));
            assert_eq!(malformed.code(), ErrorCode::MalformedMessage);
        }
    }

    #[test]
    fn an_id_that_is_there_twice_is_not_named() {
        let malformed = fault(r#"{"id":"a","id":"b"}"#);
        assert_eq!(malformed.reason, MalformedReason::DuplicateMember("id".into()));
        assert_eq!(malformed.member(), Some("id"));
        assert_eq!(malformed.id, None);
    }

    #[test]
    fn an_id_that_is_no_valid_string_is_not_named() {
        let malformed = fault(r#"{"id":"m-\ud800"}"#);
        assert_eq!((malformed.member(), malformed.id.as_deref()), (Some("id"), None));
    }

    #[test]
    fn what_is_no_json_has_neither_id_nor_member() {
        let malformed = fault(r#"{"id":"a","payload":{nope"#);
        assert_eq!((malformed.id.as_deref(), malformed.member()), (None, None));
        assert_eq!(malformed.to_string(), "not_json");
    }

    #[test]
    fn names_that_strangers_choose_are_cut_short() {
        let name = "é".repeat(5000);
        let malformed = fault(&format!(
            r#"{{"id":"1","from":"","to":"","type":"PING","signature":"","payload":{{"{name}":1}}}}"#
        ));
        assert!(malformed.member().is_some_and(|member| member.len() <= 64));
        assert!(malformed.to_string().len() < 100);
    }
}
