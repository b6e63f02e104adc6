//! The router's part of what goes to other nodes: what is decided when the other node has spoken, or is
//! lost.

use std::{sync::Arc, time::Duration};

use conexus_plugin_api::{
    Agent, Point,
    host::{Delivered, Event},
};
use conexus_protocol::{AgentKey, Envelope, RefusalReason};
use tokio::time::Instant;

use super::{Pending, Router, route_event};
use crate::{
    clock::Moment,
    cluster::{
        delivery::{
            lookup::Whereabouts,
            peer::{Peer, Shut, UnderWay},
        },
        frame::End,
    },
    presence::{Source, lane::Refusals},
    session::outbox::{Parcel, Routed},
};

/// Refusals before other tasks get their turn: each is signed.
const A_TURN: usize = 64;

/// What policy is told of a message's target.
pub(super) enum Known {
    /// This; or nothing, if it is nowhere.
    Now(Option<Arc<Agent>>),
    /// It may be on another node, which has to be asked for.
    Later,
}

impl Router {
    /// What policy knows of a message's target, here or on another node.
    pub(super) fn target_facts(&self, to: AgentKey, now: Moment) -> Known {
        if let Some(here) = self.presence.facts(to, now) {
            return Known::Now(Some(here));
        }
        match self.presence.delivery() {
            // One that leaves, or whose lease lapsed, is nowhere else as far as this node knows.
            Some(delivery) if self.presence.holder(to).is_none() => match delivery.remembered(to) {
                Some(place) => Known::Now(Some(place.agent)),
                None if delivery.cluster.joined().is_ok() => Known::Later,
                None => Known::Now(None),
            },
            _ => Known::Now(None),
        }
    }

    /// Has policy judge a message once it is known where its target is. Its judge is the one that it has.
    pub(super) fn route_when_found(self: &Arc<Self>, routed: Routed) -> Pending {
        let router = Arc::clone(self);
        Box::pin(async move {
            let target = match router.presence.delivery() {
                Some(delivery) => match delivery.find(routed.to).await {
                    Ok(Whereabouts::At(place)) => Some(place.agent),
                    // It may have come here meanwhile.
                    _ => router.presence.facts(routed.to, router.clock.now()),
                },
                None => None,
            };
            let judge = routed.judge.clone().unwrap_or_else(|| router.policy.judge());
            let rules = router.rules(routed.sender.subprotocol);
            // It was parsed by these rules before.
            let event = Envelope::parse(&routed.text, rules)
                .map(|envelope| route_event(&routed, &envelope, target));
            let rest = match event {
                Ok(event) => router.judged(routed, judge.on_route(Arc::new(event))),
                Err(_) => router.deliver(routed),
            };
            if let Some(rest) = rest {
                rest.await;
            }
        })
    }

    /// It is known now where the target of a lane is.
    pub(crate) async fn resolved(&self, key: AgentKey, ticket: u64, found: Whereabouts) {
        self.refuse_all(self.presence.resolved(key, ticket, found)).await;
    }

    /// Another node said how messages of this one ended there.
    pub(crate) async fn settle(&self, peer: &Peer, ends: Vec<(u64, End)>) {
        let now = Instant::now();
        let mut refusals = Refusals::new();
        for (number, UnderWay { routed, since }, end) in peer.settle(ends) {
            let key = routed.to;
            let mut returned = None;
            if let Some(delivery) = self.presence.delivery() {
                let tally = &delivery.cluster.tally;
                match end {
                    End::Delivered => {
                        tally.forwarded.delivered.one();
                        tally.round_trip.observe(now.duration_since(since));
                    }
                    End::Gone => self.forget_place(key),
                    End::Full => tally.forwarded.full.one(),
                }
            }
            match end {
                End::Delivered => self.delivered_afar(routed, now),
                End::Gone => returned = Some(routed),
                End::Full => refusals.push((routed, RefusalReason::QueueFull)),
            }
            refusals.extend(self.presence.lane_ended(key, number, Some(end), returned));
        }
        self.refuse_all(refusals).await;
    }

    /// The kernel of another node has the last byte of a message.
    fn delivered_afar(&self, routed: Routed, now: Instant) {
        let (sender, kind, to) = (Arc::clone(&routed.sender), routed.kind, routed.to);
        let bytes = routed.text.len();
        routed.delivered(now);
        if !self.policy.asks(Point::Delivered) {
            return;
        }
        // As its lane knows it.
        if let Some(place) = self.presence.lane_place(to) {
            self.observe(Point::Delivered, || {
                let (from, to, kind) = (sender.facts(), place.agent, kind.as_str().into());
                Event::Delivered(Arc::new(Delivered { from, to, kind, bytes }))
            });
        }
    }

    /// Messages on their way to another node are lost: what became of them is not known.
    pub(crate) async fn lost(&self, lost: Vec<(u64, UnderWay)>) {
        let refusals = self.lost_from_lanes(lost);
        self.refuse_all(refusals).await;
    }

    fn lost_from_lanes(&self, lost: Vec<(u64, UnderWay)>) -> Refusals {
        if let Some(delivery) = self.presence.delivery() {
            delivery.cluster.tally.forwarded.lost.add(lost.len() as u64);
        }
        let mut refusals = Refusals::with_capacity(lost.len());
        for (number, UnderWay { routed, .. }) in lost {
            let key = routed.to;
            refusals.push((routed, RefusalReason::NodeUnreachable));
            refusals.extend(self.presence.lane_ended(key, number, None, None));
        }
        refusals
    }

    /// Gives up all that is under way to a peer.
    pub(crate) async fn lose(&self, peer: &Peer, shut: Option<Shut>) {
        self.lost(peer.lose(shut)).await;
    }

    /// A member has left, and heard nothing from this message on: that goes elsewhere.
    pub(crate) async fn lose_but_send_elsewhere(&self, peer: &Peer, first: u64) {
        let mut lost = peer.lose(Some(Shut::Gone));
        let unheard = lost.split_off(lost.partition_point(|(number, _)| *number < first));
        self.lost(lost).await;
        let mut refusals = Refusals::new();
        for (number, UnderWay { routed, .. }) in unheard {
            self.forget_place(routed.to);
            let (key, end) = (routed.to, Some(End::Gone));
            refusals.extend(self.presence.lane_ended(key, number, end, Some(routed)));
        }
        self.refuse_all(refusals).await;
    }

    /// An agent is not where it was found last.
    fn forget_place(&self, key: AgentKey) {
        if let Some(delivery) = self.presence.delivery() {
            delivery.cluster.tally.forwarded.gone.one();
            if let Some(place) = self.presence.lane_place(key) {
                delivery.cluster.places.forget(key, place.epoch);
            }
        }
    }

    /// Gives up all that is under way to a peer, where nothing can be waited for.
    pub(crate) fn lose_at_once(&self, peer: &Peer, shut: Option<Shut>) {
        for (routed, reason) in self.lost_from_lanes(peer.lose(shut)) {
            self.refuse(routed, reason);
        }
    }

    async fn refuse_all(&self, refusals: Refusals) {
        for (index, (routed, reason)) in refusals.into_iter().enumerate() {
            self.refuse(routed, reason);
            if index % A_TURN == A_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Tells the messages of a lane, one after the other, that their target is absent.
    pub(crate) async fn drain_lane(self: Arc<Self>, key: AgentKey, ticket: u64) {
        while let Some(parcel) = self.presence.next_absent(key, ticket) {
            let in_hand = InHand { router: &self, key, ticket };
            if let Parcel::Routed(routed) = parcel
                && let Some(rest) = self.undeliverable(routed, Source::Lane)
            {
                rest.await;
            }
            drop(in_hand);
            tokio::task::yield_now().await;
        }
    }

    /// The agent of a key may be on another node: then what is held for it here goes there.
    pub(crate) fn mail_goes(&self, key: AgentKey) {
        self.presence.mail_goes(key);
    }

    /// The gateway stops, and nothing new comes up: waits until other nodes have said what became of all
    /// that is under way to them, and refuses what is left then.
    pub(crate) async fn settle_afar(&self, within: Duration) {
        let Some(delivery) = self.presence.delivery() else { return };
        if delivery.settled(Instant::now() + within).await {
            return;
        }
        for routed in self.presence.empty_lanes() {
            self.refuse(routed, RefusalReason::Draining);
            tokio::task::yield_now().await;
        }
        for peer in delivery.peers() {
            self.lose(&peer, None).await;
        }
    }
}

/// A message that is being told that its target is absent. The rest of its lane goes on behind it, also
/// should it break what tells it.
struct InHand<'a> {
    router: &'a Router,
    key: AgentKey,
    ticket: u64,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.router.presence.absent_settled(self.key, self.ticket);
        if std::thread::panicking()
            && let Some(delivery) = self.router.presence.delivery()
        {
            delivery.drain_lane(self.key, self.ticket);
        }
    }
}
