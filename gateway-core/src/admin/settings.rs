//! The settings in effect.

use axum::{Json, extract::State};
use serde_json::{Map, Value};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::AdminState;

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(config))
}

/// The settings in effect and where each was set
///
/// An object of `{"value": …, "origin": "gateway.toml:3:11"}` by key, as `conexus config --json`
/// prints; secrets are `"<secret>"`. Modes of hooks are as they are configured: where another one
/// holds, `/api/v1/hooks` has both.
#[utoipa::path(
    get,
    path = "/api/v1/config",
    operation_id = "config",
    tag = "node",
    responses((status = 200, body = Object))
)]
async fn config(State(state): State<AdminState>) -> Json<Map<String, Value>> {
    Json(state.reloader.effective())
}
