//! Another policy: what the files say now, or the former one.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    audit::Noted,
    fault::{Fault, FaultBody},
    state::AdminState,
};
use crate::reload::Reloaded;

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(reload)).routes(routes!(roll_back))
}

/// The generation that runs now.
#[derive(Serialize, ToSchema)]
struct RolledBack {
    generation: u64,
}

/// Which one it was, for the audit.
fn noted(generation: u64) -> Extension<Noted> {
    Extension(Noted { target: None, detail: Some(format!("generation {generation}")) })
}

/// Read the configuration and the policy again
#[utoipa::path(
    post,
    path = "/api/v1/reload",
    operation_id = "reload",
    tag = "policy",
    responses(
        (status = 200, body = Reloaded),
        (status = 409, description = "It is faulty; nothing has changed", body = FaultBody)
    )
)]
async fn reload(State(state): State<AdminState>) -> Result<impl IntoResponse, Fault> {
    let reloader = Arc::clone(&state.reloader);
    match tokio::task::spawn_blocking(move || reloader.reload()).await {
        Ok(Ok(reloaded)) => Ok((noted(reloaded.generation), Json(reloaded))),
        Ok(Err(reasons)) => Err(Fault::refused(reasons)),
        Err(_) => Err(Fault::internal("the reload panicked")),
    }
}

/// Go back to the former policy
#[utoipa::path(
    post,
    path = "/api/v1/rollback",
    operation_id = "rollback",
    tag = "policy",
    responses(
        (status = 200, body = RolledBack),
        (status = 409, description = "There is none; nothing has changed", body = FaultBody)
    )
)]
async fn roll_back(State(state): State<AdminState>) -> Result<impl IntoResponse, Fault> {
    let reloader = Arc::clone(&state.reloader);
    match tokio::task::spawn_blocking(move || reloader.roll_back()).await {
        Ok(Ok(generation)) => Ok((noted(generation), Json(RolledBack { generation }))),
        Ok(Err(error)) => Err(Fault::refused(vec![error.to_string()])),
        Err(_) => Err(Fault::internal("the rollback panicked")),
    }
}
