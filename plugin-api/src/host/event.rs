//! What a hook is asked about.

use std::{borrow::Cow, fmt, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Connection, Tls};
use crate::{Agent, Point};

/// An event at its point.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant is its point")]
pub enum Event {
    Connect(Arc<Connect>),
    Register(Arc<Register>),
    Route(Arc<Route>),
    Undeliverable(Arc<Route>),
    Watch(Arc<Watch>),
    Expire(Arc<Expire>),
    Registered(Arc<Registered>),
    Replaced(Arc<Replaced>),
    Delivered(Arc<Delivered>),
    Disconnect(Arc<Disconnect>),
    Unregister(Arc<Unregister>),
    Start,
    Stop,
    Reload,
    Tick,
    HookError(Arc<HookError>),
}

impl Event {
    /// Its point.
    #[must_use]
    pub const fn point(&self) -> Point {
        match self {
            Self::Connect(_) => Point::Connect,
            Self::Register(_) => Point::Register,
            Self::Route(_) => Point::Route,
            Self::Undeliverable(_) => Point::Undeliverable,
            Self::Watch(_) => Point::Watch,
            Self::Expire(_) => Point::Expire,
            Self::Registered(_) => Point::Registered,
            Self::Replaced(_) => Point::Replaced,
            Self::Delivered(_) => Point::Delivered,
            Self::Disconnect(_) => Point::Disconnect,
            Self::Unregister(_) => Point::Unregister,
            Self::Start => Point::Start,
            Self::Stop => Point::Stop,
            Self::Reload => Point::Reload,
            Self::Tick => Point::Tick,
            Self::HookError(_) => Point::HookError,
        }
    }

    /// The agent it is about: the sender of a message. None before it is known.
    #[must_use]
    pub fn agent(&self) -> Option<&Arc<Agent>> {
        Some(match self {
            Self::Register(event) => &event.agent,
            Self::Route(event) | Self::Undeliverable(event) => &event.from,
            Self::Watch(event) => &event.agent,
            Self::Expire(event) => &event.agent,
            Self::Registered(event) => &event.agent,
            Self::Replaced(event) => &event.agent,
            Self::Delivered(event) => &event.from,
            Self::Disconnect(event) => &event.agent,
            Self::Unregister(event) => &event.agent,
            Self::Connect(_)
            | Self::Start
            | Self::Stop
            | Self::Reload
            | Self::Tick
            | Self::HookError(_) => return None,
        })
    }

    /// The state of the connection it is about.
    #[must_use]
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        match self {
            Self::Connect(event) => event.connection.as_ref(),
            Self::Register(event) => event.connection.as_ref(),
            Self::Route(event) | Self::Undeliverable(event) => event.connection.as_ref(),
            Self::Watch(event) => event.connection.as_ref(),
            Self::Expire(event) => event.connection.as_ref(),
            Self::Registered(event) => event.connection.as_ref(),
            Self::Replaced(event) => event.connection.as_ref(),
            Self::Disconnect(event) => event.connection.as_ref(),
            Self::Unregister(event) => event.connection.as_ref(),
            Self::Delivered(_)
            | Self::Start
            | Self::Stop
            | Self::Reload
            | Self::Tick
            | Self::HookError(_) => None,
        }
    }
}

/// Somebody asks for a WebSocket. `Debug` leaves out what may hold a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Connect {
    /// Where from.
    pub address: SocketAddr,
    /// The request's path.
    pub path: String,
    /// The request's query, without the question mark; empty where there is none.
    pub query: String,
    /// The headers in order, names in lower case; what is not UTF-8 is replaced.
    pub headers: Vec<(String, String)>,
    /// How it is encrypted, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<Tls>>,
    /// Hooks' own values, kept for this connection.
    #[serde(skip)]
    pub connection: Option<Arc<Connection>>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("address", &self.address)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A proof is valid, nothing is stored yet.
#[derive(Clone, Serialize, Deserialize)]
pub struct Register {
    /// Who wants to register. Its labels are those of its present registration at a renewal.
    pub agent: Arc<Agent>,
    /// What it presents to policy alone: never stored, shown, logged or recorded.
    #[serde(skip)]
    pub credentials: Option<String>,
    /// Whether it is registered on this very session already.
    pub renewal: bool,
    /// Hooks' own values, kept for this connection.
    #[serde(skip)]
    pub connection: Option<Arc<Connection>>,
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("agent", &self.agent)
            .field("renewal", &self.renewal)
            .finish_non_exhaustive()
    }
}

/// A message on its way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Route {
    /// The sender as it is registered.
    pub from: Arc<Agent>,
    /// The target, where it is present.
    pub target: Option<Arc<Agent>>,
    /// The key of the target, whatever its spelling.
    pub to_key: [u8; 32],
    /// Its type: `OFFER`.
    pub kind: Cow<'static, str>,
    /// The trace that it is part of, where that is known. No hook sees it, and the log of decisions
    /// has it in another place.
    #[serde(skip)]
    pub trace: Option<[u8; 16]>,
    text: Text,
    to: Part,
    id: Part,
    correlation_id: Option<Part>,
    payload: Part,
    /// Hooks' own values, kept for the sender's connection.
    #[serde(skip)]
    pub connection: Option<Arc<Connection>>,
}

/// What a [`Route`] is made of. Parts that lie within `text` are not copied.
#[derive(Debug)]
#[allow(missing_docs, reason = "as in Route")]
pub struct RouteParts<'a> {
    pub from: Arc<Agent>,
    pub target: Option<Arc<Agent>>,
    pub to_key: [u8; 32],
    pub kind: Cow<'static, str>,
    pub to: &'a str,
    pub id: &'a str,
    pub correlation_id: Option<&'a str>,
    pub payload: &'a str,
    pub trace: Option<[u8; 16]>,
    pub connection: Option<Arc<Connection>>,
}

impl Route {
    /// A message of this text, whose parts were found in it.
    #[must_use]
    pub fn new(text: Text, parts: RouteParts<'_>) -> Self {
        let part = |member: &str| Part::of(text.as_str(), member);
        Self {
            to: part(parts.to),
            id: part(parts.id),
            correlation_id: parts.correlation_id.map(part),
            payload: part(parts.payload),
            text,
            from: parts.from,
            target: parts.target,
            to_key: parts.to_key,
            kind: parts.kind,
            trace: parts.trace,
            connection: parts.connection,
        }
    }

    /// The whole message as received.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.as_str()
    }

    /// The target's DID as the sender wrote it.
    #[must_use]
    pub fn to(&self) -> &str {
        self.to.in_text(self.text())
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.in_text(self.text())
    }

    /// The id being answered.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.correlation_id.as_ref().map(|part| part.in_text(self.text()))
    }

    /// The payload's JSON object as received.
    #[must_use]
    pub fn payload(&self) -> &str {
        self.payload.in_text(self.text())
    }
}

/// A part of a text: where it lies, or itself where it was written with escapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Part {
    At(usize, usize),
    Apart(Box<str>),
}

impl Part {
    fn of(text: &str, member: &str) -> Self {
        let offset = (member.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
        match offset.map(|start| (start, start.saturating_add(member.len()))) {
            Some((start, end)) if end <= text.len() && !member.is_empty() => Self::At(start, end),
            _ => Self::Apart(member.into()),
        }
    }

    fn in_text<'a>(&'a self, text: &'a str) -> &'a str {
        match self {
            // A recorded event may have been edited by hand.
            Self::At(start, end) => text.get(*start..*end).unwrap_or_default(),
            Self::Apart(member) => member,
        }
    }
}

/// A message's text, which the event shares with the gateway.
#[derive(Clone)]
pub struct Text(Arc<str>);

impl Text {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.as_str().len())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// An agent wants to follow another's presence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Watch {
    /// Who wants to follow.
    pub agent: Arc<Agent>,
    /// Whom, as written.
    pub did: String,
    /// Whom, where it is present.
    pub target: Option<Arc<Agent>>,
    /// Hooks' own values, kept for the watcher's connection.
    #[serde(skip)]
    pub connection: Option<Arc<Connection>>,
}

/// An agent's lease ran out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Expire {
    /// Whose.
    pub agent: Arc<Agent>,
    /// How long it has been silent, in milliseconds.
    pub silent_ms: u64,
    /// Hooks' own values, kept for its connection.
    #[serde(skip)]
    pub connection: Option<Arc<Connection>>,
}

/// An agent is registered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registered {
    /// As it is known from now on.
    pub agent: Arc<Agent>,
    /// Whether it was registered on this very session already.
    pub renewal: bool,
    /// Hooks' own values, kept for its connection.
    #[serde(skip)]
    pub connection: Option<Arc<Connection>>,
}

/// A newer session of the same key took over; `on_disconnect` of the older one follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Replaced {
    /// As it was known on the older session.
    pub agent: Arc<Agent>,
    /// Hooks' own values, kept for the older connection.
    #[serde(skip)]
    pub connection: Option<Arc<Connection>>,
}

/// The kernel has a message's last byte.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivered {
    /// The sender.
    pub from: Arc<Agent>,
    /// Who got it: after a redirect not the one that the message names.
    pub to: Arc<Agent>,
    /// Its type: `OFFER`.
    pub kind: Cow<'static, str>,
    /// Bytes of its text.
    pub bytes: usize,
}

/// A registered session ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Disconnect {
    /// As it was known.
    pub agent: Arc<Agent>,
    /// Why: `closed`, `unregistered`, `replaced`, `expired`, `denied`, `removed`, `bad_messages`,
    /// `rate_limited`, `too_slow`, `stopping`, `broken`, `node_lost`.
    pub reason: Cow<'static, str>,
    /// The close code: the gateway's, or the agent's where it closed.
    pub code: Option<u16>,
    /// How long the session lasted, in milliseconds.
    pub lasted_ms: u64,
    /// When the agent had registered by the clock that the nodes of a cluster share, in microseconds since
    /// 1970: of two sessions of an agent's the one with the greater number is the newer one. None without
    /// a cluster, and where the session was never put down there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Hooks' own values, kept for its connection.
    #[serde(skip)]
    pub connection: Option<Arc<Connection>>,
}

/// An agent said UNREGISTER; `on_disconnect` follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unregister {
    /// As it was known.
    pub agent: Arc<Agent>,
    /// Hooks' own values, kept for its connection.
    #[serde(skip)]
    pub connection: Option<Arc<Connection>>,
}

/// Another hook failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookError {
    /// The instance.
    pub hook: String,
    /// Where.
    pub point: Cow<'static, str>,
    /// How: `error`, `panic`, `timeout`, `bad_return`, `overload`, `overrun`, `quarantined`.
    pub kind: Cow<'static, str>,
    /// What is known of it.
    pub message: String,
    /// The agent that the call was about, if one was.
    pub agent: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Metadata;

    fn agent() -> Arc<Agent> {
        Arc::new(Agent {
            did: "did:key:zA".into(),
            key: [1; 32],
            session: 1,
            address: ([127, 0, 0, 1], 1).into(),
            subprotocol: "ioap.v1.1".into(),
            connected_at_ms: 0,
            metadata: Metadata::default(),
            labels: BTreeMap::new(),
            rate_class: None,
        })
    }

    #[test]
    fn parts_of_a_message_are_found_in_its_text_and_survive_json() {
        let text = r#"{"id":"x","to":"did:key:zB","payload":{"sdp":"v=0"}}"#;
        let (text, payload) = (String::from(text), r#"{"sdp":"v=0"}"#);
        let at = text.find(payload).unwrap();
        let held = Text::new(text);
        let parts = RouteParts {
            from: agent(),
            target: None,
            to_key: [2; 32],
            kind: "OFFER".into(),
            to: "did:key:zB",
            id: "x",
            correlation_id: None,
            payload: &held.clone().as_str().to_owned()[at..at + payload.len()],
            trace: None,
            connection: None,
        };
        let route = Route::new(held, parts);
        let event = Event::Route(Arc::new(route));
        let json = serde_json::to_string(&event).unwrap();
        let Event::Route(route) = serde_json::from_str(&json).unwrap() else { panic!("{json}") };
        assert_eq!((route.to(), route.id(), route.payload()), ("did:key:zB", "x", payload));
        assert_eq!(route.correlation_id(), None);
    }

    #[test]
    fn credentials_are_neither_shown_nor_recorded() {
        let register = Register {
            agent: agent(),
            credentials: Some("sesame".into()),
            renewal: false,
            connection: None,
        };
        assert!(!format!("{register:?}").contains("sesame"));
        assert!(!serde_json::to_string(&register).unwrap().contains("sesame"));
    }
}
