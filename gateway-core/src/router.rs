//! The router: from a judged message to one of its ends.
//!
//! envelope -> policy -> the target's outbox | its mailbox | refused. Whatever becomes of a
//! message is decided here and counted once. A decision that takes time makes the rest of the way
//! a future that the sender's session waits for; all else happens within the call.

use std::{pin::Pin, sync::Arc, time::Duration};

use conexus_protocol::{
    AgentKey, Envelope, MessageType, REFERENCE_GATEWAY_DID, RefusalReason, Rules, Subprotocol,
};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tracing::debug;

use crate::{
    accounting::Accounting,
    clock::Clock,
    config::Settings,
    hooks::{Decision, Policy, Routing, Undeliverable, UndeliverableVerdict, Verdict},
    phase::Phase,
    presence::{Offered, Presence},
    session::{
        handle::{SessionHandle, SessionId},
        outbox::{Parcel, Routed},
    },
    voice::{Complaint, Voice},
};

/// The rest of a message's way, where a decision takes time.
pub(crate) type Pending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See the [module](self).
pub(crate) struct Router {
    pub(crate) presence: Presence,
    pub(crate) accounting: Arc<Accounting>,
    pub(crate) voice: Voice,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) clock: Clock,
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

impl Router {
    pub(crate) fn new(
        settings: &Settings,
        presence: Presence,
        accounting: Arc<Accounting>,
        voice: Voice,
        policy: Arc<dyn Policy>,
        clock: Clock,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self {
            presence,
            accounting,
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
        text: &Utf8Bytes,
        envelope: &Envelope<'_>,
    ) -> Option<Pending> {
        let kind = envelope.kind;
        let to = match self.target(envelope) {
            Ok(to) => to,
            Err(reason) => {
                self.refuse_from(sender, kind, Some(&envelope.id), reason);
                return None;
            }
        };
        // From here on it is counted, also should the policy panic.
        let routed = Routed::new(text.clone(), to, kind, Arc::clone(sender));
        let verdict = self.policy.on_route(&Routing { from: &sender.agent, to, envelope });
        match verdict {
            Decision::Now(verdict) => self.routed(routed, verdict),
            Decision::Later(verdict) => {
                let router = Arc::clone(self);
                Some(Box::pin(async move {
                    let verdict = verdict.await;
                    if let Some(rest) = router.routed(routed, verdict) {
                        rest.await;
                    }
                }))
            }
        }
    }

    fn target(&self, envelope: &Envelope<'_>) -> Result<AgentKey, RefusalReason> {
        if !self.relay.0[envelope.kind.index()] {
            return Err(RefusalReason::NotRelayed);
        }
        if envelope.to == REFERENCE_GATEWAY_DID {
            return Err(RefusalReason::UnknownAgent);
        }
        match AgentKey::parse_did(&envelope.to) {
            Ok(key) if key != self.voice.identity().key() => Ok(key),
            _ => Err(RefusalReason::UnknownAgent),
        }
    }

    fn routed(self: &Arc<Self>, routed: Routed, verdict: Verdict) -> Option<Pending> {
        match verdict {
            Verdict::Deny(reason) => {
                self.refuse(routed, reason);
                None
            }
            Verdict::Continue => self.deliver(routed),
        }
    }

    fn deliver(self: &Arc<Self>, routed: Routed) -> Option<Pending> {
        match self.presence.offer(routed, self.clock.now()) {
            Offered::Queued => None,
            Offered::Full(routed) => {
                self.refuse(routed, RefusalReason::QueueFull);
                None
            }
            Offered::Absent(routed) => self.undeliverable(routed, None),
        }
    }

    /// A message's target is absent. `drained_by` is the leaving session whose outbox it was in.
    pub(crate) fn undeliverable(
        self: &Arc<Self>,
        routed: Routed,
        drained_by: Option<SessionId>,
    ) -> Option<Pending> {
        if self.is_stopping() {
            self.refuse(routed, RefusalReason::Draining);
            return None;
        }
        let event = Undeliverable { from: &routed.sender.agent, to: routed.to, text: &routed.text };
        match self.policy.on_undeliverable(&event) {
            Decision::Now(verdict) => {
                self.settle_undeliverable(routed, verdict, drained_by);
                None
            }
            Decision::Later(verdict) => {
                let router = Arc::clone(self);
                Some(Box::pin(async move {
                    let verdict = verdict.await;
                    router.settle_undeliverable(routed, verdict, drained_by);
                }))
            }
        }
    }

    fn settle_undeliverable(
        &self,
        routed: Routed,
        verdict: UndeliverableVerdict,
        drained_by: Option<SessionId>,
    ) {
        let hold = match verdict {
            UndeliverableVerdict::Continue => self.hold,
            UndeliverableVerdict::Hold(hold) => hold,
            UndeliverableVerdict::Deny(reason) => return self.refuse(routed, reason),
        };
        // Once the mailboxes were emptied nobody would look after it.
        if self.is_stopping() {
            return self.refuse(routed, RefusalReason::Draining);
        }
        if hold.is_zero() {
            return self.refuse(routed, RefusalReason::UnknownAgent);
        }
        let now = self.clock.now();
        if let Err(routed) = self.presence.hold(routed, now.after(hold), now, drained_by) {
            self.refuse(routed, RefusalReason::QueueFull);
        }
    }

    fn is_stopping(&self) -> bool {
        *self.phase.borrow() != Phase::Running
    }

    /// What a session leaves unwritten goes the way of an absent target, in order.
    pub(crate) async fn hand_on(self: &Arc<Self>, parcels: Vec<Parcel>, drained_by: SessionId) {
        for parcel in parcels {
            if let Parcel::Routed(routed) = parcel
                && let Some(rest) = self.undeliverable(routed, Some(drained_by))
            {
                rest.await;
            }
        }
    }

    /// Ends a message with an ERROR to its sender.
    pub(crate) fn refuse(&self, routed: Routed, reason: RefusalReason) {
        let (text, sender) = (routed.text.clone(), Arc::clone(&routed.sender));
        let kind = routed.kind;
        // This is where it is counted.
        drop(routed);
        let parsed = Envelope::parse(&text, self.rules(sender.subprotocol)).ok();
        let id = parsed.as_ref().map(|envelope| envelope.id.as_ref());
        self.tell(&sender, kind, id, reason);
    }

    /// Ends a message of `sender` that got no further than this.
    pub(crate) fn refuse_from(
        &self,
        sender: &SessionHandle,
        kind: MessageType,
        id: Option<&str>,
        reason: RefusalReason,
    ) {
        self.accounting.refused();
        self.tell(sender, kind, id, reason);
    }

    fn tell(
        &self,
        sender: &SessionHandle,
        kind: MessageType,
        id: Option<&str>,
        reason: RefusalReason,
    ) {
        debug!(session = %sender.id, from = %sender.agent, %kind, reason = reason.as_str(), "message refused");
        // An ERROR about an ERROR helps nobody; one to a peer that is gone cannot be read.
        if kind == MessageType::Error {
            return;
        }
        let complaint = Complaint::refusal(reason);
        let error = self.voice.error(sender.agent.as_str(), id, &complaint);
        // An agent that came back on another connection meanwhile is told there.
        if !sender.outbox.refuse(error.clone())
            && let Some(newer) = self.presence.holder(sender.agent.key())
        {
            newer.outbox.refuse(error);
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
