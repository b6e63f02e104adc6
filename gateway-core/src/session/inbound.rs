//! What a registered agent sends: judged, answered or routed.
//!
//! The order of the checks: a message, the rate, the bound sender, then the type's own way; for a
//! routed one its signature first.

use std::{num::NonZeroU32, sync::Arc};

use conexus_plugin_api::{
    Point,
    host::{self, Event},
};
use conexus_protocol::{
    AgentKey, Envelope, ErrorCode, MessageType, Ping, Pong, RefusalReason, Subprotocol,
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{Instrument as _, Span, debug, debug_span};

use super::{
    active::{Active, Ended},
    facts,
    handshake::banned,
    outbox::Arrival,
    proof::{Proven, Rejection, prove},
};
use crate::{
    clock::Moment,
    config::{RateClass, RoutedSignatures, Settings},
    hooks::{Admission, Decision, Ruling},
    router::LastTarget,
    telemetry::{events::Passing, history::HistoryKind, trace},
    voice::Complaint,
};

/// What is counted of one agent's messages.
pub(crate) struct Inbound {
    bad_messages: DefaultDirectRateLimiter,
    rate: Option<DefaultDirectRateLimiter>,
    bytes: Option<DefaultDirectRateLimiter>,
    /// What policy gave in place of the usual rate.
    rates: Option<RateClass>,
    strikes: DefaultDirectRateLimiter,
    renewals: DefaultDirectRateLimiter,
    last_target: LastTarget,
}

/// What an agent sends too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excess {
    Messages,
    Bytes,
}

impl Excess {
    const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
        }
    }
}

/// Renewals of a registration per minute: each has a proof to verify, and on v1 takes a place in
/// the memory of used registrations that all agents share.
const RENEWALS_PER_MINUTE: u32 = 10;

impl Inbound {
    pub(crate) fn new(settings: &Settings, rates: Option<RateClass>) -> Self {
        let limits = &settings.limits;
        Self {
            bad_messages: per_minute(limits.bad_messages_per_minute),
            rate: rate(settings, rates),
            bytes: bytes_rate(settings, rates),
            rates,
            strikes: per_minute(limits.rate_strikes),
            renewals: per_minute(RENEWALS_PER_MINUTE),
            last_target: LastTarget::default(),
        }
    }

    /// Keeps to the agent's rates. While they are the same, what was counted stays counted.
    pub(super) fn follow(&mut self, settings: &Settings, rates: Option<RateClass>) {
        if self.rates != rates {
            self.rate = rate(settings, rates);
            self.bytes = bytes_rate(settings, rates);
            self.rates = rates;
        }
    }

    /// Which rate one more message is over, if any. What is over the rate of messages does not
    /// count against that of bytes.
    fn excess(&self, bytes: usize) -> Option<Excess> {
        if self.rate.as_ref().is_some_and(|rate| rate.check().is_err()) {
            return Some(Excess::Messages);
        }
        let size = u32::try_from(bytes).ok().and_then(NonZeroU32::new)?;
        let over = |rate: &DefaultDirectRateLimiter| !matches!(rate.check_n(size), Ok(Ok(())));
        self.bytes.as_ref().is_some_and(over).then_some(Excess::Bytes)
    }
}

fn rate(settings: &Settings, rates: Option<RateClass>) -> Option<DefaultDirectRateLimiter> {
    let (per_second, burst) = match rates {
        Some(class) => (class.messages_per_second, class.message_burst),
        None => (settings.limits.messages_per_second, settings.limits.message_burst),
    };
    let per_second = NonZeroU32::new(per_second)?;
    let burst = NonZeroU32::new(burst).unwrap_or(per_second);
    Some(RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)))
}

fn bytes_rate(settings: &Settings, rates: Option<RateClass>) -> Option<DefaultDirectRateLimiter> {
    let (per_second, burst) = match rates {
        Some(class) => (class.bytes_per_second, class.bytes_burst),
        None => (settings.limits.bytes_per_second, settings.limits.bytes_burst),
    };
    // The configuration has no larger ones.
    let number = |bytes| NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX));
    let burst = number(settings.bytes_burst(per_second, burst));
    let per_second = number(per_second)?;
    Some(RateLimiter::direct(
        Quota::per_second(per_second).allow_burst(burst.unwrap_or(per_second)),
    ))
}

/// The types that agents send each other; the others are between an agent and the gateway.
pub(crate) const fn is_between_agents(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::Offer
            | MessageType::Answer
            | MessageType::IceCandidate
            | MessageType::Intent
            | MessageType::ExecRequest
            | MessageType::ExecResponse
            | MessageType::Error
    )
}

fn per_minute(count: u32) -> DefaultDirectRateLimiter {
    RateLimiter::direct(Quota::per_minute(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Active<S> {
    pub(super) fn binary(&mut self) -> Option<Ended> {
        let complaint = Complaint::new(ErrorCode::MalformedMessage, "a binary frame is no message");
        self.bad_message(None, &complaint)
    }

    /// Judges one text frame, received at `now`. Sets `pending` where its way takes time.
    pub(super) fn text(&mut self, text: Arc<str>, now: Moment) -> Option<Ended> {
        let rules = self.core.router.rules(self.handle.subprotocol);
        let envelope = match Envelope::parse(&text, rules) {
            Ok(envelope) => envelope,
            Err(fault) => {
                let complaint = Complaint::malformed(&fault);
                return self.bad_message(fault.id.as_deref(), &complaint);
            }
        };
        // Who wants to leave is not kept.
        if envelope.kind != MessageType::Unregister
            && let Some(excess) = self.inbound.excess(text.len())
        {
            return self.over_the_rate(&envelope, &text, excess);
        }
        if envelope.from != self.handle.agent.as_str() {
            self.answer(&envelope, &self.foreign_sender(&envelope));
            return None;
        }
        match envelope.kind {
            MessageType::Ping => self.pong(&envelope),
            MessageType::Pong => {}
            MessageType::Unregister => return Some(Ended::Unregistered),
            MessageType::Register => self.renew(&envelope),
            MessageType::Challenge | MessageType::Registered | MessageType::Presence => {
                let message = "only the gateway sends messages of this type";
                let complaint = Complaint::new(ErrorCode::MalformedMessage, message).about("type");
                return self.bad_message(Some(&envelope.id), &complaint);
            }
            MessageType::Watch => return self.watch(&envelope),
            MessageType::Unwatch => return self.unwatch(&envelope),
            kind => {
                debug_assert!(is_between_agents(kind));
                let (to, arrival) = self.accept(&envelope, &text)?;
                let router = &self.core.router;
                let is_judged = router.asks_about_routes();
                // To verify, or to ask a hook, takes time: others' leases may have ended meanwhile.
                let now = if is_judged || envelope.is_signed() { router.clock.now() } else { now };
                let span = self.message_span(&envelope, arrival.number);
                let in_span = span.enter();
                let pending = if is_judged {
                    router.route_judged(&self.handle, text.clone(), to, &envelope, arrival, now)
                } else {
                    router.route(&self.handle, text, to, kind, arrival, now)
                };
                drop(in_span);
                self.pending = match pending {
                    Some(pending) if !span.is_disabled() => {
                        Some(Box::pin(pending.instrument(span)))
                    }
                    pending => pending,
                };
            }
        }
        None
    }

    /// What all log lines about a message stand in, where anybody reads them. Its target was read
    /// as a DID; an id may be anything.
    fn message_span(&self, envelope: &Envelope<'_>, number: u64) -> Span {
        debug_span!(
            "message",
            trace = %trace::id_of(envelope, self.handle.trace, number),
            id = %envelope.id.escape_debug(),
            kind = %envelope.kind,
            from = %self.handle.agent,
            to = %envelope.to,
        )
    }

    /// `from` is not the registered DID to the letter.
    fn foreign_sender(&self, envelope: &Envelope<'_>) -> Complaint {
        let same_key =
            AgentKey::parse_did(&envelope.from).is_ok_and(|key| key == self.handle.agent.key());
        if envelope.kind == MessageType::Register && !same_key {
            let message = "this session is registered for another key";
            return Complaint::new(ErrorCode::ConnectionRefused, message).about("from");
        }
        Complaint::new(ErrorCode::InvalidSignature, "not the registered sender").about("from")
    }

    /// Counts a message for another agent; whom it is for, unless it ends here.
    fn accept(&mut self, envelope: &Envelope<'_>, text: &str) -> Option<(AgentKey, Arrival)> {
        if !self.signature_passes(envelope) {
            let complaint =
                Complaint::new(ErrorCode::InvalidSignature, "signature does not verify")
                    .about("signature");
            self.answer(envelope, &complaint);
            return None;
        }
        let router = &self.core.router;
        router.telemetry.messages.received(envelope.kind);
        let number = self.handle.count_sent();
        match router.target(envelope, &mut self.inbound.last_target) {
            Ok(to) => Some((to, Arrival { at: self.read_at, number })),
            Err(reason) => {
                self.refuse_early(envelope, text, number, reason);
                None
            }
        }
    }

    /// Refused before anything of it is verified: that would be the work the rate is to save. One
    /// that is for another agent is counted like any other.
    fn over_the_rate(&self, envelope: &Envelope<'_>, text: &str, excess: Excess) -> Option<Ended> {
        let telemetry = &self.core.router.telemetry;
        telemetry.sessions.rate_limited.count(excess.name());
        let own = envelope.from == self.handle.agent.as_str();
        if own && is_between_agents(envelope.kind) {
            telemetry.messages.received(envelope.kind);
            let number = self.handle.count_sent();
            self.refuse_early(envelope, text, number, RefusalReason::RateLimited);
        } else {
            self.answer(envelope, &Complaint::refusal(RefusalReason::RateLimited));
        }
        self.inbound.strikes.check().is_err().then_some(Ended::RateLimited)
    }

    fn refuse_early(
        &self,
        envelope: &Envelope<'_>,
        text: &str,
        number: u64,
        reason: RefusalReason,
    ) {
        let (sender, read_at) = (&*self.handle, Some(self.read_at));
        let to = AgentKey::parse_did(&envelope.to).ok();
        let message = Passing { kind: envelope.kind, text, sender, number, to, read_at };
        self.core.router.refuse_early(message, &envelope.id, reason);
    }

    fn signature_passes(&self, envelope: &Envelope<'_>) -> bool {
        let must_verify = match self.core.settings.signatures.routed {
            RoutedSignatures::Required => true,
            RoutedSignatures::WhenPresent => envelope.is_signed(),
            RoutedSignatures::Off => false,
        };
        !must_verify || envelope.verify(self.handle.agent.public_key()).is_ok()
    }

    fn pong(&self, envelope: &Envelope<'_>) {
        let sequence = envelope.payload::<Ping>().ok().and_then(|ping| ping.sequence);
        let to = self.handle.agent.as_str();
        let pong = self.core.router.voice.say(to, Some(&envelope.id), Pong { sequence });
        self.handle.outbox.reply(pong);
    }

    /// A later REGISTER on the same session renews its metadata, and is judged anew.
    fn renew(&mut self, envelope: &Envelope<'_>) {
        if self.inbound.renewals.check().is_err() {
            return self.answer(envelope, &Complaint::refusal(RefusalReason::RateLimited));
        }
        let subprotocol = self.handle.subprotocol;
        let proven = match prove(&self.core, envelope, subprotocol, self.nonce.as_ref()) {
            Ok(proven) => proven,
            Err(Rejection { complaint, .. }) => return self.answer(envelope, &complaint),
        };
        let Proven { agent, metadata, credentials } = proven;
        if let Some(denial) = banned(&self.core, agent.key()) {
            return self.answer(envelope, &Complaint::denial(&denial));
        }
        let agent = facts::renewed(&self.handle.facts(), metadata);
        let (core, handle) = (Arc::clone(&self.core), Arc::clone(&self.handle));
        let id = envelope.id.clone().into_owned();
        let judge = core.router.policy.judge();
        let decision = if judge.asks(Point::Register) {
            judge.on_register(Arc::new(host::Register {
                agent: Arc::clone(&agent),
                credentials,
                renewal: true,
                connection: Some(Arc::clone(&handle.connection)),
            }))
        } else {
            Decision::Now(Ok(Admission::default()))
        };
        let settle = move |ruling: Ruling<Admission>| {
            let (voice, to) = (&core.router.voice, handle.agent.as_str());
            match ruling {
                Err(denial) => {
                    let complaint = Complaint::denial(&denial);
                    handle.outbox.reply(voice.error(to, Some(&id), &complaint));
                }
                Ok(admission) => {
                    let lease = facts::lease(&core.settings, &admission);
                    handle.set_rates(admission.rate_class.as_ref().map(|(_, rates)| *rates));
                    let agent = facts::admitted(&core.settings, agent, admission);
                    let telemetry = &core.router.telemetry;
                    telemetry.sessions.registered(subprotocol, true);
                    handle.set_facts(Arc::clone(&agent));
                    if let Some(cluster) = &core.cluster {
                        cluster.ledger.describe(handle.agent.key());
                    }
                    telemetry.happened(HistoryKind::Renewed, &handle, None, None);
                    handle.extend_lease(core.clock.now().after(lease));
                    core.router.observe(Point::Registered, || {
                        let connection = Some(Arc::clone(&handle.connection));
                        let renewed = host::Registered { agent, renewal: true, connection };
                        Event::Registered(Arc::new(renewed))
                    });
                    if subprotocol == Subprotocol::V1_1 {
                        let welcome = core.welcome(&handle);
                        handle.outbox.reply(voice.say(to, Some(&id), welcome));
                    }
                }
            }
        };
        match decision {
            Decision::Now(ruling) => {
                settle(ruling);
                self.inbound.follow(&self.core.settings, self.handle.rates());
            }
            Decision::Later(ruling) => {
                self.pending = Some(Box::pin(async move { settle(ruling.await) }));
            }
        }
    }

    pub(super) fn bad_message(&self, id: Option<&str>, complaint: &Complaint) -> Option<Ended> {
        self.core.router.telemetry.sessions.bad_message();
        debug!(agent = %self.handle.agent, fault = ?complaint.message, "malformed message");
        let error = self.core.router.voice.error(self.handle.agent.as_str(), id, complaint);
        self.handle.outbox.refuse(error);
        self.inbound.bad_messages.check().is_err().then_some(Ended::TooManyBadMessages)
    }

    pub(super) fn answer(&self, envelope: &Envelope<'_>, complaint: &Complaint) {
        let to = self.handle.agent.as_str();
        let error = self.core.router.voice.error(to, Some(&envelope.id), complaint);
        self.handle.outbox.refuse(error);
    }
}
