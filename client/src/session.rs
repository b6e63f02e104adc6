//! What the gateway said when it registered this agent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use conexus_protocol::{AgentId, IceServer, MessageType, Registered, Rules, Subprotocol};

use crate::ice::Known;

/// PING at least this often where the gateway does not say (`ioap.v1`).
const V1_HEARTBEAT: Duration = Duration::from_secs(60);

/// The bounds of what a gateway may ask for: neither a flood of PINGs nor none at all.
const HEARTBEATS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// What may be sent on `ioap.v1`, where the gateway does not say: the reference's peers take
/// 1 MiB, and so does their WebSocket library.
const V1_MESSAGE_BYTES: usize = 1024 * 1024;

/// No message is larger, whatever the gateway would take.
pub(crate) const LARGEST_OUTGOING: usize = 16 * 1024 * 1024;

/// A registration that holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Session {
    /// What is spoken.
    pub subprotocol: Subprotocol,
    /// The gateway's identity; unknown on `ioap.v1`.
    pub gateway: Option<AgentId>,
    /// The gateway's name for this session; unknown on `ioap.v1`.
    pub session_id: Option<String>,
    /// The gateway's node; unknown on `ioap.v1`.
    pub node_id: Option<String>,
    /// The client says something at least this often.
    pub heartbeat: Duration,
    /// Silence for this long ends the presence; unknown on `ioap.v1`.
    pub presence_timeout: Option<Duration>,
    /// The largest message that the gateway takes, in bytes.
    pub max_message_bytes: usize,
    /// The types that the gateway routes; unknown (empty) on `ioap.v1`.
    pub relay: Vec<MessageType>,
    /// STUN and TURN servers for WebRTC, as told at registration; see
    /// [`Handle::ice_servers`](crate::Handle::ice_servers) for the newest.
    pub ice_servers: Vec<IceServer>,
    /// The newest.
    ice: Arc<Mutex<Known>>,
    /// By how many milliseconds the gateway's clock is ahead of ours; unknown on `ioap.v1`.
    #[cfg(feature = "p2p")]
    pub(crate) clock_ahead: Option<i64>,
    /// The nonce that a later REGISTER repeats.
    pub(crate) nonce: Option<String>,
}

impl Session {
    pub(crate) fn v1(heartbeat: Option<Duration>) -> Self {
        Self {
            subprotocol: Subprotocol::V1,
            gateway: None,
            session_id: None,
            node_id: None,
            heartbeat: heartbeat.unwrap_or(V1_HEARTBEAT),
            presence_timeout: None,
            max_message_bytes: V1_MESSAGE_BYTES,
            relay: Vec::new(),
            ice_servers: Vec::new(),
            ice: Arc::default(),
            #[cfg(feature = "p2p")]
            clock_ahead: None,
            nonce: None,
        }
    }

    /// `heartbeat` is the user's own and goes before the gateway's.
    pub(crate) fn v1_1(
        gateway: AgentId,
        nonce: String,
        registered: Registered,
        heartbeat: Option<Duration>,
    ) -> Self {
        let told = Duration::from_millis(registered.heartbeat_ms);
        let limit = usize::try_from(registered.max_message_bytes).unwrap_or(usize::MAX);
        Self {
            subprotocol: Subprotocol::V1_1,
            gateway: Some(gateway),
            session_id: Some(registered.session_id),
            node_id: Some(registered.node_id),
            heartbeat: heartbeat.unwrap_or(told.clamp(HEARTBEATS.0, HEARTBEATS.1)),
            presence_timeout: Some(Duration::from_millis(registered.presence_timeout_ms)),
            max_message_bytes: limit.min(LARGEST_OUTGOING),
            relay: registered.relay,
            #[cfg(feature = "p2p")]
            clock_ahead: clock_ahead(&registered.server_time),
            ice: Arc::new(Mutex::new(Known::registered(
                registered.ice_servers.clone(),
                &registered.server_time,
            ))),
            ice_servers: registered.ice_servers,
            nonce: Some(nonce),
        }
    }

    pub(crate) fn known_ice(&self) -> Known {
        self.ice.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The gateway has told newer ones.
    pub(crate) fn note_ice(&self, known: Known) {
        *self.ice.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// By which rules our own messages are checked before they are sent.
    pub(crate) fn own_rules(&self) -> Rules {
        match self.subprotocol {
            Subprotocol::V1 => Rules::V1_STRICT,
            Subprotocol::V1_1 => Rules::V1_1,
        }
    }
}

/// By how many milliseconds a gateway's clock is ahead that has just told the time.
#[cfg(feature = "p2p")]
fn clock_ahead(server_time: &str) -> Option<i64> {
    use conexus_protocol::Timestamp;
    let theirs = Timestamp::parse(server_time)?.as_unix_millis();
    Some(theirs.saturating_sub(Timestamp::now().as_unix_millis()))
}
