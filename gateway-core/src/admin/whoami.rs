//! Who the gateway takes the caller for.

use axum::{Extension, Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{access::Caller, state::AdminState};
use crate::config::Scope;

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(whoami))
}

/// The caller.
#[derive(Serialize, ToSchema)]
struct Whoami {
    /// The token's name; `null` where no token is needed.
    name: Option<String>,
    /// What the caller may do.
    scopes: Vec<Scope>,
    /// Whether there are tokens, so that one is needed.
    tokens_required: bool,
}

/// Whom the gateway takes the caller for
#[utoipa::path(
    get,
    path = "/api/v1/whoami",
    operation_id = "whoami",
    tag = "node",
    responses((status = 200, body = Whoami))
)]
async fn whoami(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Json<Whoami> {
    let scopes = [Scope::Read, Scope::Operate];
    Json(Whoami {
        name: caller.name,
        scopes: scopes.into_iter().filter(|scope| *scope <= caller.scope).collect(),
        tokens_required: !state.is_open(),
    })
}
