//! The IoAP wire protocol: what every agent, the gateway and the client SDK speak.
//!
//! No I/O and no clock but [`Timestamp::now`]: text in, types out, and back. The tour, in the
//! order in which a message meets the modules:
//!
//! - JSON: one strict scan per message, without a tree, and [`canonicalize`], the form that is
//!   signed.
//! - [`Envelope`]: a message that is well-formed by its [`Rules`], borrowed from its text;
//!   [`Malformed`] says why another is not. The tables are in [`schema`].
//! - [`AgentId`] and [`AgentKey`]: who agents are; [`PublicKey`] verifies them, [`Identity`] is us.
//! - [`Payload`] and its structs, [`Message`]: what a message says, owned.
//! - [`Draft`]: what we say, up to the signed wire text.
//! - [`ErrorCode`], [`RefusalReason`], [`CloseReason`]: how a gateway says no.
//!
//! ```
//! use conexus_protocol::{Draft, Envelope, Identity, Offer, Rules};
//!
//! let (alice, bob) = (Identity::generate(), Identity::generate());
//! let text = Draft::new(bob.did(), Offer { sdp: "v=0\r\n".into() }).sign(&alice);
//!
//! // At the receiver: parse, then verify with the key that `from` names.
//! let envelope = Envelope::parse(&text, Rules::V1_STRICT)?;
//! let sender = conexus_protocol::AgentId::parse(&envelope.from)?;
//! envelope.verify(sender.public_key())?;
//! assert_eq!(envelope.payload::<Offer>()?.sdp, "v=0\r\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod codes;
mod did;
mod draft;
mod envelope;
mod json;
mod keys;
mod kind;
mod malformed;
mod message;
mod names;
mod payload;
#[cfg(test)]
mod properties;
pub mod schema;
mod timestamp;
mod token;

pub use codes::{CloseReason, ErrorCode, RefusalReason};
pub use did::{AgentId, AgentKey, DidError, REFERENCE_GATEWAY_DID};
pub use draft::Draft;
pub use envelope::Envelope;
pub use json::{JsonError, JsonErrorKind, MAX_DEPTH, MAX_INTEGER_DIGITS, canonicalize};
pub use keys::{Identity, KeyFileError, PublicKey, SignatureBytes, SignatureError};
pub use kind::{MessageType, Rules, Subprotocol};
pub use malformed::{Malformed, MalformedReason};
pub use message::Message;
pub use names::UnknownName;
pub use payload::{
    Answer, Challenge, ErrorPayload, ExecRequest, ExecResponse, IceCandidate, IceServer, Integer,
    Intent, Metadata, Offer, Payload, Ping, Pong, Presence, PresenceState, Register, Registered,
    Unregister, Unwatch, Watch,
};
pub use timestamp::Timestamp;
pub use token::{AgentToken, TokenError, UnverifiedToken};
