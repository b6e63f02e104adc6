//! What presence does about keys whose agents are on other nodes, or may be.
//!
//! Everything here happens under the lock of the key's slot, as all else of it does: where a message goes
//! (outbox, [`Lane`], mailbox), and when a lane turns, opens or ends. What is to be refused is handed
//! out. Without a cluster nothing of this is reached.

use std::sync::Arc;

use conexus_protocol::{AgentKey, RefusalReason};
use parking_lot::MutexGuard;

use super::{
    Offered, Presence, Shard, Slot,
    lane::{Lane, Refusals, State},
    remove_if_vacant,
};
use crate::{
    clock::Moment,
    cluster::{
        delivery::{Delivery, lookup::Whereabouts},
        frame::End,
        ids::Epoch,
        places::Place,
    },
    session::outbox::{Otherwise, Parcel, Refused, Routed},
};

/// What became of something that was to go to another node.
#[derive(Debug)]
pub(super) enum Sent {
    /// It is on its way, or waits for it.
    Taken,
    /// There is no room.
    Full(Parcel),
    /// This node is not part of the cluster now.
    Unreachable(Parcel),
}

impl Sent {
    fn offered(self) -> Offered {
        match self {
            Self::Full(Parcel::Routed(routed)) => Offered::Full(routed),
            Self::Unreachable(Parcel::Routed(routed)) => Offered::Unreachable(routed),
            // A message is given back as what it is.
            _ => Offered::Queued,
        }
    }
}

impl Slot {
    /// Whether its agent is here, and neither leaving nor lapsed.
    fn is_live(&self, now: Moment) -> bool {
        self.owner.as_ref().is_some_and(|owner| !owner.leaving && owner.session.is_live(now))
    }
}

impl Presence {
    /// The key of a message has no owner here, or a lane.
    pub(super) fn offer_afar(&self, mut shard: MutexGuard<'_, Shard>, routed: Routed) -> Offered {
        let Some(delivery) = &self.delivery else { return Offered::Absent(routed) };
        let key = routed.to;
        self.send(delivery, &mut shard, key, Parcel::Routed(routed), false).offered()
    }

    /// Puts something that nobody waits for into the outbox of an agent, here or on another node. Given
    /// back where there is no room, or nobody who takes it.
    pub(crate) fn offer_aside(
        &self,
        key: AgentKey,
        parcel: Parcel,
        now: Moment,
    ) -> Result<(), Refused<Parcel>> {
        let mut shard = self.shard(key);
        match shard.get(&key) {
            Some(Slot { owner: Some(owner), lane: None, .. }) => {
                if owner.leaving || !owner.session.is_live(now) {
                    return Err(Refused::Closed(parcel));
                }
                return owner.session.outbox.offer_aside(parcel);
            }
            Some(Slot { owner: Some(owner), .. }) if owner.leaving => {
                return Err(Refused::Closed(parcel));
            }
            _ => {}
        }
        let Some(delivery) = &self.delivery else { return Err(Refused::Closed(parcel)) };
        match self.send(delivery, &mut shard, key, parcel, false) {
            Sent::Taken => Ok(()),
            Sent::Full(parcel) => Err(Refused::Full(parcel)),
            Sent::Unreachable(parcel) => Err(Refused::Closed(parcel)),
        }
    }

    /// What a session that leaves has not written goes on, ahead of what comes to its outbox meanwhile.
    pub(crate) fn hand_on(&self, routed: Routed) -> Offered {
        let Some(delivery) = &self.delivery else { return Offered::Absent(routed) };
        let key = routed.to;
        self.send(delivery, &mut self.shard(key), key, Parcel::Routed(routed), true).offered()
    }

    /// Something that is to be held, unless its target is on another node after all.
    pub(super) fn hold_afar(
        &self,
        shard: MutexGuard<'_, Shard>,
        mut routed: Routed,
        until: Moment,
    ) -> Offered {
        routed.otherwise = Otherwise::HoldUntil(until);
        self.offer_afar(shard, routed)
    }

    fn send(
        &self,
        delivery: &Arc<Delivery>,
        shard: &mut Shard,
        key: AgentKey,
        parcel: Parcel,
        accepted: bool,
    ) -> Sent {
        let slot = shard.entry(key).or_default();
        if slot.lane.is_none() && !self.make_lane(delivery, slot, key) {
            remove_if_vacant(shard, key);
            return Sent::Unreachable(parcel);
        }
        let Some(lane) = &mut slot.lane else { return Sent::Unreachable(parcel) };
        match lane.push(parcel, accepted) {
            Ok(()) => {
                // The node that it led to may be gone.
                self.advance(slot, key);
                Sent::Taken
            }
            Err(Refused::Full(parcel)) => Sent::Full(parcel),
            Err(Refused::Closed(parcel)) => Sent::Unreachable(parcel),
        }
    }

    /// Gives a key a lane. False if this node is not part of the cluster now.
    fn make_lane(&self, delivery: &Delivery, slot: &mut Slot, key: AgentKey) -> bool {
        if delivery.cluster.joined().is_err() {
            return false;
        }
        let ticket = delivery.ticket();
        let mut lane = Box::new(Lane::new(key, ticket, Arc::clone(&delivery.waiting)));
        // What waits in the mailbox goes first, which takes a moment longer.
        let remembered = if slot.mailbox.is_empty() { delivery.remembered(key) } else { None };
        match remembered {
            Some(place) => lane.state = opened(delivery, &mut lane, place),
            None => delivery.look_up(key, ticket),
        }
        delivery.lane_made(key);
        slot.lane = Some(lane);
        true
    }

    /// The owner of a key came, and it has a lane: what is in there is for the owner, once it has its turn.
    pub(super) fn lane_meets_owner(&self, slot: &mut Slot, key: AgentKey) {
        if let Some(lane) = &mut slot.lane
            && !matches!(lane.state, State::Absent)
        {
            lane.state = State::Turning;
        }
        self.advance(slot, key);
    }

    /// Sees to a lane behind which nothing waits any more: its agent is here, or it is to be looked up, or
    /// the lane ends.
    pub(super) fn advance(&self, slot: &mut Slot, key: AgentKey) {
        let Some(delivery) = &self.delivery else { return };
        let Some(lane) = slot.lane.as_mut().filter(|lane| !lane.is_busy()) else { return };
        lane.gather_returned();
        let now = self.watches.clock.now();
        if slot.is_live(now) {
            return self.leave_lane(slot);
        }
        let Some(lane) = &mut slot.lane else { return };
        if matches!(lane.state, State::Turning) {
            if lane.is_empty() && slot.mailbox.is_empty() {
                slot.lane = None;
                return;
            }
            (lane.state, lane.ticket) = (State::Resolving, delivery.ticket());
            delivery.look_up(key, lane.ticket);
        }
    }

    /// The owner is here to stay: what was held, and then what is in the lane, is due.
    fn leave_lane(&self, slot: &mut Slot) {
        let Some(mut lane) = slot.lane.take() else { return };
        self.collect_from(slot);
        if let Some(owner) = &slot.owner {
            owner.session.outbox.append(lane.take_all());
        }
    }

    /// It is known now where the agent of a lane is.
    pub(crate) fn resolved(&self, key: AgentKey, ticket: u64, found: Whereabouts) -> Refusals {
        let mut refusals = Refusals::new();
        let Some(delivery) = &self.delivery else { return refusals };
        let mut shard = self.shard(key);
        let Some(slot) = shard.get_mut(&key) else { return refusals };
        let Some(lane) = &mut slot.lane else { return refusals };
        if lane.ticket != ticket || !matches!(lane.state, State::Resolving) {
            return refusals;
        }
        match found {
            Whereabouts::At(place) if !lane.knows_gone(&place) => {
                lane.state = opened(delivery, lane, place);
                let mail = self.postroom.empty_for_now(key, &mut slot.mailbox);
                self.released(&mail);
                let mail = mail.into_iter().map(Parcel::Routed);
                for parcel in mail.chain(lane.take_all()).collect::<Vec<_>>() {
                    match lane.send(parcel) {
                        Ok(()) => {}
                        Err(Refused::Full(parcel)) => {
                            refuse(parcel, RefusalReason::QueueFull, &mut refusals);
                        }
                        Err(Refused::Closed(parcel)) => {
                            refuse(parcel, RefusalReason::NodeUnreachable, &mut refusals);
                        }
                    }
                }
                self.advance(slot, key);
            }
            Whereabouts::At(_) | Whereabouts::Absent => {
                if lane.is_empty() {
                    slot.lane = None;
                } else {
                    lane.state = State::Absent;
                    delivery.drain_lane(key, ticket);
                }
            }
            Whereabouts::Unreachable => {
                for parcel in lane.take_all() {
                    refuse(parcel, RefusalReason::NodeUnreachable, &mut refusals);
                }
                slot.lane = None;
            }
        }
        self.tidy(&mut shard, key);
        refusals
    }

    /// A message of this node's has its end on another one, or was lost on the way there: the rest of its
    /// lane goes on. One that came back is given along.
    pub(crate) fn lane_ended(
        &self,
        key: AgentKey,
        number: u64,
        end: Option<End>,
        returned: Option<Routed>,
    ) -> Refusals {
        let mut refusals = Refusals::new();
        let mut shard = self.shard(key);
        let has_lane = |slot: &&mut Slot| slot.lane.is_some();
        let Some(slot) = shard.get_mut(&key).filter(has_lane) else {
            // It outlives what is under way; should it not, nothing waits behind it.
            refusals.extend(returned.map(|routed| (routed, RefusalReason::UnknownAgent)));
            return refusals;
        };
        let Some(lane) = &mut slot.lane else { return refusals };
        lane.ended();
        match (end, returned) {
            (_, Some(routed)) => lane.came_back(number, routed, &mut refusals),
            (Some(End::Delivered), None) => lane.delivered(number, &mut refusals),
            _ => {}
        }
        self.advance(slot, key);
        self.tidy(&mut shard, key);
        refusals
    }

    /// Where the agent of a lane was found last.
    pub(crate) fn lane_place(&self, key: AgentKey) -> Option<Place> {
        self.shard(key).get(&key)?.lane.as_ref()?.place.clone()
    }

    /// The next message of a lane whose agent is absent. It holds the others up until it is
    /// [settled](Self::absent_settled).
    pub(crate) fn next_absent(&self, key: AgentKey, ticket: u64) -> Option<Parcel> {
        let mut shard = self.shard(key);
        let slot = shard.get_mut(&key)?;
        let lane = slot.lane.as_mut()?;
        if lane.ticket != ticket || !matches!(lane.state, State::Absent) || lane.is_busy() {
            return None;
        }
        if slot.is_live(self.watches.clock.now()) {
            self.advance(slot, key);
            return None;
        }
        let next = slot.lane.as_mut()?.take_in_hand();
        if next.is_none() {
            slot.lane = None;
            self.tidy(&mut shard, key);
        }
        next
    }

    /// The message that was taken out last has its end, or waits elsewhere.
    pub(crate) fn absent_settled(&self, key: AgentKey, ticket: u64) {
        let mut shard = self.shard(key);
        if let Some(slot) = shard.get_mut(&key)
            && let Some(lane) = &mut slot.lane
            && lane.ticket == ticket
        {
            lane.settle_in_hand();
            self.advance(slot, key);
        }
    }

    /// The agent of a key may be on another node: then what is held for it here goes there.
    pub(crate) fn mail_goes(&self, key: AgentKey) {
        let Some(delivery) = &self.delivery else { return };
        let mut shard = self.shard(key);
        if let Some(slot) = shard.get_mut(&key)
            && slot.owner.is_none()
            && slot.lane.is_none()
            && !slot.mailbox.is_empty()
        {
            self.make_lane(delivery, slot, key);
        }
    }

    /// Takes down the lanes that nothing has gone through for a moment.
    pub(crate) fn sweep_lanes(&self) {
        let Some(delivery) = &self.delivery else { return };
        for key in delivery.take_lanes() {
            let mut shard = self.shard(key);
            let Some(slot) = shard.get_mut(&key) else { continue };
            if slot.lane.as_mut().is_some_and(|lane| lane.is_idle()) {
                slot.lane = None;
            }
            if slot.lane.is_some() {
                delivery.lane_made(key);
            }
            self.tidy(&mut shard, key);
        }
    }

    /// Looks the agents of all lanes up that wait for that: what was to do so may have broken.
    pub(crate) fn look_up_anew(&self) {
        let Some(delivery) = &self.delivery else { return };
        for key in delivery.take_lanes() {
            let shard = self.shard(key);
            let Some(lane) = shard.get(&key).and_then(|slot| slot.lane.as_ref()) else { continue };
            delivery.lane_made(key);
            // Should it be answered twice, the second answer comes to a lane that does not wait.
            if matches!(lane.state, State::Resolving) {
                delivery.look_up(key, lane.ticket);
            }
        }
    }

    /// Takes out what waits in lanes: the gateway stops.
    pub(crate) fn empty_lanes(&self) -> Vec<Routed> {
        let mut all = Vec::new();
        let Some(delivery) = &self.delivery else { return all };
        for key in delivery.take_lanes() {
            let mut shard = self.shard(key);
            let Some(slot) = shard.get_mut(&key) else { continue };
            if let Some(lane) = &mut slot.lane {
                all.extend(lane.take_all().into_iter().filter_map(|parcel| match parcel {
                    Parcel::Routed(routed) => Some(routed),
                    _ => None,
                }));
                delivery.lane_made(key);
            }
        }
        all
    }

    /// Puts what comes from another node into the outbox of its target, if that registration is here.
    pub(crate) fn accept(
        &self,
        to: AgentKey,
        epoch: Epoch,
        now: Moment,
        parcel: Parcel,
    ) -> Result<(), Refused<Parcel>> {
        let mut shard = self.shard(to);
        let Some(slot) = shard.get_mut(&to) else { return Err(Refused::Closed(parcel)) };
        let is_known = slot.tenure.as_ref().is_some_and(|tenure| tenure.accepts(epoch));
        if !is_known || !slot.is_live(now) {
            return Err(Refused::Closed(parcel));
        }
        self.collect_if_live(slot, now);
        match &slot.owner {
            Some(owner) => owner.session.outbox.offer_aside(parcel),
            None => Err(Refused::Closed(parcel)),
        }
    }

    /// A key without a lane is as it was: what waits for an owner that is here is due.
    fn tidy(&self, shard: &mut Shard, key: AgentKey) {
        if let Some(slot) = shard.get_mut(&key)
            && slot.lane.is_none()
        {
            self.collect_if_live(slot, self.watches.clock.now());
            remove_if_vacant(shard, key);
        }
    }
}

fn opened(delivery: &Delivery, lane: &mut Lane, place: Place) -> State {
    let (peer, epoch) = (delivery.peer(place.member), place.epoch);
    lane.place = Some(place);
    State::Open(peer, epoch)
}

/// Of other things nobody is told; they count themselves.
fn refuse(parcel: Parcel, reason: RefusalReason, refusals: &mut Refusals) {
    if let Parcel::Routed(routed) = parcel {
        refusals.push((routed, reason));
    }
}
