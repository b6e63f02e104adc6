//! From events to lines. What may be secret stays out: credentials, headers, queries.

use conexus_plugin_api::{AgentView, Call, Point, Route};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A line in the making.
pub(crate) struct Record(Map<String, Value>);

impl Record {
    pub(crate) fn new(point: Point, call: &Call<'_>) -> Self {
        let at = Timestamp::from_millisecond(call.now_ms()).unwrap_or_default();
        let record = Self(Map::new());
        record
            .with("at", at.to_string())
            .with("point", point.name())
            .with("generation", call.generation())
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    pub(crate) fn agent(self, agent: AgentView<'_>) -> Self {
        self.with("agent", described(agent))
    }

    /// A message, with its payload where that is wanted.
    pub(crate) fn message(self, event: &Route<'_>, payload: bool) -> Self {
        let mut message = json!({
            "id": event.id(),
            "type": event.kind(),
            "from": event.from().did(),
            "to": event.to(),
            "bytes": event.text().len(),
            "present": event.target().is_some(),
        });
        if let Some(id) = event.correlation_id() {
            message["correlation_id"] = id.into();
        }
        if payload {
            // As it was received: parsed again, it could lose digits.
            message["payload"] = event.payload().into();
        }
        self.agent(event.from()).with("message", message)
    }

    pub(crate) fn line(self) -> String {
        Value::Object(self.0).to_string()
    }
}

/// What is recorded of an agent.
pub(crate) fn described(agent: AgentView<'_>) -> Value {
    let mut described = json!({
        "did": agent.did(),
        "session": agent.session(),
        "address": agent.address().to_string(),
    });
    if let Some(name) = agent.name() {
        described["name"] = name.into();
    }
    if let Some(class) = agent.rate_class() {
        described["rate_class"] = class.into();
    }
    let labels: Map<_, _> =
        agent.labels().map(|(name, value)| (name.to_owned(), value.into())).collect();
    if !labels.is_empty() {
        described["labels"] = labels.into();
    }
    described
}
