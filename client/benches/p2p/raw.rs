//! The baseline: two endpoints of the crate `webrtc`, used as its own examples do, with nothing of ours.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::sync::mpsc;
use webrtc::{
    data_channel::{DataChannel, DataChannelEvent},
    peer_connection::{
        PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
        RTCPeerConnectionIceEvent,
    },
};

/// Unsent bytes at which a sender waits.
const HIGH_WATER: usize = 1024 * 1024;

/// Two endpoints and their channel.
pub(crate) struct Pair {
    pub(crate) from: Arc<dyn DataChannel>,
    pub(crate) to: Arc<dyn DataChannel>,
    connections: [Arc<dyn PeerConnection>; 2],
}

struct Handler {
    candidates: mpsc::UnboundedSender<RTCIceCandidateInit>,
    channels: Mutex<Option<mpsc::UnboundedSender<Arc<dyn DataChannel>>>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let _ = self.candidates.send(event.candidate.to_json().unwrap());
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        if let Some(channels) = self.channels.lock().unwrap().take() {
            let _ = channels.send(channel);
        }
    }
}

struct End {
    connection: Arc<dyn PeerConnection>,
    candidates: mpsc::UnboundedReceiver<RTCIceCandidateInit>,
    channels: mpsc::UnboundedReceiver<Arc<dyn DataChannel>>,
}

impl End {
    async fn new() -> Self {
        let (candidate_sender, candidates) = mpsc::unbounded_channel();
        let (channel_sender, channels) = mpsc::unbounded_channel();
        let handler =
            Handler { candidates: candidate_sender, channels: Mutex::new(Some(channel_sender)) };
        let connection = PeerConnectionBuilder::new()
            .with_handler(Arc::new(handler))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .with_data_channel_send_buffer_limit(HIGH_WATER)
            .build()
            .await
            .unwrap();
        Self { connection: Arc::new(connection), candidates, channels }
    }
}

async fn trickle(
    mut candidates: mpsc::UnboundedReceiver<RTCIceCandidateInit>,
    to: Arc<dyn PeerConnection>,
) {
    while let Some(candidate) = candidates.recv().await {
        if to.add_ice_candidate(candidate).await.is_err() {
            return;
        }
    }
}

impl Pair {
    /// Offers, answers and trickles in process, until the channel is open at both ends.
    pub(crate) async fn connect() -> Self {
        let (from, mut to) = (End::new().await, End::new().await);
        let ours = from.connection.create_data_channel("bench", None).await.unwrap();
        let offer = from.connection.create_offer(None).await.unwrap();
        from.connection.set_local_description(offer.clone()).await.unwrap();
        to.connection.set_remote_description(offer).await.unwrap();
        let answer = to.connection.create_answer(None).await.unwrap();
        to.connection.set_local_description(answer.clone()).await.unwrap();
        from.connection.set_remote_description(answer).await.unwrap();
        tokio::spawn(trickle(from.candidates, to.connection.clone()));
        tokio::spawn(trickle(to.candidates, from.connection.clone()));
        let theirs = to.channels.recv().await.unwrap();
        for channel in [&ours, &theirs] {
            while !matches!(channel.poll().await.unwrap(), DataChannelEvent::OnOpen) {}
        }
        Self { from: ours, to: theirs, connections: [from.connection, to.connection] }
    }

    pub(crate) async fn close(self) {
        for connection in self.connections {
            connection.close().await.unwrap();
        }
    }
}

/// The next one; none at the end.
pub(crate) async fn message(channel: &dyn DataChannel) -> Option<BytesMut> {
    loop {
        match channel.poll().await? {
            DataChannelEvent::OnMessage(message) => return Some(message.data),
            DataChannelEvent::OnClose => return None,
            _ => {}
        }
    }
}

/// Sends back what arrives, to the end.
pub(crate) async fn echo(channel: Arc<dyn DataChannel>) {
    while let Some(message) = message(&*channel).await {
        channel.send(message).await.unwrap();
    }
}

/// Sends so many bytes and waits for them.
pub(crate) async fn ask(channel: &Arc<dyn DataChannel>, bytes: usize) {
    channel.send(BytesMut::zeroed(bytes)).await.unwrap();
    assert_eq!(message(&**channel).await.unwrap().len(), bytes);
}

/// Sends so many bytes in pieces, and waits until the last has arrived.
pub(crate) async fn transfer(pair: &Pair, total: usize, piece: usize) {
    let from = pair.from.clone();
    let sending = tokio::spawn(async move {
        let mut left = total;
        while left > 0 {
            let bytes = piece.min(left);
            from.send(BytesMut::zeroed(bytes)).await.unwrap();
            left -= bytes;
        }
    });
    let mut arrived = 0;
    while arrived < total {
        arrived += message(&*pair.to).await.unwrap().len();
    }
    sending.await.unwrap();
}
