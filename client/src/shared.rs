//! What the handles, the driver and the dispatcher of one client have in common.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use conexus_protocol::{AgentId, Identity, Metadata, Rules};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    ConnectionState, ReconnectPolicy, Session, dial::Dialer, handlers::Registry, incoming::Trust,
    link::Outgoing, watching::Watches,
};

/// Everything that the builder set. No `Debug`: credentials are not for logs.
pub(crate) struct Config {
    pub(crate) identity: Identity,
    pub(crate) dialer: Dialer,
    pub(crate) connect_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) reconnect: Option<ReconnectPolicy>,
    pub(crate) retry_first: bool,
    pub(crate) credentials: Option<String>,
    pub(crate) verify_incoming: bool,
    pub(crate) tolerate_quirks: bool,
    pub(crate) inbound_queue: usize,
    pub(crate) heartbeat: Option<Duration>,
}

/// A session, and the way to its socket. Both end together.
#[derive(Debug, Clone)]
pub(crate) struct Online {
    pub(crate) session: Arc<Session>,
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
}

/// How one run of the driver is stopped, and how one sees that it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    pub(crate) requested: CancellationToken,
    pub(crate) done: CancellationToken,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) registry: Arc<Registry>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) state: watch::Sender<ConnectionState>,
    pub(crate) online: watch::Sender<Option<Online>>,
    metadata: Mutex<Metadata>,
    stop: Mutex<Stop>,
}

impl Shared {
    pub(crate) fn new(config: Config, metadata: Metadata) -> Self {
        let stop = Stop::default();
        stop.done.cancel();
        Self {
            config,
            registry: Arc::default(),
            watches: Arc::default(),
            state: watch::Sender::new(ConnectionState::Disconnected),
            online: watch::Sender::new(None),
            metadata: Mutex::new(metadata),
            stop: Mutex::new(stop),
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.config.identity
    }

    pub(crate) fn trust(&self, rules: Rules, gateway: Option<AgentId>) -> Trust {
        Trust {
            rules,
            gateway,
            verify_agents: self.config.verify_incoming,
            tolerate_quirks: self.config.tolerate_quirks,
        }
    }

    /// What the next REGISTER publishes.
    pub(crate) fn metadata(&self) -> Metadata {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_metadata(&self, metadata: Metadata) {
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner) = metadata;
    }

    /// The current run's.
    pub(crate) fn stop(&self) -> Stop {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a run, unless one is going on.
    pub(crate) fn begin_run(&self) -> Option<Stop> {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if !stop.done.is_cancelled() {
            return None;
        }
        self.watches.begin();
        *stop = Stop::default();
        Some(stop.clone())
    }
}
