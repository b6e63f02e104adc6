//! What became of agents lately.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Asked, key_of},
    fault::{Fault, FaultBody},
    state::AdminState,
};
use crate::telemetry::history::{HistoryEntry, HistoryKind};

/// How many entries there are at once, unless asked for fewer.
const MOST: usize = 1000;
const USUAL: usize = 100;

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(history))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Only of this agent.
    agent: Option<String>,
    /// Only of this kind.
    kind: Option<HistoryKind>,
    /// At most this many, and at most 1000; without it 100.
    limit: Option<usize>,
}

#[derive(Serialize, ToSchema)]
struct Entries {
    /// Newest first.
    #[schema(value_type = Vec<HistoryEntry>)]
    entries: Vec<Arc<HistoryEntry>>,
}

/// What became of agents lately
#[utoipa::path(
    get,
    path = "/api/v1/history",
    operation_id = "history",
    tag = "agents",
    params(Wanted),
    responses(
        (status = 200, body = Entries),
        (status = 400, body = FaultBody),
        (status = 422, description = "Not an agent's DID", body = FaultBody)
    )
)]
async fn history(
    State(state): State<AdminState>,
    Asked(Wanted { agent, kind, limit }): Asked<Wanted>,
) -> Result<Json<Entries>, Fault> {
    let agent = agent.as_deref().map(key_of).transpose()?;
    let limit = limit.unwrap_or(USUAL).min(MOST);
    let entries = state.core.router.telemetry.history.latest(agent, kind, limit);
    Ok(Json(Entries { entries }))
}
