//! Agents and events out of thin air.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use super::START_MS;
use crate::{
    Agent, Metadata, Point,
    host::{
        ClientCertificate, Connect, Connection, Delivered, Disconnect, Expire, HookError, Register,
        Registered, Replaced, Route, RouteParts, Text, Tls, Unregister, Watch,
    },
};

/// Makes methods that set what is behind them.
macro_rules! setters {
    ($Builder:ident { $(
        $(#[doc = $doc:literal])+ $name:ident(&mut $this:ident, $($arg:ident: $Arg:ty),*) $set:block
    )+ }) => {
        impl $Builder { $(
            $(#[doc = $doc])+
            pub fn $name(self, $($arg: $Arg),*) -> Self {
                let mut $this = self;
                $set
                $this
            }
        )+ }
    };
}

/// Begins an agent. Its key follows from the DID, which need not be a real one; it connects from
/// 127.0.0.1, and nothing else is known of it.
pub fn agent(did: &str) -> AgentBuilder {
    AgentBuilder(Agent {
        did: did.into(),
        key: key(did),
        session: 1,
        address: (Ipv4Addr::LOCALHOST, 50_000).into(),
        subprotocol: "ioap.v1.1".into(),
        connected_at_ms: START_MS,
        metadata: Metadata::default(),
        labels: Default::default(),
        rate_class: None,
    })
}

fn key(did: &str) -> [u8; 32] {
    let mut key = [0; 32];
    for (n, part) in key.chunks_exact_mut(8).enumerate() {
        let mut hasher = DefaultHasher::new();
        (n, did).hash(&mut hasher);
        part.copy_from_slice(&hasher.finish().to_be_bytes());
    }
    key
}

/// An agent in the making; see [`agent`].
#[derive(Debug, Clone)]
#[must_use]
pub struct AgentBuilder(Agent);

setters! { AgentBuilder {
    /// Its name for people.
    name(&mut this, name: &str) { this.0.metadata.name = Some(name.into()) }
    /// One capability more.
    capability(&mut this, capability: &str) {
        this.0.metadata.capabilities.push(capability.into())
    }
    /// An attribute.
    attribute(&mut this, name: &str, value: &str) {
        this.0.metadata.attributes.insert(name.into(), value.into());
    }
    /// A label.
    label(&mut this, name: &str, value: &str) {
        this.0.labels.insert(name.into(), value.into());
    }
    /// Its class of rate limits.
    rate_class(&mut this, class: &str) { this.0.rate_class = Some(class.into()) }
    /// The IP that it connects from.
    address(&mut this, ip: impl Into<IpAddr>) { this.0.address.set_ip(ip.into()) }
    /// Its session's number.
    session(&mut this, session: u64) { this.0.session = session }
} }

impl AgentBuilder {
    /// The agent.
    #[must_use]
    pub fn build(self) -> Arc<Agent> {
        Arc::new(self.0)
    }
}

/// Begins an upgrade request: for `/ws`, from 127.0.0.1, without query or headers.
pub fn connect() -> ConnectBuilder {
    ConnectBuilder(Connect {
        address: (Ipv4Addr::LOCALHOST, 50_000).into(),
        path: "/ws".into(),
        query: String::new(),
        headers: Vec::new(),
        tls: None,
        connection: None,
    })
}

/// An upgrade request in the making; see [`connect`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ConnectBuilder(Connect);

setters! { ConnectBuilder {
    /// The IP that it comes from.
    address(&mut this, ip: impl Into<IpAddr>) { this.0.address.set_ip(ip.into()) }
    /// The path.
    path(&mut this, path: &str) { this.0.path = path.into() }
    /// The query, without the question mark.
    query(&mut this, query: &str) { this.0.query = query.into() }
    /// Over TLS, with this certificate of the client's or with none.
    tls(&mut this, client: Option<ClientCertificate>) {
        this.0.tls = Some(Arc::new(Tls { version: "1.3".into(), client }))
    }
    /// One header more.
    header(&mut this, name: &str, value: &str) {
        this.0.headers.push((name.to_lowercase(), value.into()))
    }
    /// On this connection, whose values hooks share with its later events.
    on(&mut this, connection: &Arc<Connection>) {
        this.0.connection = Some(Arc::clone(connection))
    }
} }

impl From<ConnectBuilder> for Connect {
    fn from(builder: ConnectBuilder) -> Self {
        builder.0
    }
}

/// Begins a registration: the first of its session, without credentials.
pub fn register(agent: &Arc<Agent>) -> RegisterBuilder {
    RegisterBuilder(Register {
        agent: Arc::clone(agent),
        credentials: None,
        renewal: false,
        connection: None,
    })
}

/// A registration in the making; see [`register`].
#[derive(Debug, Clone)]
#[must_use]
pub struct RegisterBuilder(Register);

setters! { RegisterBuilder {
    /// What it presents to policy.
    credentials(&mut this, credentials: &str) { this.0.credentials = Some(credentials.into()) }
    /// It is registered already.
    renewal(&mut this,) { this.0.renewal = true }
    /// On this connection.
    on(&mut this, connection: &Arc<Connection>) {
        this.0.connection = Some(Arc::clone(connection))
    }
} }

impl From<RegisterBuilder> for Register {
    fn from(builder: RegisterBuilder) -> Self {
        builder.0
    }
}

/// Begins a message: an OFFER with an empty payload, from one present agent to another.
pub fn route(from: &Arc<Agent>, to: &Arc<Agent>) -> RouteBuilder {
    RouteBuilder {
        from: Arc::clone(from),
        to: Arc::clone(to),
        present: true,
        kind: "OFFER".into(),
        id: "00000000-0000-4000-8000-000000000000".into(),
        correlation_id: None,
        payload: json!({}),
        connection: None,
    }
}

/// A message in the making; see [`route`].
#[derive(Debug, Clone)]
#[must_use]
pub struct RouteBuilder {
    from: Arc<Agent>,
    to: Arc<Agent>,
    present: bool,
    kind: String,
    id: String,
    correlation_id: Option<String>,
    payload: Value,
    connection: Option<Arc<Connection>>,
}

setters! { RouteBuilder {
    /// Its target is not present.
    absent(&mut this,) { this.present = false }
    /// Its type.
    kind(&mut this, kind: &str) { this.kind = kind.into() }
    /// Its id.
    id(&mut this, id: &str) { this.id = id.into() }
    /// The id that it answers.
    correlation_id(&mut this, id: &str) { this.correlation_id = Some(id.into()) }
    /// Its payload, an object.
    payload(&mut this, payload: Value) { this.payload = payload }
    /// On this connection of the sender's.
    on(&mut this, connection: &Arc<Connection>) {
        this.connection = Some(Arc::clone(connection))
    }
} }

impl From<RouteBuilder> for Route {
    fn from(builder: RouteBuilder) -> Self {
        let RouteBuilder { from, to, present, kind, id, correlation_id, payload, connection } =
            builder;
        let mut message = json!({
            "from": from.did, "id": id, "payload": payload, "to": to.did, "type": kind,
        });
        if let Some(id) = &correlation_id {
            message["correlation_id"] = json!(id);
        }
        let payload = payload.to_string();
        let parts = RouteParts {
            to: &to.did,
            to_key: to.key,
            target: present.then(|| Arc::clone(&to)),
            from,
            kind: kind.into(),
            id: &id,
            correlation_id: correlation_id.as_deref(),
            payload: &payload,
            trace: None,
            connection,
        };
        Self::new(Text::new(message.to_string()), parts)
    }
}

/// An agent wants to follow another, which is not present unless `target` is set.
#[must_use]
pub fn watch(agent: &Arc<Agent>, did: &str) -> Watch {
    Watch { agent: Arc::clone(agent), did: did.into(), target: None, connection: None }
}

/// An agent's lease ran out after this silence.
#[must_use]
pub fn expire(agent: &Arc<Agent>, silent: Duration) -> Expire {
    let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
    Expire { agent: Arc::clone(agent), silent_ms, connection: None }
}

/// An agent is registered, for the first time in its session.
#[must_use]
pub fn registered(agent: &Arc<Agent>) -> Registered {
    Registered { agent: Arc::clone(agent), renewal: false, connection: None }
}

/// An agent's session was replaced.
#[must_use]
pub fn replaced(agent: &Arc<Agent>) -> Replaced {
    Replaced { agent: Arc::clone(agent), connection: None }
}

/// A message arrived.
#[must_use]
pub fn delivered(from: &Arc<Agent>, to: &Arc<Agent>, kind: &str, bytes: usize) -> Delivered {
    Delivered { from: Arc::clone(from), to: Arc::clone(to), kind: kind.to_owned().into(), bytes }
}

/// An agent's session ended after a second.
#[must_use]
pub fn disconnect(agent: &Arc<Agent>, reason: &str) -> Disconnect {
    Disconnect {
        agent: Arc::clone(agent),
        reason: reason.to_owned().into(),
        code: Some(1000),
        lasted_ms: 1000,
        epoch: None,
        connection: None,
    }
}

/// An agent said UNREGISTER.
#[must_use]
pub fn unregister(agent: &Arc<Agent>) -> Unregister {
    Unregister { agent: Arc::clone(agent), connection: None }
}

/// Another hook failed; `kind` is `error`, `panic` and so on.
#[must_use]
pub fn hook_error(hook: &str, point: Point, kind: &str, message: &str) -> HookError {
    HookError {
        hook: hook.into(),
        point: point.name().into(),
        kind: kind.to_owned().into(),
        message: message.into(),
        agent: None,
    }
}
