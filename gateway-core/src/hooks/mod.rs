//! Where policy decides: the points at which the core asks, and what may be answered.
//!
//! Everything that is a decision (who may register, what may be routed where, when a silent agent
//! is gone) is asked of a [`Policy`]. The default is [`EmptyChain`]: no hook, everything goes the
//! protocol's way. A decision may take its time ([`Decision::Later`]); then it delays the one agent
//! it is about and nobody else. Asked by `http` (connect), `session` (register, expire) and
//! `router` (route, undeliverable).

pub mod hook;
pub mod judge;

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, time::Duration};

use conexus_protocol::{AgentId, AgentKey, Envelope, Metadata, RefusalReason, Subprotocol};
use http::{HeaderMap, Uri};

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

/// Somebody wants to open a WebSocket.
#[derive(Debug)]
pub struct Connect<'a> {
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// The request's path and query.
    pub uri: &'a Uri,
    /// The request's headers.
    pub headers: &'a HeaderMap,
}

/// An agent has proven its key and wants to register, or to renew its registration.
pub struct Registering<'a> {
    /// Who.
    pub agent: &'a AgentId,
    /// From where.
    pub peer: SocketAddr,
    /// How it speaks.
    pub subprotocol: Subprotocol,
    /// What it wants to publish about itself.
    pub metadata: &'a Metadata,
    /// What it presents to policy alone: never stored, shown or logged.
    pub credentials: Option<&'a str>,
    /// Whether it is registered on this very session already.
    pub renewal: bool,
}

impl fmt::Debug for Registering<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registering")
            .field("agent", self.agent)
            .field("peer", &self.peer)
            .field("subprotocol", &self.subprotocol)
            .field("metadata", self.metadata)
            .field("renewal", &self.renewal)
            .finish_non_exhaustive()
    }
}

/// A message is valid, verified and about to be routed.
#[derive(Debug)]
pub struct Routing<'a> {
    /// The sender as it is registered.
    pub from: &'a AgentId,
    /// The target's key.
    pub to: AgentKey,
    /// The message.
    pub envelope: &'a Envelope<'a>,
}

/// A message's target is absent.
#[derive(Debug)]
pub struct Undeliverable<'a> {
    /// The sender as it is registered.
    pub from: &'a AgentId,
    /// The target's key.
    pub to: AgentKey,
    /// The message's text.
    pub text: &'a str,
}

/// An agent's lease ran out.
#[derive(Debug)]
pub struct Expiring<'a> {
    /// Who.
    pub agent: &'a AgentId,
    /// How long it has been silent.
    pub silent_for: Duration,
}

/// What may be decided at most points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to say against it.
    Continue,
    /// Refuse it: `Denied`, or `PolicyError` where a hook failed closed.
    Deny(RefusalReason),
}

/// What may be decided about a message whose target is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndeliverableVerdict {
    /// What the configuration says: hold it for `mailbox.hold`, or refuse it.
    Continue,
    /// Hold it for this long, in case the target comes back.
    Hold(Duration),
    /// Refuse it.
    Deny(RefusalReason),
}

/// What may be decided about an agent whose lease ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryVerdict {
    /// Let it go.
    LetGo,
    /// A new lease of this length, at most `presence.max_extension`.
    Extend(Duration),
}

/// Whoever decides. Every method has the protocol's own way as its default.
pub trait Policy: Send + Sync + 'static {
    /// How many hooks there are, for the start-up line.
    fn hook_count(&self) -> usize {
        0
    }

    /// A WebSocket is asked for. A denial is answered with HTTP 403.
    fn on_connect(&self, _event: &Connect<'_>) -> Decision<Verdict> {
        Decision::Now(Verdict::Continue)
    }

    /// A proof is valid, nothing is stored yet.
    fn on_register(&self, _event: &Registering<'_>) -> Decision<Verdict> {
        Decision::Now(Verdict::Continue)
    }

    /// A message is valid and verified.
    fn on_route(&self, _event: &Routing<'_>) -> Decision<Verdict> {
        Decision::Now(Verdict::Continue)
    }

    /// A message's target is absent.
    fn on_undeliverable(&self, _event: &Undeliverable<'_>) -> Decision<UndeliverableVerdict> {
        Decision::Now(UndeliverableVerdict::Continue)
    }

    /// A lease ran out. Asked once per lapse.
    fn on_expire(&self, _event: &Expiring<'_>) -> Decision<ExpiryVerdict> {
        Decision::Now(ExpiryVerdict::LetGo)
    }
}

/// No hooks at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyChain;

impl Policy for EmptyChain {}
