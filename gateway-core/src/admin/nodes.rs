//! The nodes of the gateway: this one.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{agents::unix_ms, state::AdminState};
use crate::{clock::Moment, core::Core, phase::Phase};

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(nodes))
}

/// The gateway's nodes.
#[derive(Serialize, ToSchema)]
struct Nodes {
    nodes: Vec<Node>,
}

/// One node.
#[derive(Serialize, ToSchema)]
struct Node {
    id: String,
    did: String,
    version: &'static str,
    /// Whether it is the one that answers.
    this: bool,
    /// "running" or "draining".
    phase: &'static str,
    agents: usize,
    started_ms: i64,
}

/// The nodes of the gateway
#[utoipa::path(
    get,
    path = "/api/v1/nodes",
    operation_id = "nodes",
    tag = "node",
    responses((status = 200, body = Nodes))
)]
async fn nodes(State(state): State<AdminState>) -> Json<Nodes> {
    Json(Nodes { nodes: vec![this(&state.core)] })
}

fn this(core: &Core) -> Node {
    Node {
        id: core.node_id.clone(),
        did: core.router.voice.did().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        this: true,
        phase: match core.phase() {
            Phase::Running => "running",
            _ => "draining",
        },
        agents: core.router.presence.online(),
        started_ms: unix_ms(core, Moment::from_millis(0)),
    }
}
