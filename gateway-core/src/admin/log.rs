//! The level of the log.

use axum::{Extension, Json, extract::State, response::IntoResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    audit::Noted,
    extract::Body,
    fault::{Fault, FaultBody},
    state::AdminState,
};

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(level, set_level))
}

/// The level of the log.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Log)]
struct Level {
    /// As `log.level` has it: "info", or "info,conexus_gateway::session=debug".
    level: String,
}

/// The level of the log
#[utoipa::path(
    get,
    path = "/api/v1/log",
    operation_id = "log",
    tag = "node",
    responses((status = 200, body = Level))
)]
async fn level(State(state): State<AdminState>) -> Json<Level> {
    Json(Level { level: state.log.get() })
}

/// Change the level of the log
///
/// Until a restart, which takes `log.level` again.
#[utoipa::path(
    put,
    path = "/api/v1/log",
    operation_id = "set_log_level",
    tag = "node",
    request_body = Level,
    responses(
        (status = 200, body = Level),
        (status = 422, description = "It is no level; nothing has changed", body = FaultBody)
    )
)]
async fn set_level(
    State(state): State<AdminState>,
    Body(Level { level }): Body<Level>,
) -> Result<impl IntoResponse, Fault> {
    state.log.set(&level).map_err(|error| Fault::unprocessable(error.to_string()))?;
    let noted = Noted { target: None, detail: Some(level) };
    Ok((Extension(noted), Json(Level { level: state.log.get() })))
}
