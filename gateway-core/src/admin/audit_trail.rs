//! What operators did, to be looked at.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    audit::AuditEntry,
    extract::Asked,
    fault::{Fault, FaultBody},
    state::AdminState,
};

/// How many are told unless the caller says.
const USUAL: usize = 100;

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(audit))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Question {
    /// At most so many, 100 unless given; no more than 1000 are kept
    limit: Option<usize>,
}

/// What was asked of the gateway.
#[derive(Serialize, ToSchema)]
struct Trail {
    /// Newest first.
    entries: Vec<AuditEntry>,
}

/// What was to be changed by this API, and by whom
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    operation_id = "audit",
    tag = "node",
    params(Question),
    responses((status = 200, body = Trail), (status = 400, body = FaultBody))
)]
async fn audit(
    State(state): State<AdminState>,
    Asked(Question { limit }): Asked<Question>,
) -> Result<Json<Trail>, Fault> {
    Ok(Json(Trail { entries: state.audit.latest(limit.unwrap_or(USUAL)) }))
}
