//! The proof in a REGISTER: that whoever sends it holds the key, now, and means this gateway.
//!
//! On v1.1 the nonce of this very connection and the audience say so; on v1 the timestamp, a memory
//! of what was used, and the audience where there is one. Used at the first REGISTER and at each
//! renewal.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conexus_protocol::{
    AgentId, CloseReason, Envelope, ErrorCode, MessageType, Metadata, Register, Subprotocol,
    Timestamp,
};
use rand::RngCore as _;

use crate::{core::Core, replay::NotFresh, voice::Complaint};

/// The nonce of one `ioap.v1.1` connection.
#[derive(Debug, Clone)]
pub(crate) struct Nonce(String);

impl Nonce {
    pub(crate) fn generate() -> Self {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A proof that holds. Only [`prove`] makes one.
pub(crate) struct Proven {
    pub(crate) agent: AgentId,
    pub(crate) metadata: Metadata,
    pub(crate) credentials: Option<String>,
}

/// Why a REGISTER is not accepted: what to say, and how to close where it was the first frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) complaint: Complaint,
    pub(crate) close: CloseReason,
}

impl Rejection {
    /// The frame itself is wrong.
    pub(crate) fn malformed(message: &str, member: &str) -> Self {
        let complaint = Complaint::new(ErrorCode::MalformedMessage, message).about(member);
        Self { complaint, close: CloseReason::ProtocolError }
    }

    fn unproven(message: impl Into<String>, member: &str) -> Self {
        let complaint = Complaint::new(ErrorCode::InvalidSignature, message).about(member);
        Self { complaint, close: CloseReason::NotAuthenticated }
    }
}

impl From<NotFresh> for Rejection {
    fn from(fault: NotFresh) -> Self {
        match fault {
            NotFresh::Stale | NotFresh::BeforeStart => {
                Self::unproven("timestamp is not fresh", "timestamp")
            }
            NotFresh::Replayed => Self::unproven("message was used before", "id"),
            NotFresh::CacheFull | NotFresh::ShareFull => Self {
                complaint: Complaint::refusal(conexus_protocol::RefusalReason::RateLimited),
                close: CloseReason::RateLimited,
            },
        }
    }
}

/// Checks the proof in a message that should be a REGISTER. `nonce` is the connection's own, on
/// v1.1.
pub(crate) fn prove(
    core: &Core,
    envelope: &Envelope<'_>,
    subprotocol: Subprotocol,
    nonce: Option<&Nonce>,
) -> Result<Proven, Rejection> {
    let malformed = Rejection::malformed;
    if envelope.kind != MessageType::Register {
        return Err(malformed("the first message must be a REGISTER", "type"));
    }
    if envelope.to != envelope.from {
        return Err(malformed("a REGISTER is addressed to oneself", "to"));
    }
    let mut register: Register = envelope.payload().map_err(|fault| Rejection {
        complaint: Complaint::malformed(&fault),
        close: CloseReason::ProtocolError,
    })?;
    let metadata = register.metadata.take().unwrap_or_default();
    if metadata.json_len() > core.settings.limits.metadata_bytes {
        core.router.telemetry.sessions.oversize.count("metadata");
        return Err(malformed("metadata is over limits.metadata_bytes", "payload.metadata"));
    }
    let stamped = envelope.timestamp;
    if subprotocol == Subprotocol::V1 && stamped.is_none() {
        return Err(malformed("a REGISTER needs a timestamp", "timestamp"));
    }

    let agent = AgentId::parse(&envelope.from)
        .map_err(|_| Rejection::unproven("not a did:key of a usable Ed25519 key", "from"))?;
    if !register.names_key(agent.key(), envelope.rules()) {
        return Err(Rejection::unproven("not the key of from", "payload.public_key"));
    }

    match nonce {
        Some(nonce) => {
            if register.nonce.as_deref() != Some(nonce.as_str()) {
                return Err(Rejection::unproven("not this connection's nonce", "payload.nonce"));
            }
            if !register.audience.as_ref().is_some_and(|named| core.audiences.accept(named)) {
                return Err(Rejection::unproven("not this gateway", "payload.audience"));
            }
            verify(envelope, &agent)?;
        }
        None => {
            let now = Timestamp::now();
            let stamped = stamped.unwrap_or(now);
            core.replay.check_fresh(stamped, now)?;
            if envelope.audience.as_ref().is_some_and(|named| !core.audiences.accept(named)) {
                return Err(Rejection::unproven("not this gateway", "audience"));
            }
            verify(envelope, &agent)?;
            core.replay.enter(agent.key(), &envelope.id, stamped, now)?;
        }
    }
    Ok(Proven { agent, metadata, credentials: register.credentials })
}

fn verify(envelope: &Envelope<'_>, agent: &AgentId) -> Result<(), Rejection> {
    envelope
        .verify(agent.public_key())
        .map_err(|_| Rejection::unproven("signature does not verify", "signature"))
}
