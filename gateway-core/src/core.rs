//! What every connection shares: settings, the router, and how far a stop has come.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use conexus_protocol::{Registered, Timestamp};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;

use crate::{
    audience::Audiences,
    bans::Bans,
    clock::Clock,
    cluster::Cluster,
    config::Settings,
    http::pulse::Pulse,
    ice::Ice,
    limits::Limits,
    phase::Phase,
    replay::ReplayGuard,
    router::Router,
    session::handle::{SessionHandle, SessionId},
    tls::ServerTls,
};

/// See the [module](self).
pub(crate) struct Core {
    /// For what outlives the call that begins it.
    pub(crate) itself: Weak<Self>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Clock,
    pub(crate) router: Arc<Router>,
    pub(crate) replay: ReplayGuard,
    pub(crate) audiences: Audiences,
    pub(crate) bans: Bans,
    /// The certificate of the listeners, where they speak TLS.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// What other gateways this one is one with, if it is.
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) ice: Ice,
    pub(crate) node_id: String,
    pub(crate) phase: watch::Sender<Phase>,
    /// Every session that may still read holds a token of it.
    pub(crate) readers: TaskTracker,
    /// Every session that may have something unwritten holds a token of it.
    pub(crate) writers: TaskTracker,
    pub(crate) next_session: AtomicU64,
    /// Of the accept loop.
    pub(crate) pulse: Arc<Pulse>,
    /// Over how many milliseconds agents that are told to come back do so.
    pub(crate) return_within: AtomicU64,
    /// When sessions are cut off, once the gateway stops.
    pub(crate) stop_by: OnceLock<Instant>,
}

impl Core {
    pub(crate) fn next_session_id(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Relaxed))
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to the next phase, and wakes every session to it.
    pub(crate) fn enter(&self, phase: Phase) {
        if phase >= Phase::Departing {
            // All agents go now, which each of them is told by its own close.
            self.router.presence.watches.fall_silent();
        }
        self.phase.send_replace(phase);
        self.router.presence.nudge_all();
    }

    /// What an `ioap.v1.1` agent is told when it has registered.
    pub(crate) fn welcome(&self, session: &SessionHandle) -> Registered {
        let settings = &self.settings;
        Registered {
            session_id: session.id.to_string(),
            node_id: self.node_id.clone(),
            presence_timeout_ms: millis(settings.presence.timeout),
            heartbeat_ms: millis(settings.heartbeat()),
            max_message_bytes: settings.limits.message_bytes as u64,
            relay: settings.routing.relay.clone(),
            ice_servers: self.ice.servers_for(session.agent.key()).servers,
            server_time: Timestamp::now().to_string(),
        }
    }
}

pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
