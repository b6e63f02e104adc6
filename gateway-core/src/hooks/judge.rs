//! The seam between the core and whoever decides.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use conexus_plugin_api::{
    Agent, AgentFilter, Point,
    host::{Connect, Event, Expire, Refused, Register, Route, StateError, Watch},
};
use conexus_protocol::{AgentKey, Metadata, RefusalReason};
use futures_util::future::{BoxFuture, ready};

use super::shared::SharedState;
use crate::config::RateClass;

/// An answer, at once or later.
///
/// Whoever answers later must bound the time it takes: the session waits for it, also when its
/// socket is gone, so that no message remains without an end.
pub enum Decision<T> {
    /// The answer.
    Now(T),
    /// The answer is being worked out.
    Later(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T: fmt::Debug> fmt::Debug for Decision<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(answer) => f.debug_tuple("Now").field(answer).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

impl<T> Decision<T> {
    /// The answer, waited for where it takes time.
    pub(crate) async fn settled(self) -> T {
        match self {
            Self::Now(answer) => answer,
            Self::Later(answer) => answer.await,
        }
    }
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What the agent is told: `Denied` or another one that policy may give, or `PolicyError`
    /// where a hook failed closed.
    pub reason: RefusalReason,
    /// For people: the text of the ERROR and the log. Empty for the usual one.
    pub text: Box<str>,
}

impl From<RefusalReason> for Denial {
    fn from(reason: RefusalReason) -> Self {
        Self { reason, text: Box::default() }
    }
}

/// What was decided, or that it was refused.
pub type Ruling<T> = Result<T, Denial>;

/// What is decided about an agent that may register.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Admission {
    /// Its labels from now on; they replace those of an earlier registration.
    pub labels: BTreeMap<String, String>,
    /// The length of its first lease where it is not `presence.timeout`; capped by
    /// `presence.max_extension`.
    pub lease: Option<Duration>,
    /// The class of rates that it is in: a name of `rate_class.*`, and what is set there.
    pub rate_class: Option<(String, RateClass)>,
    /// Shown in place of what the agent published.
    pub metadata: Option<Metadata>,
}

/// What is decided about a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passage {
    /// Where it goes.
    pub way: Way,
    /// Who gets the same bytes as well, at most [`conexus_plugin_api::MAX_COPIES`]; one that is
    /// absent gets none.
    pub copies: Vec<AgentKey>,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// To the agent that it names.
    #[default]
    Straight,
    /// To this one instead, which is not judged again.
    Redirect(AgentKey),
    /// Into the target's mailbox for this long; a target that is present gets it at once.
    Hold(Duration),
}

/// What is decided about a message whose target is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// What the configuration says: hold it for `mailbox.hold`, or refuse it.
    #[default]
    Configured,
    /// Hold it for this long, in case the target comes back.
    Hold(Duration),
    /// To this one instead; refused if that one is absent, too.
    Redirect(AgentKey),
}

/// Who decides right now.
pub trait Policy: Send + Sync + 'static {
    /// How many hooks there are, for the start-up line.
    fn hook_count(&self) -> usize {
        0
    }

    /// The judge of whatever begins now. What one judge began, no other one ends.
    fn judge(&self) -> Arc<dyn Judge>;

    /// Whether the judge of this moment asks anybody about events of this point. On the way of every
    /// message, so it should cost less than [`judge`](Self::judge).
    fn asks(&self, point: Point) -> bool {
        self.judge().asks(point)
    }

    /// Resolves once observers were told of all that happened before, or do not come to an end; which of
    /// both.
    fn told(&self) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(true))
    }

    /// Tells it whom hooks reach when they ask for agents. Called once, before anything is judged.
    fn serve(&self, _world: Weak<dyn World>) {}
}

/// Whoever decides. Every method has the protocol's own way as its default.
pub trait Judge: Send + Sync + 'static {
    /// Whether anybody wants to know of events of this point: without, none needs to be made.
    fn asks(&self, point: Point) -> bool;

    /// A WebSocket is asked for. A denial is answered with HTTP 403, or 429 where it is
    /// `RateLimited`.
    fn on_connect(self: Arc<Self>, _event: Arc<Connect>) -> Decision<Ruling<()>> {
        Decision::Now(Ok(()))
    }

    /// A proof is valid, nothing is stored yet.
    fn on_register(self: Arc<Self>, _event: Arc<Register>) -> Decision<Ruling<Admission>> {
        Decision::Now(Ok(Admission::default()))
    }

    /// A message is valid and verified.
    fn on_route(self: Arc<Self>, _event: Arc<Route>) -> Decision<Ruling<Passage>> {
        Decision::Now(Ok(Passage::default()))
    }

    /// A message's target is absent.
    fn on_undeliverable(self: Arc<Self>, _event: Arc<Route>) -> Decision<Ruling<Fallback>> {
        Decision::Now(Ok(Fallback::default()))
    }

    /// An agent wants to follow another's presence.
    fn on_watch(self: Arc<Self>, _event: Arc<Watch>) -> Decision<Ruling<()>> {
        Decision::Now(Ok(()))
    }

    /// A lease ran out: a new one of this length, or none. Asked once per lapse.
    fn on_expire(self: Arc<Self>, _event: Arc<Expire>) -> Decision<Option<Duration>> {
        Decision::Now(None)
    }

    /// Something happened. Never waits.
    fn observe(self: Arc<Self>, _event: Event) {}
}

/// What hooks reach of the gateway.
pub trait World: Send + Sync + 'static {
    /// The agent of that key, if it is present: on this node, or on another one, as far as this node
    /// remembers.
    fn agent(&self, key: AgentKey) -> Option<Arc<Agent>>;

    /// Present agents of this node that the filter wants, in the order of their keys, at most
    /// [`conexus_plugin_api::MAX_AGENTS`].
    fn agents(&self, filter: &AgentFilter) -> Vec<Arc<Agent>>;

    /// The agent of that key, on whichever node of the cluster it is present. Whoever asks bounds
    /// the time that it may take.
    ///
    /// # Errors
    /// [`StateError::Unavailable`]: this node cannot know right now.
    fn find_agent(&self, key: AgentKey) -> BoxFuture<'_, Result<Option<Arc<Agent>>, StateError>> {
        Box::pin(ready(Ok(self.agent(key))))
    }

    /// As [`agents`](Self::agents), of all nodes of the cluster. Whoever asks bounds the time that it
    /// may take.
    ///
    /// # Errors
    /// [`StateError::Unavailable`]: a node did not answer, so that some may be missing.
    fn find_agents<'a>(
        &'a self,
        filter: &'a AgentFilter,
    ) -> BoxFuture<'a, Result<Vec<Arc<Agent>>, StateError>> {
        Box::pin(ready(Ok(self.agents(filter))))
    }

    /// The state that hooks share with those on other nodes; none where there are no others. Asked for
    /// once.
    fn shared_state(&self) -> Option<SharedState> {
        None
    }

    /// Sends an agent a message of the gateway's own: `kind` is a type that agents send each other,
    /// `payload` its JSON object.
    ///
    /// # Errors
    /// [`Refused`].
    fn send(&self, to: AgentKey, kind: &str, payload: &str) -> Result<(), Refused>;

    /// Ends an agent's session as denied by policy; whether there was one.
    fn disconnect(&self, key: AgentKey, reason: &str) -> bool;

    /// How the gateway calls itself, where it is one.
    fn node_id(&self) -> Option<Arc<str>> {
        None
    }
}

/// No hooks at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyChain;

impl Judge for EmptyChain {
    fn asks(&self, _point: Point) -> bool {
        false
    }
}

/// A policy with one judge for good.
#[derive(Debug)]
pub struct Fixed<J>(pub Arc<J>);

impl<J: Judge> Policy for Fixed<J> {
    fn judge(&self) -> Arc<dyn Judge> {
        Arc::clone(&self.0) as Arc<dyn Judge>
    }
}
