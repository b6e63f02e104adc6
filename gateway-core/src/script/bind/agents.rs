//! Agents: what a script reads of one, how it finds them, what it can do to them.

use std::sync::Arc;

use conexus_plugin_api::{Agent, AgentFilter, host::Refused};
use conexus_protocol::AgentKey;
use rhai::{Array, Dynamic, EvalAltResult, Map, NativeCallContext};

use super::{
    Bindings, Fallible, ask,
    values::{state_error, to_json},
};

/// An agent as it was when the event happened.
#[derive(Debug, Clone)]
pub(crate) struct AgentRef(pub(crate) Arc<Agent>);

impl AgentRef {
    /// An agent, or `()`.
    pub(crate) fn or_unit(agent: Option<&Arc<Agent>>) -> Dynamic {
        agent.map_or(Dynamic::UNIT, |agent| Dynamic::from(Self(agent.clone())))
    }
}

/// A text, or `()`.
pub(super) fn text_or_unit(text: Option<&str>) -> Dynamic {
    text.map_or(Dynamic::UNIT, Into::into)
}

fn texts<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Map {
    map.into_iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect()
}

fn key(agent: &AgentRef) -> AgentKey {
    AgentKey::from_bytes(agent.0.key)
}

fn fields(bindings: &mut Bindings) {
    bindings.named::<AgentRef>("agent");
    bindings.field("did", |agent: &mut AgentRef| agent.0.did.clone());
    bindings.field("key", |agent: &mut AgentRef| key(agent).did());
    bindings.field("legacy_did", |agent: &mut AgentRef| key(agent).legacy_did());
    bindings.field("session", |agent: &mut AgentRef| agent.0.session.cast_signed());
    bindings.field("address", |agent: &mut AgentRef| agent.0.address.to_string());
    bindings.field("ip", |agent: &mut AgentRef| agent.0.address.ip().to_canonical().to_string());
    bindings.field("subprotocol", |agent: &mut AgentRef| agent.0.subprotocol.clone());
    bindings.field("connected_at", |agent: &mut AgentRef| agent.0.connected_at_ms.div_euclid(1000));
    bindings.field("name", |agent: &mut AgentRef| text_or_unit(agent.0.metadata.name.as_deref()));
    bindings.field("capabilities", |agent: &mut AgentRef| -> Array {
        agent.0.metadata.capabilities.iter().map(|name| name.as_str().into()).collect()
    });
    bindings.field("attributes", |agent: &mut AgentRef| texts(&agent.0.metadata.attributes));
    bindings.field("labels", |agent: &mut AgentRef| texts(&agent.0.labels));
    bindings
        .field("rate_class", |agent: &mut AgentRef| text_or_unit(agent.0.rate_class.as_deref()));
    bindings.function("has_capability", |agent: &mut AgentRef, name: &str| {
        agent.0.metadata.capabilities.iter().any(|capability| capability == name)
    });
    bindings.function("label", |agent: &mut AgentRef, name: &str| {
        text_or_unit(agent.0.labels.get(name).map(String::as_str))
    });
    bindings.function("attribute", |agent: &mut AgentRef, name: &str| {
        text_or_unit(agent.0.metadata.attributes.get(name).map(String::as_str))
    });
    bindings.function("==", |one: &mut AgentRef, other: AgentRef| one.0.key == other.0.key);
    bindings.function("!=", |one: &mut AgentRef, other: AgentRef| one.0.key != other.0.key);
    bindings.function("to_string", |agent: &mut AgentRef| agent.0.did.clone());
    bindings.function("to_debug", |agent: &mut AgentRef| format!("{:?}", agent.0));
}

/// `#{ capability: …, name: …, label: #{ region: "eu" }, limit: … }`, each of them optional.
fn filter(wanted: &Map) -> Fallible<AgentFilter> {
    let mut filter = AgentFilter::default();
    for (name, value) in wanted {
        let text = || {
            let text = value.clone().into_string();
            text.map_err(|kind| format!("{name} is a text, not {kind}"))
        };
        match name.as_str() {
            "capability" => filter.capability = Some(text()?),
            "name" => filter.name = Some(text()?),
            "label" => filter.label = Some(label(value)?),
            "limit" => {
                let limit = value.as_int().ok().and_then(|limit| usize::try_from(limit).ok());
                filter.limit = limit.ok_or("limit is a whole number")?;
            }
            _ => {
                return Err(format!(
                    "agents() does not know {name:?}: capability, name, label, limit"
                )
                .into());
            }
        }
    }
    Ok(filter)
}

fn label(value: &Dynamic) -> Fallible<(String, String)> {
    let one = value.read_lock::<Map>().and_then(|map| match map.iter().next() {
        Some((name, value)) if map.len() == 1 => {
            value.clone().into_string().ok().map(|value| (name.to_string(), value))
        }
        _ => None,
    });
    one.ok_or_else(|| r#"label is written as #{ region: "eu" }, one name and its text"#.into())
}

fn agents(context: &NativeCallContext<'_>, filter: &AgentFilter) -> Fallible<Array> {
    ask(context, |services| {
        let most = context.engine().max_array_size();
        let found = services.agents(filter).map_err(state_error)?;
        Ok(found.into_iter().take(most).map(|agent| Dynamic::from(AgentRef(agent))).collect())
    })
}

/// False where the agent is absent or its outbox full, which no script can foresee.
fn send(
    context: &NativeCallContext<'_>,
    did: &str,
    kind: &str,
    payload: &Dynamic,
) -> Fallible<bool> {
    if !payload.is_map() {
        return Err("a payload is an object: #{ … }".into());
    }
    let payload = to_json(payload)?;
    ask(context, |services| match services.send(did, kind, &payload) {
        Ok(()) => Ok(true),
        Err(Refused::Absent | Refused::Full) => Ok(false),
        Err(refused) => Err(refused.to_string().into()),
    })
}

pub(super) fn bind(bindings: &mut Bindings) {
    type Context<'a> = NativeCallContext<'a>;
    fields(bindings);
    bindings.function("agent", |c: Context, did: &str| {
        let found = ask(&c, |services| services.agent(did).map_err(state_error))?;
        Ok::<_, Box<EvalAltResult>>(AgentRef::or_unit(found.as_ref()))
    });
    bindings.function("agents", |c: Context| agents(&c, &AgentFilter::default()));
    bindings.function("agents", |c: Context, wanted: Map| agents(&c, &filter(&wanted)?));
    bindings.function("send", |c: Context, did: &str, kind: &str, payload: Dynamic| {
        send(&c, did, kind, &payload)
    });
    bindings.function("disconnect", |c: Context, did: &str| {
        ask(&c, |services| Ok(services.disconnect(did, "")))
    });
    bindings.function("disconnect", |c: Context, did: &str, reason: &str| {
        ask(&c, |services| Ok(services.disconnect(did, reason)))
    });
}
