//! A hook's mode, changed while the gateway runs.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    response::IntoResponse,
};
use conexus_plugin_api::Point;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    audit::Noted,
    extract::Body,
    fault::{Fault, FaultBody},
    state::AdminState,
};
use crate::{config::Mode, hooks::ReloadError};

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(set_mode))
}

/// The mode that a hook is to have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMode {
    mode: Mode,
    /// Only at this point, such as `on_route`; wherever a chain names it unless given.
    point: Option<String>,
}

/// The mode is in effect.
#[derive(Serialize, ToSchema)]
struct ModeSet {
    /// The generation that judges now.
    generation: u64,
    /// For how long.
    note: &'static str,
}

const NOTE: &str = "until the next reload, which takes what the configuration says";

/// Put a hook into another mode
///
/// By a new generation of the same instances, which a rollback undoes; the next reload takes what the
/// configuration says.
#[utoipa::path(
    put,
    path = "/api/v1/hooks/{hook}/mode",
    operation_id = "set_mode",
    tag = "policy",
    params(("hook" = String, Path, description = "The NAME of [hook.NAME]")),
    request_body = NewMode,
    responses(
        (status = 200, body = ModeSet),
        (status = 404, description = "No such hook in a chain", body = FaultBody),
        (status = 409, description = "Too many generations are alive", body = FaultBody),
        (status = 422, body = FaultBody)
    )
)]
async fn set_mode(
    State(state): State<AdminState>,
    hook: Result<Path<String>, PathRejection>,
    Body(NewMode { mode, point }): Body<NewMode>,
) -> Result<impl IntoResponse, Fault> {
    let Path(hook) = hook?;
    let at = match &point {
        None => None,
        Some(name) => {
            let none = || Fault::unprocessable(format!("point: there is no {name:?}"));
            Some(Point::from_name(name).ok_or_else(none)?)
        }
    };
    let engine = Arc::clone(state.engine());
    let name = hook.clone();
    // It waits for a reload that is under way.
    let set = tokio::task::spawn_blocking(move || engine.set_mode(&name, at, mode)).await;
    let generation = set.map_err(|_| Fault::internal("the change panicked"))?.map_err(fault)?;
    let word = serde_json::to_value(mode).unwrap_or_default();
    let word = word.as_str().unwrap_or_default();
    let detail = match point {
        Some(point) => format!("{word} at {point}, generation {generation}"),
        None => format!("{word}, generation {generation}"),
    };
    let noted = Noted { target: Some(hook), detail: Some(detail) };
    Ok((Extension(noted), Json(ModeSet { generation, note: NOTE })))
}

fn fault(error: ReloadError) -> Fault {
    match error {
        ReloadError::NotChained(why) => Fault::not_found(why),
        ReloadError::Faulty(reasons) => Fault::refused(reasons),
        error => Fault::conflict(error.to_string()),
    }
}
