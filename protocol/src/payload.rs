//! The payloads, typed.
//!
//! `schema` has already said what is allowed, so these read leniently: null is absent, and
//! members of other types are skipped. What is written has no absent members. Handlers of the
//! SDK and the gateway's own answers use them; routed messages are never read this far.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::codes::ErrorCode;
use crate::did::AgentKey;
use crate::kind::{MessageType, Rules};
use crate::names::wire_names;

/// REGISTER: an agent announces itself.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// base58btc of the bare key.
    pub public_key: String,
    /// v1.1: the nonce of the CHALLENGE, echoed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// v1.1: the URL that the agent dialed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// v1.1: what the agent publishes about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// v1.1: for the gateway's `on_register` alone; `Debug` does not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

impl Register {
    /// Whether `public_key` is that key: in base58btc, or (a quirk of the reference client) as
    /// a DID.
    #[must_use]
    pub fn names_key(&self, key: AgentKey, rules: Rules) -> bool {
        AgentKey::parse_base58(&self.public_key) == Ok(key)
            || rules.tolerates_quirks() && AgentKey::parse_did(&self.public_key) == Ok(key)
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("public_key", &self.public_key)
            .field("nonce", &self.nonce)
            .field("audience", &self.audience)
            .field("metadata", &self.metadata)
            .field("credentials", &self.credentials.as_ref().map(|_| "(hidden)"))
            .finish()
    }
}

/// What an agent publishes about itself (v1.1). Read strictly: no other members, no nulls.
#[derive(Default, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// A name for people.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it can be asked to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Whatever else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Metadata {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Bytes of its JSON: what `limits.metadata_bytes` bounds.
    #[must_use]
    pub fn json_len(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |json| json.len())
    }
}

/// UNREGISTER: an agent takes its leave.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unregister {
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// OFFER: a WebRTC session description that asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// The description (SDP).
    pub sdp: String,
}

/// ANSWER: a WebRTC session description that answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The description (SDP).
    pub sdp: String,
}

/// ICE_CANDIDATE: a way to reach a peer.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IceCandidate {
    /// The candidate; empty at the end of candidates.
    pub candidate: String,
    /// The media stream it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp_mid: Option<String>,
    /// The same, as an index.
    #[serde(default, deserialize_with = "exact_i64", skip_serializing_if = "Option::is_none")]
    pub sdp_mline_index: Option<i64>,
}

/// INTENT: what an agent is asked to consider.
///
/// Numbers in `params` are read as 64-bit integers or doubles; the message's text has them exactly.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct Intent {
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// As a task's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// How far it is understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_input: Option<String>,
    /// What it would cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// The task's parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Map<String, Value>>,
}

/// EXEC_REQUEST: what an agent is asked to do. For numbers see [`Intent`].
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Map<String, Value>>,
    /// How long it may take, in milliseconds.
    #[serde(default, deserialize_with = "exact_i64", skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<i64>,
    /// Whether the result is to be streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
}

/// EXEC_RESPONSE: what came of it. For numbers see [`Intent`].
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExecResponse {
    /// The result; a result of null reads as none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `success`, or any other word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_time_ms: Option<f64>,
    /// Where the result is streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_url: Option<String>,
}

/// ERROR: a refusal.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ErrorPayload {
    /// One of the seven codes.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// Finer reasons: `reason` is a [`crate::RefusalReason`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Map<String, Value>>,
}

/// PING: are you there?
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ping {
    /// Echoed in the PONG.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Integer>,
}

/// PONG: yes.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pong {
    /// The PING's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Integer>,
}

/// CHALLENGE (v1.1): the gateway's first frame.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Challenge {
    /// 32 random bytes in base64url, good for one REGISTER on this connection.
    pub nonce: String,
    /// How long it is good for, in milliseconds.
    pub expires_in_ms: u64,
}

/// REGISTERED (v1.1): a REGISTER was accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// The session.
    pub session_id: String,
    /// The node that serves it.
    pub node_id: String,
    /// How long silence is presence, in milliseconds.
    pub presence_timeout_ms: u64,
    /// How often the gateway pings a silent socket, in milliseconds.
    pub heartbeat_ms: u64,
    /// The largest message that is taken, in bytes.
    pub max_message_bytes: u64,
    /// The types that are routed.
    pub relay: Vec<MessageType>,
    /// Servers to gather ICE candidates with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ice_servers: Vec<IceServer>,
    /// The gateway's clock, as a timestamp.
    pub server_time: String,
}

/// A STUN or TURN server, as WebRTC's `RTCIceServer` has it. `Debug` leaves the credential out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    /// `stun:` and `turn:` URLs.
    pub urls: Vec<String>,
    /// For TURN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For TURN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer")
            .field("urls", &self.urls)
            .field("username", &self.username)
            .field("credential", &self.credential.as_ref().map(|_| "<secret>"))
            .finish()
    }
}

/// WATCH (v1.1): tell me when these agents come and go.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Watch {
    /// Which.
    pub dids: Vec<String>,
}

/// UNWATCH (v1.1): no longer.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unwatch {
    /// Which.
    pub dids: Vec<String>,
}

/// PRESENCE (v1.1): an agent came or went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Presence {
    /// Who, in the spelling that was watched.
    pub did: String,
    /// Which.
    pub state: PresenceState,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, as a timestamp.
    pub since: String,
}

wire_names! {
    /// Whether an agent is there.
    pub enum PresenceState {
        /// It is.
        Online = "online",
        /// It is not.
        Offline = "offline",
    }
}

/// An integer of any size, kept as its digits: what a peer counts with is its own affair.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Integer(Box<str>);

impl Integer {
    /// The digits, with a sign where it is negative.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, where it fits 64 bits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }
}

impl From<i64> for Integer {
    fn from(number: i64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<u64> for Integer {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad_integral(!self.0.starts_with('-'), "", self.0.trim_start_matches('-'))
    }
}

impl fmt::Debug for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Integer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw =
            RawValue::from_string(self.0.clone().into()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        let digits = raw.get();
        // The rest of the grammar is JSON's, which `raw` went through.
        if !digits.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(de::Error::custom("not an integer"));
        }
        Ok(Self(if digits == "-0" { "0".into() } else { digits.into() }))
    }
}

/// serde_json reads `-0` as a float; to the protocol it is an integer.
fn exact_i64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(integer) = Option::<Integer>::deserialize(deserializer)? else { return Ok(None) };
    integer.as_i64().map(Some).ok_or_else(|| de::Error::custom("integer beyond 64 bits"))
}

/// serde takes null for an absent option; metadata has no nulls.
fn not_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Defines [`Payload`] and its conversions, one line per type.
macro_rules! payloads {
    ($($variant:ident($payload:ident),)+) => {
        /// Any payload, typed. Serializes as the payload alone, without its type.
        #[derive(Clone, PartialEq, Debug, Serialize)]
        #[serde(untagged)]
        pub enum Payload {
            $(
                #[doc = concat!("Of type [`MessageType::", stringify!($variant), "`].")]
                $variant($payload),
            )+
        }

        impl Payload {
            /// The type of message that has this payload.
            #[must_use]
            pub const fn kind(&self) -> MessageType {
                match self {
                    $(Self::$variant(_) => MessageType::$variant,)+
                }
            }

            /// Reads the payload of a message of that type, which `schema` has passed.
            pub(crate) fn read(kind: MessageType, json: &str) -> serde_json::Result<Self> {
                match kind {
                    $(MessageType::$variant => serde_json::from_str(json).map(Self::$variant),)+
                }
            }
        }

        $(
            impl From<$payload> for Payload {
                fn from(payload: $payload) -> Self {
                    Self::$variant(payload)
                }
            }
        )+
    };
}

payloads! {
    Register(Register),
    Unregister(Unregister),
    Offer(Offer),
    Answer(Answer),
    IceCandidate(IceCandidate),
    Intent(Intent),
    ExecRequest(ExecRequest),
    ExecResponse(ExecResponse),
    Error(ErrorPayload),
    Ping(Ping),
    Pong(Pong),
    Challenge(Challenge),
    Registered(Registered),
    Watch(Watch),
    Unwatch(Unwatch),
    Presence(Presence),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    #[test]
    fn absent_members_are_not_written() {
        let payload = Payload::from(IceCandidate { candidate: "c".into(), ..Default::default() });
        assert_eq!(serde_json::to_string(&payload).unwrap(), r#"{"candidate":"c"}"#);
        let metadata = Metadata::default();
        assert_eq!(serde_json::to_string(&metadata).unwrap(), "{}");
        assert!(metadata.is_empty());
        assert_eq!(metadata.json_len(), 2);
    }

    #[test]
    fn integers_of_any_size_come_back_exactly() {
        for digits in ["0", "-5", "9223372036854775808", "1180591620717411303424"] {
            let json = format!(r#"{{"sequence":{digits}}}"#);
            let ping: Ping = serde_json::from_str(&json).unwrap();
            assert_eq!(ping.sequence.as_ref().map(Integer::as_str), Some(digits));
            assert_eq!(serde_json::to_string(&ping).unwrap(), json);
        }
        let zero: Ping = serde_json::from_str(r#"{"sequence": -0 }"#).unwrap();
        assert_eq!(zero.sequence, Some(Integer::from(0_i64)));
        for json in [r#"{"sequence":1.0}"#, r#"{"sequence":"1"}"#, r#"{"sequence":1e3}"#] {
            assert!(serde_json::from_str::<Ping>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn negative_zero_is_an_integer() {
        let json = r#"{"candidate":"","sdp_mline_index":-0,"sdp_mid":null}"#;
        let candidate: IceCandidate = serde_json::from_str(json).unwrap();
        assert_eq!(candidate.sdp_mline_index, Some(0));
    }

    #[test]
    fn debug_does_not_show_credentials() {
        let register = Register { credentials: Some("s3cret".into()), ..Default::default() };
        assert!(!format!("{register:?}").contains("s3cret"));
    }

    #[test]
    fn a_did_is_taken_for_a_public_key_from_the_reference_client_alone() {
        let identity = Identity::from_seed(&[1; 32]).with_legacy_did();
        let key = identity.key();
        let with = |public_key: String| Register { public_key, ..Default::default() };
        assert!(with(key.base58()).names_key(key, Rules::V1_STRICT));
        assert!(with(identity.did().into()).names_key(key, Rules::V1_COMPAT));
        assert!(!with(identity.did().into()).names_key(key, Rules::V1_STRICT));
        assert!(!with(identity.did().into()).names_key(key, Rules::V1_1));
        let other = Identity::from_seed(&[2; 32]).key();
        assert!(!with(key.base58()).names_key(other, Rules::V1_COMPAT));
    }
}
