//! The same over the real WebRTC stack, on a clock that runs: what the stack in memory cannot show.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use conexus_protocol::{Identity, MessageType};
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::{sync::mpsc, time::Duration};

use super::town::{Agent, Town, soon, until};
use crate::{
    ChannelMessage, ChannelOptions, ConnectionState, PeerPath, RequestOptions, WebRtc,
    p2p::transport::{
        Connection, ConnectionConfig, ConnectionEvent, PathState, Transport, TransportError,
    },
};

/// The real stack, and a way to say something in its name.
#[derive(Debug)]
struct Tapped {
    stack: WebRtc,
    events: Mutex<Vec<mpsc::Sender<ConnectionEvent>>>,
}

impl Tapped {
    fn new() -> Arc<Self> {
        let stack = WebRtc::on([Ipv4Addr::LOCALHOST.into()]);
        Arc::new(Self { stack, events: Mutex::default() })
    }

    fn pretend(&self, state: PathState) {
        for events in &*self.events.lock().unwrap() {
            let _ = events.try_send(ConnectionEvent::State(state));
        }
    }
}

impl Transport for Tapped {
    fn connect(
        &self,
        config: ConnectionConfig,
        events: mpsc::Sender<ConnectionEvent>,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>, TransportError>> {
        self.events.lock().unwrap().push(events.clone());
        self.stack.connect(config, events)
    }
}

fn agent(town: &Arc<Town>) -> Agent {
    town.agent_over(Tapped::new(), Identity::generate(), 64)
}

fn two(town: &Arc<Town>) -> (Agent, Agent) {
    let (one, other) = (agent(town), agent(town));
    if one.key() < other.key() { (one, other) } else { (other, one) }
}

#[tokio::test]
async fn two_agents_connect_whichever_offers_talk_and_close() {
    let town = Town::new();
    let (a, b) = two(&town);
    for (a, b) in [(&a, &b), (&b, &a)] {
        let mut incoming = b.accept();
        let (ours, theirs) = soon(async { tokio::join!(a.connect(b), incoming.recv()) }).await;
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!((ours.state(), ours.path()), (ConnectionState::Connected, PeerPath::Direct));
        assert!(ours.stats().await.pair.is_some());
        assert!(soon(ours.ping()).await.is_ok() && soon(theirs.ping()).await.is_ok());
        let channel = soon(ours.open_channel("talk", ChannelOptions::default())).await.unwrap();
        let other = soon(theirs.channels().recv()).await.unwrap();
        channel.send("hello").await.unwrap();
        let heard = soon(other.recv()).await.unwrap().unwrap();
        assert_eq!(heard, ChannelMessage::from("hello"));
        soon(ours.close()).await;
        soon(theirs.closed()).await.unwrap();
    }
}

#[tokio::test]
async fn both_at_once_get_the_one_connection() {
    let town = Town::new();
    let (smaller, greater) = two(&town);
    let (one, other) =
        soon(async { tokio::join!(smaller.connect(&greater), greater.connect(&smaller)) }).await;
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(town.sent(MessageType::Answer).len(), 1);
    soon(one.ping()).await.unwrap();
    soon(other.close()).await;
    soon(one.closed()).await.unwrap();
}

#[tokio::test]
async fn an_ice_restart_keeps_the_connection_and_its_channels() {
    let town = Town::new();
    let tapped = Tapped::new();
    let a = town.agent_over(tapped.clone(), Identity::generate(), 64);
    let b = agent(&town);
    b.peers.calls.on_request(crate::handlers::Registry::default().next_id(), |_| async {
        Ok(json!("still here"))
    });
    let mut incoming = b.accept();
    let (ours, _theirs) = soon(async { tokio::join!(a.connect(&b), incoming.recv()) }).await;
    let ours = ours.unwrap();
    // As if the stack had said so.
    tapped.pretend(PathState::Failed);
    until(|| town.sent(MessageType::Answer).len() == 2).await;
    tapped.pretend(PathState::Connected);
    soon(ours.states().wait_for(|state| *state == ConnectionState::Connected)).await.unwrap();
    let options = RequestOptions::new().timeout(Duration::from_secs(10));
    let result = soon(ours.request(json!({}), options)).await.unwrap();
    assert_eq!(result, json!("still here"));
    assert_eq!(ours.stats().await.restarts, 1);
}
