//! The upgrade: from a GET on `/ws` to a session of its own.
//!
//! The handshake's rules (RFC 6455) are tungstenite's; which subprotocol is spoken, and whether
//! policy lets the connection in at all, is decided here.

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use conexus_protocol::Subprotocol;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::{debug, info};

use super::{App, Origin, fault};
use crate::{
    core::Core,
    hooks::{Connect, Verdict},
    phase::Phase,
    session::{self, Connection},
};

pub(super) async fn upgrade(
    State(app): State<App>,
    Extension(origin): Extension<Origin>,
    mut request: Request,
) -> Response {
    let core = &app.core;
    if core.phase() != Phase::Running {
        return fault(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping");
    }
    let mut response = match create_response_with_body(&request, axum::body::Body::empty) {
        Ok(response) => response,
        Err(error) => {
            let mut refusal = fault(StatusCode::UPGRADE_REQUIRED, error.to_string());
            refusal.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            let version = HeaderValue::from_static("13");
            refusal.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
            return refusal;
        }
    };
    let Some(subprotocol) = choose(core, request.headers()) else {
        info!(peer = %origin.peer, "connection refused: no known subprotocol offered");
        return unsupported(core);
    };
    let event = Connect { peer: origin.peer, uri: request.uri(), headers: request.headers() };
    let verdict = core.router.policy.on_connect(&event);
    if let Verdict::Deny(reason) = verdict.settled().await {
        info!(peer = %origin.peer, reason = reason.as_str(), "connection refused by policy");
        return fault(StatusCode::FORBIDDEN, "refused by policy");
    }

    if let Chosen::Offered(subprotocol) = subprotocol {
        let name = HeaderValue::from_static(subprotocol.as_str());
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    let connection = Connection {
        peer: origin.peer,
        subprotocol: subprotocol.subprotocol(),
        _permit: origin.permit,
    };
    let upgrading = hyper::upgrade::on(&mut request);
    let (core, abort) = (app.core.clone(), app.abort.clone());
    app.sessions.spawn(async move {
        abort
            .run_until_cancelled(async move {
                match upgrading.await {
                    Ok(stream) => session::run(core, TokioIo::new(stream), connection).await,
                    Err(error) => debug!(peer = %connection.peer, %error, "upgrade failed"),
                }
            })
            .await
    });
    response
}

/// Which subprotocol a connection speaks, and whether the client asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Offered(Subprotocol),
    /// None that we know was offered, and `protocol.require_subprotocol` is off.
    Assumed,
}

impl Chosen {
    const fn subprotocol(self) -> Subprotocol {
        match self {
            Self::Offered(subprotocol) => subprotocol,
            Self::Assumed => Subprotocol::V1,
        }
    }
}

/// The newest subprotocol that both sides know.
fn choose(core: &Core, headers: &HeaderMap) -> Option<Chosen> {
    let supported = supported(core);
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| Subprotocol::parse(name.trim()))
        .filter(|subprotocol| supported.contains(subprotocol))
        .max()
        .map(Chosen::Offered)
        .or_else(|| (!core.settings.protocol.require_subprotocol).then_some(Chosen::Assumed))
}

/// `ioap.v1.1` needs an audience that can be checked.
fn supported(core: &Core) -> &'static [Subprotocol] {
    if core.audiences.known() { &[Subprotocol::V1_1, Subprotocol::V1] } else { &[Subprotocol::V1] }
}

fn unsupported(core: &Core) -> Response {
    let names: Vec<_> = supported(core).iter().map(|subprotocol| subprotocol.as_str()).collect();
    let body = json!({ "error": "no supported WebSocket subprotocol offered", "supported": names });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}
