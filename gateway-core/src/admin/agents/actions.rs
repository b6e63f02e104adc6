//! What an operator does about an agent: ends its session, sends it a message.

use axum::{Extension, Json, extract::State, http::StatusCode, response::IntoResponse};
use conexus_plugin_api::host::Refused;
use conexus_protocol::CloseReason;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    admin::{
        audit::Noted,
        extract::{Body, Named, OptionalBody},
        fault::{Fault, FaultBody},
        state::AdminState,
    },
    hooks::World as _,
    world::dismiss,
};

/// Why a session is ended.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Farewell {
    /// What the agent is told in the close frame; cut to what fits there.
    reason: Option<String>,
}

/// Whose session was ended.
#[derive(Serialize, ToSchema)]
pub(super) struct Disconnected {
    did: String,
    session: String,
}

/// End an agent's session
///
/// It is closed with 4009, and may come back.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{did}/disconnect",
    operation_id = "disconnect",
    tag = "agents",
    params(("did" = String, Path, description = "Its DID, in either spelling")),
    request_body(content = Option<Farewell>),
    responses(
        (status = 200, body = Disconnected),
        (status = 404, description = "It is not here", body = FaultBody),
        (status = 409, description = "Its session is ending already", body = FaultBody)
    )
)]
pub(super) async fn disconnect(
    State(state): State<AdminState>,
    Named(key): Named,
    OptionalBody(Farewell { reason }): OptionalBody<Farewell>,
) -> Result<impl IntoResponse, Fault> {
    let core = &state.core;
    let session = core.router.presence.live(key, core.clock.now()).ok_or_else(absent)?;
    let reason = reason.unwrap_or_default();
    if !dismiss(&session, CloseReason::Removed, &reason) {
        return Err(Fault::conflict("its session is ending already"));
    }
    let did = session.agent.to_string();
    let detail = Some(reason).filter(|reason| !reason.is_empty());
    let noted = Noted { target: Some(did.clone()), detail };
    let body = Disconnected { did, session: session.id.to_string() };
    Ok((Extension(noted), Json(body)))
}

/// A message from the gateway.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    /// A type that agents send each other, such as `INTENT`.
    #[serde(rename = "type")]
    kind: String,
    /// As the type has it.
    #[schema(value_type = Object)]
    payload: Map<String, Value>,
}

/// The message waits to be written.
#[derive(Serialize, ToSchema)]
pub(super) struct Accepted {
    did: String,
}

/// Send an agent a message from the gateway itself
#[utoipa::path(
    post,
    path = "/api/v1/agents/{did}/messages",
    operation_id = "send_message",
    tag = "agents",
    params(("did" = String, Path, description = "Its DID, in either spelling")),
    request_body = Message,
    responses(
        (status = 202, body = Accepted),
        (status = 404, description = "It is not here", body = FaultBody),
        (status = 409, description = "Its outbox is full", body = FaultBody),
        (status = 422, description = "It is no such message", body = FaultBody)
    )
)]
pub(super) async fn send(
    State(state): State<AdminState>,
    Named(key): Named,
    Body(Message { kind, payload }): Body<Message>,
) -> Result<impl IntoResponse, Fault> {
    let payload = Value::Object(payload).to_string();
    state.core.send(key, &kind, &payload).map_err(|refused| match refused {
        Refused::Absent => absent(),
        Refused::Full => Fault::conflict("its outbox is full"),
        refused => Fault::unprocessable(refused.to_string()),
    })?;
    let did = key.did();
    // Not what it says: that is nobody's but the agent's.
    let noted = Noted { target: Some(did.clone()), detail: Some(kind) };
    Ok((StatusCode::ACCEPTED, Extension(noted), Json(Accepted { did })))
}

fn absent() -> Fault {
    Fault::not_found("no such agent is present")
}
