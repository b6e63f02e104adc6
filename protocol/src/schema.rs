//! Which members each payload has: the tables that decide what is a message.
//!
//! v1's table is the reference's own; v1.1 adds types and widens REGISTER. A member that is not
//! in its table makes the message malformed. `envelope` applies the tables; they are public so
//! that tools can show and compare them.

use crate::codes::ErrorCode;
use crate::json::Kind;
use crate::kind::{MessageType, Rules, Subprotocol};
use crate::payload::{IceServer, Metadata, PresenceState};
use crate::timestamp::Timestamp;

/// What a payload member's value must be. There is no conversion between JSON types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Shape {
    /// A string.
    String,
    /// A number without point and exponent, of any size.
    Integer,
    /// An integer that fits 64 bits and is not negative.
    Unsigned,
    /// Any number.
    Number,
    /// true or false.
    Boolean,
    /// An object, of whatever content.
    Object,
    /// Anything at all.
    Any,
    /// One of the seven error codes.
    ErrorCode,
    /// A list of strings.
    Strings,
    /// A list of message types.
    MessageTypes,
    /// A list of ICE servers.
    IceServers,
    /// What an agent publishes about itself.
    Metadata,
    /// `online` or `offline`.
    PresenceState,
    /// A timestamp.
    Timestamp,
}

impl Shape {
    /// The name of the shape, as the tables of the test vectors have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Unsigned => "unsigned integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::Any => "any",
            Self::ErrorCode => "error code",
            Self::Strings => "list of strings",
            Self::MessageTypes => "list of message types",
            Self::IceServers => "list of ice servers",
            Self::Metadata => "metadata",
            Self::PresenceState => "presence state",
            Self::Timestamp => "timestamp",
        }
    }

    /// Whether a value of this kind, written as `text`, has the shape.
    pub(crate) fn admits(self, kind: Kind, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::String => kind == Kind::String,
            Self::Integer => kind == Kind::Integer,
            Self::Number => matches!(kind, Kind::Integer | Kind::Float),
            Self::Boolean => kind == Kind::Bool,
            Self::Object => kind == Kind::Object,
            Self::ErrorCode => reads_as::<ErrorCode>(text),
            Self::Unsigned => kind == Kind::Integer && reads_as::<u64>(text),
            Self::Strings => reads_as::<Vec<String>>(text),
            Self::MessageTypes => reads_as::<Vec<MessageType>>(text),
            Self::IceServers => reads_as::<Vec<IceServer>>(text),
            // serde takes structs as lists as well.
            Self::Metadata => kind == Kind::Object && reads_as::<Metadata>(text),
            Self::PresenceState => reads_as::<PresenceState>(text),
            Self::Timestamp => reads_as::<Timestamp>(text),
        }
    }
}

/// For the few values with an inner structure, the type that they are read into is the schema.
fn reads_as<'t, T: serde::Deserialize<'t>>(text: &'t str) -> bool {
    serde_json::from_str::<T>(text).is_ok()
}

/// A row of a payload's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadMember {
    /// The member's name.
    pub name: &'static str,
    /// What its value must be.
    pub shape: Shape,
    /// Whether the payload must have it.
    pub required: bool,
    /// Whether null will do.
    pub nullable: bool,
}

const fn required(name: &'static str, shape: Shape) -> PayloadMember {
    PayloadMember { name, shape, required: true, nullable: false }
}

const fn optional(name: &'static str, shape: Shape) -> PayloadMember {
    PayloadMember { name, shape, required: false, nullable: false }
}

const fn nullable(name: &'static str, shape: Shape) -> PayloadMember {
    PayloadMember { name, shape, required: false, nullable: true }
}

const REGISTER: &[PayloadMember] = &[required("public_key", Shape::String)];
const REGISTER_V1_1: &[PayloadMember] = &[
    required("public_key", Shape::String),
    required("nonce", Shape::String),
    required("audience", Shape::String),
    optional("metadata", Shape::Metadata),
    optional("credentials", Shape::String),
];
const UNREGISTER: &[PayloadMember] = &[nullable("reason", Shape::String)];
const SDP: &[PayloadMember] = &[required("sdp", Shape::String)];
const ICE_CANDIDATE: &[PayloadMember] = &[
    required("candidate", Shape::String),
    nullable("sdp_mid", Shape::String),
    nullable("sdp_mline_index", Shape::Integer),
];
const INTENT: &[PayloadMember] = &[
    nullable("query", Shape::String),
    nullable("context", Shape::String),
    nullable("task", Shape::String),
    nullable("status", Shape::String),
    nullable("required_input", Shape::String),
    nullable("cost", Shape::String),
    nullable("params", Shape::Object),
];
const EXEC_REQUEST: &[PayloadMember] = &[
    optional("args", Shape::Object),
    nullable("timeout_ms", Shape::Integer),
    nullable("stream", Shape::Boolean),
];
const EXEC_RESPONSE: &[PayloadMember] = &[
    nullable("result", Shape::Any),
    nullable("error", Shape::String),
    optional("status", Shape::String),
    nullable("execution_time_ms", Shape::Number),
    nullable("stream_url", Shape::String),
];
const ERROR: &[PayloadMember] = &[
    required("code", Shape::ErrorCode),
    required("message", Shape::String),
    nullable("details", Shape::Object),
];
const SEQUENCE: &[PayloadMember] = &[nullable("sequence", Shape::Integer)];
const CHALLENGE: &[PayloadMember] =
    &[required("nonce", Shape::String), required("expires_in_ms", Shape::Unsigned)];
const REGISTERED: &[PayloadMember] = &[
    required("session_id", Shape::String),
    required("node_id", Shape::String),
    required("presence_timeout_ms", Shape::Unsigned),
    required("heartbeat_ms", Shape::Unsigned),
    required("max_message_bytes", Shape::Unsigned),
    required("relay", Shape::MessageTypes),
    optional("ice_servers", Shape::IceServers),
    required("server_time", Shape::Timestamp),
];
const DIDS: &[PayloadMember] = &[required("dids", Shape::Strings)];
const PRESENCE: &[PayloadMember] = &[
    required("did", Shape::String),
    required("state", Shape::PresenceState),
    nullable("reason", Shape::String),
    required("since", Shape::String),
];

/// The members of that type's payload; whether the type exists there is [`Rules::knows`]'s say.
#[must_use]
pub const fn payload_members(
    kind: MessageType,
    subprotocol: Subprotocol,
) -> &'static [PayloadMember] {
    match kind {
        MessageType::Register => match subprotocol {
            Subprotocol::V1 => REGISTER,
            Subprotocol::V1_1 => REGISTER_V1_1,
        },
        MessageType::Unregister => UNREGISTER,
        MessageType::Offer | MessageType::Answer => SDP,
        MessageType::IceCandidate => ICE_CANDIDATE,
        MessageType::Intent => INTENT,
        MessageType::ExecRequest => EXEC_REQUEST,
        MessageType::ExecResponse => EXEC_RESPONSE,
        MessageType::Error => ERROR,
        MessageType::Ping | MessageType::Pong => SEQUENCE,
        MessageType::Challenge => CHALLENGE,
        MessageType::Registered => REGISTERED,
        MessageType::Watch | MessageType::Unwatch => DIDS,
        MessageType::Presence => PRESENCE,
    }
}

/// What a payload member breaks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PayloadFault<'n> {
    Unknown(&'n str),
    Missing(&'static str),
    Shape(&'static str),
    ErrorCode,
}

/// Checks a payload's members, given as name, kind and text.
pub(crate) fn check<'n>(
    kind: MessageType,
    rules: Rules,
    members: impl Iterator<Item = (&'n str, Kind, &'n str)>,
) -> Result<(), PayloadFault<'n>> {
    let table = payload_members(kind, rules.subprotocol);
    let mut present = 0_u32;
    for (name, kind, text) in members {
        // The reference client sends members of other types, as null, where it has no value.
        if kind == Kind::Null && rules.tolerates_quirks() {
            continue;
        }
        let row = table.iter().position(|member| member.name == name);
        let row = row.ok_or(PayloadFault::Unknown(name))?;
        let member = &table[row];
        let absent = kind == Kind::Null && member.nullable;
        if !absent && !member.shape.admits(kind, text) {
            let other_code = member.shape == Shape::ErrorCode && kind == Kind::String;
            let fault = PayloadFault::Shape(member.name);
            return Err(if other_code { PayloadFault::ErrorCode } else { fault });
        }
        present |= 1 << row;
    }
    let missing =
        table.iter().enumerate().find(|(row, member)| member.required && present & 1 << row == 0);
    missing.map_or(Ok(()), |(_, member)| Err(PayloadFault::Missing(member.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kind: MessageType, rules: Rules, payload: &str) -> String {
        let text = format!(
            r#"{{"id":"1","from":"","to":"","signature":"","type":"{kind}","payload":{payload}}}"#
        );
        match crate::Envelope::parse(&text, rules) {
            Ok(_) => "ok".to_owned(),
            Err(malformed) => malformed.to_string(),
        }
    }

    #[test]
    fn a_register_of_v1_1_needs_nonce_and_audience() {
        let check = |payload| verdict(MessageType::Register, Rules::V1_1, payload);
        assert_eq!(check(r#"{"public_key":"k","nonce":"n","audience":"a"}"#), "ok");
        assert_eq!(check(r#"{"public_key":"k"}"#), "missing_payload_field:nonce");
        assert_eq!(
            verdict(MessageType::Register, Rules::V1_COMPAT, r#"{"public_key":"k","nonce":"n"}"#),
            "unknown_payload_field:nonce"
        );
    }

    #[test]
    fn metadata_has_its_three_members_and_no_others() {
        let check = |metadata: &str| {
            let payload =
                format!(r#"{{"public_key":"k","nonce":"n","audience":"a","metadata":{metadata}}}"#);
            verdict(MessageType::Register, Rules::V1_1, &payload)
        };
        assert_eq!(check("{}"), "ok");
        assert_eq!(check(r#"{"name":"n","capabilities":["a","b"],"attributes":{"x":"y"}}"#), "ok");
        for metadata in [
            "null",
            "[]",
            r#"["n"]"#,
            r#"{"name":null}"#,
            r#"{"name":1}"#,
            r#"{"capabilities":null}"#,
            r#"{"capabilities":"a"}"#,
            r#"{"capabilities":[1]}"#,
            r#"{"attributes":{"x":1}}"#,
            r#"{"attributes":{"x":null}}"#,
            r#"{"version":"1"}"#,
        ] {
            assert_eq!(check(metadata), "wrong_payload_type:metadata", "{metadata}");
        }
    }

    #[test]
    fn the_newer_types_have_their_payloads_on_v1_1_alone() {
        let full = [
            (MessageType::Challenge, r#"{"nonce":"n","expires_in_ms":5}"#),
            (MessageType::Watch, r#"{"dids":["did:key:x"]}"#),
            (MessageType::Unwatch, r#"{"dids":[]}"#),
            (MessageType::Presence, r#"{"did":"d","state":"online","since":"s","reason":null}"#),
            (
                MessageType::Registered,
                r#"{"session_id":"s","node_id":"n","presence_timeout_ms":1,"heartbeat_ms":1,
                "max_message_bytes":1,"relay":["OFFER"],"server_time":"2026-01-12T10:00:00Z",
                "ice_servers":[{"urls":["stun:x"]}]}"#,
            ),
        ];
        for (kind, payload) in full {
            assert_eq!(verdict(kind, Rules::V1_1, payload), "ok", "{kind}");
            assert_eq!(verdict(kind, Rules::V1_STRICT, payload), "unknown_type");
            assert_eq!(verdict(kind, Rules::V1_COMPAT, payload), "unknown_type");
            let empty = verdict(kind, Rules::V1_1, "{}");
            assert!(empty.starts_with("missing_payload_field:"), "{kind}: {empty}");
        }
    }

    #[test]
    fn values_of_the_wrong_shape_name_their_member() {
        for (kind, payload, member) in [
            (MessageType::Challenge, r#"{"nonce":"n","expires_in_ms":-1}"#, "expires_in_ms"),
            (MessageType::Challenge, r#"{"nonce":"n","expires_in_ms":1.0}"#, "expires_in_ms"),
            (MessageType::Watch, r#"{"dids":"did:key:x"}"#, "dids"),
            (MessageType::Watch, r#"{"dids":[null]}"#, "dids"),
            (MessageType::Presence, r#"{"did":"d","state":"away","since":"s"}"#, "state"),
        ] {
            let expected = format!("wrong_payload_type:{member}");
            assert_eq!(verdict(kind, Rules::V1_1, payload), expected);
        }
    }

    #[test]
    fn null_members_count_as_absent_for_the_reference_client_alone() {
        let check = |rules| verdict(MessageType::Ping, rules, r#"{"reason":null}"#);
        assert_eq!(check(Rules::V1_COMPAT), "ok");
        assert_eq!(check(Rules::V1_STRICT), "unknown_payload_field:reason");
        assert_eq!(check(Rules { compat: true, ..Rules::V1_1 }), "unknown_payload_field:reason");
        assert_eq!(
            verdict(MessageType::Offer, Rules::V1_COMPAT, r#"{"sdp":null}"#),
            "missing_payload_field:sdp"
        );
    }

    #[test]
    fn no_table_outgrows_the_set_of_members_seen() {
        for kind in MessageType::ALL {
            assert!(payload_members(kind, Subprotocol::V1_1).len() <= 32);
        }
    }
}
