//! Agents and events out of what a test says of them.

use std::{net::SocketAddr, sync::Arc};

use conexus_plugin_api::{
    Agent, Metadata,
    host::{
        ClientCertificate, Connect, Delivered, Disconnect, Event, Expire, HookError, Register,
        Registered, Replaced, Route, RouteParts, Text, Tls, Unregister, Watch,
    },
};
use conexus_protocol::AgentKey;
use rhai::{Dynamic, Map};

use super::world::World;
use crate::script::bind::{AgentRef, duration, to_json};

pub(super) type Made<T> = Result<T, String>;

/// What a test says, member by member. What nobody asked for is a mistake.
pub(super) struct Said<'a> {
    what: &'static str,
    map: &'a Map,
    known: Vec<&'static str>,
}

impl<'a> Said<'a> {
    pub(super) const fn new(what: &'static str, map: &'a Map) -> Self {
        Self { what, map, known: Vec::new() }
    }

    fn get(&mut self, name: &'static str) -> Option<&'a Dynamic> {
        self.known.push(name);
        self.map.get(name).filter(|value| !value.is_unit())
    }

    fn text(&mut self, name: &'static str) -> Made<Option<String>> {
        self.get(name).map(|value| text(name, value)).transpose()
    }

    fn text_or(&mut self, name: &'static str, default: &str) -> Made<String> {
        Ok(self.text(name)?.unwrap_or_else(|| default.to_owned()))
    }

    fn whole<T: TryFrom<i64>>(&mut self, name: &'static str) -> Made<Option<T>> {
        self.get(name)
            .map(|value| {
                let number = value.as_int().ok().and_then(|number| T::try_from(number).ok());
                number.ok_or_else(|| format!("{name} is no such number: {value}"))
            })
            .transpose()
    }

    fn flag(&mut self, name: &'static str, default: bool) -> Made<bool> {
        let flag = self.get(name).map(|value| {
            value.as_bool().map_err(|kind| format!("{name} is true or false, not {kind}"))
        });
        flag.unwrap_or(Ok(default))
    }

    fn millis(&mut self, name: &'static str, default: u64) -> Made<u64> {
        let millis = self.get(name).map(|value| {
            duration(value).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        });
        millis.unwrap_or(Ok(default))
    }

    fn texts(&mut self, name: &'static str) -> Made<Vec<(String, String)>> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let map = value.read_lock::<Map>().ok_or_else(|| format!("{name} is a map of texts"))?;
        map.iter().map(|(name, value)| Ok((name.to_string(), text(name, value)?))).collect()
    }

    fn list(&mut self, name: &'static str) -> Made<Vec<String>> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let array = value.read_lock::<rhai::Array>();
        let array = array.ok_or_else(|| format!("{name} is an array of texts"))?;
        array.iter().map(|item| text(name, item)).collect()
    }

    fn agent(&mut self, name: &'static str, world: &World) -> Made<Arc<Agent>> {
        match self.get(name) {
            None => agent(world, &Map::new()),
            Some(value) => as_agent(value).ok_or_else(|| format!("{name} is an agent")),
        }
    }

    pub(super) fn end(self) -> Made<()> {
        let Self { what, map, known } = self;
        match map.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!("{what} does not know {name:?}: {}", known.join(", "))),
            None => Ok(()),
        }
    }
}

fn text(name: &str, value: &Dynamic) -> Made<String> {
    value.clone().into_string().map_err(|kind| format!("{name} is a text, not {kind}"))
}

fn as_agent(value: &Dynamic) -> Option<Arc<Agent>> {
    value.read_lock::<AgentRef>().map(|agent| agent.0.clone())
}

/// `10.0.0.7` or `10.0.0.7:5000`.
fn address(said: &mut Said<'_>) -> Made<SocketAddr> {
    let text = match (said.text("address")?, said.text("ip")?) {
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => "127.0.0.1:50000".to_owned(),
        (Some(_), Some(_)) => return Err("either address or ip".to_owned()),
    };
    text.parse()
        .or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, 50_000)))
        .map_err(|_| format!("{text:?} is no address"))
}

pub(super) fn agent(world: &World, map: &Map) -> Made<Arc<Agent>> {
    let mut said = Said::new("test_agent", map);
    let did = match said.text("did")? {
        Some(did) => did,
        None => world.next_did(),
    };
    let key = AgentKey::parse_did(&did).map_err(|error| format!("{did:?}: {error}"))?;
    let capabilities = said.list("capabilities")?;
    let agent = Agent {
        key: *key.as_bytes(),
        session: said.whole("session")?.unwrap_or(1),
        address: address(&mut said)?,
        subprotocol: said.text_or("subprotocol", "ioap.v1.1")?,
        connected_at_ms: match said.whole::<i64>("connected_at")? {
            Some(seconds) => seconds.saturating_mul(1000),
            None => world.seen().now_ms,
        },
        metadata: Metadata {
            name: said.text("name")?,
            capabilities,
            attributes: said.texts("attributes")?.into_iter().collect(),
        },
        labels: said.texts("labels")?.into_iter().collect(),
        rate_class: said.text("rate_class")?,
        did,
    };
    said.end()?;
    Ok(Arc::new(agent))
}

/// `tls: true`, or a map with `version` and `client`.
fn tls(said: &mut Said<'_>) -> Made<Option<Arc<Tls>>> {
    let Some(value) = said.get("tls") else { return Ok(None) };
    let none = Map::new();
    let map = value.read_lock::<Map>();
    let map = match (&map, value.as_bool()) {
        (Some(map), _) => map,
        (None, Ok(true)) => &none,
        (None, Ok(false)) => return Ok(None),
        (None, Err(kind)) => return Err(format!("tls is true, false or a map, not {kind}")),
    };
    let mut said = Said::new("tls", map);
    let version = said.text_or("version", "1.3")?.into();
    let client = said.get("client").map(client).transpose()?;
    said.end()?;
    Ok(Some(Arc::new(Tls { version, client })))
}

fn client(value: &Dynamic) -> Made<ClientCertificate> {
    let map = value.read_lock::<Map>().ok_or("client is a map")?;
    let mut said = Said::new("client", &map);
    let common_name = said.text("common_name")?;
    let subject = common_name.as_ref().map_or_else(String::new, |name| format!("CN={name}"));
    let client = ClientCertificate {
        subject: said.text_or("subject", &subject)?,
        common_name,
        issuer: said.text_or("issuer", "CN=test")?,
        serial: said.text_or("serial", "01")?,
        fingerprint: said.text_or("fingerprint", &"0".repeat(64))?,
        // Long after all tests.
        not_after_ms: said.whole("not_after")?.unwrap_or(4_102_444_800_i64).saturating_mul(1000),
        dns_names: said.list("dns_names")?,
        uris: said.list("uris")?,
        emails: said.list("emails")?,
    };
    said.end()?;
    Ok(client)
}

pub(super) fn connect(_world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("connect_event", map);
    let headers = said.texts("headers")?;
    let event = Connect {
        address: address(&mut said)?,
        path: said.text_or("path", "/ws")?,
        query: said.text_or("query", "")?,
        headers: headers.into_iter().map(|(name, v)| (name.to_ascii_lowercase(), v)).collect(),
        tls: tls(&mut said)?,
        connection: None,
    };
    said.end()?;
    Ok(Event::Connect(Arc::new(event)))
}

pub(super) fn register(world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("register_event", map);
    let event = Register {
        agent: said.agent("agent", world)?,
        credentials: said.text("credentials")?,
        renewal: said.flag("renewal", false)?,
        connection: None,
    };
    said.end()?;
    Ok(Event::Register(Arc::new(event)))
}

/// A target that is an agent is present; one that is a DID is if the test has added it.
fn target(world: &World, value: &Dynamic) -> Made<(String, Option<Arc<Agent>>)> {
    if let Some(agent) = as_agent(value) {
        return Ok((agent.did.clone(), Some(agent)));
    }
    let did = text("to", value)?;
    let key = AgentKey::parse_did(&did).map_err(|error| format!("{did:?}: {error}"))?;
    let present = world.seen().agents.get(key.as_bytes()).cloned();
    Ok((did, present))
}

pub(super) fn route(world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("route_event", map);
    let from = said.agent("from", world)?;
    let (to, present) = match said.get("to") {
        Some(value) => target(world, value)?,
        None => {
            let agent = agent(world, &Map::new())?;
            (agent.did.clone(), Some(agent))
        }
    };
    let target = if said.flag("present", true)? { present } else { None };
    let key = AgentKey::parse_did(&to).map_err(|error| format!("{to:?}: {error}"))?;
    let kind = said.text_or("type", "OFFER")?;
    let id = said.text_or("id", "00000000-0000-4000-8000-000000000000")?;
    let correlation_id = said.text("correlation_id")?;
    let payload = match said.get("payload") {
        None => "{}".to_owned(),
        Some(value) if value.is_map() => to_json(value).map_err(|error| error.to_string())?,
        Some(_) => return Err("payload is a map".to_owned()),
    };
    said.end()?;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let correlated = correlation_id
        .as_ref()
        .map(|id| format!("\"correlation_id\":{},", quoted(id)))
        .unwrap_or_default();
    let message = format!(
        "{{{correlated}\"from\":{},\"id\":{},\"payload\":{payload},\"to\":{},\"type\":{}}}",
        quoted(&from.did),
        quoted(&id),
        quoted(&to),
        quoted(&kind),
    );
    let parts = RouteParts {
        from,
        target,
        to_key: *key.as_bytes(),
        kind: kind.into(),
        to: &to,
        id: &id,
        correlation_id: correlation_id.as_deref(),
        payload: &payload,
        trace: None,
        connection: None,
    };
    Ok(Event::Route(Arc::new(Route::new(Text::new(message), parts))))
}

pub(super) fn watch(world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("watch_event", map);
    let agent_said = said.agent("agent", world)?;
    let (did, target) = match said.get("target") {
        Some(value) => target(world, value)?,
        None => {
            let target = agent(world, &Map::new())?;
            (target.did.clone(), Some(target))
        }
    };
    said.end()?;
    Ok(Event::Watch(Arc::new(Watch { agent: agent_said, did, target, connection: None })))
}

pub(super) fn expire(world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("expire_event", map);
    let event = Expire {
        agent: said.agent("agent", world)?,
        silent_ms: said.millis("silent", 300_000)?,
        connection: None,
    };
    said.end()?;
    Ok(Event::Expire(Arc::new(event)))
}

pub(super) fn registered(world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("registered_event", map);
    let event = Registered {
        agent: said.agent("agent", world)?,
        renewal: said.flag("renewal", false)?,
        connection: None,
    };
    said.end()?;
    Ok(Event::Registered(Arc::new(event)))
}

pub(super) fn replaced(world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("replaced_event", map);
    let event = Replaced { agent: said.agent("agent", world)?, connection: None };
    said.end()?;
    Ok(Event::Replaced(Arc::new(event)))
}

pub(super) fn delivered(world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("delivered_event", map);
    let event = Delivered {
        from: said.agent("from", world)?,
        to: said.agent("to", world)?,
        kind: said.text_or("type", "OFFER")?.into(),
        bytes: said.whole("bytes")?.unwrap_or(100),
    };
    said.end()?;
    Ok(Event::Delivered(Arc::new(event)))
}

pub(super) fn disconnect(world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("disconnect_event", map);
    let event = Disconnect {
        agent: said.agent("agent", world)?,
        reason: said.text_or("reason", "closed")?.into(),
        code: said.whole("code")?,
        lasted_ms: said.millis("lasted", 1000)?,
        epoch: said.whole("epoch")?,
        connection: None,
    };
    said.end()?;
    Ok(Event::Disconnect(Arc::new(event)))
}

pub(super) fn unregister(world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("unregister_event", map);
    let event = Unregister { agent: said.agent("agent", world)?, connection: None };
    said.end()?;
    Ok(Event::Unregister(Arc::new(event)))
}

pub(super) fn hook_error(_world: &World, map: &Map) -> Made<Event> {
    let mut said = Said::new("hook_error_event", map);
    let event = HookError {
        hook: said.text_or("hook", "other")?,
        point: said.text_or("point", "on_route")?.into(),
        kind: said.text_or("kind", "error")?.into(),
        message: said.text_or("message", "")?,
        agent: match said.get("agent") {
            None => None,
            Some(value) => Some(match as_agent(value) {
                Some(agent) => agent.did.clone(),
                None => text("agent", value)?,
            }),
        },
    };
    said.end()?;
    Ok(Event::HookError(Arc::new(event)))
}

/// For the host's own tests.
#[cfg(test)]
pub(in crate::script) mod for_unit_tests {
    use super::*;

    pub(in crate::script) fn did(number: u8) -> String {
        crate::script::tests::world::did(number)
    }

    pub(in crate::script) fn connect() -> Event {
        super::connect(&World::new(), &Map::new()).unwrap()
    }

    pub(in crate::script) fn register(world: &World) -> Event {
        super::register(world, &Map::new()).unwrap()
    }

    pub(in crate::script) fn route(world: &World) -> Event {
        route_with(world, &serde_json::json!({ "sdp": "v=0" }))
    }

    pub(in crate::script) fn route_with(world: &World, payload: &serde_json::Value) -> Event {
        let said = [("payload".into(), crate::script::bind::from_json(payload))];
        super::route(world, &Map::from(said)).unwrap()
    }
}
