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
    cluster::backplane::Away,
    hooks::World as _,
    session::handle::SessionId,
    world::{
        dismiss,
        elsewhere::{self, Closed},
    },
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
    /// The node that it was on.
    node: String,
}

/// End an agent's session
///
/// It is closed with 4009, and may come back. In a cluster it may be on any node.
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
        (status = 409, description = "Its session is ending already", body = FaultBody),
        (status = 503, description = "It is not on this node, and the cluster is away", body = FaultBody),
        (status = 504, description = "Its node did not answer: it may have ended", body = FaultBody)
    )
)]
pub(super) async fn disconnect(
    State(state): State<AdminState>,
    Named(key): Named,
    OptionalBody(Farewell { reason }): OptionalBody<Farewell>,
) -> Result<impl IntoResponse, Fault> {
    let core = &state.core;
    let reason = reason.unwrap_or_default();
    let presence = &core.router.presence;
    let (did, session, node) = match (presence.live(key, core.clock.now()), presence.delivery()) {
        (Some(session), _) => {
            if !dismiss(&session, CloseReason::Removed, &reason) {
                return Err(ending());
            }
            (session.agent.to_string(), session.id, core.node_id.clone())
        }
        (None, Some(delivery)) => {
            match elsewhere::close(delivery, key, CloseReason::Removed, &reason).await {
                Closed::Answered { agent, node, was_there: true } => {
                    (agent.did.clone(), SessionId(agent.session), node)
                }
                Closed::Answered { .. } => return Err(ending()),
                Closed::Nowhere => return Err(absent()),
                Closed::Silent { node } => return Err(silent(&node)),
                Closed::Apart(away) => return Err(apart(&away)),
            }
        }
        (None, None) => return Err(absent()),
    };
    let detail = Some(reason).filter(|reason| !reason.is_empty());
    let noted = Noted { target: Some(did.clone()), detail };
    let body = Disconnected { did, session: session.to_string(), node };
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
///
/// To an agent on another node of a cluster it is handed on; whether there is room for it there is not
/// told.
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
        (status = 503, description = "It is not on this node, and the cluster is away", body = FaultBody),
        (status = 422, description = "It is no such message", body = FaultBody)
    )
)]
pub(super) async fn send(
    State(state): State<AdminState>,
    Named(key): Named,
    Body(Message { kind, payload }): Body<Message>,
) -> Result<impl IntoResponse, Fault> {
    let payload = Value::Object(payload).to_string();
    let core = &state.core;
    if core.router.presence.live(key, core.clock.now()).is_none() {
        // What is handed on without a look is lost where there is nobody.
        let place = elsewhere::place(core, key).await.map_err(|away| apart(&away))?;
        if place.is_none() {
            return Err(absent());
        }
    }
    core.send(key, &kind, &payload).map_err(|refused| match refused {
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

fn ending() -> Fault {
    Fault::conflict("its session is ending already")
}

/// It may be on another node, and nobody can say.
pub(super) fn apart(away: &Away) -> Fault {
    let error = format!("it is not on this node, and the cluster is away: {away}");
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, error)
}

fn silent(node: &str) -> Fault {
    let error = format!("node {node} did not answer in time: the session may have ended");
    Fault::new(StatusCode::GATEWAY_TIMEOUT, error)
}
