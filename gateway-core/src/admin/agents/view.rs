//! What is shown of one agent.

use conexus_plugin_api::Agent;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    clock::Moment,
    core::Core,
    session::handle::{SessionHandle, SessionId},
};

/// An agent in a list. What an absent agent has none of is `null` or 0.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgentSummary {
    /// Its DID as it spells it.
    pub(super) did: String,
    /// Tells its sessions apart.
    session: Option<String>,
    /// The name that it gave itself. Like everything here that comes from agents, any text.
    name: Option<String>,
    /// Where it connects from.
    address: Option<String>,
    subprotocol: Option<String>,
    connected_at_ms: Option<i64>,
    last_activity_ms: Option<i64>,
    /// When it counts as gone unless something comes from it before.
    lease_until_ms: Option<i64>,
    /// Messages from it.
    sent: u64,
    /// Messages that were delivered to it.
    received: u64,
    /// How many agents it watches.
    watching: usize,
    /// What waits to be written to it.
    outbox_messages: usize,
    outbox_bytes: usize,
    /// How long it has not taken what is to be written.
    stalled_ms: Option<u64>,
}

impl AgentSummary {
    pub(super) fn of(core: &Core, session: &SessionHandle) -> Self {
        let facts = session.facts();
        let (sent, received) = session.traffic();
        let waiting = session.outbox.depth();
        let stalled = session.stalled_since().map(|since| since.until(core.clock.now()));
        Self {
            did: session.agent.to_string(),
            session: Some(session.id.to_string()),
            name: facts.metadata.name.clone(),
            address: Some(facts.address.to_string()),
            subprotocol: Some(session.subprotocol.as_str().to_owned()),
            connected_at_ms: Some(unix_ms(core, session.connected_at)),
            last_activity_ms: Some(unix_ms(core, session.last_activity())),
            lease_until_ms: Some(unix_ms(core, session.lease_until())),
            sent,
            received,
            watching: session.watcher.count(),
            outbox_messages: waiting.messages,
            outbox_bytes: waiting.bytes,
            stalled_ms: stalled.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// What the directory of the cluster knows of one that is on another node.
    pub(super) fn of_elsewhere(agent: &Agent) -> Self {
        Self {
            session: Some(SessionId(agent.session).to_string()),
            name: agent.metadata.name.clone(),
            address: Some(agent.address.to_string()),
            subprotocol: Some(agent.subprotocol.clone()),
            connected_at_ms: Some(agent.connected_at_ms),
            ..Self::of_absent(agent.did.clone())
        }
    }

    pub(super) fn of_absent(did: String) -> Self {
        Self {
            did,
            session: None,
            name: None,
            address: None,
            subprotocol: None,
            connected_at_ms: None,
            last_activity_ms: None,
            lease_until_ms: None,
            sent: 0,
            received: 0,
            watching: 0,
            outbox_messages: 0,
            outbox_bytes: 0,
            stalled_ms: None,
        }
    }
}

/// A moment in Unix milliseconds.
pub(in crate::admin) fn unix_ms(core: &Core, moment: Moment) -> i64 {
    let nanos = core.clock.wall(moment).as_unix_nanos();
    i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or(i64::MAX)
}
