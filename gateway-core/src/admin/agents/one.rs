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
use crate::telemetry::history::HistoryEntry;

/// How much of its history is told along with an agent; the rest is at `/api/v1/history`.
const HISTORY: usize = 100;

/// All that is known of an agent.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentDetail {
    #[serde(flatten)]
    summary: AgentSummary,
    /// Whether it is here now.
    present: bool,
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
    let session = presence.live(key, now);
    let mailbox_messages = presence.held_for(key);
    let banned = core.bans.of(key, now).map(|ban| Ban::of(core, ban));
    let history = core.router.telemetry.history.latest(Some(key), None, HISTORY);
    let known =
        session.is_some() || banned.is_some() || mailbox_messages > 0 || !history.is_empty();
    if !known {
        return Err(Fault::not_found("nothing is known of such an agent"));
    }
    let detail = |summary| AgentDetail {
        summary,
        present: session.is_some(),
        capabilities: Vec::new(),
        attributes: BTreeMap::new(),
        labels: BTreeMap::new(),
        rate_class: None,
        mailbox_messages,
        banned,
        history,
    };
    let Some(session) = &session else {
        return Ok(Json(detail(AgentSummary::of_absent(key.did()))));
    };
    let facts = session.facts();
    Ok(Json(AgentDetail {
        capabilities: facts.metadata.capabilities.clone(),
        attributes: facts.metadata.attributes.clone(),
        labels: facts.labels.clone(),
        rate_class: facts.rate_class.clone(),
        ..detail(AgentSummary::of(core, session))
    }))
}
