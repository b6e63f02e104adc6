//! The hooks that run, and how they fare.

use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::AdminState;
use crate::hooks::Status;

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(hooks))
}

/// The hooks that run, and how they fare
#[utoipa::path(
    get,
    path = "/api/v1/hooks",
    operation_id = "hooks",
    tag = "policy",
    responses((status = 200, body = Status))
)]
async fn hooks(State(state): State<AdminState>) -> Json<Status> {
    Json(state.engine().status())
}
