//! What is asked.

use std::collections::BTreeMap;

use conexus_plugin_api::{AgentView, Point, Register, Route};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json, value::to_value};

use crate::{
    cache::Key,
    config::{Config, Part},
};

/// A question, with the point that it is asked at.
pub(crate) struct Request {
    pub(crate) point: Point,
    body: Value,
}

impl Request {
    pub(crate) fn register(event: &Register<'_>, config: &Config) -> Self {
        let mut body = json!({
            "point": Point::Register.name(),
            "agent": described(event.agent()),
            "renewal": event.renewal(),
        });
        // Not even read otherwise: who looks at credentials cannot be replayed.
        if config.send_credentials
            && let Some(credentials) = event.credentials()
        {
            body["credentials"] = credentials.into();
        }
        Self { point: Point::Register, body }
    }

    pub(crate) fn route(event: &Route<'_>, config: &Config) -> Result<Self, serde_json::Error> {
        let mut message = json!({
            "id": event.id(),
            "type": event.kind(),
            "from": event.from().did(),
            "to": event.to(),
            "bytes": event.text().len(),
        });
        if let Some(id) = event.correlation_id() {
            message["correlation_id"] = id.into();
        }
        if let Some(target) = event.target() {
            message["target"] = described(target);
        }
        if config.send_payload {
            message["payload"] = serde_json::from_str(event.payload())?;
        }
        let agent = described(event.from());
        let body = json!({"point": Point::Route.name(), "agent": agent, "message": message});
        Ok(Self { point: Point::Route, body })
    }

    /// What goes over the wire.
    pub(crate) fn body(&self) -> Vec<u8> {
        self.body.to_string().into_bytes()
    }

    /// Under what an answer is kept: a hash of all that the answer may depend on.
    pub(crate) fn key(&self, parts: &[Part]) -> Key {
        let chosen = parts.iter().map(|part| match part {
            Part::Did => "/agent/did",
            Part::Address => "/agent/address",
            Part::Metadata => "/agent/metadata",
            Part::Labels => "/agent/labels",
            Part::RateClass => "/agent/rate_class",
            Part::Type => "/message/type",
            Part::To => "/message/to",
            Part::Target => "/message/target",
        });
        let always = ["/point", "/credentials", "/message/payload"];
        let values: BTreeMap<_, _> =
            chosen.chain(always).map(|at| (at, self.body.pointer(at))).collect();
        let text = to_value(values).unwrap_or_default().to_string();
        let mut key = Key::default();
        key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        key
    }
}

fn described(agent: AgentView<'_>) -> Value {
    let mut described = json!({
        "did": agent.did(),
        // Without the port, which tells nobody apart and would spoil the cache.
        "address": agent.address().ip(),
        "metadata": {
            "name": agent.name(),
            "capabilities": agent.capabilities().collect::<Vec<_>>(),
            "attributes": agent.attributes().collect::<BTreeMap<_, _>>(),
        },
        "labels": agent.labels().collect::<BTreeMap<_, _>>(),
    });
    if let Some(class) = agent.rate_class() {
        described["rate_class"] = class.into();
    }
    described
}
