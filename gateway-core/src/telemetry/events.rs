//! The hub: what happens, for whoever listens right now.
//!
//! Nobody listening costs one look at a number. Each event is written down once, as the frame of
//! server-sent events that all its listeners get, and lies in a bounded ring until the slowest of
//! them has taken it or was overtaken; one that was is told how much it missed. Of messages there
//! are events only about agents that somebody follows, and samples for the picture of who talks to
//! whom (`flow`), which are added up away from the messages' way, by [`Hub::serve`]. What agents can
//! make any number of (messages, refused registrations) has a budget, and what is over it is counted.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{
            AtomicI32, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use conexus_protocol::{AgentKey, Envelope, MessageType, RefusalReason, Rules, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    sync::{
        Notify,
        broadcast::{self, error::RecvError},
    },
    time::{MissedTickBehavior, interval},
};

use super::{
    Telemetry,
    flow::Flow,
    trace::{self, TraceId},
};
use crate::session::handle::SessionHandle;

/// Listeners at once.
pub(crate) const MAX_LISTENERS: usize = 64;

/// Events that wait for the slowest listener.
const RING: usize = 1024;

/// How often the budgets are filled up.
const REFILL: Duration = Duration::from_millis(100);

/// Refills in a second, which is how often the samples are added up.
const REFILLS_PER_SECOND: u32 = 10;

/// Events about followed agents' messages, for each refill. One costs its session a few
/// microseconds, which thousands at once should not.
const FOLLOWED: i32 = 500;

/// Events about refused registrations, for each refill: so few that the ring holds ten seconds of
/// them.
const REFUSED: i32 = 10;

/// The longest text of an agent's choosing that is shown, in bytes: as long as an id may be, and far
/// longer than any DID.
const MAX_TEXT: usize = 128;

/// How a message fared, for those who follow one of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The kernel has its last byte. How long that took, where it was not held in between.
    Delivered(Option<Duration>),
    /// It waits in a mailbox.
    Held,
    /// Its sender was told, or nobody was there to be told.
    Refused(Option<RefusalReason>),
}

impl Outcome {
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Held => "held",
            Self::Refused(_) => "refused",
        }
    }
}

/// A message at a turn of its way. The text is as received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passing<'a> {
    pub(crate) kind: MessageType,
    pub(crate) text: &'a str,
    pub(crate) sender: &'a SessionHandle,
    /// Its number among the messages of its session, from 1.
    pub(crate) number: u64,
    /// Whom it is for; none where that is nobody's key.
    pub(crate) to: Option<AgentKey>,
}

impl<'a> Passing<'a> {
    /// Its envelope. It was parsed before, so there is one.
    pub(crate) fn envelope(&self) -> Option<Envelope<'a>> {
        let subprotocol = self.sender.subprotocol;
        // What tolerance there was when it came in is of no account for what is shown of it.
        Envelope::parse(self.text, Rules { subprotocol, compat: true }).ok()
    }

    /// Its trace id.
    pub(crate) fn trace(&self) -> TraceId {
        let (seed, number) = (self.sender.trace, self.number);
        match self.envelope() {
            Some(envelope) => trace::id_of(&envelope, seed, number),
            None => seed.id(number),
        }
    }
}

/// What there is to listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// The figures of the last second.
    Overview,
    /// An agent came, renewed its registration, left, or was refused.
    Session,
    /// Who talks to whom, each second.
    Flow,
    /// Hooks decided.
    Decision,
    /// An operator did something.
    Audit,
    /// Another generation of policy runs, or was refused.
    Reload,
    /// A message of the agent that is followed.
    Message,
}

impl Topic {
    const ALL: [Self; 7] = [
        Self::Overview,
        Self::Session,
        Self::Flow,
        Self::Decision,
        Self::Audit,
        Self::Reload,
        Self::Message,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Session => "session",
            Self::Flow => "flow",
            Self::Decision => "decision",
            Self::Audit => "audit",
            Self::Reload => "reload",
            Self::Message => "message",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == name)
    }
}

/// A set of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Topics(u32);

impl Topics {
    /// All but messages, which need an agent.
    pub(crate) const USUAL: Self =
        Self(!Self::of(Topic::Message).0 & ((1 << Topic::ALL.len()) - 1));
    /// What an export of all messages stands for among those who listen.
    const EXPORT: u32 = 1 << Topic::ALL.len();
    const MESSAGES: Self =
        Self(Self::of(Topic::Message).0 | Self::of(Topic::Flow).0 | Self::EXPORT);

    const fn of(topic: Topic) -> Self {
        Self(1 << topic as u32)
    }

    pub(crate) const fn with(self, topic: Topic) -> Self {
        Self(self.0 | Self::of(topic).0)
    }

    pub(crate) const fn contains(self, topic: Topic) -> bool {
        self.0 & Self::of(topic).0 != 0
    }

    fn iter(self) -> impl Iterator<Item = Topic> {
        Topic::ALL.into_iter().filter(move |topic| self.contains(*topic))
    }
}

/// An event as it lies in the ring.
#[derive(Debug)]
struct Published {
    topic: Topic,
    /// The agents that it is about, where it is about some.
    about: [Option<AgentKey>; 2],
    frame: Bytes,
}

/// A number of events that may still be made until it is filled up again.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicI32);

impl Budget {
    /// Takes one, if there is one left.
    pub(super) fn take(&self) -> bool {
        self.0.load(Relaxed) > 0 && self.0.fetch_sub(1, Relaxed) > 0
    }

    pub(super) fn fill(&self, events: i32) {
        self.0.store(events, Relaxed);
    }
}

/// Events of which there may be too many: so many are made, the others are counted.
#[derive(Debug, Default)]
struct Rationed {
    budget: Budget,
    missed: AtomicU64,
}

impl Rationed {
    fn take(&self) -> bool {
        let taken = self.budget.take();
        if !taken {
            self.missed.fetch_add(1, Relaxed);
        }
        taken
    }
}

#[derive(Debug, Default)]
struct Registry {
    listeners: usize,
    by_topic: [usize; Topic::ALL.len()],
    followed: HashMap<AgentKey, usize>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Hub {
    /// The [`Topics`] that somebody listens to.
    interest: AtomicU32,
    followed: ArcSwap<HashSet<AgentKey, ahash::RandomState>>,
    registry: Mutex<Registry>,
    events: broadcast::Sender<Arc<Published>>,
    /// Apart, so that who follows a busy agent makes nobody else miss anything.
    messages: broadcast::Sender<Arc<Published>>,
    flow: Flow,
    followed_messages: Rationed,
    refusals: Rationed,
    came: Notify,
    #[cfg(feature = "otlp")]
    outlet: std::sync::OnceLock<super::otlp::Outlet>,
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
        self.registry.lock().listeners
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
    pub(super) fn refusal(&self, about: AgentKey, event: &impl Serialize) {
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
        let spelled = match to {
            Some(key) if AgentKey::parse_did(&envelope.to) != Ok(key) => Some(key.did()),
            _ => None,
        };
        let (reason, latency) = match outcome {
            Outcome::Delivered(took) => (None, took),
            Outcome::Held => (None, None),
            Outcome::Refused(reason) => (reason.map(RefusalReason::as_str), None),
        };
        let event = MessageEvent {
            at_ms: now_ms(),
            id: &envelope.id,
            correlation_id: envelope.correlation_id.as_deref().filter(|id| id.len() <= MAX_TEXT),
            trace: trace::id_of(&envelope, message.sender.trace, message.number),
            kind: message.kind.as_str(),
            from: message.sender.agent.as_str(),
            // After a redirect it is for somebody else than it says.
            to: spelled.as_deref().unwrap_or_else(|| shown(&envelope.to)),
            bytes: message.text.len(),
            outcome: outcome.as_str(),
            reason,
            latency_us: latency.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        };
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
        self.followed_messages.budget.fill(FOLLOWED);
        self.refusals.budget.fill(REFUSED);
        self.flow.refill();
    }

    fn tell_missed(&self, topic: Topic, events: &Rationed) {
        let missed = events.missed.swap(0, Relaxed);
        if missed > 0 {
            self.send(topic, LAGGED, [None, None], &Lagged { missed });
        }
    }
}

const LAGGED: &str = "lagged";

/// How much a listener did not get.
#[derive(Serialize)]
struct Lagged {
    missed: u64,
}

#[derive(Serialize)]
struct MessageEvent<'a> {
    at_ms: i64,
    id: &'a str,
    correlation_id: Option<&'a str>,
    trace: TraceId,
    #[serde(rename = "type")]
    kind: &'static str,
    from: &'a str,
    to: &'a str,
    bytes: usize,
    outcome: &'static str,
    reason: Option<&'static str>,
    latency_us: Option<u64>,
}

/// The beginning of a text that an agent may have made as long as a message: what waits to be told
/// is bounded in number, and so in memory only if each is short.
pub(super) fn shown(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_unix_millis()
}

/// An event as a frame of server-sent events. JSON has no line breaks of its own.
fn frame(name: &str, event: &impl Serialize) -> Option<Bytes> {
    let json = serde_json::to_string(event).ok()?;
    Some(format!("event: {name}\ndata: {json}\n\n").into())
}

/// There are as many listeners as may be.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_LISTENERS} others listen already")]
pub(crate) struct TooManyListeners;

/// One who listens, until dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    telemetry: Arc<Telemetry>,
    topics: Topics,
    agent: Option<AgentKey>,
    events: broadcast::Receiver<Arc<Published>>,
    messages: broadcast::Receiver<Arc<Published>>,
}

impl Telemetry {
    /// Listens to topics; where an agent is named, only to what is about it or about nobody. The
    /// messages are that agent's, and without one there are none.
    pub(crate) fn listen(
        self: &Arc<Self>,
        topics: Topics,
        agent: Option<AgentKey>,
    ) -> Result<Listener, TooManyListeners> {
        let hub = &self.hub;
        let mut registry = hub.registry.lock();
        if registry.listeners >= MAX_LISTENERS {
            return Err(TooManyListeners);
        }
        registry.listeners += 1;
        for topic in topics.iter() {
            registry.by_topic[topic as usize] += 1;
        }
        if let Some(key) = agent.filter(|_| topics.contains(Topic::Message)) {
            *registry.followed.entry(key).or_default() += 1;
        }
        // Before it is announced, so that nothing which is made from then on is missed.
        let (events, messages) = (hub.events.subscribe(), hub.messages.subscribe());
        if topics.contains(Topic::Flow) && registry.by_topic[Topic::Flow as usize] == 1 {
            hub.flow.begin();
        }
        hub.followed_messages.budget.fill(FOLLOWED);
        hub.refusals.budget.fill(REFUSED);
        hub.announce(&registry);
        drop(registry);
        hub.came.notify_one();
        Ok(Listener { telemetry: Arc::clone(self), topics, agent, events, messages })
    }
}

impl Hub {
    /// From now on all messages are told to an outlet. Set once.
    #[cfg(feature = "otlp")]
    pub(super) fn export(&self, outlet: super::otlp::Outlet) {
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

    fn announce(&self, registry: &Registry) {
        self.followed.store(Arc::new(registry.followed.keys().copied().collect()));
        let wanted = Topic::ALL.into_iter().filter(|topic| registry.by_topic[*topic as usize] > 0);
        let interest = wanted.fold(Topics::default(), Topics::with);
        self.interest.store(interest.0 | self.exports(), SeqCst);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let hub = &self.telemetry.hub;
        let mut registry = hub.registry.lock();
        registry.listeners -= 1;
        for topic in self.topics.iter() {
            registry.by_topic[topic as usize] -= 1;
        }
        if let Some(key) = self.agent.filter(|_| self.topics.contains(Topic::Message))
            && let Some(count) = registry.followed.get_mut(&key)
        {
            *count -= 1;
            if *count == 0 {
                registry.followed.remove(&key);
            }
        }
        hub.announce(&registry);
    }
}

impl Listener {
    /// The next frame. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Bytes {
        loop {
            let Self { topics, events, messages, .. } = self;
            let received = tokio::select! {
                received = events.recv() => received,
                received = messages.recv(), if topics.contains(Topic::Message) => received,
            };
            match received {
                Ok(event) if self.wants(&event) => return event.frame.clone(),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    return frame(LAGGED, &Lagged { missed }).unwrap_or_default();
                }
                // The hub lives as long as its listeners.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    fn wants(&self, event: &Published) -> bool {
        let is_about = |agent| event.about == [None, None] || event.about.contains(&Some(agent));
        self.topics.contains(event.topic) && self.agent.is_none_or(is_about)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::session::handle::tests::session;

    const TOPICS: Topics = Topics::of(Topic::Session);
    const MESSAGES: Topics = Topics::of(Topic::Message);

    fn told(frame: &Bytes) -> (String, Value) {
        let text = std::str::from_utf8(frame).unwrap();
        let (name, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        (name.to_owned(), serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap())
    }

    fn text(members: &str) -> String {
        format!(
            r#"{{"from":"a","id":"7","payload":{{"sdp":"s3cret"}},"signature":"",{members}"to":"b","type":"OFFER"}}"#
        )
    }

    #[tokio::test]
    async fn nothing_is_made_while_nobody_listens() {
        let telemetry = Arc::new(Telemetry::default());
        let hub = &telemetry.hub;
        for topic in Topic::ALL {
            assert!(!hub.wants(topic), "{topic:?}");
        }
        let mut listener = telemetry.listen(TOPICS, None).unwrap();
        assert!(hub.wants(Topic::Session) && !hub.wants(Topic::Audit) && !hub.watches_messages());
        hub.publish(Topic::Audit, &[], &1);
        hub.publish(Topic::Session, &[], &2);
        assert_eq!(told(&listener.next().await), ("session".into(), json!(2)));
        drop(listener);
        assert!(!hub.wants(Topic::Session));
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_so_and_goes_on_with_what_is_left() {
        let telemetry = Arc::new(Telemetry::default());
        let (mut slow, mut fast) =
            (telemetry.listen(TOPICS, None).unwrap(), telemetry.listen(TOPICS, None).unwrap());
        for n in 0..RING + 10 {
            telemetry.hub.publish(Topic::Session, &[], &n);
            assert_eq!(told(&fast.next().await), ("session".into(), json!(n)));
        }
        assert_eq!(told(&slow.next().await), ("lagged".into(), json!({ "missed": 10 })));
        assert_eq!(told(&slow.next().await), ("session".into(), json!(10)));
    }

    #[tokio::test]
    async fn an_agents_listener_gets_what_is_about_it_or_about_nobody() {
        let telemetry = Arc::new(Telemetry::default());
        let (one, other) = (session().agent.key(), session().agent.key());
        let mut listener = telemetry.listen(TOPICS, Some(one)).unwrap();
        telemetry.hub.publish(Topic::Session, &[other], &1);
        telemetry.hub.publish(Topic::Session, &[other, one], &2);
        telemetry.hub.publish(Topic::Session, &[], &3);
        assert_eq!(told(&listener.next().await).1, json!(2));
        assert_eq!(told(&listener.next().await).1, json!(3));
    }

    #[tokio::test]
    async fn a_message_is_told_with_its_sender_s_trace_and_without_its_payload() {
        let telemetry = Arc::new(Telemetry::default());
        let (sender, target) = (session(), session());
        let mut listener = telemetry.listen(MESSAGES, Some(target.agent.key())).unwrap();
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let long = "x".repeat(MAX_TEXT + 1);
        let members = format!(r#""traceparent":"{traceparent}","correlation_id":"{long}","#);
        for members in ["", &members] {
            let message = Passing {
                kind: MessageType::Offer,
                text: &text(members),
                sender: &sender,
                number: 1,
                to: Some(target.agent.key()),
            };
            telemetry.hub.message(message, Outcome::Delivered(Some(Duration::from_micros(12))));
        }
        let (_, event) = told(&listener.next().await);
        assert_eq!(event["trace"], json!(sender.trace.id(1)));
        assert_eq!((&event["id"], &event["latency_us"]), (&json!("7"), &json!(12)));
        // What the text says is not whom it is for: somebody redirected it.
        assert_eq!(event["to"], json!(target.agent.as_str()));
        let (_, event) = told(&listener.next().await);
        assert_eq!(event["trace"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(event["correlation_id"], Value::Null);
        assert!(!event.to_string().contains("s3cret"));
    }

    #[tokio::test]
    async fn whom_a_message_is_for_is_cut_between_characters_where_that_is_nobody() {
        let telemetry = Arc::new(Telemetry::default());
        let sender = session();
        let mut listener = telemetry.listen(MESSAGES, Some(sender.agent.key())).unwrap();
        let text = text("").replace(r#""to":"b""#, &format!(r#""to":"x{}""#, "é".repeat(9_000)));
        let (kind, number) = (MessageType::Offer, 1);
        let message = Passing { kind, text: &text, sender: &sender, number, to: None };
        telemetry.hub.message(message, Outcome::Refused(Some(RefusalReason::UnknownAgent)));
        let (_, event) = told(&listener.next().await);
        assert_eq!(event["to"], format!("x{}", "é".repeat(63)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_the_budget_is_counted_and_the_budget_comes_back() {
        let telemetry = Arc::new(Telemetry::default());
        let sender = session();
        let mut listener = telemetry.listen(MESSAGES, Some(sender.agent.key())).unwrap();
        let text = text("");
        let tell = || {
            let (kind, number) = (MessageType::Offer, 1);
            let message = Passing { kind, text: &text, sender: &sender, number, to: None };
            telemetry.hub.message(message, Outcome::Refused(Some(RefusalReason::Denied)));
        };
        let budget = usize::try_from(FOLLOWED).unwrap();
        for _ in 0..budget + 3 {
            tell();
        }
        for _ in 0..budget {
            let (name, event) = told(&listener.next().await);
            assert_eq!((name.as_str(), &event["reason"]), ("message", &json!("denied")));
        }
        let serving = telemetry.hub.serve(|key| key.did());
        let missed = tokio::select! {
            () = serving => unreachable!("it serves until dropped"),
            frame = listener.next() => told(&frame),
        };
        assert_eq!(missed, ("lagged".into(), json!({ "missed": 3 })));
        tell();
        assert_eq!(told(&listener.next().await).0, "message");
    }

    #[test]
    fn listeners_are_bounded_and_give_their_places_back() {
        let telemetry = Arc::new(Telemetry::default());
        let key = session().agent.key();
        let listen = || telemetry.listen(MESSAGES, Some(key));
        let listeners: Vec<_> = (0..MAX_LISTENERS).map(|_| listen().unwrap()).collect();
        assert!(listen().is_err());
        drop(listeners);
        assert!(telemetry.hub.followed.load().is_empty() && !telemetry.hub.watches_messages());
        assert!(listen().is_ok());
    }

    #[test]
    fn every_topic_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Topic::ALL.iter().map(|topic| topic.as_str()).collect();
        assert_eq!(names.len(), Topic::ALL.len());
        assert!(Topic::ALL.iter().all(|topic| Topic::parse(topic.as_str()) == Some(*topic)));
    }
}
