//! The loop of a registered session.
//!
//! Four things happen to a session: frames come in, its outbox fills, a decision settles, time
//! passes. They are polled by hand, in rounds, since every message goes through here twice and a
//! round costs a fraction of what `select!` and a future for each branch do. While a decision is
//! pending nothing is read from this agent, but what others send it is still written and its lease
//! does not lapse.

use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use conexus_plugin_api::{Point, host};
use conexus_protocol::{CloseReason, RefusalReason};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::{
    farewell::Ending,
    handle::SessionHandle,
    handshake::Registered,
    inbound::Inbound,
    outbox::{Order, Parcel, Seen},
    proof::Nonce,
    scratch::Scratch,
    timer::Timer,
    wire::{Received, Recipient, SocketFault, Wire},
};
use crate::{
    clock::Moment,
    config::Activity,
    core::Core,
    hooks::Decision,
    phase::Phase,
    router::Pending,
    telemetry::sessions::{InState, State},
};

/// Between the end of a lease and the question whether that was it: time to read what has arrived.
const READ_ONCE_MORE: Duration = Duration::from_millis(50);

/// How many messages of one agent's are seen to before other tasks get their turn.
const A_TURN: u32 = 32;

/// How a registered session came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The peer closed, with this code if it gave one.
    PeerClosed(Option<u16>),
    /// The peer sent UNREGISTER.
    Unregistered,
    /// A newer session proved the same key, and wants what is unwritten.
    Replaced(oneshot::Sender<Vec<Parcel>>),
    /// A newer session of the same key is on another node.
    Moved,
    /// The same, and it was so before this one was registered altogether.
    Superseded,
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
pub(crate) struct KeyGuard {
    core: Arc<Core>,
    handle: Arc<SessionHandle>,
    /// What observers are to be told; none once they were, and while they were not told of the session.
    pub(super) untold: Option<Ending>,
    /// The key is promised to a newer session, which takes it in its own time.
    pub(super) yielded: bool,
}

impl KeyGuard {
    /// Of a session that holds its key from now on.
    pub(super) fn new(core: &Arc<Core>, handle: &Arc<SessionHandle>) -> Self {
        let (core, handle) = (Arc::clone(core), Arc::clone(handle));
        Self { core, handle, untold: None, yielded: false }
    }

    /// Observers are about to be told that the session is registered, so they are to hear of its end.
    pub(super) fn owes_an_end(&mut self) {
        self.untold = Some(Ending::BROKEN);
    }

    /// Tells observers that the session ends, if they were not told before. To be called while the
    /// key is still held, so that it comes before whatever the next session of the key does.
    pub(super) fn announce_end(&mut self) {
        if let Some(ending) = self.untold.take() {
            ending.announce(&self.core, &self.handle);
        }
    }
}

impl fmt::Debug for KeyGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyGuard").field(&self.handle.id).finish()
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        self.announce_end();
        let router = &self.core.router;
        router.presence.unwatch_all(&self.handle);
        if self.yielded {
            return;
        }
        for parcel in router.presence.abandon(&self.handle, Ending::BROKEN.word) {
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
    stage: Phase,
    /// Held while this session may bring up new messages.
    pub(super) reading: Option<TaskTrackerToken>,
    /// Held while something of other agents' may be unwritten here.
    pub(super) writing: Option<TaskTrackerToken>,
    /// When the lease was first seen to have lapsed.
    lapsed_at: Option<Moment>,
    /// When the frame that is seen to was read.
    pub(super) read_at: Instant,
    last_frame: Moment,
    last_ping: Moment,
    state: InState,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Active<S> {
    pub(crate) fn new(
        core: Arc<Core>,
        registered: Registered,
        mut wire: Box<Wire<S>>,
        reading: TaskTrackerToken,
        mut state: InState,
    ) -> Self {
        state.enter(State::Active);
        let now = core.clock.now();
        let writing = core.writers.token();
        let (router, session) = (Arc::clone(&core.router), Arc::clone(&registered.handle));
        wire.belongs_to(Recipient { router, session });
        let mut phase = core.phase.subscribe();
        // It may have changed before this session could be woken for it.
        phase.mark_changed();
        Self {
            inbound: Inbound::new(&core.settings, registered.handle.rates()),
            phase,
            stage: Phase::Running,
            key: registered.key,
            core,
            handle: registered.handle,
            nonce: registered.nonce,
            wire,
            pending: None,
            expiring: None,
            reading: Some(reading),
            writing: Some(writing),
            lapsed_at: None,
            read_at: Instant::now(),
            last_frame: now,
            last_ping: now,
            state,
        }
    }

    /// Serves until the session ends, and settles what it leaves behind.
    pub(crate) async fn run(mut self: Box<Self>) {
        let ended = self.serve().await;
        self.state.enter(State::Leaving);
        Box::pin(self.leave(ended)).await;
    }

    async fn serve(&mut self) -> Ended {
        let mut sleep = std::pin::pin!(sleep_until(self.next_deadline()));
        let mut timer = Timer::new(sleep.as_mut());
        poll_fn(|cx| self.poll_serve(cx, &mut timer)).await
    }

    /// Goes round until there is nothing left to do but to wait; everything that can be waited for
    /// was polled by then. Fair on purpose: in each round a chatty peer and a full outbox both get
    /// their turn, and after [`A_TURN`] of messages so do other tasks: the target of a burst can
    /// take it before its outbox is full.
    fn poll_serve(&mut self, cx: &mut Context<'_>, timer: &mut Timer<'_>) -> Poll<Ended> {
        let mut turn = A_TURN;
        loop {
            let seen = self.look(cx.waker());
            match seen.order {
                Some(Order::Yield(to)) => return Poll::Ready(Ended::Replaced(to)),
                Some(Order::Move) => return Poll::Ready(Ended::Moved),
                Some(Order::Close(reason, text)) => {
                    return Poll::Ready(Ended::Dismissed(reason, text));
                }
                None => {}
            }
            if self.handle.take_mail_waits() && self.handle.is_live(self.core.clock.now()) {
                self.core.router.presence.collect(&self.handle);
                continue;
            }
            if self.handle.watcher.is_owed() && self.settle_presence() {
                continue;
            }
            let had_capacity = self.wire.has_capacity();
            if let Poll::Ready(Err(fault)) = self.wire.poll_send(cx) {
                return Poll::Ready(Ended::Broken(fault));
            }
            let mut again = !seen.is_empty && !had_capacity && self.wire.has_capacity();
            if poll_settled(&mut self.pending, cx).is_ready() {
                self.settle();
                again = true;
            }
            // Behind the decision that ends here: no further message may follow it in a stop.
            if let Some(ended) = self.follow_phase(seen.is_empty) {
                return Poll::Ready(ended);
            }
            if let Poll::Ready(verdict) = poll_settled(&mut self.expiring, cx) {
                self.expiring = None;
                if let Some(ended) = self.settle_expiry(verdict) {
                    return Poll::Ready(ended);
                }
                again = true;
            }
            if self.may_read(seen.has_room) {
                match self.poll_read(cx, &mut turn) {
                    Poll::Ready(Some(ended)) => return Poll::Ready(ended),
                    Poll::Ready(None) => again = true,
                    Poll::Pending => {}
                }
            }
            // Frames only move deadlines away, so the timer mostly stays as it is, and looks again
            // when it is due; but a socket that begins to stall, or a lease that changes, can bring
            // one nearer.
            timer.not_after(self.next_deadline());
            if timer.poll(cx).is_ready() {
                if let Some(ended) = self.tick() {
                    return Poll::Ready(ended);
                }
                timer.set(self.next_deadline());
                again = true;
            }
            if !again {
                return Poll::Pending;
            }
            if turn == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Moves entries from the outbox to the wire while there is room.
    fn look(&mut self, waker: &Waker) -> Seen {
        let wire = RefCell::new(&mut self.wire);
        let wants_more = || wire.borrow().has_capacity();
        self.handle.outbox.look(waker, wants_more, |parcel| wire.borrow_mut().feed(parcel))
    }

    /// Reads what has come in, and sees to all of it; ready when that was anything.
    fn poll_read(&mut self, cx: &mut Context<'_>, turn: &mut u32) -> Poll<Option<Ended>> {
        let mut scratch = Scratch::borrow();
        let mut received = ready!(self.wire.poll_receive(cx, &mut scratch));
        // One look at the clock for all that has come in at once.
        self.read_at = Instant::now();
        let now = self.core.clock.moment(self.read_at);
        let ended = loop {
            if let Some(ended) = self.receive(received, now) {
                break Some(ended);
            }
            // One read brings many messages; each of them may be the last for now.
            *turn -= 1;
            if *turn == 0 || !self.may_read(self.handle.outbox.has_room()) {
                break None;
            }
            received = match self.wire.take_received(&mut scratch) {
                Ok(Some(received)) => Ok(received),
                Ok(None) => break None,
                Err(fault) => Err(fault),
            };
        };
        self.wire.keep(&mut scratch);
        Poll::Ready(ended)
    }

    /// The gateway may be stopping.
    fn follow_phase(&mut self, nothing_queued: bool) -> Option<Ended> {
        // Asking costs less than looking.
        if self.phase.has_changed().unwrap_or(true) {
            self.stage = *self.phase.borrow_and_update();
        }
        match self.stage {
            Phase::Running | Phase::Unready | Phase::Departing => None,
            Phase::Quiescing => {
                self.quiesce(nothing_queued);
                None
            }
            // Whoever has not taken what was to be written loses it while its senders are here to
            // be told.
            Phase::Settling => {
                self.quiesce(nothing_queued);
                self.writing.is_some().then_some(Ended::Stopping)
            }
            Phase::Closing => Some(Ended::Stopping),
        }
    }

    /// The gateway stops: nothing more is read once the last decision is settled, and it is noted
    /// when all is written.
    fn quiesce(&mut self, nothing_queued: bool) {
        if self.pending.is_none() && self.reading.take().is_some() {
            // It is the gateway that does not listen from now on: no lease lapses for that.
            (self.lapsed_at, self.expiring) = (None, None);
            self.handle.pin_lease(true);
        }
        if self.reading.is_none() && self.wire.is_idle() && nothing_queued {
            self.writing = None;
        }
    }

    /// Moves entries from the outbox to the wire while there is room.
    pub(super) fn fill(&mut self) {
        while self.wire.has_capacity() {
            match self.handle.outbox.take() {
                Some(parcel) if parcel.is_timely() => self.wire.feed(parcel),
                // This node may have stood still since it came.
                Some(late) => drop(late),
                None => break,
            }
        }
    }

    /// Nothing is read that could not be answered: not while a decision is pending, the outbox has
    /// no room for an ERROR, or the socket does not take its pongs. But before a lease is taken for
    /// lapsed, what has arrived is looked at, room or not.
    fn may_read(&self, has_room: bool) -> bool {
        let answerable = has_room || self.lapsed_at.is_some();
        self.reading.is_some() && self.pending.is_none() && self.wire.takes_control() && answerable
    }

    fn receive(&mut self, received: Result<Received, SocketFault>, now: Moment) -> Option<Ended> {
        match received {
            Err(fault) => Some(Ended::Broken(fault)),
            Ok(Received::Closed(code)) => Some(Ended::PeerClosed(code)),
            Ok(Received::Room) => None,
            Ok(Received::Control) => {
                self.note_frame(now, self.core.settings.presence.activity == Activity::Frames);
                None
            }
            Ok(Received::Binary) => {
                self.note_frame(now, true);
                self.binary()
            }
            Ok(Received::Text(text)) => {
                self.note_frame(now, true);
                let ended = self.text(text, now);
                // The lease stands still from here until the decision has settled.
                self.handle.pin_lease(self.pending.is_some());
                ended
            }
        }
    }

    fn note_frame(&mut self, now: Moment, renews: bool) {
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
        self.core.router.telemetry.sessions.lapsed();
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
        self.core.router.telemetry.sessions.lease_extended();
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
}

/// Polls a decision; where there is none it is never ready.
fn poll_settled<T>(
    decision: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    cx: &mut Context<'_>,
) -> Poll<T> {
    match decision {
        Some(decision) => decision.as_mut().poll(cx),
        None => Poll::Pending,
    }
}
