//! What policy knows of a registered agent.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// What an agent publishes about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metadata {
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it can be asked to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Whatever else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// An agent as the gateway knows it at one moment. At `on_register` it is not stored yet.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its DID as it spells it.
    pub did: String,
    /// The 32 bytes of its public key: the same for both spellings.
    pub key: [u8; 32],
    /// Tells its sessions apart for as long as the gateway runs; a greater one is newer.
    pub session: u64,
    /// Where it connects from.
    pub address: SocketAddr,
    /// `ioap.v1` or `ioap.v1.1`.
    pub subprotocol: String,
    /// When its session began, in Unix milliseconds.
    pub connected_at_ms: i64,
    /// What it publishes about itself, or what policy put in place of that.
    pub metadata: Metadata,
    /// What policy said of it.
    pub labels: BTreeMap<String, String>,
    /// The class of rate limits it is in, where policy named one.
    pub rate_class: Option<String>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("did", &self.did)
            .field("session", &self.session)
            .field("address", &self.address)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// Which agents [`agents`](crate::AgentFilter) should find; unset members ask for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentFilter {
    /// Has this capability.
    pub capability: Option<String>,
    /// Has this name.
    pub name: Option<String>,
    /// Has this label with this value.
    pub label: Option<(String, String)>,
    /// At most so many; 0 means as many as the gateway gives at once ([`MAX_AGENTS`]).
    pub limit: usize,
}

/// The most agents that one search gives.
pub const MAX_AGENTS: usize = 1000;

impl AgentFilter {
    /// Whether it asks for this agent.
    #[must_use]
    pub fn wants(&self, agent: &Agent) -> bool {
        let Self { capability, name, label, limit: _ } = self;
        capability.as_ref().is_none_or(|wanted| agent.metadata.capabilities.contains(wanted))
            && name.as_ref().is_none_or(|wanted| agent.metadata.name.as_ref() == Some(wanted))
            && label.as_ref().is_none_or(|(name, wanted)| agent.labels.get(name) == Some(wanted))
    }
}
