//! The listener: bound, then served by the same accept loop as the public one, with fewer places.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    routes,
    state::{AdminState, Parts},
};
use crate::{
    http::serve::{REFUSALS, Serving, serve},
    pace::OncePerSecond,
    tls::{ServerTls, Side},
};

/// Connections at once: operators, their scrapers and their open pages.
const CONNECTIONS: usize = 256;
/// How long the first request's head may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener that is bound, and serves once it is [run](Self::run).
pub struct Admin {
    listener: TcpListener,
    local_addr: SocketAddr,
    state: AdminState,
    routes: Router,
    tls: Option<Arc<ServerTls>>,
}

impl Admin {
    /// Binds the listener; with `tls` it speaks TLS, if the gateway has a certificate.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(address: SocketAddr, tls: bool, parts: Parts) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let local_addr = listener.local_addr()?;
        let tls = if tls { parts.gateway.core().tls.clone() } else { None };
        let (state, routes) = routes(parts, local_addr.ip().is_loopback());
        Ok(Self { listener, local_addr, state, routes, tls })
    }

    /// Where it really listens: port 0 became a free one.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What its handlers share.
    pub const fn state(&self) -> &AdminState {
        &self.state
    }

    /// Serves until dropped.
    pub async fn run(self) {
        let stop = CancellationToken::new();
        let _stop_on_drop = stop.clone().drop_guard();
        let serving = Serving {
            routes: self.routes,
            places: Some(Arc::new(Semaphore::new(CONNECTIONS))),
            limits: Arc::default(),
            proxies: Arc::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            tls: self.tls.map(|tls| (tls, Side::Operators)),
            pulse: Arc::default(),
            tasks: TaskTracker::new(),
            // Not among those of agents.
            sessions: Arc::default(),
            stop,
            refused: OncePerSecond::new(),
        };
        let monitor = Arc::clone(&self.state.monitor);
        tokio::join!(serve(self.listener, serving), monitor.run());
    }
}
