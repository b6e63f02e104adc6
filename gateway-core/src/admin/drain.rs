//! The end: a graceful stop.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::AdminState;
use crate::{core::millis, drain};

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(drain))
}

/// The stop has begun.
#[derive(Serialize, ToSchema)]
struct Draining {
    /// How long it may take (`server.drain_delay` and `server.drain_timeout`).
    within_ms: u64,
}

/// Stop the gateway gracefully, as SIGTERM does
///
/// New sessions are refused, what is queued is written, agents are told when to come back; then the
/// process ends. This API answers until then.
#[utoipa::path(
    post,
    path = "/api/v1/drain",
    operation_id = "drain",
    tag = "node",
    responses((status = 202, body = Draining))
)]
async fn drain(State(state): State<AdminState>) -> impl IntoResponse {
    // When the answer is written or nobody takes it: the end may come at once.
    let answered = Extension(Arc::new(state.drain.clone().drop_guard()));
    let within_ms = millis(drain::limit(&state.core.settings));
    (StatusCode::ACCEPTED, answered, Json(Draining { within_ms }))
}
