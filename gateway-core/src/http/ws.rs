//! The upgrade: from a GET on `/ws` to a session of its own.
//!
//! The handshake's rules (RFC 6455) are tungstenite's; which subprotocol is spoken, and whether
//! policy lets the connection in at all, is decided here.

use std::{pin::Pin, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use conexus_plugin_api::{Point, host};
use conexus_protocol::{RefusalReason, Subprotocol};
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::{debug, info, warn};

use super::{App, Peer, cors, fault, refusal, socket::Socket};
use crate::{
    core::Core,
    hooks::{Denial, Ruling},
    phase::Phase,
    session::{self, Connection},
    voice::spoken,
};

pub(super) async fn upgrade(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
) -> Response {
    let core = &app.core;
    let refused_for = &core.router.telemetry.sessions.connections_refused;
    if core.phase() >= Phase::Departing {
        refused_for.count("stopping");
        return fault(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping");
    }
    if !cors::admits(&core.settings.http.allowed_origins, request.headers()) {
        refused_for.count("origin");
        debug!(peer = %peer.address, "connection refused: http.allowed_origins lacks its page's origin");
        return fault(StatusCode::FORBIDDEN, "pages of this origin may not connect");
    }
    let peer = match behind_proxy(&app, peer, request.headers()) {
        Ok(peer) => peer,
        Err(refusal) => return *refusal,
    };
    let mut response = match create_response_with_body(&request, axum::body::Body::empty) {
        Ok(response) => response,
        Err(error) => {
            refused_for.count("handshake");
            let mut refusal = fault(StatusCode::UPGRADE_REQUIRED, error.to_string());
            refusal.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            let version = HeaderValue::from_static("13");
            refusal.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
            return refusal;
        }
    };
    let Some(subprotocol) = choose(core, request.headers()) else {
        refused_for.count("subprotocol");
        info!(peer = %peer.address, "connection refused: no known subprotocol offered");
        return unsupported(core);
    };
    let values = Arc::new(host::Connection::default());
    if let Err(denial) = admit(core, &peer, request.uri(), request.headers(), &values).await {
        refused_for.count("denied");
        return refused(&peer, &denial);
    }

    if let Chosen::Offered(subprotocol) = subprotocol {
        let name = HeaderValue::from_static(subprotocol.as_str());
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    let connection = Connection {
        peer: peer.address,
        via: peer.via,
        subprotocol: subprotocol.subprotocol(),
        values,
        encrypted: peer.tls.is_some(),
        _permit: peer.permit,
    };
    let upgrading = hyper::upgrade::on(&mut request);
    let (core, abort) = (app.core.clone(), app.abort.clone());
    app.sessions.spawn(async move {
        abort
            .run_until_cancelled(async move {
                match upgrading.await {
                    Ok(upgraded) => begin_session(core, upgraded, connection).await,
                    Err(error) => debug!(peer = %connection.peer, %error, "upgrade failed"),
                }
            })
            .await
    });
    response
}

/// Who asks, where a proxy asks on somebody's behalf: with a place among the connections of that
/// address, which could not be told before.
fn behind_proxy(app: &App, peer: Peer, headers: &HeaderMap) -> Result<Peer, Box<Response>> {
    let core = &app.core;
    let refused_for = &core.router.telemetry.sessions.connections_refused;
    let client = match app.proxies.client(peer.address, headers) {
        Ok(Some(client)) => client,
        Ok(None) => return Ok(peer),
        Err(unreadable) => {
            refused_for.count("forwarded");
            if let Some(kept_back) = app.unreadable.due() {
                warn!(proxy = %peer.address, %unreadable, kept_back, "connection refused");
            }
            return Err(Box::new(fault(StatusCode::BAD_REQUEST, unreadable.to_string())));
        }
    };
    match core.limits.connect(client.ip()) {
        Ok(place) => Ok(Peer {
            address: client,
            via: Some(peer.address),
            permit: peer.permit.of_address(place),
            ..peer
        }),
        Err(excess) => {
            refused_for.count(excess.reason());
            debug!(peer = %client, limit = excess.key(), "connection refused");
            Err(Box::new(refusal::too_many()))
        }
    }
}

/// The session on an upgraded connection: on the socket itself, without what the HTTP server had
/// around it. Not even the buffer that the request was read to is kept.
fn begin_session(
    core: Arc<Core>,
    upgraded: Upgraded,
    connection: Connection,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match upgraded.downcast::<TokioIo<Socket>>() {
        Ok(Parts { io, read_buf, .. }) => {
            Box::pin(session::run(core, io.into_inner(), &read_buf, connection))
        }
        Err(upgraded) => Box::pin(session::run(core, TokioIo::new(upgraded), &[], connection)),
    }
}

/// Asks policy about the request.
async fn admit(
    core: &Core,
    peer: &Peer,
    uri: &Uri,
    headers: &HeaderMap,
    values: &Arc<host::Connection>,
) -> Ruling<()> {
    let judge = core.router.policy.judge();
    if !judge.asks(Point::Connect) {
        return Ok(());
    }
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let event = host::Connect {
        address: peer.address,
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers: headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        tls: peer.tls.clone(),
        connection: Some(Arc::clone(values)),
    };
    judge.on_connect(Arc::new(event)).settled().await
}

fn refused(peer: &Peer, denial: &Denial) -> Response {
    let (reason, text) = (denial.reason.as_str(), spoken(&denial.text));
    info!(peer = %peer.address, reason, text, "connection refused by policy");
    let status = match denial.reason {
        RefusalReason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::FORBIDDEN,
    };
    fault(status, if text.is_empty() { "refused by policy".to_owned() } else { text })
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
