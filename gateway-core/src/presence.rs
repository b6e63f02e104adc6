//! Presence: which agents are reachable, and until when.
//!
//! A presence is a lease: silence ends it, so a crashed peer needs no farewell. Every key has one
//! slot, with the session that holds it and the mailbox for when none does; whatever changes hands
//! does so under the slot's lock, so that one sender's messages keep their order across a lapse, a
//! takeover, an end and a return. Nothing here does I/O, and no judge is asked or dropped under a
//! lock: hooks look agents up. `session` claims, renews and leaves; `router` offers and holds;
//! `watching` learns here of each change, in its order.

mod afar;
pub(crate) mod lane;
mod paging;
pub(crate) mod survey;
pub(crate) mod tenure;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use ahash::RandomState;
use conexus_plugin_api::Agent;
use conexus_protocol::{AgentKey, RefusalReason};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use self::{
    lane::Lane,
    paging::{Page, Paging, present},
    tenure::{Departures, Tenure},
};
use crate::{
    clock::{Clock, Moment},
    cluster::delivery::Delivery,
    hooks::Judge,
    mailbox::{Mailbox, MailboxLimits, Postroom},
    session::{
        handle::{SessionHandle, SessionId},
        outbox::{Order, Parcel, Refused, Routed},
    },
    telemetry::Telemetry,
    watching::{
        Watches,
        change::{Change, State},
    },
};

/// Enough that two cores seldom meet at one lock.
const SHARDS: usize = 64;

/// How many are looked at in a search before messages get their turn.
const SEARCHED_AT_ONCE: usize = 64;

/// What became of a message that was offered to its target.
#[derive(Debug)]
pub(crate) enum Offered {
    /// In the target's outbox.
    Queued,
    /// The target is there, its outbox has no room.
    Full(Routed),
    /// Nobody holds that key right now.
    Absent(Routed),
    /// Nobody holds it here, and where else it may be held cannot be reached.
    Unreachable(Routed),
}

/// Where a message comes from that is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// From its sender.
    Sender,
    /// From the outbox of a session that leaves.
    Outbox(SessionId),
    /// From the lane of a target that is absent.
    Lane,
}

/// Where a message is that was to be held.
pub(crate) enum Kept {
    /// In the outbox of its target, which is back; or on its way to another node.
    Queued,
    /// In its target's mailbox. The judge that it no longer has is handed out: its end can take a
    /// while, and must not come under a lock.
    Held(Option<Arc<dyn Judge>>),
}

/// How a key came to its new holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// Nobody held it.
    Vacant,
    /// An older session held it.
    TakenOver,
    /// It did not: a newer session holds it already.
    Superseded,
}

#[derive(Debug, Default)]
struct Slot {
    owner: Option<Owner>,
    mailbox: Mailbox,
    /// Of the owner, in a cluster, until it begins to leave.
    tenure: Option<Box<Tenure>>,
    /// What goes to other nodes.
    lane: Option<Box<Lane>>,
}

#[derive(Debug)]
struct Owner {
    session: Arc<SessionHandle>,
    /// Its end has begun: it is no longer shown, and hands on what is in its outbox. What arrives
    /// meanwhile lines up behind that.
    leaving: bool,
    /// Since when the agent is present, over takeovers.
    since: Moment,
}

impl Slot {
    fn is_vacant(&self) -> bool {
        self.owner.is_none() && self.mailbox.is_empty() && self.lane.is_none()
    }
}

/// Keys are chosen by agents, so their hashes must not be predictable; ahash is keyed, and hashes 32
/// bytes in a fraction of the time that SipHash takes.
type Shard = HashMap<AgentKey, Slot, RandomState>;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Presence {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    online: AtomicUsize,
    telemetry: Arc<Telemetry>,
    pub(crate) postroom: Postroom,
    pub(crate) watches: Watches,
    /// How messages go to other nodes, in a cluster.
    delivery: Option<Arc<Delivery>>,
    pub(crate) departures: Departures,
}

impl Presence {
    pub(crate) fn new(limits: MailboxLimits, clock: Clock, telemetry: Arc<Telemetry>) -> Self {
        Self {
            watches: Watches::new(clock, Arc::clone(&telemetry)),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            online: AtomicUsize::new(0),
            telemetry,
            postroom: Postroom::new(limits),
            delivery: None,
            departures: Departures::default(),
        }
    }

    /// The gateway is a node of a cluster.
    pub(crate) fn in_cluster(self, delivery: Arc<Delivery>) -> Self {
        Self { delivery: Some(delivery), ..self }
    }

    /// How messages go to other nodes, in a cluster.
    pub(crate) const fn delivery(&self) -> Option<&Arc<Delivery>> {
        self.delivery.as_ref()
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
    fn shard(&self, key: AgentKey) -> MutexGuard<'_, Shard> {
        self.shards[self.hasher.hash_one(key) as usize % SHARDS].lock()
    }

    /// How many agents are present.
    pub(crate) fn online(&self) -> usize {
        self.online.load(Relaxed)
    }

    /// Makes `session` the holder of its key.
    ///
    /// An older session of the key is asked to yield first; what it had not written yet goes ahead
    /// in the new outbox, then what waited in the mailbox. Waits only as long as the older one
    /// takes to hand over, which its task bounds.
    pub(crate) async fn claim(&self, session: &Arc<SessionHandle>) -> Claimed {
        let key = session.agent.key();
        loop {
            let older = {
                let mut shard = self.shard(key);
                let slot = shard.entry(key).or_default();
                match &slot.owner {
                    // While we waited, one that was proven after us was faster.
                    Some(owner) if owner.session.id > session.id => return Claimed::Superseded,
                    Some(owner) => Arc::clone(&owner.session),
                    None => {
                        self.arrive(slot, session);
                        return Claimed::Vacant;
                    }
                }
            };
            let (yielded, unwritten) = oneshot::channel();
            if older.outbox.order(Order::Yield(yielded))
                && let Ok(mut parcels) = unwritten.await
            {
                let mut shard = self.shard(key);
                parcels.extend(older.outbox.close());
                // Replies to the older session mean nothing to the newer one.
                parcels.retain(|parcel| !matches!(parcel, Parcel::Reply(_)));
                let slot = shard.entry(key).or_default();
                // The agent was here all the time: nobody is told of anything.
                let since = slot.owner.as_ref().map(|owner| owner.since);
                let since = since.unwrap_or_else(|| self.watches.clock.now());
                self.install(slot, session, parcels, since);
                self.online.fetch_sub(1, Relaxed);
                older.release();
                return Claimed::TakenOver;
            }
            // Somebody else was faster, or it is leaving anyway.
            older.released().await;
        }
    }

    /// An agent comes that was not here.
    fn arrive(&self, slot: &mut Slot, session: &Arc<SessionHandle>) {
        let now = self.watches.clock.now();
        self.begin_tenure(slot, session);
        self.install(slot, session, Vec::new(), now);
        self.watches.changed(session.agent.key(), State::Online(now));
    }

    fn install(
        &self,
        slot: &mut Slot,
        session: &Arc<SessionHandle>,
        parcels: Vec<Parcel>,
        since: Moment,
    ) {
        session.outbox.append(parcels);
        slot.owner = Some(Owner { session: Arc::clone(session), leaving: false, since });
        self.online.fetch_add(1, Relaxed);
        self.collect_from(slot);
        if slot.lane.is_some() {
            self.lane_meets_owner(slot, session.agent.key());
        }
    }

    /// Moves what the mailbox holds to the end of the owner's outbox. What is in a lane is newer: as long
    /// as it cannot follow, both stay.
    fn collect_from(&self, slot: &mut Slot) {
        if slot.mailbox.is_empty() || slot.lane.is_some() {
            return;
        }
        if let Some(owner) = &slot.owner {
            let held = self.postroom.empty(owner.session.agent.key(), &mut slot.mailbox);
            self.released(&held);
            owner.session.outbox.append(held.into_iter().map(Parcel::Routed));
        }
    }

    /// A lease that was renewed makes what was held during its lapse due, ahead of anything newer.
    fn collect_if_live(&self, slot: &mut Slot, now: Moment) {
        if !slot.mailbox.is_empty()
            && slot.owner.as_ref().is_some_and(|owner| !owner.leaving && owner.session.is_live(now))
        {
            self.collect_from(slot);
        }
    }

    /// An agent goes, for this reason.
    fn depart(&self, key: AgentKey, reason: &'static str) {
        self.watches.changed(key, State::Offline(self.watches.clock.now(), reason));
    }

    /// The end of `session` begins, for this reason: it is no longer listed. False if it does not
    /// hold its key.
    pub(crate) fn begin_leaving(&self, session: &SessionHandle, reason: &'static str) -> bool {
        let mut shard = self.shard(session.agent.key());
        let Some(slot) = shard.get_mut(&session.agent.key()) else { return false };
        match &mut slot.owner {
            Some(owner) if owner.session.id == session.id => {
                owner.leaving = true;
                self.online.fetch_sub(1, Relaxed);
                // What a lapse left in the mailbox is newer than the outbox, older than the rest.
                self.collect_from(slot);
                self.end_tenure(slot, session, reason);
                self.depart(session.agent.key(), reason);
                true
            }
            _ => false,
        }
    }

    /// Gives the key up if nothing is left in the outbox of `session`, which is leaving.
    pub(crate) fn finish_leaving(&self, session: &SessionHandle) -> bool {
        let key = session.agent.key();
        let mut shard = self.shard(key);
        if !session.outbox.close_if_empty() {
            return false;
        }
        if let Some(slot) = shard.get_mut(&key) {
            if slot.owner.as_ref().is_some_and(|owner| owner.session.id == session.id) {
                slot.owner = None;
            }
            remove_if_vacant(&mut shard, key);
        }
        session.release();
        true
    }

    /// Gives a key up whose session ended without a farewell, and returns what was left for it.
    /// Without effect once the session has left in order.
    pub(crate) fn abandon(&self, session: &SessionHandle, reason: &'static str) -> Vec<Parcel> {
        let key = session.agent.key();
        let mut shard = self.shard(key);
        let Some(slot) = shard.get_mut(&key) else { return Vec::new() };
        match &slot.owner {
            Some(owner) if owner.session.id == session.id => {
                if !owner.leaving {
                    self.online.fetch_sub(1, Relaxed);
                    self.end_tenure(slot, session, reason);
                    self.depart(key, reason);
                }
                slot.owner = None;
                let left = session.outbox.close();
                remove_if_vacant(&mut shard, key);
                session.release();
                left
            }
            _ => Vec::new(),
        }
    }

    /// Makes `watcher` one who is told when an agent comes or goes; what its state is. An agent
    /// whose lease lapsed is here until that is decided.
    pub(crate) fn watch(&self, key: AgentKey, watcher: &Arc<SessionHandle>) -> Arc<Change> {
        let shard = self.shard(key);
        self.watches.add(key, watcher, || self.state_in(&shard, key))
    }

    /// Somebody may come to watch an agent: what happens to it is noted from now on.
    pub(crate) fn expect(&self, key: AgentKey) {
        let shard = self.shard(key);
        self.watches.expect(key, || self.state_in(&shard, key));
    }

    fn state_in(&self, shard: &Shard, key: AgentKey) -> State {
        let owner = shard.get(&key).and_then(|slot| slot.owner.as_ref());
        match owner.filter(|owner| !owner.leaving) {
            Some(owner) => State::Online(owner.since),
            None => State::Absent(self.watches.clock.now()),
        }
    }

    /// `watcher` is no longer told of an agent.
    pub(crate) fn unwatch(&self, key: AgentKey, watcher: &SessionHandle) {
        if watcher.watcher.end(key) {
            self.watches.remove(key, watcher.id);
        }
    }

    /// `watcher` ends: it is told of nobody any more.
    pub(crate) fn unwatch_all(&self, watcher: &SessionHandle) {
        for key in watcher.watcher.end_all() {
            self.watches.remove(key, watcher.id);
        }
    }

    /// The session that holds a key, lapsed or not.
    pub(crate) fn holder(&self, key: AgentKey) -> Option<Arc<SessionHandle>> {
        let shard = self.shard(key);
        shard.get(&key)?.owner.as_ref().map(|owner| Arc::clone(&owner.session))
    }

    /// The session of an agent that is present.
    pub(crate) fn live(&self, key: AgentKey, now: Moment) -> Option<Arc<SessionHandle>> {
        self.of_live(key, now, Arc::clone)
    }

    /// How many messages wait in the mailbox of a key.
    pub(crate) fn held_for(&self, key: AgentKey) -> usize {
        self.shard(key).get(&key).map_or(0, |slot| slot.mailbox.size().0)
    }

    /// What policy knows of an agent that is present.
    pub(crate) fn facts(&self, key: AgentKey, now: Moment) -> Option<Arc<Agent>> {
        self.of_live(key, now, |session| session.facts())
    }

    fn of_live<T>(
        &self,
        key: AgentKey,
        now: Moment,
        of: impl FnOnce(&Arc<SessionHandle>) -> T,
    ) -> Option<T> {
        let shard = self.shard(key);
        let owner = shard.get(&key)?.owner.as_ref()?;
        (!owner.leaving && owner.session.is_live(now)).then(|| of(&owner.session))
    }

    /// Puts a message into its target's outbox, if the target is there; or on its way to the node
    /// where it is.
    pub(crate) fn offer(&self, routed: Routed, now: Moment) -> Offered {
        let mut shard = self.shard(routed.to);
        let Some(slot) = shard.get_mut(&routed.to) else { return self.offer_afar(shard, routed) };
        self.collect_if_live(slot, now);
        match &slot.owner {
            Some(owner) if owner.leaving || slot.lane.is_none() && owner.session.is_live(now) => {
                match owner.session.outbox.offer(routed) {
                    Ok(()) => Offered::Queued,
                    Err(Refused::Full(routed)) => Offered::Full(routed),
                    Err(Refused::Closed(routed)) => Offered::Absent(routed),
                }
            }
            // Its lease has lapsed: it is nowhere else.
            Some(_) if slot.lane.is_none() => Offered::Absent(routed),
            _ => self.offer_afar(shard, routed),
        }
    }

    /// Holds a message for its target until a moment; one that has come back meanwhile gets it at
    /// once. Given back, with the reason, when there is no room for it or it ought to go to another
    /// node and cannot. A judge that the message no longer has is handed out.
    #[allow(clippy::result_large_err, reason = "the message itself is given back, not a report")]
    pub(crate) fn hold(
        &self,
        routed: Routed,
        until: Moment,
        now: Moment,
        source: Source,
    ) -> Result<Kept, (Routed, RefusalReason)> {
        let full = |routed| (routed, RefusalReason::QueueFull);
        let (key, kind) = (routed.to, routed.kind);
        let mut shard = self.shard(key);
        let slot = shard.entry(key).or_default();
        self.collect_if_live(slot, now);
        let may_be_afar = slot.lane.is_some() || slot.owner.is_none() && self.delivery.is_some();
        let is_leaving = slot.owner.as_ref().is_some_and(|owner| owner.leaving);
        if source == Source::Sender && may_be_afar && !is_leaving {
            return match self.hold_afar(shard, routed, until) {
                Offered::Queued => Ok(Kept::Queued),
                Offered::Full(routed) => Err(full(routed)),
                Offered::Unreachable(routed) => Err((routed, RefusalReason::NodeUnreachable)),
                Offered::Absent(routed) => Err((routed, RefusalReason::UnknownAgent)),
            };
        }
        if let Some(Owner { session, leaving, .. }) = &slot.owner
            && source != Source::Lane
        {
            let reachable =
                if *leaving { source != Source::Outbox(session.id) } else { session.is_live(now) };
            if reachable {
                return session
                    .outbox
                    .offer(routed)
                    .map(|()| Kept::Queued)
                    .map_err(|(Refused::Full(routed) | Refused::Closed(routed))| full(routed));
            }
        }
        let lapsed = slot.owner.as_ref().map(|owner| &owner.session);
        let held = self.postroom.hold(&mut slot.mailbox, routed, until);
        match (&held, lapsed) {
            (Ok(_), Some(session)) => {
                self.telemetry.messages.held(kind);
                session.mail_waits();
            }
            (Ok(_), None) => self.telemetry.messages.held(kind),
            (Err(_), _) => remove_if_vacant(&mut shard, key),
        }
        held.map(Kept::Held).map_err(full)
    }

    fn released(&self, mail: &[Routed]) {
        for routed in mail {
            self.telemetry.messages.released(routed.kind);
        }
    }

    /// Gives a session whose lapsed lease was renewed what was held for it meanwhile.
    pub(crate) fn collect(&self, session: &SessionHandle) {
        let mut shard = self.shard(session.agent.key());
        if let Some(slot) = shard.get_mut(&session.agent.key())
            && slot.owner.as_ref().is_some_and(|owner| owner.session.id == session.id)
        {
            self.collect_from(slot);
            self.advance(slot, session.agent.key());
        }
    }

    /// Takes out of one mailbox what has waited too long.
    pub(crate) fn expire_mail(&self, key: AgentKey, now: Moment) -> Vec<Routed> {
        let mut shard = self.shard(key);
        let Some(slot) = shard.get_mut(&key) else { return Vec::new() };
        let expired = self.postroom.expired(key, &mut slot.mailbox, now);
        self.released(&expired);
        remove_if_vacant(&mut shard, key);
        expired
    }

    /// Takes everything out of all mailboxes: the gateway stops.
    pub(crate) fn empty_mailboxes(&self) -> Vec<Routed> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            for (key, slot) in shard.iter_mut() {
                all.append(&mut self.postroom.empty(*key, &mut slot.mailbox));
            }
            shard.retain(|_, slot| !slot.is_vacant());
        }
        self.released(&all);
        all
    }

    /// Wakes every session to look around.
    pub(crate) fn nudge_all(&self) {
        for shard in &self.shards {
            for owner in shard.lock().values().filter_map(|slot| slot.owner.as_ref()) {
                owner.session.outbox.nudge();
            }
        }
    }

    /// Returns once every lock was to be had.
    pub(crate) fn touch_all(&self) {
        for shard in &self.shards {
            drop(shard.lock());
        }
    }

    /// Every session that holds its key and is not about to leave.
    pub(crate) fn sessions(&self) -> Vec<Arc<SessionHandle>> {
        let mut sessions = Vec::with_capacity(self.online());
        for shard in &self.shards {
            let shard = shard.lock();
            let owners = shard.values().filter_map(|slot| slot.owner.as_ref());
            let staying = owners.filter(|owner| !owner.leaving);
            sessions.extend(staying.map(|owner| Arc::clone(&owner.session)));
        }
        sessions
    }

    /// Up to `limit` of the wanted agents whose key follows `after`, in the order of their keys,
    /// and how many are wanted in all.
    pub(crate) fn page(
        &self,
        after: Option<AgentKey>,
        limit: usize,
        now: Moment,
        wanted: impl Fn(&SessionHandle) -> bool,
    ) -> Page {
        let mut paging = Paging::new(after, limit);
        for shard in &self.shards {
            paging.look_through(present(&shard.lock(), now), &wanted);
        }
        paging.into_page()
    }

    /// The same for somebody who can wait: messages get their turn between any two shards.
    pub(crate) async fn page_in_turns(
        &self,
        after: Option<AgentKey>,
        limit: usize,
        now: Moment,
        wanted: impl Fn(&SessionHandle) -> bool,
    ) -> Page {
        let mut paging = Paging::new(after, limit);
        for shard in &self.shards {
            paging.look_through(present(&shard.lock(), now), &wanted);
            tokio::task::yield_now().await;
        }
        paging.into_page()
    }

    /// The same where it takes a while to tell who is wanted: that is asked under no lock, since
    /// senders would wait for it.
    pub(crate) async fn search_in_turns(
        &self,
        after: Option<AgentKey>,
        limit: usize,
        now: Moment,
        wanted: impl Fn(&SessionHandle) -> bool,
    ) -> Page {
        let mut paging = Paging::new(after, limit);
        for shard in &self.shards {
            let sessions: Vec<_> = present(&shard.lock(), now).cloned().collect();
            for some in sessions.chunks(SEARCHED_AT_ONCE) {
                paging.look_through(some, &wanted);
                tokio::task::yield_now().await;
            }
        }
        paging.into_page()
    }
}

fn remove_if_vacant(shard: &mut Shard, key: AgentKey) {
    if shard.get(&key).is_some_and(Slot::is_vacant) {
        shard.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use conexus_protocol::{Identity, MessageType};

    use super::{tenure::Departed, *};
    use crate::{
        cluster::ids::Epoch,
        session::{handle::tests::session_of, outbox::Arrival},
    };

    const LIMITS: MailboxLimits = MailboxLimits {
        messages_per_agent: 8,
        bytes_per_agent: 1000,
        total_bytes: 1000,
        messages_per_sender: 8,
    };

    fn presence() -> Presence {
        Presence::new(LIMITS, Clock::start(), Arc::default())
    }

    fn in_cluster(presence: Presence) -> Presence {
        let settings = crate::config::Settings::default();
        let engine = Arc::new(crate::cluster::memory::MemoryEngine::new());
        let cluster = crate::cluster::Cluster::new(settings.cluster.clone(), engine);
        presence.in_cluster(Delivery::new(Arc::new(cluster), &settings))
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    /// From a sender that is nobody's concern here.
    fn message(to: &SessionHandle, text: &str) -> Routed {
        let sender = session_of(&Identity::generate());
        let arrival = Arrival { at: tokio::time::Instant::now(), number: 1 };
        Routed::new(text.into(), to.agent.key(), MessageType::Offer, sender, arrival)
    }

    fn texts(session: &SessionHandle) -> Vec<String> {
        std::iter::from_fn(|| session.outbox.take()).map(|p| p.text().to_string()).collect()
    }

    fn listed(presence: &Presence, now: Moment) -> usize {
        presence.page(None, 100, now, |_| true).total
    }

    /// Plays the part of the task of a session that is asked to yield.
    async fn yields(session: &SessionHandle, unwritten: Vec<Parcel>) {
        session.outbox.changed().await;
        let Some(Order::Yield(to)) = session.outbox.take_order() else { panic!("no order") };
        to.send(unwritten).unwrap();
    }

    #[tokio::test]
    async fn an_agent_is_present_from_claim_to_farewell() {
        let (presence, session) = (presence(), session_of(&Identity::generate()));
        assert_eq!(presence.claim(&session).await, Claimed::Vacant);
        assert_eq!((presence.online(), listed(&presence, at(0))), (1, 1));
        assert!(matches!(presence.offer(message(&session, "x"), at(0)), Offered::Queued));

        assert!(presence.begin_leaving(&session, "closed"));
        assert_eq!((presence.online(), listed(&presence, at(0))), (0, 0));
        assert!(!presence.finish_leaving(&session), "something is left in its outbox");
        assert_eq!(texts(&session), ["x"]);
        assert!(presence.finish_leaving(&session));
        assert!(matches!(presence.offer(message(&session, "y"), at(0)), Offered::Absent(_)));
        assert!(presence.shards.iter().all(|shard| shard.lock().is_empty()), "nothing is kept");
    }

    #[tokio::test]
    async fn a_tenure_outlives_takeovers_and_ends_with_a_farewell() {
        let presence = in_cluster(presence());
        let me = Identity::generate();
        let (old, new) = (session_of(&me), session_of(&me));
        presence.claim(&old).await;
        assert!(presence.claiming(&old));
        assert!(presence.set_epoch(me.key(), old.id, Epoch(5)));
        let (_, ()) = tokio::join!(presence.claim(&new), yields(&old, Vec::new()));
        assert!(presence.claiming(&new));
        presence.claim_failed(me.key(), new.id);
        assert!(presence.tenure(me.key()).unwrap().accepts(Epoch(5)));

        presence.begin_leaving(&new, "closed");
        assert!(!presence.set_epoch(me.key(), new.id, Epoch(6)), "that came too late");
        let departed =
            Departed { key: me.key(), session: new.id, epoch: Some(Epoch(5)), reason: "closed" };
        assert_eq!(presence.departures.next().await, [departed]);
        assert!(presence.finish_leaving(&new));

        let next = session_of(&me);
        presence.claim(&next).await;
        assert!(!presence.set_epoch(me.key(), new.id, Epoch(6)), "of an earlier tenure");
        presence.abandon(&next, "broken");
        assert_eq!(presence.departures.next().await[0].epoch, None);
    }

    #[tokio::test]
    async fn a_lapsed_agent_is_neither_listed_nor_routed_to_until_it_is_renewed() {
        let (presence, session) = (presence(), session_of(&Identity::generate()));
        presence.claim(&session).await;
        let lapse = session.lease_until();
        assert_eq!(listed(&presence, lapse), 0);
        let Offered::Absent(routed) = presence.offer(message(&session, "held"), lapse) else {
            panic!("routed to a lapsed agent");
        };
        presence.hold(routed, lapse.after(Duration::from_secs(9)), lapse, Source::Sender).unwrap();
        assert!(session.take_mail_waits(), "its task is told");

        // Even before its task collects, what was held goes ahead.
        session.extend_lease(lapse.after(Duration::from_secs(60)));
        presence.offer(message(&session, "newer"), lapse);
        assert_eq!(texts(&session), ["held", "newer"]);
        assert_eq!(listed(&presence, lapse), 1);
    }

    #[tokio::test]
    async fn what_arrives_while_an_agent_leaves_lines_up_behind_what_it_left() {
        let me = Identity::generate();
        let (presence, session) = (presence(), session_of(&me));
        presence.claim(&session).await;
        presence.offer(message(&session, "1"), at(0));
        presence.begin_leaving(&session, "closed");
        presence.offer(message(&session, "2"), at(0));
        // Its task drains the outbox into the mailbox.
        while let Some(Parcel::Routed(routed)) = session.outbox.take() {
            presence.hold(routed, at(9), at(0), Source::Outbox(session.id)).unwrap();
        }
        // A sender that decided to hold meanwhile comes behind, too.
        presence.hold(message(&session, "3"), at(9), at(0), Source::Sender).unwrap();
        assert_eq!(texts(&session), ["3"]);
        assert_eq!(presence.telemetry.messages.snapshot().held, 2);
        assert!(presence.finish_leaving(&session));

        let again = session_of(&me);
        presence.claim(&again).await;
        assert_eq!(texts(&again), ["1", "2"]);
        assert_eq!(presence.telemetry.messages.snapshot().held, 0);
    }

    #[tokio::test]
    async fn a_newer_session_gets_what_the_older_one_left_in_order() {
        let presence = presence();
        let me = Identity::generate();
        let (old, new) = (session_of(&me), session_of(&me.with_legacy_did()));
        presence.claim(&old).await;
        presence.offer(message(&old, "2"), at(0));
        let in_flight = vec![Parcel::Reply("0".into()), Parcel::Word("1".into())];
        let (replaced, ()) = tokio::join!(presence.claim(&new), yields(&old, in_flight));
        assert_eq!(replaced, Claimed::TakenOver);
        presence.offer(message(&new, "3"), at(0));
        assert_eq!(texts(&new), ["1", "2", "3"]);
        assert!(old.outbox.is_closed());
        assert_eq!(presence.online(), 1);
    }

    #[tokio::test]
    async fn an_older_session_that_is_leaving_anyway_is_waited_for() {
        let presence = presence();
        let me = Identity::generate();
        let (old, new) = (session_of(&me), session_of(&me));
        presence.claim(&old).await;
        presence.begin_leaving(&old, "closed");
        let leave = async {
            old.outbox.changed().await;
            assert!(presence.finish_leaving(&old));
        };
        let (replaced, ()) = tokio::join!(presence.claim(&new), leave);
        assert_eq!(replaced, Claimed::Vacant);
        assert_eq!(presence.online(), 1);
    }

    #[tokio::test]
    async fn a_session_that_broke_gives_its_key_and_its_messages_up() {
        let presence = presence();
        let me = Identity::generate();
        let (broken, next) = (session_of(&me), session_of(&me));
        presence.claim(&broken).await;
        presence.offer(message(&broken, "x"), at(0));
        let (claimed, left) = tokio::join!(presence.claim(&next), async {
            broken.outbox.changed().await;
            presence.abandon(&broken, "broken")
        });
        assert_eq!((claimed, left.len()), (Claimed::Vacant, 1));
        assert!(presence.abandon(&broken, "broken").is_empty(), "a newer owner is not touched");
        assert_eq!(presence.online(), 1);
    }

    #[tokio::test]
    async fn an_older_claim_does_not_throw_a_newer_session_out() {
        let presence = presence();
        let me = Identity::generate();
        let (older, newer) = (session_of(&me), session_of(&me));
        presence.claim(&newer).await;
        assert_eq!(presence.claim(&older).await, Claimed::Superseded);
        assert_eq!(presence.holder(me.key()).unwrap().id, newer.id);
    }

    #[tokio::test]
    async fn claims_at_once_end_with_one_owner() {
        let presence = Arc::new(presence());
        let me = Identity::generate();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (presence, session) = (Arc::clone(&presence), session_of(&me));
            tasks.spawn(async move {
                if presence.claim(&session).await == Claimed::Superseded {
                    return;
                }
                loop {
                    if let Some(Order::Yield(to)) = session.outbox.take_order() {
                        let _ = to.send(Vec::new());
                        return;
                    }
                    session.outbox.changed().await;
                }
            });
        }
        for _ in 0..49 {
            tasks.join_next().await.unwrap().unwrap();
        }
        assert_eq!((presence.online(), listed(&presence, at(0))), (1, 1));
    }

    #[tokio::test]
    async fn pages_cover_all_agents_once_in_the_order_of_their_keys() {
        let presence = presence();
        for _ in 0..25 {
            presence.claim(&session_of(&Identity::generate())).await;
        }
        let mut keys = Vec::new();
        let mut after = None;
        loop {
            let page = presence.page(after, 7, at(0), |_| true);
            assert_eq!(page.total, 25);
            keys.extend(page.agents.iter().map(|session| session.agent.key()));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(keys.len(), 25);
        assert!(keys.is_sorted_by(|a, b| a < b));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_search_and_it_finds_what_a_look_finds() {
        let presence = presence();
        for _ in 0..25 {
            presence.claim(&session_of(&Identity::generate())).await;
        }
        let some = |session: &SessionHandle| {
            session.agent.as_str().ends_with(|last: char| last.is_ascii_lowercase())
        };
        let wanted = |session: &SessionHandle| {
            assert!(presence.shards.iter().all(|shard| shard.try_lock().is_some()));
            some(session)
        };
        let found = presence.search_in_turns(None, 3, at(0), wanted).await;
        let looked = presence.page(None, 3, at(0), some);
        assert_eq!((found.total, found.next), (looked.total, looked.next));
        let keys = |page: Page| page.agents.iter().map(|s| s.agent.key()).collect::<Vec<_>>();
        assert_eq!(keys(found), keys(looked));
    }

    #[tokio::test]
    async fn mailboxes_expire_and_leave_nothing_behind() {
        let (presence, absent) = (presence(), session_of(&Identity::generate()));
        presence.hold(message(&absent, "x"), at(5), at(0), Source::Sender).unwrap();
        assert_eq!(presence.postroom.next_due(), Some((at(5), absent.agent.key())));
        assert!(presence.expire_mail(absent.agent.key(), at(4)).is_empty());
        assert_eq!(presence.expire_mail(absent.agent.key(), at(5)).len(), 1);
        assert!(presence.shards.iter().all(|shard| shard.lock().is_empty()));
        presence.hold(message(&absent, "y"), at(5), at(0), Source::Sender).unwrap();
        assert_eq!(presence.empty_mailboxes().len(), 1);
        assert_eq!(presence.telemetry.messages.snapshot().held, 0);
    }
}
