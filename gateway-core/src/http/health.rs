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
use crate::{
    accounting::Messages,
    core::Core,
    phase::Phase,
    telemetry::cluster::{ClusterSummary, summary},
};

#[derive(Serialize)]
struct Health {
    status: &'static str,
    connected_agents: usize,
    timestamp: String,
    messages: Messages,
    version: &'static str,
    node_id: String,
    /// Left out where the gateway is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<InCluster>,
}

/// As much of the cluster as everybody may know.
#[derive(Serialize)]
struct InCluster {
    /// `joined` or `apart`.
    state: &'static str,
    /// Nodes that this one can reach, itself included.
    nodes: usize,
}

impl InCluster {
    fn of(core: &Core) -> Option<Self> {
        let ClusterSummary { joined, nodes, .. } = summary(core)?;
        Some(Self { state: if joined { "joined" } else { "apart" }, nodes })
    }
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
        cluster: InCluster::of(core),
    })
    .into_response()
}

pub(super) async fn ready(State(app): State<App>) -> Response {
    #[derive(Serialize)]
    struct Ready {
        status: &'static str,
        /// A node that is apart from its cluster is ready all the same: its agents reach each other, and
        /// if all nodes said no because Redis is away, nobody would reach anybody.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster: Option<&'static str>,
    }
    let cluster = InCluster::of(&app.core).map(|cluster| cluster.state);
    match app.core.phase() {
        Phase::Running => Json(Ready { status: "ready", cluster }).into_response(),
        _ => {
            let draining = Ready { status: "draining", cluster };
            (StatusCode::SERVICE_UNAVAILABLE, Json(draining)).into_response()
        }
    }
}
