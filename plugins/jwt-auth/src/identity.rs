//! What is left of a token once it is verified: all that later decisions need.

use std::collections::BTreeMap;

use conexus_protocol::AgentKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    claims,
    config::{Config, Subject},
    verify::Refusal,
};

/// Who a token says its bearer is. Kept for the connection, so it has no more than is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) subject: Option<String>,
    /// In Unix milliseconds, leeway included.
    pub(crate) expires_ms: i64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) rate_class: Option<String>,
}

impl Identity {
    pub(crate) fn of(claims: &Value, expires_ms: i64, config: &Config) -> Self {
        let text = |name: &String| claims::find(claims, name).and_then(claims::text);
        let labels = config.labels.iter();
        Self {
            subject: text(&config.subject_claim),
            expires_ms,
            labels: labels
                .filter_map(|(label, claim)| Some((label.clone(), text(claim)?)))
                .collect(),
            rate_class: config.rate_class_claim.as_ref().and_then(text),
        }
    }

    /// Whether it still holds, and belongs to the agent of this key.
    pub(crate) fn check(&self, key: &[u8; 32], now_ms: i64, rule: Subject) -> Result<(), Refusal> {
        if now_ms >= self.expires_ms {
            return Err(Refusal::Expired);
        }
        if rule == Subject::Any {
            return Ok(());
        }
        let subject = self.subject.as_deref().ok_or(Refusal::NoSubject)?;
        let subject = AgentKey::parse_did(subject).map_err(|_| Refusal::NoSubject)?;
        if subject.as_bytes() == key { Ok(()) } else { Err(Refusal::OtherSubject) }
    }
}
