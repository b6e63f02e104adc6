//! A message at a turn of its way, and what is told of it.

use std::{borrow::Cow, time::Duration};

use conexus_protocol::{AgentKey, Envelope, MessageType, RefusalReason, Rules};
use serde::Serialize;
use tokio::time::Instant;

use super::now_ms;
use crate::{
    session::handle::SessionHandle,
    telemetry::trace::{self, TraceId},
};

/// The longest text of an agent's choosing that is shown, in bytes: as long as an id may be, and far
/// longer than any DID.
pub(super) const MAX_TEXT: usize = 128;

/// How a message fared, for those who follow one of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The kernel has its last byte. How long that took, where it was not held in between.
    Delivered(Option<Duration>),
    /// It waits in a mailbox.
    Held,
    /// Its sender was told, or nobody was there to be told.
    Refused(Option<RefusalReason>),
}

impl Outcome {
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Held => "held",
            Self::Refused(_) => "refused",
        }
    }
}

/// A message at a turn of its way. The text is as received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passing<'a> {
    pub(crate) kind: MessageType,
    pub(crate) text: &'a str,
    pub(crate) sender: &'a SessionHandle,
    /// Its number among the messages of its session, from 1.
    pub(crate) number: u64,
    /// Whom it is for; none where that is nobody's key.
    pub(crate) to: Option<AgentKey>,
    /// When its frame was read; none once it was held.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "told in spans alone"))]
    pub(crate) read_at: Option<Instant>,
}

impl<'a> Passing<'a> {
    /// Its envelope. It was parsed before, so there is one.
    pub(crate) fn envelope(&self) -> Option<Envelope<'a>> {
        let subprotocol = self.sender.subprotocol;
        // What tolerance there was when it came in is of no account for what is shown of it.
        Envelope::parse(self.text, Rules { subprotocol, compat: true }).ok()
    }

    /// Its trace id.
    pub(crate) fn trace(&self) -> TraceId {
        let (seed, number) = (self.sender.trace, self.number);
        match self.envelope() {
            Some(envelope) => trace::id_of(&envelope, seed, number),
            None => seed.id(number),
        }
    }
}

/// What is told of a message to those who follow one of its ends.
#[derive(Serialize)]
pub(super) struct MessageEvent<'a> {
    at_ms: i64,
    id: &'a str,
    correlation_id: Option<&'a str>,
    trace: TraceId,
    #[serde(rename = "type")]
    kind: &'static str,
    from: &'a str,
    to: Cow<'a, str>,
    bytes: usize,
    outcome: &'static str,
    reason: Option<&'static str>,
    latency_us: Option<u64>,
}

impl<'a> MessageEvent<'a> {
    /// Of a message and its envelope.
    pub(super) fn of(message: &Passing<'a>, envelope: &'a Envelope<'a>, outcome: Outcome) -> Self {
        let (reason, latency) = match outcome {
            Outcome::Delivered(took) => (None, took),
            Outcome::Held => (None, None),
            Outcome::Refused(reason) => (reason.map(RefusalReason::as_str), None),
        };
        Self {
            at_ms: now_ms(),
            id: &envelope.id,
            correlation_id: envelope.correlation_id.as_deref().filter(|id| id.len() <= MAX_TEXT),
            trace: trace::id_of(envelope, message.sender.trace, message.number),
            kind: message.kind.as_str(),
            from: message.sender.agent.as_str(),
            to: target(message, envelope),
            bytes: message.text.len(),
            outcome: outcome.as_str(),
            reason,
            latency_us: latency.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        }
    }
}

/// Whom it is for: after a redirect somebody else than it says.
fn target<'a>(message: &Passing<'_>, envelope: &'a Envelope<'_>) -> Cow<'a, str> {
    match message.to {
        Some(key) if AgentKey::parse_did(&envelope.to) != Ok(key) => key.did().into(),
        _ => shown(&envelope.to).into(),
    }
}

/// The beginning of a text that an agent may have made as long as a message: what waits to be told
/// is bounded in number, and so in memory only if each is short.
pub(in crate::telemetry) fn shown(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
