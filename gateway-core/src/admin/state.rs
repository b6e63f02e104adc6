//! What handlers share.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::http::Method;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

use super::{
    audit::{Audit, now_ms},
    openapi,
};
use crate::{
    config::{AdminTokens, Loaded},
    core::Core,
    gateway::Watch,
    hooks::{Engine, LogGate},
    log_level::LogLevel,
    reload::Reloader,
};

/// Asks for a graceful stop, as SIGTERM does.
pub type DrainTrigger = CancellationToken;

/// What the admin API is about.
pub struct Parts {
    /// The gateway.
    pub gateway: Watch,
    /// Its policy, and the configuration that it is made from.
    pub reloader: Arc<Reloader>,
    /// The level of the log.
    pub log: LogLevel,
    /// Cancelled when the gateway is asked to stop.
    pub drain: DrainTrigger,
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct AdminState(Arc<Shared>);

/// What is behind an [`AdminState`].
pub struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) log: LogLevel,
    pub(crate) drain: DrainTrigger,
    pub(crate) audit: Audit,
    /// Whether the listener is on loopback, where nobody needs a token while there are none.
    pub(crate) open: bool,
    pub(crate) denied: Denied,
    /// The API's description, as it is served.
    pub(crate) description: Bytes,
    actions: HashMap<(Method, String), String>,
}

impl Deref for AdminState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AdminState {
    pub(super) fn new(parts: Parts, open: bool, description: &OpenApi) -> Self {
        let Parts { gateway, reloader, log, drain } = parts;
        Self(Arc::new(Shared {
            core: gateway.core(),
            reloader,
            log,
            drain,
            audit: Audit::default(),
            open,
            denied: Denied::default(),
            actions: openapi::operations(description),
            description: openapi::json(description),
        }))
    }

    /// Requests that came without a token that counts, so far.
    pub fn denied(&self) -> u64 {
        self.denied.total.load(Relaxed)
    }
}

impl Shared {
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.reloader.engine()
    }

    /// The configuration that was accepted last.
    pub(crate) fn accepted(&self) -> Arc<Loaded> {
        self.reloader.accepted()
    }

    /// Who may ask, by the configuration that was accepted last.
    pub(crate) fn tokens(&self) -> AcceptedTokens {
        AcceptedTokens(self.accepted())
    }

    /// What the description calls an operation.
    pub(super) fn action(&self, method: &Method, path: &str) -> Option<&str> {
        self.actions.get(&(method.clone(), path.to_owned())).map(String::as_str)
    }
}

/// The tokens of one configuration.
pub(crate) struct AcceptedTokens(Arc<Loaded>);

impl Deref for AcceptedTokens {
    type Target = AdminTokens;

    fn deref(&self) -> &AdminTokens {
        &self.0.settings.admin_tokens
    }
}

/// Requests without a token that counts.
#[derive(Default)]
pub(crate) struct Denied {
    total: AtomicU64,
    gate: LogGate,
}

impl Denied {
    /// Counts one; how many were not logged since the last one that was, if it is time for a line.
    pub(super) fn count(&self) -> Option<u64> {
        self.total.fetch_add(1, Relaxed);
        self.gate.open(now_ms())
    }
}
