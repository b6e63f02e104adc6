//! A lane: the messages of this node's senders for one target that is elsewhere, or was a moment ago.
//!
//! While a key has one, all that is sent to it goes through there, in order: however often its agent
//! moves, nothing of it overtakes anything. It lies in the key's slot, under whose lock it changes. What
//! it does of itself is here; what it does with its key's owner and mailbox is in [`super::afar`].

use std::{collections::VecDeque, mem, sync::Arc};

use conexus_protocol::{AgentKey, RefusalReason};

use crate::{
    cluster::{
        delivery::{
            Waiting,
            peer::{Peer, Shut, Unsent},
        },
        frame::Aside,
        ids::{Epoch, MemberId},
        places::Place,
    },
    session::outbox::{Parcel, Refused, Routed},
};

/// Messages that end here, and why. Their senders are told once no lock is held.
pub(crate) type Refusals = Vec<(Routed, RefusalReason)>;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Lane {
    key: AgentKey,
    /// Of its state: what comes late, for another one, is told by it.
    pub(super) ticket: u64,
    pub(super) state: State,
    queue: VecDeque<Parcel>,
    bytes: usize,
    waiting: Arc<Waiting>,
    /// Messages that the target's node has said nothing of yet.
    pub(super) under_way: usize,
    /// Those of which it said that the target is gone, by their numbers.
    returned: Vec<(u64, Routed)>,
    /// The greatest number of those that were delivered.
    delivered: u64,
    /// The size of a message that is being told that its target is absent.
    in_hand: Option<usize>,
    /// Where the target was when it was found last.
    pub(super) place: Option<Place>,
    /// The registration that was gone when it was sent to last. While the directory knows of no other
    /// one, the target is absent.
    said_gone: Option<(MemberId, Epoch)>,
    used: bool,
}

/// How far it is known where the target is.
#[derive(Debug)]
pub(super) enum State {
    /// The directory is being asked.
    Resolving,
    /// There: what comes goes straight on.
    Open(Arc<Peer>, Epoch),
    /// Not there any more. Once all that is under way has its end, the directory is asked again.
    Turning,
    /// Nowhere: what is here is told so, one message after the other.
    Absent,
}

impl Lane {
    pub(super) fn new(key: AgentKey, ticket: u64, waiting: Arc<Waiting>) -> Self {
        Self {
            key,
            ticket,
            state: State::Resolving,
            queue: VecDeque::new(),
            bytes: 0,
            waiting,
            under_way: 0,
            returned: Vec::new(),
            delivered: 0,
            in_hand: None,
            place: None,
            said_gone: None,
            used: true,
        }
    }

    /// Something is under way or being decided, behind which all else has to wait.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way > 0 || self.in_hand.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether nothing has come since this was last asked, and nothing is here.
    pub(super) fn is_idle(&mut self) -> bool {
        let used = mem::take(&mut self.used);
        !used && !self.is_busy() && self.queue.is_empty() && matches!(self.state, State::Open(..))
    }

    /// Takes something on, if there is room; what was accepted elsewhere is taken whatever the room.
    pub(super) fn push(&mut self, parcel: Parcel, accepted: bool) -> Result<(), Refused<Parcel>> {
        self.used = true;
        if matches!(self.state, State::Open(..)) && self.queue.is_empty() {
            return self.send(parcel);
        }
        if !accepted && !self.waiting.has_room(self.queue.len(), self.bytes, parcel.text().len()) {
            return Err(Refused::Full(parcel));
        }
        self.put_back(parcel);
        Ok(())
    }

    /// Sends something on; an open lane does.
    pub(super) fn send(&mut self, parcel: Parcel) -> Result<(), Refused<Parcel>> {
        let State::Open(peer, epoch) = &self.state else {
            self.put_back(parcel);
            return Ok(());
        };
        let (key, epoch) = (self.key, *epoch);
        match parcel {
            Parcel::Routed(routed) => match peer.forward(routed, epoch) {
                Ok(_) => self.under_way += 1,
                Err(Unsent::Full(routed)) => return Err(Refused::Full(Parcel::Routed(routed))),
                Err(Unsent::Shut(routed, Shut::Away)) => {
                    return Err(Refused::Closed(Parcel::Routed(routed)));
                }
                Err(Unsent::Shut(routed, Shut::Gone)) => {
                    self.state = State::Turning;
                    self.put_back(Parcel::Routed(routed));
                }
            },
            Parcel::Tap(tap) => {
                if !peer.aside(Aside::Tap, key, epoch, tap.text()) {
                    return Err(Refused::Full(Parcel::Tap(tap)));
                }
                tap.forwarded();
            }
            Parcel::Word(text) => {
                if !peer.aside(Aside::Word, key, epoch, &text) {
                    return Err(Refused::Full(Parcel::Word(text)));
                }
            }
            // What another node sent is told there, and an answer was meant for one session.
            Parcel::Forwarded(_) | Parcel::Reply(_) => {}
        }
        Ok(())
    }

    /// One of those under way has its end.
    pub(super) fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// One was delivered, with this number. What came back though it had been sent before would be
    /// overtaken by it: it goes no further.
    pub(super) fn delivered(&mut self, number: u64, refusals: &mut Refusals) {
        self.delivered = self.delivered.max(number);
        if !self.returned.is_empty() {
            let (overtaken, rest) =
                mem::take(&mut self.returned).into_iter().partition(|(sent, _)| *sent < number);
            self.returned = rest;
            let overtaken: Vec<(u64, Routed)> = overtaken;
            let refuse = |(_, routed)| (routed, RefusalReason::UnknownAgent);
            refusals.extend(overtaken.into_iter().map(refuse));
        }
    }

    /// One came back, since the registration that it was sent to is over.
    pub(super) fn came_back(&mut self, number: u64, routed: Routed, refusals: &mut Refusals) {
        if number < self.delivered {
            refusals.push((routed, RefusalReason::UnknownAgent));
            return;
        }
        self.returned.push((number, routed));
        if let State::Open(peer, epoch) = &self.state {
            self.said_gone = Some((peer.member, *epoch));
            self.state = State::Turning;
        }
    }

    /// Puts what came back in front of what waits, in the order in which it was sent.
    pub(super) fn gather_returned(&mut self) {
        self.returned.sort_unstable_by_key(|(number, _)| *number);
        for (_, routed) in mem::take(&mut self.returned).into_iter().rev() {
            let size = routed.text.len();
            self.bytes += size;
            self.waiting.add(size);
            self.queue.push_front(Parcel::Routed(routed));
        }
    }

    /// Whether the registration at a place is the one that was gone.
    pub(super) fn knows_gone(&self, place: &Place) -> bool {
        self.said_gone == Some((place.member, place.epoch))
    }

    /// What waits, oldest first.
    pub(super) fn take_all(&mut self) -> VecDeque<Parcel> {
        self.waiting.remove(self.queue.len(), mem::take(&mut self.bytes));
        mem::take(&mut self.queue)
    }

    /// Takes the oldest one out, to be told that its target is absent. It is counted as waiting until that
    /// is [settled](Self::settle_in_hand).
    pub(super) fn take_in_hand(&mut self) -> Option<Parcel> {
        let parcel = self.queue.pop_front()?;
        let size = parcel.text().len();
        self.bytes -= size;
        self.in_hand = Some(size);
        Some(parcel)
    }

    pub(super) fn settle_in_hand(&mut self) {
        if let Some(size) = self.in_hand.take() {
            self.waiting.remove(1, size);
        }
    }

    fn put_back(&mut self, parcel: Parcel) {
        let size = parcel.text().len();
        self.bytes += size;
        self.waiting.add(size);
        self.queue.push_back(parcel);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.settle_in_hand();
        drop(self.take_all());
    }
}
