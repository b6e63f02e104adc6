//! Agents that connect to each other where the gateway between them is not honest. What else they do is tested with the real
//! one (tests/e2e/p2p).

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use conexus_client::{
    AcceptOptions, Client, Identity, IncomingPeers, Peer, PeerOptions, WebRtc,
    protocol::{AgentKey, Draft, Message, MessageType, Offer, RefusalReason, Rules},
};
use futures_util::{SinkExt, StreamExt};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{
    errors,
    gateway::{Gateway, Peer as Session},
    quick, soon,
};

type Agents = Arc<Mutex<HashMap<AgentKey, mpsc::UnboundedSender<String>>>>;

/// All that was said.
type Log = Arc<Mutex<Vec<Message>>>;

/// A gateway that routes, until it is dropped.
struct Router {
    url: String,
    agents: Agents,
    log: Log,
    _task: JoinSet<()>,
}

impl Router {
    async fn start() -> Self {
        let gateway = Gateway::start().await;
        let (url, agents) = (gateway.url(), Agents::default());
        let mut task = JoinSet::new();
        let (known, log) = (Arc::clone(&agents), Log::default());
        let heard = Arc::clone(&log);
        task.spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                let session = gateway.register().await;
                sessions.spawn(route(session, Arc::clone(&known), Arc::clone(&heard)));
            }
        });
        Self { url, agents, log, _task: task }
    }

    /// Delivers a text once more.
    fn deliver(&self, text: &str) {
        let message = Message::parse(text, Rules::V1_1).unwrap();
        let to = AgentKey::parse_did(&message.to).unwrap();
        self.agents.lock().unwrap()[&to].send(text.to_owned()).unwrap();
    }
}

async fn route(mut session: Session, agents: Agents, log: Log) {
    let key = AgentKey::parse_did(session.agent()).unwrap();
    let (sender, mut outbox) = mpsc::unbounded_channel();
    agents.lock().unwrap().insert(key, sender);
    loop {
        let frame = tokio::select! {
            Some(text) = outbox.recv() => {
                if session.socket.send(Frame::text(text)).await.is_err() {
                    return;
                }
                continue;
            }
            frame = session.socket.next() => frame,
        };
        let Some(Ok(frame)) = frame else { break };
        let Frame::Text(text) = frame else { continue };
        let message = Message::parse(&text, Rules::V1_1).unwrap();
        log.lock().unwrap().push(message.clone());
        let to = AgentKey::parse_did(&message.to).ok();
        let to = to.and_then(|to| agents.lock().unwrap().get(&to).cloned());
        let is_delivered = to.is_some_and(|to| to.send(text.as_str().to_owned()).is_ok());
        if !is_delivered && message.kind() != MessageType::Unregister {
            session.refuse(&message.id, RefusalReason::UnknownAgent).await;
        }
    }
    agents.lock().unwrap().remove(&key);
}

fn building(router: &Router) -> conexus_client::Builder {
    let loopback = WebRtc::on([Ipv4Addr::LOCALHOST.into()]);
    Client::builder(&*router.url, Identity::generate())
        .reconnect(quick(0))
        .transport(Arc::new(loopback))
}

async fn agent(router: &Router) -> Client {
    soon(building(router).connect()).await.unwrap()
}

/// Two agents, the one with the smaller key first.
async fn two(router: &Router) -> (Client, Client) {
    let (a, b) = (agent(router).await, agent(router).await);
    if a.identity().key() < b.identity().key() { (a, b) } else { (b, a) }
}

async fn until(is_so: impl Fn() -> bool) {
    soon(async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
}

async fn accepted(incoming: &mut IncomingPeers) -> Peer {
    soon(incoming.recv()).await.unwrap()
}

#[tokio::test]
async fn forged_replayed_and_stale_offers_do_nothing() {
    let router = Router::start().await;
    let (a, b) = two(&router).await;
    let mut heard = errors(&b).0;
    let mut incoming = b.accept_peers(AcceptOptions::new());
    let (ours, _) = {
        let peer = a.connect_peer(b.did(), PeerOptions::default());
        (soon(peer).await.unwrap(), accepted(&mut incoming).await)
    };
    soon(ours.close()).await;
    until(|| b.peers().is_empty()).await;

    let old = router.log.lock().unwrap().clone();
    let old = old.iter().find(|message| message.kind() == MessageType::Offer).unwrap();
    router.deliver(&old.text);
    while !soon(heard.recv()).await.unwrap().ends_with("it came before") {}
    assert!(b.peers().is_empty());

    // One whose text was changed on its way.
    let draft = Draft::new(b.did(), Offer { sdp: "v=0".into() });
    let text = draft.sign(a.identity());
    router.deliver(&text.replace("v=0", "v=1"));
    while !soon(heard.recv()).await.unwrap().contains("not verified") {}
    assert!(b.peers().is_empty());
    a.send_draft(draft).await.unwrap();
    // It is of another day by the gateway's clock, which is the one that counts.
    while !soon(heard.recv()).await.unwrap().ends_with("it is not of now") {}
    assert!(b.peers().is_empty());
}
