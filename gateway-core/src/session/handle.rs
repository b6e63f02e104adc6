//! What the rest of the gateway holds of a registered session.
//!
//! The session's task owns the socket; this handle is how the router reaches its outbox, how
//! presence asks whether its lease runs, and how a newer session tells it to yield.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use arc_swap::ArcSwap;
use conexus_plugin_api::{Agent, host::Connection};
use conexus_protocol::{AgentId, Subprotocol};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use tokio::sync::Notify;

use super::outbox::Outbox;
use crate::{
    clock::Moment,
    cluster::ids::Epoch,
    config::RateClass,
    ice::Pace,
    telemetry::{Telemetry, trace::TraceSeed},
    watching::watcher::Watcher,
};

/// Tells one session from another, also of the same key, for as long as the gateway runs. A
/// greater one was proven later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct SessionHandle {
    pub(crate) id: SessionId,
    pub(crate) agent: AgentId,
    pub(crate) subprotocol: Subprotocol,
    /// What hooks keep for the length of its connection.
    pub(crate) connection: Arc<Connection>,
    pub(crate) connected_at: Moment,
    pub(crate) outbox: Outbox,
    /// Whom it watches.
    pub(crate) watcher: Watcher,
    /// Where its messages are counted.
    pub(crate) telemetry: Arc<Telemetry>,
    /// What the trace ids of its messages are made of.
    pub(crate) trace: TraceSeed,
    /// How many of its messages wait in mailboxes.
    pub(crate) held: AtomicUsize,
    /// How often it may ask for ICE servers.
    pub(crate) ice: Pace,
    /// How often it may tell what came of them.
    pub(crate) ice_outcomes: Pace,
    facts: ArcSwap<Agent>,
    rates: Mutex<Option<RateClass>>,
    lease_until: AtomicU64,
    last_activity: AtomicU64,
    /// Messages that it sent for others, and that were delivered to it. Its own task alone counts.
    sent: AtomicU64,
    received: AtomicU64,
    /// When its socket stopped taking what waits for it, and 1; 0 while it takes it.
    stalled: AtomicU64,
    /// The epoch of its registration, in a cluster; 0 while the directory has granted none.
    epoch: AtomicU64,
    pinned: AtomicBool,
    mail_waits: AtomicBool,
    released: Notify,
}

impl SessionHandle {
    #[expect(clippy::too_many_arguments, reason = "a plain constructor of all that is known")]
    pub(crate) fn new(
        id: SessionId,
        agent: AgentId,
        subprotocol: Subprotocol,
        facts: Arc<Agent>,
        connection: Arc<Connection>,
        outbox: Outbox,
        telemetry: Arc<Telemetry>,
        now: Moment,
        lease_until: Moment,
    ) -> Self {
        Self {
            id,
            agent,
            subprotocol,
            connection,
            connected_at: now,
            outbox,
            watcher: Watcher::default(),
            telemetry,
            trace: TraceSeed::generate(),
            held: AtomicUsize::new(0),
            ice: Pace::default(),
            ice_outcomes: Pace::default(),
            facts: ArcSwap::new(facts),
            rates: Mutex::new(None),
            lease_until: AtomicU64::new(lease_until.as_millis()),
            last_activity: AtomicU64::new(now.as_millis()),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            pinned: AtomicBool::new(false),
            mail_waits: AtomicBool::new(false),
            released: Notify::new(),
        }
    }

    /// Whether the lease runs at `now`.
    pub(crate) fn is_live(&self, now: Moment) -> bool {
        // In this order: a session extends its lease before it unpins it.
        self.lease_is_pinned() || self.lease_until() > now
    }

    /// Keeps the lease from lapsing while the session itself does not read. The session alone does.
    pub(crate) fn pin_lease(&self, pinned: bool) {
        if self.lease_is_pinned() != pinned {
            self.pinned.store(pinned, SeqCst);
        }
    }

    pub(crate) fn lease_is_pinned(&self) -> bool {
        self.pinned.load(SeqCst)
    }

    pub(crate) fn lease_until(&self) -> Moment {
        Moment::from_millis(self.lease_until.load(SeqCst))
    }

    /// Prolongs the lease; an extension that reaches further stays.
    pub(crate) fn extend_lease(&self, until: Moment) {
        // Most messages come within the same millisecond as another one.
        if self.lease_until() < until {
            self.lease_until.fetch_max(until.as_millis(), SeqCst);
        }
    }

    pub(crate) fn note_activity(&self, now: Moment) {
        self.last_activity.store(now.as_millis(), Relaxed);
    }

    pub(crate) fn last_activity(&self) -> Moment {
        Moment::from_millis(self.last_activity.load(Relaxed))
    }

    /// Counts a message that the agent sent for another one; its number. The session alone does.
    pub(crate) fn count_sent(&self) -> u64 {
        let number = self.sent.load(Relaxed) + 1;
        self.sent.store(number, Relaxed);
        number
    }

    /// Counts messages that were delivered to the agent. The session alone does.
    pub(crate) fn count_received(&self, messages: u64) {
        self.received.store(self.received.load(Relaxed) + messages, Relaxed);
    }

    /// Messages that the agent sent for others, and that were delivered to it.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.sent.load(Relaxed), self.received.load(Relaxed))
    }

    /// Notes since when the socket takes nothing worth mentioning. The session alone does.
    pub(crate) fn note_stall(&self, since: Option<Moment>) {
        self.stalled.store(since.map_or(0, |since| since.as_millis() + 1), Relaxed);
    }

    /// Since when the socket takes nothing worth mentioning of what waits for it.
    pub(crate) fn stalled_since(&self) -> Option<Moment> {
        self.stalled.load(Relaxed).checked_sub(1).map(Moment::from_millis)
    }

    /// Notes that something was held for this session while its lease had lapsed.
    pub(crate) fn mail_waits(&self) {
        self.mail_waits.store(true, SeqCst);
        self.outbox.nudge();
    }

    /// Whether something was held since this was last asked.
    pub(crate) fn take_mail_waits(&self) -> bool {
        self.mail_waits.load(SeqCst) && self.mail_waits.swap(false, SeqCst)
    }

    /// What policy knows of the agent.
    pub(crate) fn facts(&self) -> Arc<Agent> {
        self.facts.load_full()
    }

    /// The rates that policy gave the agent, in place of the usual ones.
    pub(crate) fn rates(&self) -> Option<RateClass> {
        *self.rates.lock()
    }

    pub(crate) fn set_rates(&self, rates: Option<RateClass>) {
        *self.rates.lock() = rates;
    }

    /// The registration was renewed.
    pub(crate) fn set_facts(&self, facts: Arc<Agent>) {
        self.facts.store(facts);
    }

    /// When it registered by the clock of the cluster, once that is known. A later answer about the same
    /// registration may be greater.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        Some(self.epoch.load(SeqCst)).filter(|epoch| *epoch > 0).map(Epoch)
    }

    /// The directory has put it down with this epoch.
    pub(crate) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.fetch_max(epoch.0, SeqCst);
    }

    /// Says that this session no longer holds its key, after its outbox was closed.
    pub(crate) fn release(&self) {
        self.released.notify_waiters();
    }

    /// Waits until the session no longer holds its key.
    pub(crate) async fn released(&self) {
        let notified = self.released.notified();
        let mut notified = std::pin::pin!(notified);
        notified.as_mut().enable();
        if !self.outbox.is_closed() {
            notified.await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use conexus_protocol::Identity;

    use super::*;

    /// A session of a fresh agent, with room for 8 messages, whose lease ends at 60 s.
    pub(crate) fn session() -> Arc<SessionHandle> {
        session_of(&Identity::generate())
    }

    pub(crate) fn session_of(identity: &Identity) -> Arc<SessionHandle> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let start = Moment::from_millis(0);
        let id = SessionId(NEXT.fetch_add(1, SeqCst));
        let facts = Agent {
            did: identity.did().to_owned(),
            key: *identity.key().as_bytes(),
            session: id.0,
            address: ([127, 0, 0, 1], 1).into(),
            subprotocol: Subprotocol::V1.as_str().to_owned(),
            connected_at_ms: 0,
            metadata: Default::default(),
            labels: Default::default(),
            rate_class: None,
        };
        Arc::new(SessionHandle::new(
            id,
            identity.id().clone(),
            Subprotocol::V1,
            Arc::new(facts),
            Arc::default(),
            Outbox::new(8, 10_000),
            Arc::default(),
            start,
            start.after(Duration::from_secs(60)),
        ))
    }

    #[test]
    fn a_lease_ends_at_its_moment_and_never_shrinks() {
        let session = session();
        let end = Moment::from_millis(60_000);
        assert!(session.is_live(Moment::from_millis(59_999)));
        assert!(!session.is_live(end));
        session.extend_lease(Moment::from_millis(90_000));
        session.extend_lease(Moment::from_millis(70_000));
        assert!(session.is_live(Moment::from_millis(89_999)));
    }
}
