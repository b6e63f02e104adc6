//! The public routes: `/ws`, `/health`, `/ready`, `/agents`, `/ice`; `/ice/outcome` and `/demo/` where they
//! are asked for.
//!
//! [`serve`] accepts connections, each a [`socket`]; [`ws`] makes the ones that ask for it sessions, the
//! others are answered from what the core knows.

mod agents;
mod cors;
pub(crate) mod deadline;
mod demo;
mod handshake;
mod health;
mod ice;
mod ice_outcome;
pub(crate) mod patience;
pub(crate) mod proxies;
mod proxy_header;
pub(crate) mod pulse;
mod refusal;
pub(crate) mod serve;
mod socket;
mod trouble;
mod ws;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use conexus_plugin_api::host::Tls;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use self::{deadline::Deadline, proxies::Proxies};
use crate::{
    core::Core, limits::AddressPlace, pace::OncePerSecond, telemetry::sessions::OpenConnection,
};

/// Where agents connect.
pub(crate) const WS_PATH: &str = "/ws";

/// A connection's places, among all that are open and among those of its address, kept for as long
/// as its socket is.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    _place: Arc<Place>,
    _of_address: Option<Arc<AddressPlace>>,
}

impl Permit {
    /// Of a connection that tests make up.
    #[cfg(test)]
    pub(crate) fn made_up() -> Self {
        let sessions = Arc::<crate::telemetry::sessions::Sessions>::default();
        let place = Place { _permit: None, _open: sessions.connection_opened() };
        Self { _place: Arc::new(place), _of_address: None }
    }

    /// The same with a place among those of an address.
    fn of_address(self, place: Option<AddressPlace>) -> Self {
        Self { _of_address: place.map(Arc::new).or(self._of_address), ..self }
    }
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
    /// Where it is, as far as its connection tells: by its PROXY header, if it has one.
    pub(crate) address: SocketAddr,
    /// The proxy that told of it.
    pub(crate) via: Option<SocketAddr>,
    pub(crate) permit: Permit,
    pub(crate) deadline: Deadline,
    /// How it is encrypted, where it is.
    pub(crate) tls: Option<Arc<Tls>>,
    /// It has shown no certificate, and without one may only ask for the gateway's health.
    pub(crate) lacks_certificate: bool,
}

/// What the routes share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) core: Arc<Core>,
    /// Whose word about their clients' addresses counts.
    pub(crate) proxies: Arc<Proxies>,
    /// How often it is said that a proxy's header cannot be read.
    pub(crate) unreadable: Arc<OncePerSecond>,
    /// How often it is said that a connection is refused for a limit.
    pub(crate) refused: Arc<OncePerSecond>,
    /// Where sessions run.
    pub(crate) sessions: TaskTracker,
    /// Ends every session at once, whatever it does.
    pub(crate) abort: CancellationToken,
}

pub(crate) fn routes(app: App) -> Router {
    let certified = middleware::from_fn_with_state(app.clone(), certified);
    let readable = Router::new()
        .route("/agents", get(agents::list))
        .route("/ice", get(ice::servers))
        .route("/ice/outcome", post(ice_outcome::report))
        .layer(DefaultBodyLimit::max(ice_outcome::BODY_BYTES))
        .route_layer(certified.clone())
        .route("/health", get(health::health))
        .route("/ready", get(health::ready));
    let readable = match cors::layer(&app.core.settings.http.allowed_origins) {
        Some(layer) => readable.layer(layer),
        None => readable,
    };
    let demo = if app.core.settings.http.demo { demo::routes() } else { Router::new() };
    readable
        .merge(demo)
        .route(WS_PATH, get(ws::upgrade).route_layer(certified))
        .fallback(async || fault(StatusCode::NOT_FOUND, "no such route"))
        .with_state(app)
}

/// Where `tls.client_auth` is "required": not in the handshake, since whoever looks after the gateway's
/// health has no certificate to show.
async fn certified(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if !peer.lacks_certificate {
        return next.run(request).await;
    }
    let refused_for = &app.core.router.telemetry.sessions.connections_refused;
    refused_for.count("certificate_required");
    debug!(peer = %peer.address, "refused: tls.client_auth asks for a certificate, and it has shown none");
    fault(StatusCode::FORBIDDEN, "a client certificate is required")
}

/// An IPv4 address as one, though it may come as an IPv6 one: on a listener for both, all do.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An error as JSON: `{"error": …}`.
fn fault(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}
