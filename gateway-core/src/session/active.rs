//! The loop of a registered session.
//!
//! Four things happen to a session: frames come in, its outbox fills, a decision settles, time
//! passes. The branches below only wait, cancel-safe; the work is in the arms. While a decision is
//! pending nothing is read from this agent, but what others send it is still written and its lease
//! does not lapse.

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use conexus_plugin_api::{Point, host};
use conexus_protocol::{CloseReason, RefusalReason};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::{
    farewell::Ending,
    handle::SessionHandle,
    handshake::Registered,
    inbound::Inbound,
    outbox::{Order, Parcel},
    proof::Nonce,
    wire::{Received, Recipient, SocketFault, Wire},
};
use crate::{
    clock::Moment, config::Activity, core::Core, hooks::Decision, phase::Phase, router::Pending,
};

/// Between the end of a lease and the question whether that was it: time to read what has arrived.
const READ_ONCE_MORE: Duration = Duration::from_millis(50);

/// How a registered session came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The peer closed, with this code if it gave one.
    PeerClosed(Option<u16>),
    /// The peer sent UNREGISTER.
    Unregistered,
    /// A newer session proved the same key, and wants what is unwritten.
    Replaced(oneshot::Sender<Vec<Parcel>>),
    /// Its lease ran out.
    Expired,
    /// Too many malformed messages.
    TooManyBadMessages,
    /// Too many messages over the rate.
    RateLimited,
    /// Its socket did not take what was to be written.
    TooSlow,
    /// Somebody who may say so wants it closed, with this reason and text.
    Dismissed(CloseReason, String),
    /// The gateway stops.
    Stopping,
    /// The connection broke, or the peer broke the WebSocket protocol.
    Broken(SocketFault),
}

/// Gives the key up should the session's task panic or be cut off; after an orderly farewell there
/// is nothing left to do. Also sees to it that the session's end is told to observers once.
pub(super) struct KeyGuard {
    core: Arc<Core>,
    handle: Arc<SessionHandle>,
    /// What observers are to be told; none once they were.
    pub(super) untold: Option<Ending>,
    /// The key is promised to a newer session, which takes it in its own time.
    pub(super) yielded: bool,
}

impl KeyGuard {
    /// Tells observers that the session ends, if they were not told before. To be called while the
    /// key is still held, so that it comes before whatever the next session of the key does.
    pub(super) fn announce_end(&mut self) {
        if let Some(ending) = self.untold.take() {
            ending.announce(&self.core, &self.handle);
        }
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        self.announce_end();
        if self.yielded {
            return;
        }
        let router = &self.core.router;
        for parcel in router.presence.abandon(&self.handle) {
            if let Parcel::Routed(routed) = parcel {
                router.refuse(routed, RefusalReason::UnknownAgent);
            }
        }
    }
}

/// See the [module](self).
pub(crate) struct Active<S> {
    pub(super) key: KeyGuard,
    pub(super) core: Arc<Core>,
    pub(super) handle: Arc<SessionHandle>,
    pub(super) nonce: Option<Nonce>,
    pub(super) wire: Box<Wire<S>>,
    pub(super) inbound: Inbound,
    /// A decision that takes its time: the message it is about is in there.
    pub(super) pending: Option<Pending>,
    expiring: Option<Pin<Box<dyn Future<Output = Option<Duration>> + Send>>>,
    phase: watch::Receiver<Phase>,
    /// Held while this session may bring up new messages.
    pub(super) reading: Option<TaskTrackerToken>,
    /// Held while something of other agents' may be unwritten here.
    pub(super) writing: Option<TaskTrackerToken>,
    /// When the lease was first seen to have lapsed.
    lapsed_at: Option<Moment>,
    last_frame: Moment,
    last_ping: Moment,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Active<S> {
    pub(crate) fn new(
        core: Arc<Core>,
        registered: Registered,
        mut wire: Box<Wire<S>>,
        reading: TaskTrackerToken,
    ) -> Self {
        let now = core.clock.now();
        let writing = core.writers.token();
        let (router, session) = (Arc::clone(&core.router), Arc::clone(&registered.handle));
        wire.belongs_to(Recipient { router, session });
        Self {
            inbound: Inbound::new(&core.settings, registered.handle.rates()),
            phase: core.phase.subscribe(),
            key: KeyGuard {
                core: Arc::clone(&core),
                handle: Arc::clone(&registered.handle),
                untold: Some(Ending::BROKEN),
                yielded: false,
            },
            core,
            handle: registered.handle,
            nonce: registered.nonce,
            wire,
            pending: None,
            expiring: None,
            reading: Some(reading),
            writing: Some(writing),
            lapsed_at: None,
            last_frame: now,
            last_ping: now,
        }
    }

    /// Serves until the session ends, and settles what it leaves behind.
    pub(crate) async fn run(mut self) {
        let ended = self.serve().await;
        Box::pin(self.leave(ended)).await;
    }

    async fn serve(&mut self) -> Ended {
        let mut timer = std::pin::pin!(sleep_until(self.next_deadline()));
        loop {
            self.fill();
            match self.handle.outbox.take_order() {
                Some(Order::Yield(to)) => return Ended::Replaced(to),
                Some(Order::Close(reason, text)) => return Ended::Dismissed(reason, text),
                None => {}
            }
            if self.handle.take_mail_waits() && self.handle.is_live(self.core.clock.now()) {
                self.core.router.presence.collect(&self.handle);
                continue;
            }
            let phase = *self.phase.borrow_and_update();
            match phase {
                Phase::Running => {}
                Phase::Quiescing => self.quiesce(),
                Phase::Settling => {
                    self.quiesce();
                    // Whoever has not taken what was to be written loses it while its senders are
                    // here to be told.
                    if self.writing.is_some() {
                        return Ended::Stopping;
                    }
                }
                Phase::Closing => return Ended::Stopping,
            }
            self.arm(timer.as_mut());
            let may_read = self.may_read();
            // Fair on purpose: neither a chatty peer nor a full outbox may starve the other.
            tokio::select! {
                () = self.handle.outbox.changed() => {}
                received = self.wire.next(may_read) => {
                    if let Some(ended) = self.receive(received) {
                        return ended;
                    }
                }
                () = settled(&mut self.pending) => self.settle(),
                verdict = settled(&mut self.expiring) => {
                    self.expiring = None;
                    if let Some(ended) = self.settle_expiry(verdict) {
                        return ended;
                    }
                }
                () = timer.as_mut() => {
                    if let Some(ended) = self.tick() {
                        return ended;
                    }
                    timer.as_mut().reset(self.next_deadline());
                }
                _ = self.phase.changed() => {}
            }
        }
    }

    /// The gateway stops: nothing more is read once the last decision is settled, and it is noted
    /// when all is written.
    fn quiesce(&mut self) {
        if self.pending.is_none() && self.reading.take().is_some() {
            // It is the gateway that does not listen from now on: no lease lapses for that.
            (self.lapsed_at, self.expiring) = (None, None);
            self.handle.pin_lease(true);
        }
        if self.reading.is_none() && self.wire.is_idle() && self.handle.outbox.is_empty() {
            self.writing = None;
        }
    }

    /// Moves entries from the outbox to the socket's buffer while there is room.
    pub(super) fn fill(&mut self) {
        while self.wire.has_capacity() {
            match self.handle.outbox.take() {
                Some(parcel) => self.wire.feed(parcel),
                None => break,
            }
        }
    }

    /// Nothing is read that could not be answered: not while a decision is pending, the outbox has
    /// no room for an ERROR, or the socket does not take its pongs. But before a lease is taken for
    /// lapsed, what has arrived is looked at.
    fn may_read(&self) -> bool {
        let answerable = self.wire.takes_control() && self.handle.outbox.has_room();
        self.reading.is_some() && self.pending.is_none() && (answerable || self.lapsed_at.is_some())
    }

    fn receive(&mut self, received: Result<Received, SocketFault>) -> Option<Ended> {
        match received {
            Err(fault) => Some(Ended::Broken(fault)),
            Ok(Received::Closed(code)) => Some(Ended::PeerClosed(code)),
            Ok(Received::Room) => None,
            Ok(Received::Control) => {
                self.note_frame(self.core.settings.presence.activity == Activity::Frames);
                None
            }
            Ok(Received::Binary) => {
                self.note_frame(true);
                self.binary()
            }
            Ok(Received::Text(text)) => {
                self.note_frame(true);
                let ended = self.text(&text);
                // The lease stands still from here until the decision has settled.
                self.handle.pin_lease(self.pending.is_some());
                ended
            }
        }
    }

    fn note_frame(&mut self, renews: bool) {
        let now = self.core.clock.now();
        self.last_frame = now;
        if renews {
            self.handle.note_activity(now);
            let lapsed = !self.handle.is_live(now);
            self.handle.extend_lease(now.after(self.core.settings.presence.timeout));
            if lapsed {
                // Back before the verdict: what was held meanwhile is due, the verdict is moot.
                self.expiring = None;
                self.lapsed_at = None;
                self.core.router.presence.collect(&self.handle);
            }
        }
    }

    fn settle(&mut self) {
        self.pending = None;
        // It may have been a renewal.
        self.inbound.follow(&self.core.settings, self.handle.rates());
        let now = self.core.clock.now();
        self.handle.extend_lease(now.after(self.core.settings.presence.timeout));
        self.handle.pin_lease(false);
    }

    fn tick(&mut self) -> Option<Ended> {
        let now = self.core.clock.now();
        let settings = &self.core.settings;
        if self
            .wire
            .stalled_since()
            .is_some_and(|since| since.elapsed() >= settings.limits.write_timeout)
        {
            return Some(Ended::TooSlow);
        }
        if self.expiring.is_some() && self.verdict_due() <= now {
            debug!(agent = %self.handle.agent, "no verdict on its expiry in time");
            return Some(Ended::Expired);
        }
        if self.expiring.is_none() && !self.handle.is_live(now) {
            // A frame may lie in the kernel, if it was the gateway that stood still.
            let lapsed_at = *self.lapsed_at.get_or_insert(now);
            if lapsed_at.after(READ_ONCE_MORE) <= now
                && let Some(ended) = self.lapse(now)
            {
                return Some(ended);
            }
        }
        if self.ping_due() <= now {
            self.last_ping = now;
            // A socket that takes nothing needs no ping: it is about to be found too slow.
            if self.wire.is_idle() {
                self.wire.ping();
            }
        }
        None
    }

    /// The lease ran out, and nothing came since.
    fn lapse(&mut self, now: Moment) -> Option<Ended> {
        let silent_for = self.handle.last_activity().until(now);
        debug!(agent = %self.handle.agent, ?silent_for, "lease ran out");
        let judge = self.core.router.policy.judge();
        if !judge.asks(Point::Expire) {
            return Some(Ended::Expired);
        }
        let event = host::Expire {
            agent: self.handle.facts(),
            silent_ms: u64::try_from(silent_for.as_millis()).unwrap_or(u64::MAX),
            connection: Some(Arc::clone(&self.handle.connection)),
        };
        match judge.on_expire(Arc::new(event)) {
            Decision::Now(extension) => self.settle_expiry(extension),
            Decision::Later(extension) => {
                self.expiring = Some(extension);
                None
            }
        }
    }

    fn settle_expiry(&mut self, extension: Option<Duration>) -> Option<Ended> {
        let Some(by) = extension else { return Some(Ended::Expired) };
        let by = by.min(self.core.settings.presence.max_extension);
        if by < Duration::from_millis(1) {
            return Some(Ended::Expired);
        }
        self.lapsed_at = None;
        self.handle.extend_lease(self.core.clock.now().after(by));
        self.core.router.presence.collect(&self.handle);
        None
    }

    /// Until when a verdict on a lapsed lease is waited for.
    fn verdict_due(&self) -> Moment {
        self.handle.lease_until().after(self.core.settings.presence.cleanup_interval)
    }

    fn ping_due(&self) -> Moment {
        self.last_frame.max(self.last_ping).after(self.core.settings.heartbeat())
    }

    /// When there is something to see to, if nothing happens before.
    fn next_deadline(&self) -> Instant {
        let mut next = self.ping_due();
        if self.expiring.is_some() {
            next = next.min(self.verdict_due());
        } else if let Some(lapsed_at) = self.lapsed_at {
            next = next.min(lapsed_at.after(READ_ONCE_MORE));
        } else if !self.handle.lease_is_pinned() {
            next = next.min(self.handle.lease_until());
        }
        let next = self.core.clock.instant(next);
        match self.wire.stalled_since() {
            Some(since) => next.min(since + self.core.settings.limits.write_timeout),
            None => next,
        }
    }

    /// Frames only move deadlines away, so the timer stays as it is, and looks again when it
    /// fires; but a socket that begins to stall, or a lease that changes, can bring one nearer.
    fn arm(&self, mut timer: Pin<&mut Sleep>) {
        let next = self.next_deadline();
        if next < timer.deadline() {
            timer.as_mut().reset(next);
        }
    }
}

/// Waits for a decision, or forever where there is none.
async fn settled<T>(decision: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match decision {
        Some(decision) => decision.as_mut().await,
        None => pending().await,
    }
}
