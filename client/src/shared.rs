//! What the handles, the driver and the dispatcher of one client have in common.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
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
    #[cfg(feature = "p2p")]
    pub(crate) p2p: P2p,
}

/// What the builder set for peers.
#[cfg(feature = "p2p")]
pub(crate) struct P2p {
    pub(crate) max_peers: usize,
    pub(crate) report_outcomes: bool,
    /// None is the crate `webrtc`.
    pub(crate) transport: Option<Arc<dyn crate::p2p::transport::Transport>>,
}

#[cfg(feature = "p2p")]
impl Default for P2p {
    fn default() -> Self {
        Self { max_peers: 64, report_outcomes: false, transport: None }
    }
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
    #[cfg(feature = "p2p")]
    pub(crate) peers: Arc<crate::p2p::peers::Peers>,
    /// Where error handlers are told of what happens beside the socket.
    #[cfg(feature = "p2p")]
    side_door: Mutex<Option<mpsc::WeakSender<crate::dispatch::Event>>>,
    metadata: Mutex<Metadata>,
    stop: Mutex<Stop>,
}

impl Shared {
    pub(crate) fn new(config: Config, metadata: Metadata) -> Arc<Self> {
        let stop = Stop::default();
        stop.done.cancel();
        let state = watch::Sender::new(ConnectionState::Disconnected);
        let make = |_own: &Weak<Self>| Self {
            #[cfg(feature = "p2p")]
            peers: crate::p2p::of_client(_own.clone(), &config, state.subscribe()),
            #[cfg(feature = "p2p")]
            side_door: Mutex::default(),
            config,
            registry: Arc::default(),
            watches: Arc::default(),
            state,
            online: watch::Sender::new(None),
            metadata: Mutex::new(metadata),
            stop: Mutex::new(stop),
        };
        Arc::new_cyclic(make)
    }

    /// The queue of a run that begins.
    #[cfg(feature = "p2p")]
    pub(crate) fn listen_at(&self, side_door: mpsc::WeakSender<crate::dispatch::Event>) {
        *self.side_door.lock().unwrap_or_else(PoisonError::into_inner) = Some(side_door);
    }

    /// Tells the error handlers, unless they are behind: then it goes to the log alone.
    #[cfg(feature = "p2p")]
    pub(crate) fn report(&self, error: crate::ClientError) {
        let side_door = self.side_door.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queue = side_door.and_then(|side_door| side_door.upgrade());
        tracing::debug!(%error, "reported");
        if let Some(Err(error)) = queue.map(|queue| queue.try_send(error.into())) {
            tracing::debug!(%error, "the error handlers are behind");
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
        #[cfg(feature = "p2p")]
        self.peers.reopen();
        *stop = Stop::default();
        Some(stop.clone())
    }
}
