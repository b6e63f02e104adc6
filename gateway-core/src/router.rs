//! The router: from a judged message to one of its ends.
//!
//! envelope -> policy -> the target's outbox | its mailbox | refused. Whatever becomes of a
//! message is decided here and counted once. A decision that takes time makes the rest of the way
//! a future that the sender's session waits for; all else happens within the call.
//!
//! One judge decides about a message from start to end: it travels with the message, also through
//! an outbox. Only a mailbox takes it away; what was held is a new matter should it turn out to be
//! undeliverable again.

mod afar;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use conexus_plugin_api::{
    Agent, MAX_COPIES, Point,
    host::{Event, Route, RouteParts, Text},
};
use conexus_protocol::{
    AgentKey, Envelope, MessageType, REFERENCE_GATEWAY_DID, RefusalReason, Rules, Subprotocol,
};
use tokio::sync::watch;
use tracing::{Level, debug, enabled, error};

use self::afar::Known;
use crate::{
    clock::{Clock, Moment},
    config::Settings,
    hooks::{Decision, Denial, Fallback, Passage, Policy, Ruling, Way},
    phase::Phase,
    presence::{Kept, Offered, Presence, Source},
    session::{
        handle::{SessionHandle, SessionId},
        outbox::{Arrival, Otherwise, Parcel, Routed, Tap},
    },
    telemetry::{
        Telemetry,
        events::{Outcome, Passing},
        trace,
    },
    voice::{Complaint, Voice},
};

/// The rest of a message's way, where a decision takes time.
pub(crate) type Pending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See the [module](self).
pub(crate) struct Router {
    pub(crate) presence: Presence,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) voice: Voice,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) clock: Clock,
    /// Where agents may be that are not here.
    phase: watch::Receiver<Phase>,
    compat: bool,
    relay: RelayedTypes,
    hold: Duration,
}

/// The message types that are carried from agent to agent.
#[derive(Debug, Clone, Copy)]
struct RelayedTypes([bool; MessageType::COUNT]);

impl RelayedTypes {
    fn new(types: &[MessageType]) -> Self {
        let mut relayed = [false; MessageType::COUNT];
        for kind in types {
            relayed[kind.index()] = true;
        }
        Self(relayed)
    }
}

/// The name that a sender's last message was addressed to, and the key that it spells: base58 takes
/// longer to read than all the rest of the way, and most agents write to the same one again.
#[derive(Debug, Default)]
pub(crate) struct LastTarget(Option<(Box<str>, AgentKey)>);

impl LastTarget {
    fn key(&mut self, did: &str) -> Option<AgentKey> {
        match &self.0 {
            Some((known, key)) if **known == *did => Some(*key),
            _ => {
                let key = AgentKey::parse_did(did).ok()?;
                self.0 = Some((did.into(), key));
                Some(key)
            }
        }
    }
}

impl Router {
    pub(crate) fn new(
        settings: &Settings,
        presence: Presence,
        telemetry: Arc<Telemetry>,
        voice: Voice,
        policy: Arc<dyn Policy>,
        clock: Clock,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self {
            presence,
            telemetry,
            voice,
            policy,
            clock,
            phase,
            compat: settings.protocol.compat == crate::config::Compat::Reference,
            relay: RelayedTypes::new(&settings.routing.relay),
            hold: settings.mailbox.hold,
        }
    }

    /// By which rules a session of this subprotocol is judged.
    pub(crate) const fn rules(&self, subprotocol: Subprotocol) -> Rules {
        Rules { subprotocol, compat: self.compat }
    }

    /// Sends a message on its way. What is returned must be awaited: the message is in there.
    pub(crate) fn route(
        self: &Arc<Self>,
        sender: &Arc<SessionHandle>,
        text: Arc<str>,
        to: AgentKey,
        kind: MessageType,
        arrival: Arrival,
        now: Moment,
    ) -> Option<Pending> {
        let routed = Routed::new(text, to, kind, Arc::clone(sender), arrival);
        let absent = self.offer(routed, now)?;
        self.undeliverable(absent, Source::Sender)
    }

    /// The same where policy [asks](Self::asks_about_routes) to judge it first.
    pub(crate) fn route_judged(
        self: &Arc<Self>,
        sender: &Arc<SessionHandle>,
        text: Arc<str>,
        to: AgentKey,
        envelope: &Envelope<'_>,
        arrival: Arrival,
        now: Moment,
    ) -> Option<Pending> {
        // From here on it is counted, also should the policy panic.
        let mut routed = Routed::new(text, to, envelope.kind, Arc::clone(sender), arrival);
        let judge = self.policy.judge();
        routed.judge = Some(Arc::clone(&judge));
        let target = match self.target_facts(to, now) {
            Known::Now(target) => target,
            Known::Later => return Some(self.route_when_found(routed)),
        };
        let event = route_event(&routed, envelope, target);
        self.judged(routed, judge.on_route(Arc::new(event)))
    }

    /// Goes on as policy decides.
    fn judged(
        self: &Arc<Self>,
        routed: Routed,
        decision: Decision<Ruling<Passage>>,
    ) -> Option<Pending> {
        match decision {
            Decision::Now(ruling) => self.pass(routed, ruling),
            Decision::Later(ruling) => {
                let router = Arc::clone(self);
                Some(Box::pin(async move {
                    let ruling = ruling.await;
                    if let Some(rest) = router.pass(routed, ruling) {
                        rest.await;
                    }
                }))
            }
        }
    }

    /// Whether messages are to be judged before they are routed.
    pub(crate) fn asks_about_routes(&self) -> bool {
        self.policy.asks(Point::Route)
    }

    /// Whom a message is for, or why nobody gets it.
    pub(crate) fn target(
        &self,
        envelope: &Envelope<'_>,
        last: &mut LastTarget,
    ) -> Result<AgentKey, RefusalReason> {
        if !self.relay.0[envelope.kind.index()] {
            return Err(RefusalReason::NotRelayed);
        }
        if envelope.to == REFERENCE_GATEWAY_DID {
            return Err(RefusalReason::UnknownAgent);
        }
        match last.key(&envelope.to) {
            Some(key) if key != self.voice.identity().key() => Ok(key),
            _ => Err(RefusalReason::UnknownAgent),
        }
    }

    fn pass(self: &Arc<Self>, mut routed: Routed, ruling: Ruling<Passage>) -> Option<Pending> {
        let Passage { way, copies } = match ruling {
            Ok(passage) => passage,
            Err(denial) => {
                self.refuse(routed, denial);
                return None;
            }
        };
        if !copies.is_empty() {
            self.copy(&routed, &copies);
        }
        match way {
            Way::Straight => self.deliver(routed),
            Way::Redirect(to) => {
                routed.to = to;
                self.deliver(routed)
            }
            Way::Hold(hold) => {
                routed.otherwise = Otherwise::HoldFor(hold);
                if let Some(routed) = self.offer(routed, self.clock.now()) {
                    self.hold(routed, hold, Source::Sender);
                }
                None
            }
        }
    }

    /// Gives others the same bytes, where they are present, here or elsewhere, and have room.
    fn copy(&self, routed: &Routed, to: &[AgentKey]) {
        let to = &to[..to.len().min(MAX_COPIES)];
        for (key, tap) in to.iter().zip(Tap::copies(routed, to.len())) {
            // What is given back counts itself as dropped.
            let _ = self.presence.offer_aside(*key, Parcel::Tap(tap), self.clock.now());
        }
    }

    fn deliver(self: &Arc<Self>, routed: Routed) -> Option<Pending> {
        let absent = self.offer(routed, self.clock.now())?;
        self.undeliverable(absent, Source::Sender)
    }

    /// Puts a message into its target's outbox or on its way there, or refuses it; given back if the
    /// target is absent.
    fn offer(&self, routed: Routed, now: Moment) -> Option<Routed> {
        self.offered(self.presence.offer(routed, now))
    }

    fn offered(&self, offered: Offered) -> Option<Routed> {
        match offered {
            Offered::Queued => None,
            Offered::Full(routed) => {
                self.refuse(routed, RefusalReason::QueueFull);
                None
            }
            Offered::Unreachable(routed) => {
                self.refuse(routed, RefusalReason::NodeUnreachable);
                None
            }
            Offered::Absent(routed) => Some(routed),
        }
    }

    /// A message's target is absent.
    pub(crate) fn undeliverable(
        self: &Arc<Self>,
        mut routed: Routed,
        source: Source,
    ) -> Option<Pending> {
        if self.is_stopping() {
            self.refuse(routed, RefusalReason::Draining);
            return None;
        }
        match routed.otherwise {
            Otherwise::Judge => {}
            Otherwise::HoldFor(hold) => {
                self.hold(routed, hold, source);
                return None;
            }
            Otherwise::HoldUntil(until) => {
                self.hold_until(routed, until, source);
                return None;
            }
            Otherwise::Refuse => {
                self.refuse(routed, RefusalReason::UnknownAgent);
                return None;
            }
        }
        let judge = routed.judge.clone().unwrap_or_else(|| self.policy.judge());
        let event = judge.asks(Point::Undeliverable).then(|| self.undeliverable_event(&routed));
        let Some(event) = event.flatten() else {
            self.fall_back(routed, Ok(Fallback::Configured), source);
            return None;
        };
        routed.judge = Some(Arc::clone(&judge));
        match judge.on_undeliverable(Arc::new(event)) {
            Decision::Now(ruling) => {
                self.fall_back(routed, ruling, source);
                None
            }
            Decision::Later(ruling) => {
                let router = Arc::clone(self);
                Some(Box::pin(async move {
                    let ruling = ruling.await;
                    router.fall_back(routed, ruling, source);
                }))
            }
        }
    }

    /// The event of a message whose target is absent; its key is the one that is absent, which after
    /// a redirect is not the one that the message names.
    fn undeliverable_event(&self, routed: &Routed) -> Option<Route> {
        // It was parsed by these rules before.
        let rules = self.rules(routed.sender.subprotocol);
        let envelope = Envelope::parse(&routed.text, rules).ok()?;
        Some(route_event(routed, &envelope, None))
    }

    fn fall_back(&self, mut routed: Routed, ruling: Ruling<Fallback>, source: Source) {
        match ruling {
            Ok(Fallback::Configured) => self.hold(routed, self.hold, source),
            Ok(Fallback::Hold(hold)) => self.hold(routed, hold, source),
            Ok(Fallback::Redirect(to)) => {
                (routed.to, routed.otherwise) = (to, Otherwise::Refuse);
                if let Some(routed) = self.offer(routed, self.clock.now()) {
                    self.refuse(routed, RefusalReason::UnknownAgent);
                }
            }
            Err(denial) => self.refuse(routed, denial),
        }
    }

    /// Holds a message for its target, which gets it at once should it have come back.
    fn hold(&self, routed: Routed, hold: Duration, source: Source) {
        if hold.is_zero() {
            // It may well be this gateway that sent its target away.
            let is_departing = *self.phase.borrow() >= Phase::Departing;
            let reasons = [RefusalReason::UnknownAgent, RefusalReason::Draining];
            return self.refuse(routed, reasons[usize::from(is_departing)]);
        }
        self.hold_until(routed, self.clock.now().after(hold), source);
    }

    fn hold_until(&self, routed: Routed, until: Moment, source: Source) {
        // Once the mailboxes were emptied nobody would look after it.
        if self.is_stopping() {
            return self.refuse(routed, RefusalReason::Draining);
        }
        let now = self.clock.now();
        let hub = &self.telemetry.hub;
        let followed = (hub.watches_messages() || enabled!(Level::DEBUG))
            .then(|| (routed.text.clone(), Arc::clone(&routed.sender), routed.kind, routed.number));
        let (to, read_at) = (Some(routed.to), routed.read_at);
        match self.presence.hold(routed, until, now, source) {
            Ok(Kept::Queued) => {}
            // Its judge ends here, if nothing else keeps it, and not under a lock.
            Ok(Kept::Held(judge)) => {
                drop(judge);
                if let Some((text, sender, kind, number)) = followed {
                    let message =
                        Passing { kind, text: &text, sender: &sender, number, to, read_at };
                    debug!(
                        trace = %message.trace(), session = %sender.id, from = %sender.agent, %kind,
                        "message held"
                    );
                    if hub.watches_messages() {
                        hub.message(message, Outcome::Held);
                    }
                }
            }
            Err((routed, reason)) => self.refuse(routed, reason),
        }
    }

    /// Whether nobody comes back to this gateway any more; in a cluster, nobody to whichever node.
    fn is_stopping(&self) -> bool {
        let last =
            if self.presence.delivery().is_some() { Phase::Quiescing } else { Phase::Departing };
        *self.phase.borrow() >= last
    }

    /// What a session leaves unwritten goes the way of an absent target, in order: to the node where that
    /// is by now, if there is one.
    pub(crate) async fn hand_on(self: &Arc<Self>, parcels: Vec<Parcel>, drained_by: SessionId) {
        for parcel in parcels {
            let Parcel::Routed(mut routed) = parcel else { continue };
            if matches!(routed.otherwise, Otherwise::HoldFor(_) | Otherwise::HoldUntil(_)) {
                // It had reached its target since that was decided.
                routed.otherwise = Otherwise::Judge;
            }
            if self.is_stopping() {
                self.refuse(routed, RefusalReason::Draining);
            } else if let Some(absent) = self.offered(self.presence.hand_on(routed))
                && let Some(rest) = self.undeliverable(absent, Source::Outbox(drained_by))
            {
                rest.await;
            }
        }
    }

    /// Ends a message with an ERROR to its sender.
    pub(crate) fn refuse(&self, routed: Routed, denial: impl Into<Denial>) {
        let denial = denial.into();
        let (text, sender) = (routed.text.clone(), Arc::clone(&routed.sender));
        let (kind, number) = (routed.kind, routed.number);
        let (to, read_at) = (Some(routed.to), routed.read_at);
        routed.refused(denial.reason);
        let message = Passing { kind, text: &text, sender: &sender, number, to, read_at };
        let parsed = Envelope::parse(&text, self.rules(sender.subprotocol)).ok();
        let id = parsed.as_ref().map(|envelope| envelope.id.as_ref());
        self.tell(&message, id, &denial);
    }

    /// Ends a message that got no further than this.
    pub(crate) fn refuse_early(&self, message: Passing<'_>, id: &str, reason: RefusalReason) {
        self.telemetry.messages.refused(message.kind, Some(reason));
        if self.telemetry.hub.watches_messages() {
            self.telemetry.hub.message(message, Outcome::Refused(Some(reason)));
        }
        self.tell(&message, Some(id), &reason.into());
    }

    fn tell(&self, message: &Passing<'_>, id: Option<&str>, denial: &Denial) {
        let Passing { kind, sender, .. } = *message;
        let reason = denial.reason.as_str();
        debug!(
            trace = %message.trace(), session = %sender.id, from = %sender.agent, %kind, reason,
            "message refused"
        );
        // An ERROR about an ERROR helps nobody; one to a peer that is gone cannot be read.
        if kind == MessageType::Error {
            return;
        }
        let complaint = Complaint::denial(denial);
        let error = self.voice.error(sender.agent.as_str(), id, &complaint);
        // An agent that came back on another connection meanwhile is told there.
        if !sender.outbox.refuse(error.clone())
            && let Some(newer) = self.presence.holder(sender.agent.key())
        {
            newer.outbox.refuse(error);
        }
    }

    /// Tells observers what happened; `event` is made only where somebody wants to know. Not to be
    /// called under a lock of presence's: hooks look agents up.
    pub(crate) fn observe(&self, point: Point, event: impl FnOnce() -> Event) {
        if !self.policy.asks(point) {
            return;
        }
        // Nothing depends on what observers do, so nothing ends when they break; also, some of it
        // is told while a session's task unwinds.
        let told = catch_unwind(AssertUnwindSafe(|| {
            let judge = self.policy.judge();
            if judge.asks(point) {
                judge.observe(event());
            }
        }));
        if told.is_err() {
            error!(%point, "observing panicked");
        }
    }

    /// Refuses what waits in mailboxes for too long, until dropped.
    pub(crate) async fn expire_mail(&self) {
        loop {
            match self.presence.postroom.next_due() {
                None => self.presence.postroom.sooner().await,
                Some((due, key)) => {
                    let now = self.clock.now();
                    if due <= now {
                        for routed in self.presence.expire_mail(key, now) {
                            self.refuse(routed, RefusalReason::Expired);
                        }
                        // Each refusal is signed: a whole postroom due at once takes its time.
                        tokio::task::yield_now().await;
                        continue;
                    }
                    tokio::select! {
                        () = tokio::time::sleep_until(self.clock.instant(due)) => {}
                        () = self.presence.postroom.sooner() => {}
                    }
                }
            }
        }
    }
}

fn route_event(routed: &Routed, envelope: &Envelope<'_>, target: Option<Arc<Agent>>) -> Route {
    let sender = &routed.sender;
    let parts = RouteParts {
        from: sender.facts(),
        target,
        to_key: *routed.to.as_bytes(),
        kind: routed.kind.as_str().into(),
        to: &envelope.to,
        id: &envelope.id,
        correlation_id: envelope.correlation_id.as_deref(),
        payload: envelope.raw_payload(),
        trace: Some(trace::id_of(envelope, sender.trace, routed.number).to_bytes()),
        connection: Some(Arc::clone(&sender.connection)),
    };
    Route::new(Text::new(routed.text.clone()), parts)
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;

    use super::*;

    #[test]
    fn the_last_target_is_known_by_its_spelling_alone() {
        let (one, other) = (Identity::generate().key(), Identity::generate().key());
        let mut last = LastTarget::default();
        for _ in 0..2 {
            assert_eq!(last.key(&one.did()), Some(one));
            assert_eq!(last.key(&one.did()), Some(one));
            assert_eq!(last.key(&one.legacy_did()), Some(one));
            assert_eq!(last.key("did:key:zzz"), None);
            assert_eq!(last.key(&other.did()), Some(other));
        }
    }
}
