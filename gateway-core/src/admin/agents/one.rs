//! One agent, present or not.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::view::AgentSummary;
use crate::admin::{
    bans::Ban,
    extract::Named,
    fault::{Fault, FaultBody},
    state::AdminState,
};
use crate::{telemetry::history::HistoryEntry, world::elsewhere};

/// How much of its history is told along with an agent; the rest is at `/api/v1/history`.
const HISTORY: usize = 100;

/// All that is known of an agent.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentDetail {
    #[serde(flatten)]
    summary: AgentSummary,
    /// Whether it is here now, or on another node of the cluster, as far as this one can know.
    present: bool,
    /// The node that it is on. What only that node knows of its session is `null` or 0 on another one.
    node: Option<String>,
    capabilities: Vec<String>,
    attributes: BTreeMap<String, String>,
    /// What policy said of it.
    labels: BTreeMap<String, String>,
    /// The class of rates that policy put it in.
    rate_class: Option<String>,
    /// Messages that wait for its return.
    mailbox_messages: usize,
    banned: Option<Ban>,
    /// What happened to it, newest first.
    #[schema(value_type = Vec<HistoryEntry>)]
    history: Vec<Arc<HistoryEntry>>,
}

/// One agent
#[utoipa::path(
    get,
    path = "/api/v1/agents/{did}",
    operation_id = "agent",
    tag = "agents",
    params(("did" = String, Path, description = "Its DID, in either spelling")),
    responses(
        (status = 200, body = AgentDetail),
        (status = 404, description = "Nothing is known of it", body = FaultBody)
    )
)]
pub(super) async fn one(
    State(state): State<AdminState>,
    Named(key): Named,
) -> Result<Json<AgentDetail>, Fault> {
    let core = &state.core;
    let now = core.clock.now();
    let presence = &core.router.presence;
    let (summary, node, facts) = match presence.live(key, now) {
        Some(session) => {
            let summary = AgentSummary::of(core, &session);
            (summary, Some(core.node_id.clone()), Some(session.facts()))
        }
        None => match (elsewhere::place(core, key).await, &core.cluster) {
            (Ok(Some(place)), Some(cluster)) => {
                let node = elsewhere::node_id(cluster, place.member);
                (AgentSummary::of_elsewhere(&place.agent), Some(node), Some(place.agent))
            }
            // Apart from the others nobody knows whether it is with them.
            _ => (AgentSummary::of_absent(key.did()), None, None),
        },
    };
    let mailbox_messages = presence.held_for(key);
    let banned = core.bans.of(key, now).map(|ban| Ban::of(core, key, ban));
    let history = core.router.telemetry.history.latest(Some(key), None, HISTORY);
    let known = facts.is_some() || banned.is_some() || mailbox_messages > 0 || !history.is_empty();
    if !known {
        return Err(Fault::not_found("nothing is known of such an agent"));
    }
    let facts = facts.as_deref();
    let metadata = facts.map(|facts| facts.metadata.clone()).unwrap_or_default();
    Ok(Json(AgentDetail {
        summary,
        present: facts.is_some(),
        node,
        capabilities: metadata.capabilities,
        attributes: metadata.attributes,
        labels: facts.map(|facts| facts.labels.clone()).unwrap_or_default(),
        rate_class: facts.and_then(|facts| facts.rate_class.clone()),
        mailbox_messages,
        banned,
        history,
    }))
}
