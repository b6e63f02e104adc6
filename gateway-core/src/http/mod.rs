//! The public routes: `/ws`, `/health`, `/ready`, `/agents`, `/ice`.
//!
//! [`serve`] accepts connections, each a [`socket`]; [`ws`] makes the ones that ask for it sessions, the
//! others are answered from what the core knows.

mod agents;
pub(crate) mod deadline;
mod health;
mod ice;
pub(crate) mod pulse;
pub(crate) mod serve;
mod socket;
mod ws;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::deadline::Deadline;
use crate::{core::Core, telemetry::sessions::OpenConnection};

/// Where agents connect.
pub(crate) const WS_PATH: &str = "/ws";

/// A connection's place among all that are open, kept for as long as its socket is.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    _place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    /// Among `limits.connections`.
    _permit: Option<OwnedSemaphorePermit>,
    _open: OpenConnection,
}

/// Who is at the other end of a connection: what every request on it carries.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) permit: Permit,
    pub(crate) deadline: Deadline,
}

/// What the routes share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) core: Arc<Core>,
    /// Where sessions run.
    pub(crate) sessions: TaskTracker,
    /// Ends every session at once, whatever it does.
    pub(crate) abort: CancellationToken,
}

pub(crate) fn routes(app: App) -> Router {
    Router::new()
        .route(WS_PATH, get(ws::upgrade))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/agents", get(agents::list))
        .route("/ice", get(ice::servers))
        .fallback(async || fault(StatusCode::NOT_FOUND, "no such route"))
        .with_state(app)
}

/// An error as JSON: `{"error": …}`.
fn fault(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}
