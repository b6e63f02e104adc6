//! Bans: an agent is sent away and may not come back for a while.

use std::time::Duration;

use axum::{Extension, Json, extract::State, http::StatusCode, response::IntoResponse};
use conexus_protocol::{AgentKey, CloseReason};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    access::Caller,
    agents::unix_ms,
    audit::Noted,
    extract::{Body, Named, key_of},
    fault::{Fault, FaultBody},
    state::AdminState,
};
use crate::{bans, cluster::banned, core::Core, voice::spoken, world::dismiss};

/// The longest ban: a year. What is to last longer belongs into policy.
const MAX_SECONDS: u64 = 365 * 24 * 3600;

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list, ban)).routes(routes!(unban))
}

/// A ban that holds. A restart of the gateway forgets it, unless it is a node of a cluster.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ban {
    did: String,
    until_ms: i64,
    /// What the agent is told.
    reason: String,
    /// The name of the token that it was said with, or "loopback".
    by: String,
    /// In a cluster: it holds on this node alone, until the others can be told of it.
    pending: bool,
}

impl Ban {
    pub(super) fn of(core: &Core, key: AgentKey, ban: bans::Ban) -> Self {
        let bans::Ban { did, until, reason, by } = ban;
        let pending = core.cluster.is_some() && !core.bans.is_shared(key);
        Self { did, until_ms: unix_ms(core, until), reason, by, pending }
    }
}

/// Every ban that holds.
#[derive(Serialize, ToSchema)]
struct Bans {
    /// The ones that end first come first.
    bans: Vec<Ban>,
}

/// The bans that hold
#[utoipa::path(
    get,
    path = "/api/v1/bans",
    operation_id = "bans",
    tag = "agents",
    responses((status = 200, body = Bans))
)]
async fn list(State(state): State<AdminState>) -> Json<Bans> {
    let core = &state.core;
    let bans = core.bans.all(core.clock.now());
    Json(Bans { bans: bans.into_iter().map(|(key, ban)| Ban::of(core, key, ban)).collect() })
}

/// Whom to ban, and for how long.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewBan {
    did: String,
    /// 1 to 31536000.
    seconds: u64,
    /// What the agent is told.
    reason: Option<String>,
}

/// Ban an agent
///
/// It is sent away with 4009, and refused with 4007 until the ban ends. Who is banned already gets
/// the new end. In a cluster it holds on all nodes, for as long as any of them runs or the cluster's
/// engine remembers it; on one that is apart from the others it holds there, and on all when it is
/// back. Without a cluster a restart forgets it.
#[utoipa::path(
    post,
    path = "/api/v1/bans",
    operation_id = "ban",
    tag = "agents",
    request_body = NewBan,
    responses(
        (status = 201, body = Ban),
        (status = 409, description = "Too many are banned", body = FaultBody),
        (status = 422, body = FaultBody)
    )
)]
async fn ban(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Body(NewBan { did, seconds, reason }): Body<NewBan>,
) -> Result<impl IntoResponse, Fault> {
    if !(1..=MAX_SECONDS).contains(&seconds) {
        return Err(Fault::unprocessable(format!("seconds: expected 1 to {MAX_SECONDS}")));
    }
    let key = key_of(&did)?;
    let core = &state.core;
    if key == core.router.voice.identity().key() {
        return Err(Fault::unprocessable("did: this is the gateway itself"));
    }
    let now = core.clock.now();
    let reason = spoken(&reason.unwrap_or_default());
    let until = now.after(Duration::from_secs(seconds));
    let ban = bans::Ban { did: did.clone(), until, reason, by: caller.who().to_owned() };
    core.bans.set(key, ban.clone(), now).map_err(|full| Fault::conflict(full.to_string()))?;
    // Not only one whose lease runs: nobody comes in who is here already.
    if let Some(session) = core.router.presence.holder(key) {
        dismiss(&session, CloseReason::Removed, &ban.reason);
    }
    if let Some(cluster) = &core.cluster {
        banned::passed_on(core, cluster, key).await;
    }
    let detail = match ban.reason.as_str() {
        "" => format!("{seconds} s"),
        reason => format!("{seconds} s: {reason}"),
    };
    let noted = Noted { target: Some(did), detail: Some(detail) };
    Ok((StatusCode::CREATED, Extension(noted), Json(Ban::of(core, key, ban))))
}

/// Lift a ban
#[utoipa::path(
    delete,
    path = "/api/v1/bans/{did}",
    operation_id = "unban",
    tag = "agents",
    params(("did" = String, Path, description = "The agent's DID, in either spelling")),
    responses(
        (status = 204, description = "It may come back"),
        (status = 404, description = "It is not banned", body = FaultBody)
    )
)]
async fn unban(State(state): State<AdminState>, Named(key): Named) -> Result<StatusCode, Fault> {
    let core = &state.core;
    if !core.bans.lift(key, core.clock.now()) {
        return Err(Fault::not_found("it is not banned"));
    }
    if let Some(cluster) = &core.cluster {
        banned::passed_on(core, cluster, key).await;
    }
    Ok(StatusCode::NO_CONTENT)
}
