//! The outbox: what waits to be written to one agent's socket.
//!
//! Bounded in messages and bytes for everything that other agents send; the gateway's own answers
//! always fit, because a session stops reading while its outbox is [full](Outbox::has_room), so
//! that at most one answer per message already taken can follow. One task takes out, anyone puts
//! in, and wakes it only if it had seen all there was; nothing here waits. A routed entry carries its return address, so that whoever finds it
//! undeliverable can say so, and the judge that let it pass, so that no other one decides what
//! becomes of it then.

use std::{collections::VecDeque, fmt, sync::Arc, task::Waker, time::Duration};

use conexus_protocol::{AgentKey, CloseReason, MessageType, RefusalReason};
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::oneshot, time::Instant};
use tracing::trace;

use super::handle::SessionHandle;
use crate::{
    clock::Moment,
    cluster::delivery::forwarded::Forwarded,
    hooks::Judge,
    telemetry::{
        Telemetry,
        events::{Outcome, Passing},
    },
};

/// Above this many places an emptied queue gives its memory back.
const KEEP_CAPACITY: usize = 32;

/// How a message came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// When its frame was read.
    pub(crate) at: Instant,
    /// Its number among the messages of its session, from 1.
    pub(crate) number: u64,
}

/// A message on its way from one agent to another. It is counted when it ends: as delivered, or,
/// whichever way it is dropped, as refused.
pub(crate) struct Routed {
    /// The text exactly as received.
    pub(crate) text: Arc<str>,
    pub(crate) to: AgentKey,
    pub(crate) kind: MessageType,
    pub(crate) number: u64,
    /// When it was read; none once it was held, since the time that it waited is not the gateway's.
    pub(crate) read_at: Option<Instant>,
    /// Whom to tell when it cannot be delivered.
    pub(crate) sender: Arc<SessionHandle>,
    /// Who has judged it so far, and is asked again should its target turn out to be absent: what
    /// one generation of policy let pass, no other one ends. None where nothing was asked, or since
    /// it was held: mail would keep old generations alive for as long as it waits.
    pub(crate) judge: Option<Arc<dyn Judge>>,
    pub(crate) otherwise: Otherwise,
    ended: bool,
}

/// What is to become of a message whose target is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// Policy says so.
    #[default]
    Judge,
    /// Policy has said so: it is held for so long.
    HoldFor(Duration),
    /// It comes from a mailbox, where it may wait until then.
    HoldUntil(Moment),
    /// Policy sent it here in place of an absent target. It is not asked a second time.
    Refuse,
}

impl Routed {
    pub(crate) fn new(
        text: Arc<str>,
        to: AgentKey,
        kind: MessageType,
        sender: Arc<SessionHandle>,
        arrival: Arrival,
    ) -> Self {
        Self {
            text,
            to,
            kind,
            number: arrival.number,
            read_at: Some(arrival.at),
            sender,
            judge: None,
            otherwise: Otherwise::Judge,
            ended: false,
        }
    }

    /// The kernel has its last byte, at `now`.
    pub(crate) fn delivered(mut self, now: Instant) {
        self.ended = true;
        let took: Option<Duration> = self.read_at.map(|read| now.duration_since(read));
        self.sender.telemetry.delivered(self.kind, took);
        trace!(
            trace = %self.passing().trace(), session = %self.sender.id, from = %self.sender.agent,
            to = ?self.to, kind = %self.kind, ?took, "message delivered"
        );
        self.tell_of(Outcome::Delivered(took));
    }

    /// It goes no further, for this reason.
    pub(crate) fn refused(mut self, reason: RefusalReason) {
        self.end_refused(Some(reason));
    }

    fn end_refused(&mut self, reason: Option<RefusalReason>) {
        self.ended = true;
        self.sender.telemetry.messages.refused(self.kind, reason);
        self.tell_of(Outcome::Refused(reason));
    }

    /// Tells whoever follows it. Not under a lock.
    pub(crate) fn tell_of(&self, outcome: Outcome) {
        let hub = &self.sender.telemetry.hub;
        if hub.watches_messages() {
            hub.message(self.passing(), outcome);
        }
    }

    pub(crate) fn passing(&self) -> Passing<'_> {
        Passing {
            kind: self.kind,
            text: &self.text,
            sender: &self.sender,
            number: self.number,
            to: Some(self.to),
            read_at: self.read_at,
        }
    }
}

impl fmt::Debug for Routed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routed")
            .field("kind", &self.kind)
            .field("from", &self.sender.agent)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        if !self.ended {
            self.end_refused(None);
        }
    }
}

/// A copy of a message for somebody beside its target. Nobody is told when it gets nowhere.
#[derive(Debug)]
pub(crate) struct Tap {
    text: Arc<str>,
    telemetry: Arc<Telemetry>,
    ended: bool,
}

impl Tap {
    /// Copies of a message, which share its memory.
    pub(crate) fn copies(routed: &Routed, count: usize) -> impl Iterator<Item = Self> + use<> {
        let (text, telemetry) = (routed.text.clone(), Arc::clone(&routed.sender.telemetry));
        std::iter::repeat_with(move || Self {
            text: text.clone(),
            telemetry: Arc::clone(&telemetry),
            ended: false,
        })
        .take(count)
    }

    /// A copy that comes from another node.
    pub(crate) fn arrived(text: &str, telemetry: &Arc<Telemetry>) -> Self {
        Self { text: text.into(), telemetry: Arc::clone(telemetry), ended: false }
    }

    pub(crate) const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// It went to another node, which counts it.
    pub(crate) fn forwarded(mut self) {
        self.ended = true;
    }

    /// The kernel has its last byte.
    pub(crate) fn delivered(mut self) {
        self.ended = true;
        self.telemetry.messages.tap_delivered();
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if !self.ended {
            self.telemetry.messages.tap_dropped();
        }
    }
}

/// An entry of an outbox.
#[derive(Debug)]
pub(crate) enum Parcel {
    /// The gateway's answer to something on this session: of no use to a newer one.
    Reply(Arc<str>),
    /// The gateway's word to the agent, whichever its session: of use to a newer one, too.
    Word(Arc<str>),
    Routed(Routed),
    /// A message whose sender is on another node.
    Forwarded(Forwarded),
    Tap(Tap),
}

impl Parcel {
    pub(crate) fn text(&self) -> &Arc<str> {
        match self {
            Self::Reply(text) | Self::Word(text) => text,
            Self::Routed(routed) => &routed.text,
            Self::Forwarded(forwarded) => forwarded.text(),
            Self::Tap(tap) => &tap.text,
        }
    }

    /// Whether it is the gateway's own.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Reply(_) | Self::Word(_))
    }

    /// Whether it is to be written still. One that is not tells its sender so when it is dropped.
    pub(crate) fn is_timely(&self) -> bool {
        match self {
            Self::Forwarded(forwarded) => forwarded.is_timely(),
            Self::Reply(_) | Self::Word(_) | Self::Routed(_) | Self::Tap(_) => true,
        }
    }

    fn bytes(&self) -> usize {
        self.text().len()
    }
}

/// What somebody else wants from the task that owns a session.
#[derive(Debug)]
pub(crate) enum Order {
    /// A newer session has proven the same key: hand over what is unwritten and close.
    Yield(oneshot::Sender<Vec<Parcel>>),
    /// A newer session of the same key is on another node: hand on what is unwritten and close.
    Move,
    /// Somebody who may say so wants it closed, with this reason and text.
    Close(CloseReason, String),
}

/// Why an entry was not taken; it is given back.
#[derive(Debug)]
pub(crate) enum Refused<T = Routed> {
    Full(T),
    Closed(T),
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Parcel>,
    bytes: usize,
    closed: bool,
    sealed: bool,
    order: Option<Order>,
    /// Wakes the owner, who has seen all that is here; none while it is awake anyway.
    owner: Option<Waker>,
}

/// What the owner of an outbox found there.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What somebody else wants of the owner.
    pub(crate) order: Option<Order>,
    /// Whether one more answer fits within the bounds. While not, its owner does not read.
    pub(crate) has_room: bool,
    pub(crate) is_empty: bool,
}

/// How much waits in an outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// Three quarters of either bound are taken.
    pub(crate) is_nearly_full: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    max_messages: usize,
    max_bytes: usize,
}

impl Outbox {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), max_messages, max_bytes }
    }

    /// Puts in another agent's message, if there is room.
    pub(crate) fn offer(&self, routed: Routed) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed(routed));
        }
        if state.sealed || !self.fits(&state, routed.text.len()) {
            return Err(Refused::Full(routed));
        }
        state.push(Parcel::Routed(routed));
        wake(state);
        Ok(())
    }

    /// Puts in something that nobody waits for, if there is room.
    pub(crate) fn offer_aside(&self, parcel: Parcel) -> Result<(), Refused<Parcel>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed(parcel));
        }
        if state.sealed || !self.fits(&state, parcel.bytes()) {
            return Err(Refused::Full(parcel));
        }
        state.push(parcel);
        wake(state);
        Ok(())
    }

    /// Puts in word of another agent's coming or going. It takes no more than half of the room, so
    /// that those who come and go push out nobody's messages.
    pub(crate) fn offer_notice(&self, text: Arc<str>) -> Result<(), Refused<()>> {
        let mut state = self.state.lock();
        if state.closed || state.sealed {
            return Err(Refused::Closed(()));
        }
        let has_room = state.queue.len() < self.max_messages.div_ceil(2)
            && state.bytes + text.len() <= self.max_bytes / 2;
        if !has_room && !state.queue.is_empty() {
            return Err(Refused::Full(()));
        }
        state.push(Parcel::Reply(text));
        wake(state);
        Ok(())
    }

    /// Puts in an answer of the gateway. Without effect once closed: the peer is gone.
    pub(crate) fn reply(&self, text: Arc<str>) {
        self.append([Parcel::Reply(text)]);
    }

    /// Puts in an ERROR about a message of the agent's. False once closed.
    pub(crate) fn refuse(&self, text: Arc<str>) -> bool {
        self.append([Parcel::Word(text)])
    }

    /// Puts in entries that were accepted elsewhere, whatever the room: they must not be lost.
    /// Once closed it drops them, and says so by false.
    pub(crate) fn append(&self, parcels: impl IntoIterator<Item = Parcel>) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        for parcel in parcels {
            state.push(parcel);
        }
        wake(state);
        true
    }

    /// The next entry, if there is one.
    pub(crate) fn take(&self) -> Option<Parcel> {
        self.state.lock().pop()
    }

    /// Takes no further messages of other agents, so that whoever empties it comes to an end.
    pub(crate) fn seal(&self) {
        self.state.lock().sealed = true;
    }

    /// Whether one more answer fits within the bounds. While not, its owner does not read.
    pub(crate) fn has_room(&self) -> bool {
        self.fits(&self.state.lock(), 0)
    }

    pub(crate) fn depth(&self) -> Depth {
        let state = self.state.lock();
        let (messages, bytes) = (state.queue.len(), state.bytes);
        let is_nearly_full =
            messages * 4 >= self.max_messages * 3 || bytes * 4 >= self.max_bytes * 3;
        Depth { messages, bytes, is_nearly_full }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().queue.is_empty()
    }

    /// Closes for good and returns what was left.
    pub(crate) fn close(&self) -> Vec<Parcel> {
        let mut state = self.state.lock();
        state.closed = true;
        state.owner = None;
        state.bytes = 0;
        // An order nobody will carry out: dropping its sender tells the one who waits.
        state.order = None;
        std::mem::take(&mut state.queue).into()
    }

    /// Closes if nothing is left; says whether it is closed now.
    pub(crate) fn close_if_empty(&self) -> bool {
        let mut state = self.state.lock();
        if !state.queue.is_empty() {
            return false;
        }
        state.closed = true;
        (state.order, state.owner) = (None, None);
        true
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Asks the owner for something. False when somebody else has asked already, or it is closed.
    pub(crate) fn order(&self, order: Order) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.order.is_some() {
            return false;
        }
        state.order = Some(order);
        wake(state);
        true
    }

    #[cfg(test)]
    pub(crate) fn take_order(&self) -> Option<Order> {
        self.state.lock().order.take()
    }

    /// The owner looks what there is: `take` gets the entries, oldest first, until it wants no
    /// more. From here on the owner is woken when anything is put in, or asked of it.
    pub(crate) fn look(
        &self,
        owner: &Waker,
        mut wants_more: impl FnMut() -> bool,
        mut take: impl FnMut(Parcel),
    ) -> Seen {
        let mut state = self.state.lock();
        if !state.owner.as_ref().is_some_and(|known| known.will_wake(owner)) {
            state.owner = Some(owner.clone());
        }
        while wants_more()
            && let Some(parcel) = state.pop()
        {
            take(parcel);
        }
        Seen {
            order: state.order.take(),
            has_room: self.fits(&state, 0),
            is_empty: state.queue.is_empty(),
        }
    }

    /// Wakes the owner to look around, though nothing was put in.
    pub(crate) fn nudge(&self) {
        wake(self.state.lock());
    }

    /// Waits until something is asked of the owner, and leaves it there. For the owner alone.
    pub(crate) async fn ordered(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.order.is_some() || state.closed {
                return std::task::Poll::Ready(());
            }
            state.owner = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }

    /// Waits until something was put in or asked of the owner.
    #[cfg(test)]
    pub(crate) async fn changed(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.order.is_some() || !state.queue.is_empty() {
                return std::task::Poll::Ready(());
            }
            state.owner = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }

    fn fits(&self, state: &State, bytes: usize) -> bool {
        state.queue.len() < self.max_messages && state.bytes + bytes <= self.max_bytes
    }
}

impl State {
    fn push(&mut self, parcel: Parcel) {
        self.bytes += parcel.bytes();
        self.queue.push_back(parcel);
    }

    fn pop(&mut self) -> Option<Parcel> {
        let parcel = self.queue.pop_front()?;
        self.bytes -= parcel.bytes();
        if self.queue.is_empty() && self.queue.capacity() > KEEP_CAPACITY {
            self.queue = VecDeque::new();
        }
        Some(parcel)
    }
}

/// Wakes the owner, if it has seen all that was there before: not under the lock, which it is going
/// to take.
fn wake(mut state: MutexGuard<'_, State>) {
    let owner = state.owner.take();
    drop(state);
    if let Some(owner) = owner {
        owner.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::Wake,
    };

    use super::*;
    use crate::session::handle::tests::session;

    fn routed(text: &str) -> Routed {
        let sender = session();
        let (to, arrival) = (sender.agent.key(), Arrival { at: Instant::now(), number: 1 });
        Routed::new(text.into(), to, MessageType::Offer, sender, arrival)
    }

    #[test]
    fn a_full_outbox_gives_the_message_back_and_keeps_the_others() {
        let outbox = Outbox::new(2, 1000);
        outbox.offer(routed("one")).unwrap();
        outbox.offer(routed("two")).unwrap();
        assert!(
            matches!(outbox.offer(routed("three")), Err(Refused::Full(r)) if &*r.text == "three")
        );
        assert_eq!(outbox.take().unwrap().text().to_string(), "one");
        outbox.offer(routed("three")).unwrap();
    }

    #[test]
    fn the_owner_is_woken_once_and_again_only_after_it_has_looked() {
        #[derive(Default)]
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let (outbox, count) = (Outbox::new(9, 1000), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut texts = Vec::new();
        let mut look = |most: usize| {
            let taken = Cell::new(0);
            let seen = outbox.look(
                &waker,
                || taken.get() < most,
                |parcel| {
                    taken.set(taken.get() + 1);
                    texts.push(parcel.text().to_string());
                },
            );
            (seen.is_empty, seen.order.is_some(), count.0.load(Relaxed))
        };
        outbox.offer(routed("one")).unwrap();
        assert_eq!(look(9), (true, false, 0));
        outbox.offer(routed("two")).unwrap();
        outbox.offer(routed("three")).unwrap();
        assert_eq!(look(1), (false, false, 1));
        outbox.nudge();
        assert!(outbox.order(Order::Close(CloseReason::Removed, String::new())));
        assert_eq!(look(9), (true, true, 2));
        assert_eq!(texts, ["one", "two", "three"]);
    }

    #[test]
    fn bytes_are_bounded_like_messages() {
        let outbox = Outbox::new(100, 10);
        outbox.offer(routed("12345678")).unwrap();
        assert!(matches!(outbox.offer(routed("123")), Err(Refused::Full(_))));
        outbox.offer(routed("12")).unwrap();
        outbox.take();
        outbox.take();
        outbox.offer(routed("1234567890")).unwrap();
    }

    #[test]
    fn answers_fit_into_a_full_outbox_but_take_its_room() {
        let outbox = Outbox::new(1, 1000);
        outbox.reply("an answer".into());
        assert!(!outbox.has_room());
        outbox.refuse("another".into());
        assert!(matches!(outbox.offer(routed("x")), Err(Refused::Full(_))));
        outbox.take();
        outbox.take();
        assert!(outbox.has_room());
    }

    #[test]
    fn a_closed_outbox_takes_nothing_and_has_given_its_rest() {
        let outbox = Outbox::new(9, 1000);
        outbox.offer(routed("one")).unwrap();
        assert!(!outbox.close_if_empty());
        assert_eq!(outbox.close().len(), 1);
        assert!(matches!(outbox.offer(routed("two")), Err(Refused::Closed(_))));
        outbox.reply("x".into());
        assert!(outbox.is_empty());
        assert!(outbox.close_if_empty());
    }

    #[test]
    fn a_message_is_counted_once_however_it_ends() {
        let (delivered, dropped) = (routed("a"), routed("b"));
        let counts = |routed: &Routed| Arc::clone(&routed.sender.telemetry);
        let (one, other) = (counts(&delivered), counts(&dropped));
        for counts in [&one, &other] {
            counts.messages.received(MessageType::Offer);
        }
        delivered.delivered(Instant::now());
        drop(dropped);
        let ends = |telemetry: &Telemetry| {
            let messages = telemetry.messages.snapshot();
            (messages.delivered, messages.refused)
        };
        assert_eq!((ends(&one), ends(&other)), ((1, 0), (0, 1)));
    }

    #[test]
    fn a_sealed_outbox_still_gives_out_what_it_has() {
        let outbox = Outbox::new(9, 1000);
        outbox.offer(routed("one")).unwrap();
        outbox.seal();
        assert!(matches!(outbox.offer(routed("two")), Err(Refused::Full(_))));
        assert_eq!(outbox.take().unwrap().text().to_string(), "one");
        assert!(outbox.close_if_empty());
    }

    #[test]
    fn taps_take_only_room_that_there_is_and_are_counted_apart() {
        let outbox = Outbox::new(2, 1000);
        let original = routed("x");
        let telemetry = Arc::clone(&original.sender.telemetry);
        let accounting = &telemetry.messages;
        let refused = Tap::copies(&original, 3)
            .map(|tap| outbox.offer_aside(Parcel::Tap(tap)))
            .filter(|offered| matches!(offered, Err(Refused::Full(_))))
            .count();
        assert_eq!((refused, accounting.taps().dropped), (1, 1));
        let Some(Parcel::Tap(tap)) = outbox.take() else { panic!("no tap") };
        tap.delivered();
        drop(outbox.close());
        assert_eq!((accounting.taps().delivered, accounting.taps().dropped), (1, 2));
        assert_eq!(accounting.snapshot().refused, 0);
    }

    #[test]
    fn only_one_order_is_taken_at_a_time() {
        let outbox = Outbox::new(9, 1000);
        let (first, mut waits) = oneshot::channel();
        let (second, _) = oneshot::channel();
        assert!(outbox.order(Order::Yield(first)));
        assert!(!outbox.order(Order::Yield(second)));
        outbox.close();
        assert!(waits.try_recv().is_err(), "whoever waits learns that nobody will answer");
    }
}
