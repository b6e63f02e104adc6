//! What the stack calls: each event goes on to whoever made the connection.
//!
//! The stack calls on the task that drives the connection, so nothing here waits for anybody.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use ::webrtc::{
    data_channel::DataChannel,
    peer_connection::{
        PeerConnectionEventHandler, RTCIceConnectionState, RTCIceGatheringState,
        RTCPeerConnectionIceEvent, RTCPeerConnectionState,
    },
};
use conexus_protocol::IceCandidate;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::channel::{Common, StackChannel};
use crate::p2p::transport::{ConnectionEvent, PathState};

/// One connection's.
pub(super) struct Listener {
    /// None once there was no room for one.
    events: Mutex<Option<mpsc::Sender<ConnectionEvent>>>,
    /// The section of the description that candidates are for.
    mid: Mutex<Option<String>>,
    /// For channels of the other side.
    room: Arc<Semaphore>,
    pub(super) common: Arc<Common>,
    /// Not kept: the channel has the connection, and the connection this.
    control: OnceLock<Weak<dyn DataChannel>>,
}

impl Listener {
    pub(super) fn new(events: mpsc::Sender<ConnectionEvent>, max_channels: usize) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(max_channels.min(Semaphore::MAX_PERMITS)));
        let (mid, common, control) = Default::default();
        let events = Mutex::new(Some(events));
        Arc::new(Self { events, mid, room, common, control })
    }

    pub(super) fn controlled_by(&self, control: &Arc<dyn DataChannel>) {
        // There is one.
        let _ = self.control.set(Arc::downgrade(control));
    }

    /// Has the stack send what the next step of a handshake is. It does so only the next time that
    /// something wakes it, which may be a timer's 200 ms away.
    pub(super) async fn nudge(&self) {
        if let Some(control) = self.control.get().and_then(Weak::upgrade) {
            // What the threshold is anyway. Fails with the channel alone.
            let _ = control.set_buffered_amount_high_threshold(u32::MAX).await;
        }
    }

    /// Candidates from now on are for the description's first section: there is one, of the channels.
    pub(super) fn describes(&self, sdp: &str) {
        let mid = sdp.lines().find_map(|line| line.strip_prefix("a=mid:"));
        *self.mid.lock().unwrap_or_else(PoisonError::into_inner) = mid.map(str::to_owned);
    }

    pub(super) fn tell(&self, event: ConnectionEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever made the connection may have lost interest in it.
        let told = events.as_ref().map(|events| events.try_send(event));
        if let Some(Err(mpsc::error::TrySendError::Full(_))) = told {
            tracing::debug!("a connection to a peer ends, since more happens on it than is taken");
            *events = None;
        }
    }

    fn candidate(&self, candidate: String) {
        let sdp_mid = self.mid.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let candidate = IceCandidate { candidate, sdp_mid, sdp_mline_index: Some(0) };
        self.tell(ConnectionEvent::Candidate(candidate));
    }

    async fn take(&self, native: Arc<dyn DataChannel>, permit: OwnedSemaphorePermit) {
        match StackChannel::theirs(native, &self.common, permit).await {
            Ok(channel) => self.tell(ConnectionEvent::Channel(Arc::new(channel))),
            Err(error) => tracing::debug!(%error, "a peer's channel was gone at once"),
        }
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Listener {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        match event.candidate.to_json() {
            Ok(candidate) => self.candidate(candidate.candidate),
            Err(error) => tracing::debug!(%error, "an own candidate cannot be told"),
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.candidate(String::new());
        }
    }

    /// DTLS begins when ICE has found a way.
    async fn on_ice_connection_state_change(&self, _state: RTCIceConnectionState) {
        self.nudge().await;
    }

    /// SCTP begins when DTLS is done.
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let state = match state {
            RTCPeerConnectionState::New => PathState::New,
            RTCPeerConnectionState::Connecting => PathState::Connecting,
            RTCPeerConnectionState::Connected => PathState::Connected,
            RTCPeerConnectionState::Disconnected => PathState::Disconnected,
            RTCPeerConnectionState::Failed => PathState::Failed,
            RTCPeerConnectionState::Closed => PathState::Closed,
            _ => return,
        };
        self.nudge().await;
        self.tell(ConnectionEvent::State(state));
    }

    async fn on_data_channel(&self, native: Arc<dyn DataChannel>) {
        match self.room.clone().try_acquire_owned() {
            Ok(permit) => self.take(native, permit).await,
            Err(_) => {
                tracing::debug!("a peer opened too many channels");
                let _ = native.close().await;
            }
        }
    }
}
