//! Two connections of one process, signaled by hand.

use std::{collections::VecDeque, net::Ipv4Addr, sync::Arc, time::Duration};

use conexus_protocol::IceCandidate;
use tokio::{sync::mpsc, time::timeout};

use crate::p2p::{
    transport::{
        Connection, ConnectionConfig, ConnectionEvent, MAX_EVENTS, PathState, RawChannel,
        RawChannelEvent, Transport,
    },
    webrtc::WebRtc,
};

/// Nothing here takes that long, unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One of the two.
pub(crate) struct End {
    pub(crate) connection: Arc<dyn Connection>,
    events: mpsc::Receiver<ConnectionEvent>,
    /// For whoever wants to know why a test failed.
    seen: Vec<String>,
    /// Came while something else was waited for.
    candidates: Vec<IceCandidate>,
    states: VecDeque<PathState>,
    channels: VecDeque<Arc<dyn RawChannel>>,
}

impl End {
    pub(crate) async fn new(transport: &WebRtc, config: ConnectionConfig) -> Self {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let connection = transport.connect(config, sender).await.unwrap();
        let (seen, candidates, states, channels) = Default::default();
        Self { connection, events, seen, candidates, states, channels }
    }

    pub(crate) async fn on_loopback() -> Self {
        Self::new(&loopback(), ConnectionConfig::default()).await
    }

    /// Takes one event.
    async fn step(&mut self) {
        let Ok(event) = timeout(PATIENCE, self.events.recv()).await else {
            panic!("nothing happens any more, after {:?}", self.seen);
        };
        let event = event.expect("events of a live connection");
        self.seen.push(format!("{event:?}"));
        match event {
            ConnectionEvent::Candidate(candidate) => self.candidates.push(candidate),
            ConnectionEvent::State(state) => self.states.push_back(state),
            ConnectionEvent::Channel(channel) => self.channels.push_back(channel),
        }
    }

    /// The candidates of a description, to the last.
    pub(crate) async fn candidates(&mut self) -> Vec<IceCandidate> {
        while self.candidates.last().is_none_or(|last| !last.candidate.is_empty()) {
            self.step().await;
        }
        std::mem::take(&mut self.candidates)
    }

    pub(crate) async fn state(&mut self, wanted: PathState) {
        loop {
            match self.states.pop_front() {
                Some(state) if state == wanted => return,
                Some(_) => {}
                None => self.step().await,
            }
        }
    }

    pub(crate) async fn channel(&mut self) -> Arc<dyn RawChannel> {
        loop {
            match self.channels.pop_front() {
                Some(channel) => return channel,
                None => self.step().await,
            }
        }
    }
}

pub(crate) fn loopback() -> WebRtc {
    WebRtc::on([Ipv4Addr::LOCALHOST.into()])
}

/// Offers, answers and trickles until both ends are connected.
pub(crate) async fn signal(from: &mut End, to: &mut End, restart: bool) {
    let offer = from.connection.offer(restart).await.unwrap();
    let answer = to.connection.answer(offer).await.unwrap();
    from.connection.answered(answer).await.unwrap();
    trickle(from, to).await;
}

/// Tells the two of each other's candidates until they are connected.
pub(crate) async fn trickle(from: &mut End, to: &mut End) {
    for candidate in from.candidates().await {
        to.connection.add_candidate(candidate).await.unwrap();
    }
    for candidate in to.candidates().await {
        from.connection.add_candidate(candidate).await.unwrap();
    }
    from.state(PathState::Connected).await;
    to.state(PathState::Connected).await;
}

/// Two ends that are connected, their control channels open.
pub(crate) async fn connected() -> (End, End) {
    let (mut from, mut to) = (End::on_loopback().await, End::on_loopback().await);
    signal(&mut from, &mut to, false).await;
    (from, to)
}

/// A channel's events, from its `Open` on.
pub(crate) async fn opened(channel: &dyn RawChannel) -> mpsc::Receiver<RawChannelEvent> {
    let mut events = channel.events().expect("the events are there once");
    assert_eq!(next(&mut events).await, Some(RawChannelEvent::Open));
    events
}

pub(crate) async fn next(events: &mut mpsc::Receiver<RawChannelEvent>) -> Option<RawChannelEvent> {
    timeout(PATIENCE, events.recv()).await.expect("an event of a channel in time")
}
