//! The list of this node's agents, a page at a time, in the order of their keys.

use axum::{Json, extract::State};
use conexus_protocol::AgentKey;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{search::Search, view::AgentSummary};
use crate::admin::{
    extract::Asked,
    fault::{Fault, FaultBody},
    state::AdminState,
};

/// How many are on a page unless the caller says.
const USUAL_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;
/// How many agents are written down before messages get their turn.
const AT_ONCE: usize = 64;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// A part of a DID, a name, a capability, a label's value or an address, in whatever case
    search: Option<String>,
    /// The very name
    name: Option<String>,
    /// A capability that the agent has
    capability: Option<String>,
    /// At most so many, 100 unless given, 1000 at most
    limit: Option<usize>,
    /// `next_cursor` of the page before
    cursor: Option<String>,
}

/// A page of the list.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentPage {
    agents: Vec<AgentSummary>,
    /// How many are wanted in all.
    count: usize,
    /// Where the next page begins; `null` on the last one.
    next_cursor: Option<String>,
}

/// The agents that are present on this node
///
/// In a cluster each node lists its own. An agent of any node is found by its DID.
#[utoipa::path(
    get,
    path = "/api/v1/agents",
    operation_id = "agents",
    tag = "agents",
    params(Question),
    responses((status = 200, body = AgentPage), (status = 400, body = FaultBody))
)]
pub(super) async fn list(
    State(state): State<AdminState>,
    Asked(question): Asked<Question>,
) -> Result<Json<AgentPage>, Fault> {
    let Question { search, name, capability, limit, cursor } = question;
    if limit == Some(0) {
        return Err(Fault::bad_request("limit: must be at least 1"));
    }
    let limit = limit.unwrap_or(USUAL_PAGE).min(LARGEST_PAGE);
    let after = cursor.as_deref().map(AgentKey::parse_base58).transpose();
    let after = after.map_err(|_| Fault::bad_request("cursor: not one of this gateway's"))?;
    let search = Search::new(search.as_deref(), name, capability)?;

    let core = &state.core;
    let (presence, now) = (&core.router.presence, core.clock.now());
    let page = match search.wants_everybody() {
        true => presence.page_in_turns(after, limit, now, |_| true).await,
        false => presence.search_in_turns(after, limit, now, |session| search.wants(session)).await,
    };
    let mut agents = Vec::with_capacity(page.agents.len());
    for some in page.agents.chunks(AT_ONCE) {
        agents.extend(some.iter().map(|session| AgentSummary::of(core, session)));
        tokio::task::yield_now().await;
    }
    let next_cursor = page.next.map(|key| key.base58());
    Ok(Json(AgentPage { agents, count: page.total, next_cursor }))
}
