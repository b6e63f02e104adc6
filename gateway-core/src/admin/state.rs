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
use conexus_protocol::AgentKey;
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
    hooks::{Engine, LogGate, RecentDecision},
    log_level::LogLevel,
    reload::Reloader,
    telemetry::{
        events::{Hub, Topic},
        exposition::Exposition,
        monitor::Monitor,
    },
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
    /// How many of its lines were dropped so far.
    pub lines_dropped: Arc<dyn Fn() -> u64 + Send + Sync>,
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
    /// Looks at all of it, while the listener serves.
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) exposition: Exposition,
    pub(crate) drain: DrainTrigger,
    pub(crate) audit: Audit,
    /// Whether the listener is on loopback.
    on_loopback: bool,
    pub(crate) denied: Arc<Denied>,
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
    pub(super) fn new(parts: Parts, on_loopback: bool, description: &OpenApi) -> Self {
        let Parts { gateway, reloader, log, lines_dropped, drain } = parts;
        let (core, engine) = (gateway.core(), Arc::clone(reloader.engine()));
        let telemetry = Arc::clone(&core.router.telemetry);
        let listeners = Arc::clone(&telemetry);
        engine.on_reload(move |event| listeners.hub.publish(Topic::Reload, &[], event));
        let listeners = Arc::clone(&telemetry);
        engine.on_decision(Box::new(move |decision| tell_of(&listeners.hub, decision)));
        let denied = Arc::new(Denied::default());
        let told = Arc::clone(&denied);
        let told = Arc::new(move || told.total.load(Relaxed));
        let monitor = Arc::new(Monitor::new(Arc::clone(&core), engine, lines_dropped, told));
        let audit = Audit::default();
        audit.on_entry(Box::new(move |entry| telemetry.hub.publish(Topic::Audit, &[], entry)));
        Self(Arc::new(Shared {
            core,
            exposition: Exposition::new(Arc::clone(&monitor)),
            monitor,
            reloader,
            log,
            drain,
            audit,
            on_loopback,
            denied,
            actions: openapi::operations(description),
            description: openapi::json(description),
        }))
    }
}

/// Tells listeners of a decision, as one about the agents at both ends.
fn tell_of(hub: &Hub, decision: &RecentDecision) {
    if hub.wants(Topic::Decision) {
        let ends = [&decision.agent, &decision.to].into_iter().flatten();
        let about: Vec<_> = ends.filter_map(|did| AgentKey::parse_did(did).ok()).collect();
        hub.publish(Topic::Decision, &about, decision);
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

    /// Whether nobody needs a token: on loopback, until there is the first one.
    pub(crate) fn is_open(&self) -> bool {
        self.on_loopback && !self.reloader.tokens_required()
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
