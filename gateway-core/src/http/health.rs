//! `/health`: alive, and what became of the messages. `/ready`: takes new sessions.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use conexus_protocol::Timestamp;
use serde::Serialize;

use super::App;
use crate::{accounting::Messages, phase::Phase};

#[derive(Serialize)]
struct Health {
    status: &'static str,
    connected_agents: usize,
    timestamp: String,
    messages: Messages,
    version: &'static str,
    node_id: String,
}

pub(super) async fn health(State(app): State<App>) -> Response {
    let core = &app.core;
    Json(Health {
        status: "healthy",
        connected_agents: core.router.presence.online(),
        timestamp: Timestamp::now().to_string(),
        messages: core.router.telemetry.messages.snapshot(),
        version: env!("CARGO_PKG_VERSION"),
        node_id: core.node_id.clone(),
    })
    .into_response()
}

pub(super) async fn ready(State(app): State<App>) -> Response {
    #[derive(Serialize)]
    struct Ready {
        status: &'static str,
    }
    match app.core.phase() {
        Phase::Running => Json(Ready { status: "ready" }).into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, Json(Ready { status: "draining" })).into_response(),
    }
}
