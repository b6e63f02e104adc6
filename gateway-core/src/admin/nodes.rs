//! The nodes of the gateway: this one, and those that it makes a cluster with.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::AdminState;
use crate::telemetry::cluster::{self, ClusterSummary, NodeReport};

pub(super) fn router() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(nodes))
}

/// The gateway's nodes.
#[derive(Serialize, ToSchema)]
struct Nodes {
    /// This one first, then the others by their names.
    nodes: Vec<NodeReport>,
    /// This node's place in its cluster; null where it is alone.
    cluster: Option<ClusterSummary>,
}

/// The nodes of the gateway
///
/// As this one knows them: others may know more, or less, while it is apart from the cluster.
#[utoipa::path(
    get,
    path = "/api/v1/nodes",
    operation_id = "nodes",
    tag = "node",
    responses((status = 200, body = Nodes))
)]
async fn nodes(State(state): State<AdminState>) -> Json<Nodes> {
    let core = &state.core;
    Json(Nodes { nodes: cluster::nodes(core), cluster: cluster::summary(core) })
}
