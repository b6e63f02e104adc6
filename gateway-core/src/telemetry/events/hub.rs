//! The hub: whoever makes events asks it whether anybody listens, and tells it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use conexus_protocol::AgentKey;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    sync::{
        Notify,
        broadcast::{self, Receiver, Sender},
    },
    time::{MissedTickBehavior, interval},
};

use super::{
    budget::Rationed,
    frame::{LAGGED, Lagged, Published, frame},
    message::{MessageEvent, Outcome, Passing},
    registry::{Registry, TooManyListeners},
    topics::{Topic, Topics},
};
use crate::telemetry::flow::Flow;
#[cfg(feature = "otlp")]
use crate::telemetry::otlp::Outlet;

/// Events that wait for the slowest listener.
pub(super) const RING: usize = 1024;

/// How often the budgets are filled up.
const REFILL: Duration = Duration::from_millis(100);

/// Refills in a second, which is how often the samples are added up.
const REFILLS_PER_SECOND: u32 = 10;

/// Events about followed agents' messages, for each refill. One costs its session a few
/// microseconds, which thousands at once should not.
pub(super) const FOLLOWED: i32 = 500;

/// Events about refused registrations, for each refill: so few that the ring holds ten seconds of
/// them.
const REFUSED: i32 = 10;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Hub {
    /// The [`Topics`] that somebody listens to.
    interest: AtomicU32,
    followed: ArcSwap<HashSet<AgentKey, ahash::RandomState>>,
    registry: Mutex<Registry>,
    events: Sender<Arc<Published>>,
    /// Apart, so that who follows a busy agent makes nobody else miss anything.
    messages: Sender<Arc<Published>>,
    flow: Flow,
    followed_messages: Rationed,
    refusals: Rationed,
    came: Notify,
    #[cfg(feature = "otlp")]
    outlet: std::sync::OnceLock<Outlet>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            interest: AtomicU32::new(0),
            followed: ArcSwap::default(),
            registry: Mutex::default(),
            events: broadcast::channel(RING).0,
            messages: broadcast::channel(RING).0,
            flow: Flow::default(),
            followed_messages: Rationed::default(),
            refusals: Rationed::default(),
            came: Notify::new(),
            #[cfg(feature = "otlp")]
            outlet: std::sync::OnceLock::new(),
        }
    }
}

impl Hub {
    fn interest(&self) -> Topics {
        Topics(self.interest.load(Relaxed))
    }

    /// Whether anybody wants to know of messages: all that one costs while nobody does.
    #[inline]
    pub(crate) fn watches_messages(&self) -> bool {
        self.interest.load(Relaxed) & Topics::MESSAGES.0 != 0
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.registry.lock().listeners()
    }

    /// Whether anybody listens to a topic: whoever asks first makes no event in vain.
    pub(crate) fn wants(&self, topic: Topic) -> bool {
        self.interest().contains(topic)
    }

    /// Tells those who listen to a topic; `about` are the agents that it is about, for those who
    /// want to know of one agent alone. Never waits.
    pub(crate) fn publish(&self, topic: Topic, about: &[AgentKey], event: &impl Serialize) {
        if self.interest().contains(topic) {
            let about = [about.first().copied(), about.get(1).copied()];
            self.send(topic, topic.as_str(), about, event);
        }
    }

    /// Tells of a registration that was refused, while there are not too many.
    pub(in crate::telemetry) fn refusal(&self, about: AgentKey, event: &impl Serialize) {
        if self.wants(Topic::Session) && self.refusals.take() {
            self.publish(Topic::Session, &[about], event);
        }
    }

    fn send(&self, topic: Topic, name: &str, about: [Option<AgentKey>; 2], event: &impl Serialize) {
        let Some(frame) = frame(name, event) else { return };
        let ring = if topic == Topic::Message { &self.messages } else { &self.events };
        // With nobody left there is nobody to tell.
        let _ = ring.send(Arc::new(Published { topic, about, frame }));
    }

    /// A message came to a turn of its way. Called only where [somebody wants to
    /// know](Self::watches_messages); never under a lock.
    #[cold]
    pub(crate) fn message(&self, message: Passing<'_>, outcome: Outcome) {
        let interest = self.interest();
        #[cfg(feature = "otlp")]
        if let Some(outlet) = self.outlet.get() {
            outlet.take(&message, outcome);
        }
        if interest.contains(Topic::Flow) {
            self.flow.sample(&message, outcome);
        }
        if !interest.contains(Topic::Message) {
            return;
        }
        let (from, to) = (message.sender.agent.key(), message.to);
        let followed = self.followed.load();
        if !(followed.contains(&from) || to.is_some_and(|to| followed.contains(&to))) {
            return;
        }
        if !self.followed_messages.take() {
            return;
        }
        let Some(envelope) = message.envelope() else { return };
        let event = MessageEvent::of(&message, &envelope, outcome);
        self.send(Topic::Message, Topic::Message.as_str(), [Some(from), to], &event);
    }

    fn is_listened_to(&self) -> bool {
        self.interest().0 & !Topics::EXPORT != 0
    }

    /// Fills budgets up and adds samples up, while anybody listens. `spell` says how an agent writes
    /// its name. Runs until dropped.
    pub(crate) async fn serve(&self, spell: impl Fn(AgentKey) -> String + Send) {
        loop {
            let came = self.came.notified();
            if !self.is_listened_to() {
                came.await;
                continue;
            }
            self.serve_listeners(&spell).await;
        }
    }

    async fn serve_listeners(&self, spell: &(impl Fn(AgentKey) -> String + Send)) {
        let mut ticks = interval(REFILL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut count = 0;
        while self.is_listened_to() {
            ticks.tick().await;
            self.refill();
            self.tell_missed(Topic::Message, &self.followed_messages);
            self.tell_missed(Topic::Session, &self.refusals);
            count += 1;
            if count % REFILLS_PER_SECOND == 0 && self.interest().contains(Topic::Flow) {
                self.publish(Topic::Flow, &[], &self.flow.sum_up(spell));
            }
        }
    }

    fn refill(&self) {
        self.followed_messages.fill(FOLLOWED);
        self.refusals.fill(REFUSED);
        self.flow.refill();
    }

    fn tell_missed(&self, topic: Topic, events: &Rationed) {
        let missed = events.take_missed();
        if missed > 0 {
            self.send(topic, LAGGED, [None, None], &Lagged { missed });
        }
    }

    /// One more listens, if there is room: the rings that it reads, of events and of messages.
    pub(super) fn enter(
        &self,
        topics: Topics,
        agent: Option<AgentKey>,
    ) -> Result<[Receiver<Arc<Published>>; 2], TooManyListeners> {
        let mut registry = self.registry.lock();
        registry.enter(topics, agent)?;
        // Before it is announced, so that nothing which is made from then on is missed.
        let rings = [&self.events, &self.messages].map(Sender::subscribe);
        if topics.contains(Topic::Flow) && registry.listeners_to(Topic::Flow) == 1 {
            self.flow.begin();
        }
        self.followed_messages.fill(FOLLOWED);
        self.refusals.fill(REFUSED);
        self.announce(&registry);
        drop(registry);
        self.came.notify_one();
        Ok(rings)
    }

    /// One that had entered with these listens no more.
    pub(super) fn leave(&self, topics: Topics, agent: Option<AgentKey>) {
        let mut registry = self.registry.lock();
        registry.leave(topics, agent);
        self.announce(&registry);
    }

    fn announce(&self, registry: &Registry) {
        self.followed.store(Arc::new(registry.followed()));
        self.interest.store(registry.topics().0 | self.exports(), SeqCst);
    }

    /// From now on all messages are told to an outlet. Set once.
    #[cfg(feature = "otlp")]
    pub(in crate::telemetry) fn export(&self, outlet: Outlet) {
        let registry = self.registry.lock();
        let _ = self.outlet.set(outlet);
        self.announce(&registry);
    }

    #[cfg(feature = "otlp")]
    fn exports(&self) -> u32 {
        if self.outlet.get().is_some() { Topics::EXPORT } else { 0 }
    }

    #[cfg(not(feature = "otlp"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    const fn exports(&self) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::{super::registry::MAX_LISTENERS, *};
    use crate::{session::handle::tests::session, telemetry::Telemetry};

    #[test]
    fn listeners_are_bounded_and_give_their_places_back() {
        let telemetry = Arc::new(Telemetry::default());
        let key = session().agent.key();
        let listen = || telemetry.listen(Topics::of(Topic::Message), Some(key));
        let listeners: Vec<_> = (0..MAX_LISTENERS).map(|_| listen().unwrap()).collect();
        assert!(listen().is_err());
        drop(listeners);
        assert!(telemetry.hub.followed.load().is_empty() && !telemetry.hub.watches_messages());
        assert!(listen().is_ok());
    }
}
