//! The same with the client's transport and channels.

use std::{net::Ipv4Addr, sync::Arc};

use conexus_client::p2p::{
    Channel, channel_over,
    transport::{
        Connection, ConnectionConfig, ConnectionEvent, MAX_EVENTS, RawChannelEvent,
        RawChannelOptions, Transport,
    },
    webrtc::WebRtc,
};
use tokio::sync::mpsc;

/// Two connections and a channel.
pub(crate) struct Pair {
    pub(crate) from: Channel,
    pub(crate) to: Channel,
    connections: [Arc<dyn Connection>; 2],
}

type Events = mpsc::Receiver<ConnectionEvent>;

async fn end() -> (Arc<dyn Connection>, Events) {
    let (sender, events) = mpsc::channel(MAX_EVENTS);
    let transport = WebRtc::on([Ipv4Addr::LOCALHOST.into()]);
    (transport.connect(ConnectionConfig::default(), sender).await.unwrap(), events)
}

/// Passes candidates on, and channels out.
fn trickle(mut events: Events, to: Arc<dyn Connection>) -> mpsc::UnboundedReceiver<Channel> {
    let (sender, channels) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                ConnectionEvent::Candidate(candidate) => {
                    if to.add_candidate(candidate).await.is_err() {
                        return;
                    }
                }
                ConnectionEvent::Channel(raw) => drop(sender.send(channel_over(raw, &to))),
                ConnectionEvent::State(_) => {}
            }
        }
    });
    channels
}

/// Two connections, signaled in this process, once the control channel is open; and the channels of the second's
/// other side.
pub(crate) async fn open() -> ([Arc<dyn Connection>; 2], mpsc::UnboundedReceiver<Channel>) {
    let ((from, from_events), (to, to_events)) = (end().await, end().await);
    let offer = from.offer(false).await.unwrap();
    let answer = to.answer(offer).await.unwrap();
    from.answered(answer).await.unwrap();
    let _channels = trickle(from_events, to.clone());
    let channels = trickle(to_events, from.clone());
    let mut control = from.control().events().unwrap();
    assert_eq!(control.recv().await, Some(RawChannelEvent::Open));
    ([from, to], channels)
}

pub(crate) async fn close(connections: [Arc<dyn Connection>; 2]) {
    for connection in connections {
        connection.close().await;
    }
}

impl Pair {
    /// Until an application's channel is open at both ends, as the baseline's.
    pub(crate) async fn connect() -> Self {
        let ([from, to], mut channels) = open().await;
        let options = RawChannelOptions {
            ordered: true,
            reliability: None,
            protocol: "conexus.v1".to_owned(),
            negotiated: None,
        };
        let ours = from.open_channel("bench".to_owned(), options).await.unwrap();
        let (ours, theirs) = (channel_over(ours, &from), channels.recv().await.unwrap());
        Self { from: ours, to: theirs, connections: [from, to] }
    }

    pub(crate) async fn close(self) {
        close(self.connections).await;
    }
}

/// Sends back what arrives, to the end.
pub(crate) async fn echo(channel: Channel) {
    while let Some(message) = channel.recv().await {
        channel.send(message.unwrap()).await.unwrap();
    }
}

/// Sends so many bytes and waits for them.
pub(crate) async fn ask(channel: &Channel, bytes: usize) {
    channel.send(vec![0; bytes]).await.unwrap();
    assert_eq!(channel.recv().await.unwrap().unwrap().len(), bytes);
}

/// Sends so many bytes in messages, and waits until the last has arrived.
pub(crate) async fn transfer(pair: &Pair, total: usize, message: usize) {
    let from = pair.from.clone();
    let sending = tokio::spawn(async move {
        let mut left = total;
        while left > 0 {
            let bytes = message.min(left);
            from.send(vec![0; bytes]).await.unwrap();
            left -= bytes;
        }
    });
    let mut arrived = 0;
    while arrived < total {
        arrived += pair.to.recv().await.unwrap().unwrap().len();
    }
    sending.await.unwrap();
}
