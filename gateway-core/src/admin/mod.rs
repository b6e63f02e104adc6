//! The operator's own listener: what runs, reload, rollback.
//!
//! On loopback only, and not for browsers: a request that a web page could have caused is refused,
//! by its `Origin` and by a `Host` that is a name somebody else could point here.

mod assets;

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{hooks::Status, reload::Reloader};

/// A listener that is bound, and serves once it is [run](Self::run).
pub struct Admin {
    listener: TcpListener,
    routes: Router,
}

impl Admin {
    /// Binds the listener.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(address: SocketAddr, reloader: Arc<Reloader>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let routes = Router::new()
            .route("/api/v1/hooks", get(hooks))
            .route("/api/v1/reload", post(reload))
            .route("/api/v1/rollback", post(roll_back))
            .fallback(async || fault(StatusCode::NOT_FOUND, "there is nothing here"))
            .merge(assets::routes())
            .layer(middleware::from_fn(refuse_browsers))
            .with_state(reloader);
        Ok(Self { listener, routes })
    }

    /// Where it really listens: port 0 became a free one.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped.
    pub async fn run(self) {
        if let Err(error) = axum::serve(self.listener, self.routes).await {
            tracing::error!(%error, "the admin listener broke");
        }
    }
}

async fn refuse_browsers(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) || !is_addressed_here(request.headers()) {
        return fault(StatusCode::FORBIDDEN, "not for web pages");
    }
    next.run(request).await
}

/// A page of an attacker's name that resolves to this machine still sends that name.
fn is_addressed_here(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

async fn hooks(State(reloader): State<Arc<Reloader>>) -> Json<Status> {
    Json(reloader.engine().status())
}

async fn reload(State(reloader): State<Arc<Reloader>>) -> Response {
    match tokio::task::spawn_blocking(move || reloader.reload()).await {
        Ok(Ok(reloaded)) => Json(reloaded).into_response(),
        Ok(Err(reasons)) => refused(&reasons),
        Err(_) => fault(StatusCode::INTERNAL_SERVER_ERROR, "the reload panicked"),
    }
}

async fn roll_back(State(reloader): State<Arc<Reloader>>) -> Response {
    match tokio::task::spawn_blocking(move || reloader.roll_back()).await {
        Ok(Ok(generation)) => Json(json!({ "generation": generation })).into_response(),
        Ok(Err(error)) => refused(&[error.to_string()]),
        Err(_) => fault(StatusCode::INTERNAL_SERVER_ERROR, "the rollback panicked"),
    }
}

fn refused(reasons: &[String]) -> Response {
    let body = json!({ "error": "refused, nothing has changed", "reasons": reasons });
    (StatusCode::CONFLICT, Json(body)).into_response()
}

fn fault(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_hosts_of_this_listener() {
        for (host, ours) in [
            ("127.0.0.1:9100", true),
            ("[::1]:9100", true),
            ("localhost", true),
            ("Localhost:9100", true),
            ("evil.example:9100", false),
            ("localhost.evil.example", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(is_addressed_here(&headers), ours, "{host}");
        }
        assert!(!is_addressed_here(&HeaderMap::new()));
    }
}
